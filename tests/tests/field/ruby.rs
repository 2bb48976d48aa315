//! puma.

use anyhow::Result;
use tests::servers::{Keeps, Kind};

use crate::procedure::goes_through_all;

/// puma in cluster mode: a master that holds the listener, and replaces workers that end.
pub(crate) const PUMA: Kind = Kind {
    name: "puma",
    port: 8080,
    user: Some("www-data"),
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        let application = "run ->(_) { [200, { 'Content-Length' => '2' }, [\"@VERSION@\\n\"]] }\n";
        let rackup =
            release.file("config.ru", application, "require 'a_gem_that_is_not_installed'\n")?;
        let words =
            ["puma", "--workers", "2", "--threads", "1:4", "--bind", "tcp://127.0.0.1:8080"];
        let rest = ["--environment", "production", &rackup];
        Ok(words.iter().chain(&rest).map(|word| (*word).to_owned()).collect())
    },
};

#[tokio::test]
async fn puma_in_cluster_mode() -> Result<()> {
    goes_through_all(PUMA, &[]).await
}
