//! What a machine comes to lack, or turns out to lack, when the agent serves: an upgrade says what, and what can be done without it is.

use std::fs;

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
