//! What `cargo xtask soak` runs: a short run goes well, and one with a fault does not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tests::wait;

/// A run under way. The program ends all that it has started when it is told to end, and is waited for.
struct Soak {
    /// Several at once would take the processor from each other.
    _alone: MutexGuard<'static, ()>,
    folder: TempDir,
    child: Child,
}

impl Soak {
    fn start(duration: &str, seed: &str) -> Result<Self> {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir()?;
        let out = File::create(folder.path().join("said"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_soak"))
            .args([duration, seed])
            .arg(folder.path().join("soak.json"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { _alone: alone, folder, child })
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("said"))?)
    }

    /// Waits until it has told of so many events, or has ended.
    fn until_events(&mut self, count: u32) -> Result<()> {
        wait::until("the soak to come so far", LIMIT, || {
            let ended = self.child.try_wait()?.is_some();
            let said = self.said()?;
            let before = said.split(" events").filter_map(|text| text.rsplit(' ').next());
            let told = before.filter_map(|number| number.parse::<u32>().ok()).max();
            Ok((ended || told >= Some(count)).then_some(()))
        })
    }

    /// What its agent calls its pins and its cgroup.
    fn name(&self) -> String {
        format!("agent-test-{}-0", self.child.id())
    }

    fn interrupt(&self) -> Result<()> {
        // Nobody has waited for it, so that its number is its own.
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?)
    }

    /// Waits for its end.
    fn finish(mut self) -> Result<Ended> {
        let status = wait::until("the soak to end", LIMIT, || Ok(self.child.try_wait()?));
        if status.is_err() {
            self.interrupt()?;
            self.child.wait()?;
        }
        let said = self.said()?;
        let code = status.with_context(|| said.clone())?.code();
        let report =
            fs::read(self.folder.path().join("soak.json")).with_context(|| said.clone())?;
        Ok(Ended { code, said, report: serde_json::from_slice(&report)? })
    }
}

struct Ended {
    code: Option<i32>,
    said: String,
    report: Value,
}

impl Ended {
    fn reasons(&self) -> Vec<&str> {
        self.report["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

#[test]
fn a_short_soak_with_everything_in_it_loses_nothing() -> Result<()> {
    let ended = Soak::start("35s", "1")?.finish()?;
    let Ended { code, said, report } = &ended;
    assert_eq!(*code, Some(0), "{said}");
    assert_eq!(report["verdict"], "kept", "{said}");
    let counts = report["counts"].as_object().context("no counts")?;
    assert_eq!(counts.len(), 14, "each kind of event: {said}");
    assert!(report["agent_kills"].as_u64() >= Some(1), "{said}");
    let classes = report["classes"].as_object().context("no classes")?;
    assert_eq!(classes.len(), 4, "{said}");
    let connections = |class: &Value| class["connections"].as_u64().unwrap_or_default();
    assert!(classes.values().all(|class| connections(class) > 20), "{said}");
    // Killed servers take connections along: a harness that sees none of them would see no other failure either.
    assert!(report["losses"]["died_with_server"].is_object(), "{said}");
    assert!(report["losses"]["ours"].is_null(), "{said}");
    Ok(())
}

#[test]
fn a_soak_whose_steering_fails_now_and_then_says_so_and_fails() -> Result<()> {
    let mut soak = Soak::start("15s", "2")?;
    // Upgrades have begun by then: with one generation alone nobody would miss the steering.
    soak.until_events(3)?;
    let services = format!("/sys/fs/bpf/{}/v{}/maps/SERVICES", soak.name(), agent_ebpf::SCHEMA);
    while soak.child.try_wait()?.is_none() && Path::new(&services).exists() {
        // Both may be too late, for the soak or for a switch that was made meanwhile.
        let entries = bpftool(&["map", "dump", "pinned", &services]).unwrap_or_default();
        for entry in entries.as_array().into_iter().flatten() {
            bpftool(
                &[&["map", "delete", "pinned", &services, "key"], &bytes(&entry["key"])[..]]
                    .concat(),
            )
            .ok();
        }
        wait::sleep(Duration::from_millis(300));
        for entry in entries.as_array().into_iter().flatten() {
            let (key, value) = (bytes(&entry["key"]), bytes(&entry["value"]));
            let update: &[&str] = &["map", "update", "pinned", &services, "key"];
            bpftool(&[update, &key, &["value"], &value, &["noexist"]].concat()).ok();
        }
        wait::sleep(Duration::from_millis(300));
    }
    let ended = soak.finish()?;
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.report["strays"].as_u64() > Some(0), "{}", ended.said);
    let stray = "connections that reached a generation that was not to get them";
    assert!(ended.reasons().iter().any(|reason| reason.ends_with(stray)), "{}", ended.said);
    Ok(())
}

#[test]
fn a_soak_in_which_a_server_dies_unannounced_counts_its_clients_as_failures() -> Result<()> {
    let mut soak = Soak::start("15s", "4")?;
    soak.until_events(3)?;
    let all = cgroup(&soak.name())?;
    // All of them, whichever services they are of: one at least has clients.
    let killed = fs::write(all.join("cgroup.kill"), "1");
    let ended = soak.finish()?;
    killed.with_context(|| ended.said.clone())?;
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let ours = ended.report["losses"]["ours"].as_object().context("no failures")?;
    assert!(ours.contains_key("refused"), "{}", ended.said);
    assert!(ours.contains_key("cut_in_the_middle"), "{}", ended.said);
    let reasons = ended.reasons();
    assert!(reasons.iter().any(|it| it.ends_with("failures that nothing excuses")), "{reasons:?}");
    Ok(())
}

#[test]
fn an_interrupted_soak_leaves_nothing_behind() -> Result<()> {
    let mut soak = Soak::start("60s", "3")?;
    soak.until_events(1)?;
    soak.interrupt()?;
    let ended = soak.finish()?;
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let [reason] = ended.reasons()[..] else { panic!("{}", ended.said) };
    assert!(reason.ends_with("interrupted"), "{}", ended.said);
    Ok(())
}

fn bpftool(words: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("--json").args(words).output()?;
    anyhow::ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// As bpftool writes a key or a value that it does not understand, and reads it.
fn bytes(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The cgroup of a name below the version 2 mount, wherever that is.
fn cgroup(name: &str) -> Result<PathBuf> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mut all = mounts.into_iter().map(|mount| Path::new(mount).join(name));
    all.find(|path| path.is_dir()).context("the agent has a cgroup")
}

static ONE: Mutex<()> = Mutex::new(());
const LIMIT: Duration = Duration::from_secs(240);
