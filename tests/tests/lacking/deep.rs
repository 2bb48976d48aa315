//! Directories that the agent has to make others for: what it made goes with it, and what was there stays.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use tests::agent::Output;
use tests::process::Handle;
use tests::servers::Script;
use tests::stage::Stage;

const PORT: u16 = 8080;

/// An agent with directories that are three levels below what is there.
struct Deep<'a> {
    stage: &'a Stage,
    tops: [PathBuf; 3],
}

impl<'a> Deep<'a> {
    fn below(stage: &'a Stage) -> Self {
        let agent = &stage.agent;
        let tops = [agent.runtime().join("top"), agent.pins().into(), agent.cgroup().into()];
        Self { stage, tops }
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        for (option, top) in ["--runtime-dir", "--pin-dir", "--cgroup"].iter().zip(&self.tops) {
            all.extend([option.into(), top.join("deep/agent").into()]);
        }
        self.stage.agent.run(&all)
    }

    fn kill(&self) -> Result<()> {
        let pid = fs::read_to_string(self.tops[0].join("deep/agent/agent.pid"))?;
        Handle::open(pid.trim().parse()?)?.kill()
    }

    fn left(&self) -> Vec<&PathBuf> {
        self.tops.iter().filter(|top| top.exists()).collect()
    }
}

#[test]
fn what_was_made_above_the_directories_goes_with_the_agent() -> Result<()> {
    let server = Script::new(PORT)?;
    let stage = Stage::new()?;
    let deep = Deep::below(&stage);
    let attach = ["attach", "--port", "8080"];
    let refused = deep.run(&attach)?;
    ensure!(refused.code == Some(4) && deep.left().is_empty(), "{:?} {refused:?}", deep.left());

    let _first = stage.start(&server, 1)?;
    let detach = ["detach", "--port", "8080"];
    for is_killed in [false, true] {
        deep.run(&attach)?.success()?;
        if is_killed {
            deep.kill()?;
            deep.run(&["doctor", "--repair"])?.success()?;
        }
        deep.run(&detach)?.success()?;
        ensure!(deep.left().is_empty(), "killed {is_killed}: {:?}", deep.left());
    }

    // Of somebody else's.
    deep.tops.iter().try_for_each(fs::create_dir)?;
    deep.run(&attach)?.success()?;
    deep.run(&detach)?.success()?;
    for top in &deep.tops {
        ensure!(top.exists() && !top.join("deep").exists(), "{}", top.display());
        fs::remove_dir(top)?;
    }
    Ok(())
}
