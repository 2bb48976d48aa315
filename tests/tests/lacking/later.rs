//! What a machine comes to lack, or turns out to lack, when the agent serves: an upgrade says what, and what can be done without it is.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::servers::{Script, Server as _};
use tests::stage::Stage;

const PORT: u16 = 8080;

/// Controllers are others' affair; how many groups there may be is whoever's who made the one above.
#[test]
fn an_upgrade_that_finds_no_room_for_a_group_says_which_limit_to_raise() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    for limit in ["cgroup.max.descendants", "cgroup.max.depth"] {
        let path = stage.agent.cgroup().join(limit);
        let most = if limit.ends_with("depth") { "0" } else { "1" };
        fs::write(&path, most)?;
        let refused = stage.agent.upgrade(PORT, &server.command(2)?)?;
        let fix = format!("fix: `echo max > {}`", path.display());
        ensure!(refused.code == Some(4) && refused.stderr.contains(&fix), "{refused:?}");
        fs::write(&path, "max")?;
    }
    stage.switch(&server, 2, &[])?;
    Ok(())
}

/// As hardened containers and `ProtectKernelTunables=` leave it. Nothing of a server like ours is to be changed there.
#[test]
fn a_proc_that_cannot_be_written_keeps_nobody_from_an_upgrade() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    let mut alone = Command::new("unshare");
    let script = "mount -o remount,ro,bind /proc && exec \"$@\"";
    alone
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(stage.agent.binary())
        .arg("--runtime-dir");
    alone.arg(stage.agent.runtime()).arg("--pin-dir").arg(stage.agent.pins()).arg("--cgroup");
    alone.arg(stage.agent.cgroup()).args(["attach", "--port", "8080"]);
    stage.agent.start(&mut alone)?.finish()?.success()?;
    stage.switch(&server, 2, &[])?;
    assert_eq!(stage.generation(server.address())?, 2);
    Ok(())
}
