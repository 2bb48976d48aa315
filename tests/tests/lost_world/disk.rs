//! A disk that is full.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use agent_api::{GenerationState, ServiceState};
use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags};
use tests::servers::{Script, Server};
use tests::stage::{self, Stage};

use crate::{PORT, until_event};

/// Of a server that is to be attached, and cannot be.
const OTHER_PORT: u16 = 8081;

/// A stage whose agent has its runtime directory on a disk of its own, which is small.
struct OnSmallDisk {
    stage: Stage,
}

impl OnSmallDisk {
    fn new() -> Result<Self> {
        Self::with("size=512k,mode=0700")
    }

    fn with(options: &str) -> Result<Self> {
        let disk = Self { stage: Stage::new()? };
        let options = Some(options);
        nix::mount::mount(Some("lost"), disk.path(), Some("tmpfs"), MsFlags::empty(), options)?;
        Ok(disk)
    }

    fn path(&self) -> &Path {
        self.stage.agent.runtime()
    }

    /// Fills it, with the room of the next state.
    fn fill(&self) -> Result<()> {
        fs::remove_file(self.path().join("state.new"))?;
        self.fill_around_the_state()
    }

    fn fill_around_the_state(&self) -> Result<()> {
        let mut ballast = fs::File::create(self.path().join("ballast"))?;
        let full = std::iter::repeat_with(|| ballast.write_all(&[0; 4096])).find_map(Result::err);
        let full = full.context("a disk that is never full")?;
        ensure!(full.kind() == io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    /// Takes whatever room there is or becomes free.
    fn flood(&self) -> Result<Flood> {
        self.fill_around_the_state()?;
        let mut ballast = fs::OpenOptions::new().append(true).open(self.path().join("ballast"))?;
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match ballast.write_all(&[0; 4096]) {
                    Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        });
        Ok(Flood { end, thread })
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.path().join("ballast"))?)
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        let killed = self.stage.agent.daemon().map_or(Ok(()), |daemon| daemon.kill());
        // What its generations write to is unmounted when they end.
        let unmounted = nix::mount::umount2(self.path(), MntFlags::MNT_DETACH);
        if let (Err(error), _) | (_, Err(error)) = (killed, unmounted.map_err(Into::into)) {
            eprintln!("the small disk is left behind: {error:#}");
        }
    }
}

/// Somebody who writes without pause.
struct Flood {
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Flood {
    fn end(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("whoever writes has panicked"),
        }
    }
}

/// Runs a command that must be refused because of the disk, in words that help.
fn refused_for_the_disk<S: AsRef<std::ffi::OsStr>>(stage: &Stage, command: &[S]) -> Result<()> {
    let refused = stage.agent.run(command)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let state = stage.agent.runtime().join("state.json").display().to_string();
    for part in ["nothing has changed", &state, "No space left on device", "make room"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn on_a_full_disk_requests_are_refused_and_what_happens_is_taken() -> Result<()> {
    let (server, other) = (Script::new(PORT)?, Script::new(OTHER_PORT)?);
    let disk = OnSmallDisk::new()?;
    let stage = &disk.stage;
    let mut first = stage.start(&server, 1)?;
    let _other = stage.start(&other, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let running = stage.busy(&server)?;
    let mut old = stage.connect(server.address())?;
    assert_eq!(stage::ask(&mut old)?, 1);
    let candidate = Script::with(PORT, &["--after", "2"])?;
    let upgrade = tests::agent::upgrade(PORT, &[], &candidate.command(2)?);
    let upgrade = stage.agent.start(&mut stage.agent.command(&upgrade))?;
    stage.until("the candidate's process", PORT, |service| {
        stage::generations(service).get(&2).is_some_and(|it| !it.pids.is_empty())
    })?;
    disk.fill()?;

    // It becomes ready nevertheless, and new connections go to it; but nobody is ended.
    stage::until_answers(&running, 2, 20)?;
    stage.until("the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Draining
    })?;
    assert_eq!(stage::ask(&mut old)?, 1);
    drop(old);
    let service = stage.until("the end of the drain", PORT, |service| {
        service.generations[0].state == GenerationState::Parting
    })?;
    assert_eq!(service.state, ServiceState::Degraded);
    assert!(service.troubles[0].contains("No space left on device"), "{:?}", service.troubles);
    until_event(stage, "until the state is saved")?;
    assert!(first.lives()?);
    let before = stage.agent.service(PORT)?;

    refused_for_the_disk(stage, &tests::agent::upgrade(PORT, &[], &server.command(3)?))?;
    refused_for_the_disk(stage, &["attach", "--port", &OTHER_PORT.to_string()])?;
    let after = stage.agent.service(PORT)?;
    assert_eq!(after.generations.len(), before.generations.len());
    assert_eq!(after.rollouts.len(), before.rollouts.len());
    assert_eq!(stage.agent.status()?["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.generation(other.address())?, 1);
    assert!(!disk.path().join("state.new").exists());
    assert!(first.lives()?);

    disk.free()?;
    until_event(stage, "the state is written down again")?;
    upgrade.finish()?.success()?;
    let service = stage.until_steady(PORT)?;
    assert_eq!(service.generations[0].number.0, 2);
    assert!(!first.lives()?);

    disk.fill()?;
    refused_for_the_disk(stage, &["detach", "--port", &PORT.to_string()])?;
    assert_eq!(stage.until_steady(PORT)?.generations[0].number.0, 2);
    let steered = service.steered;
    stage::nobody_noticed(running).await;
    assert!(stage.agent.service(PORT)?.steered > steered);
    disk.free()?;
    stage.detach(PORT)
}

/// A server that writes without pause to where the state is makes no decision be forgotten.
#[test]
fn on_a_disk_that_becomes_full_the_state_has_its_room() -> Result<()> {
    let server = Script::new(PORT)?;
    let disk = OnSmallDisk::new()?;
    let stage = &disk.stage;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    stage.switch(&server, 2, &["--keep-old", "1m"])?;
    let flood = disk.flood()?;
    stage.agent.run(&["undo", "8080", "--wait", "switched"])?.success()?;
    stage.agent.kill_daemon()?;
    // Its log is on this disk.
    stage.agent.run(&["daemon", "--background"])?.success()?;
    assert_eq!(stage.generation(server.address())?, 1, "the undo is not forgotten");
    stage.until_steady(PORT)?;
    for generation in 3..=8 {
        stage.switch(&server, generation, &["--settle", "0s"])?;
        assert_eq!(stage.until_steady(PORT)?.troubles, [""; 0]);
    }
    flood.end()?;
    stage.detach(PORT)
}

/// Attributes of a file and files of somebody else count the same there.
#[test]
fn where_there_is_no_room_for_a_log_a_candidate_starts_all_the_same() -> Result<()> {
    let server = Script::new(PORT)?;
    let disk = OnSmallDisk::with("size=8m,nr_inodes=40,mode=0700")?;
    let stage = &disk.stage;
    let _first = stage.start(&server, 1)?;
    stage.agent.attach(PORT)?.success()?;
    let make = |number: usize| fs::File::create(disk.path().join(format!("ballast-{number}")));
    let full =
        (0..100).find_map(|number| make(number).err()).context("a disk that is never full")?;
    ensure!(full.kind() == io::ErrorKind::StorageFull, "{full}");
    stage.switch(&server, 2, &["--settle", "0s"])?;
    assert_eq!(stage.generation(server.address())?, 2);
    until_event(stage, "its output goes nowhere").map(drop)
}
