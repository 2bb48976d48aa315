//! A PID namespace that ends with the old generation.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use tests::servers::{Inline, Server as _};
use tests::stage::Stage;

const PORT: u16 = 8080;
const LISTEN: &str = "listener.bind(('::', port)); listener.listen(128)\n";
const ALONE: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn is_refused(through: &[&str], says: &str) -> Result<()> {
    let server = Inline::new(PORT, LISTEN)?.first_through(through);
    let (stage, _first) = Stage::attached(&server)?;
    let refused = stage.agent.switch(PORT, &[], &server.command(2)?)?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains(says), "{refused:?}");
    assert!(refused.stderr.contains("--namespaces agent"), "{refused:?}");
    assert_eq!(stage.agent.service(PORT)?.generations.len(), 1, "nothing has happened");

    // Outside it lives on when the kernel ends all that is left inside.
    stage.switch(&server, 2, &["--namespaces", "agent"])?;
    stage.until_steady(PORT)?;
    assert_eq!(stage.generation(server.address())?, 2);
    Ok(())
}

#[test]
fn the_first_process_of_a_namespace_is_not_replaced_inside_it() -> Result<()> {
    is_refused(&ALONE, "is the first one of its PID namespace")
}

#[test]
fn nor_is_the_only_child_of_one_that_waits_for_no_more() -> Result<()> {
    let waits = [&ALONE[..], &["sh", "-c", "\"$@\" & wait", "init"]].concat();
    is_refused(&waits, "which may end when it does")
}

/// A script has a name of its own, and is a shell all the same.
#[test]
fn nor_is_a_server_below_a_script_that_the_first_process_waits_for() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("loop.sh");
    fs::write(&script, "#!/bin/sh\nwhile :; do \"$@\"; sleep 1; done\n")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let script = script.display().to_string();
    let waits = [&ALONE[..], &["sh", "-c", "\"$0\" \"$@\"; echo done", &script]].concat();
    is_refused(&waits, "which may end when it does")
}
