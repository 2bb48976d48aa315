//! lighttpd and Apache on port 80, started by root and served by www-data, and Caddy.

use std::fs;

use anyhow::Result;
use tests::servers::{Keeps, Kind, Release, Version};

use crate::procedure::goes_through_all;

/// lighttpd as Debian's unit starts it: root binds the port, and the same process goes on as www-data.
pub(crate) const LIGHTTPD: Kind = Kind {
    name: "lighttpd",
    port: 80,
    user: None,
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        content(release)?;
        let configuration =
            release.file("lighttpd.conf", LIGHTTPD_CONF, "server.no-such-key = \n")?;
        Ok(["lighttpd", "-D", "-f", &configuration].map(str::to_owned).to_vec())
    },
};

/// As Debian's, without what this does not use.
const LIGHTTPD_CONF: &str = "server.document-root = \"@HERE@/content\"
server.pid-file = \"@SHARED@/lighttpd.pid\"
server.username = \"www-data\"
server.groupname = \"www-data\"
server.port = @PORT@
";

/// Apache with the threads that Debian gives it, its workers as www-data.
pub(crate) const APACHE: Kind = Kind {
    name: "apache2",
    release: |release| {
        content(release)?;
        let configuration = release.file("apache2.conf", APACHE_CONF, "NoSuchDirective on\n")?;
        Ok(["apache2", "-f", &configuration, "-D", "FOREGROUND"].map(str::to_owned).to_vec())
    },
    ..LIGHTTPD
};

/// Two versions with one `PidFile` are not possible: the second one says that Apache is running already.
const APACHE_CONF: &str = "ServerRoot /etc/apache2
ServerName localhost
Listen @PORT@
PidFile @HERE@/apache2.pid
DefaultRuntimeDir @HERE@
ErrorLog @HERE@/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
User www-data
Group www-data
StartServers 2
KeepAlive on
DocumentRoot @HERE@/content
";

/// Caddy as its own user, in the foreground, as Debian's unit starts it.
pub(crate) const CADDY: Kind = Kind {
    name: "caddy",
    port: 8080,
    user: Some("caddy"),
    release: |release| {
        let configuration = release.file("Caddyfile", CADDYFILE, "{\n    no_such_option\n}\n")?;
        let words = ["caddy", "run", "--config", &configuration, "--adapter", "caddyfile"];
        Ok(words.map(str::to_owned).to_vec())
    },
    ..LIGHTTPD
};

const CADDYFILE: &str = ":@PORT@ {
    respond \"@VERSION@\"
}
";

/// A folder with the one page that is asked for.
fn content(release: &Release<'_>) -> Result<()> {
    if let Version::Works(number) = release.version {
        let folder = format!("{}/content", release.here());
        fs::create_dir_all(&folder)?;
        fs::write(format!("{folder}/generation"), format!("{number}\n"))?;
    }
    Ok(())
}

#[tokio::test]
async fn lighttpd_on_port_80() -> Result<()> {
    goes_through_all(LIGHTTPD, &["--user", "root"]).await
}

#[tokio::test]
async fn apache_on_port_80() -> Result<()> {
    goes_through_all(APACHE, &[]).await
}

#[tokio::test]
async fn caddy() -> Result<()> {
    // It serves its own configuration on a port of its own.
    goes_through_all(CADDY, &["--also"]).await
}
