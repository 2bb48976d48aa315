//! Faults that tests ask for, by files in the agent's runtime directory: `faults/armed` holds what is to happen, at which
//! step, and how often that step is let pass before (`kill-before steer 0`), and becomes `faults/came` when it happens, but for
//! `fail-always`.
//! `faults/passed` lists all steps that were begun while the directory existed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::process::{Signal, getpid, kill_process};

use super::Step;
use crate::daemon::world_error::WorldError;

/// A step that fails as long as the test has it.
const ALWAYS: &str = "fail-always";

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// What is to happen after a change.
pub(super) enum Armed {
    Nothing,
    Kill,
    /// Until the test has it go on.
    Stop,
}

impl Armed {
    pub(super) fn after(self) {
        match self {
            Self::Nothing => {}
            Self::Kill => die(),
            Self::Stop => {
                send_ourselves(Signal::STOP).unwrap_or_else(|error| panic!("stop: {error}"));
            }
        }
    }
}

pub(super) fn obey(runtime_dir: &Path) {
    DIRECTORY.get_or_init(|| runtime_dir.join("faults"));
}

pub(super) fn before(step: Step) -> Result<Armed, WorldError> {
    let Some(directory) = DIRECTORY.get().filter(|directory| directory.is_dir()) else {
        return Ok(Armed::Nothing);
    };
    match take(directory, step) {
        Ok(None) => Ok(Armed::Nothing),
        Ok(Some(fault)) => match fault.as_str() {
            "fail" => Err(WorldError::Fault(step)),
            "kill-before" => die(),
            "kill-after" => Ok(Armed::Kill),
            "stop-after" => Ok(Armed::Stop),
            other => panic!("a test wants the fault `{other}`, which there is not"),
        },
        Err(error) => panic!("cannot do a test's fault in `{}`: {error}", directory.display()),
    }
}

/// Writes the step down, and takes what is to happen at it, if now is the time.
fn take(directory: &Path, step: Step) -> io::Result<Option<String>> {
    let passed = directory.join("passed");
    let mut passed = OpenOptions::new().create(true).append(true).open(passed)?;
    writeln!(passed, "{step}")?;
    let path = directory.join("armed");
    // Taken by a rename, since the test takes it away again when it comes too late.
    let taken = directory.join("taken");
    match fs::rename(&path, &taken) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    let armed = fs::read_to_string(&taken)?;
    let words: Vec<_> = armed.split_whitespace().collect();
    let &[fault, name, pass] = words.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, armed));
    };
    if name != step.name() {
        fs::rename(&taken, &path)?;
        return Ok(None);
    }
    let pass: u32 =
        pass.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match pass.checked_sub(1) {
        Some(left) => {
            fs::write(&taken, format!("{fault} {name} {left}\n"))?;
            fs::rename(&taken, &path)?;
            Ok(None)
        }
        None if fault == ALWAYS => {
            fs::rename(&taken, &path)?;
            Ok(Some("fail".to_owned()))
        }
        None => {
            fs::rename(&taken, directory.join("came"))?;
            Ok(Some(fault.to_owned()))
        }
    }
}

/// As `kill -9` does, without a word.
fn die() -> ! {
    panic!("nobody survives this: {:?}", send_ourselves(Signal::KILL));
}

fn send_ourselves(signal: Signal) -> rustix::io::Result<()> {
    kill_process(getpid(), signal)
}
