//! haproxy with Debian's own configuration.

use std::fs;

use anyhow::{Context as _, Result};
use tests::servers::{Keeps, Kind, Release};

use crate::procedure::goes_through_all;

/// haproxy as Debian's own scripts start it: by root, as a daemon, in a root directory and under a user of its own.
pub(crate) const HAPROXY: Kind = Kind {
    name: "haproxy",
    port: 8080,
    user: None,
    keeps: Keeps::Connections,
    pid_file: Some("haproxy.pid"),
    release: |release| haproxy(release, "-D"),
};

/// The same with a master, which makes a daemon of itself because the configuration says so.
pub(crate) const MASTER: Kind =
    Kind { name: "haproxy-master", release: |release| haproxy(release, "-W"), ..HAPROXY };

fn haproxy(release: &Release<'_>, mode: &str) -> Result<Vec<String>> {
    let debians = fs::read_to_string(DEBIANS).with_context(|| format!("read `{DEBIANS}`"))?;
    // Two tests at once would take the control socket from each other.
    let own = debians.replace("/run/haproxy/", "@SHARED@/");
    let works = format!("{own}\n{FRONTEND}");
    let broken = format!("{works}    no-such-keyword\n");
    let configuration = release.file("haproxy.cfg", &works, &broken)?;
    let pid_file = release.shared("haproxy.pid");
    Ok(["haproxy", mode, "-f", &configuration, "-p", &pid_file].map(str::to_owned).to_vec())
}

const DEBIANS: &str = "/etc/haproxy/haproxy.cfg";
const FRONTEND: &str = "frontend web
    bind :@PORT@
    http-request return status 200 content-type text/plain string \"@VERSION@\"
";

#[tokio::test]
async fn haproxy_as_debian_starts_it() -> Result<()> {
    goes_through_all(HAPROXY, &["--user", "root"]).await
}

#[tokio::test]
async fn haproxy_with_a_master() -> Result<()> {
    goes_through_all(MASTER, &["--user", "root"]).await
}
