//! A server under a shell that stays, as start scripts make it: the shell dies at a signal, and passes nothing on.

use anyhow::Result;
use tests::servers::{Keeps, Kind};

use crate::procedure::goes_through_all;

const UNDER_A_SHELL: Kind = Kind {
    name: "under-a-shell",
    port: 8080,
    user: Some("www-data"),
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        let number = release.version.number();
        let server =
            release.file("server.py", SERVER, "import a_module_that_is_not_installed\n")?;
        let line = format!("python3 {server} {} {number}; true", UNDER_A_SHELL.port);
        Ok(["sh", "-c", &line].map(str::to_owned).to_vec())
    },
};

/// A small server that answers with its second argument.
pub(crate) const SERVER: &str = include_str!("../../servers/python/server.py");

#[tokio::test]
async fn a_server_under_a_shell() -> Result<()> {
    goes_through_all(UNDER_A_SHELL, &[]).await
}
