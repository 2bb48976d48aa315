//! What `cargo xtask demo` runs: it goes as promised, and takes everything down when it is interrupted.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::wait;

#[test]
fn no_client_notices_five_upgrades_a_crash_and_an_undo() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let said = folder.path().join("said");
    let status = start(&said)?.wait()?;
    let said = std::fs::read_to_string(&said)?;
    assert!(status.success(), "{status}\n{said}");
    assert!(said.contains("$ agent attach --port 8080"), "{said}");
    assert!(said.contains("(exit code 5: the new generation did not become ready)"), "{said}");
    assert!(said.contains("no client noticed anything"), "{said}");
    assert!(ends_clean(&said), "{said}");
    Ok(())
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let said = folder.path().join("said");
    let mut demo = start(&said)?;
    let upgrading = wait::until("the first upgrade to drain", Duration::from_secs(60), || {
        let said = std::fs::read_to_string(&said)?;
        Ok((said.contains("generation 1 draining") || demo.try_wait()?.is_some()).then_some(()))
    });
    // Nobody has waited for it, so that its number is its own.
    kill(Pid::from_raw(i32::try_from(demo.id())?), Signal::SIGINT)?;
    let status = demo.wait()?;
    let said = std::fs::read_to_string(&said)?;
    upgrading?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: interrupted"), "{said}");
    assert!(ends_clean(&said), "{said}");
    Ok(())
}

fn start(said: &Path) -> Result<Child> {
    let out = File::create(said)?;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    Ok(demo.spawn()?)
}

fn ends_clean(said: &str) -> bool {
    said.lines().last().is_some_and(|line| line.starts_with("nothing is left behind"))
}
