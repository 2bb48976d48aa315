//! What keeps a process from doing all that its user may: capabilities, scheduling, control groups, root directory.
//!
//! A successor gets the same, so that it can do no more, and no less. Two things show nowhere: the secure bits, and the session
//! keyring, of which a successor gets one of its own that is empty.

pub(super) mod groups;
pub(super) mod loss;

use std::{fs, path::Path};

use rustix::thread::{CapabilitySet, sched_getaffinity};
use serde::{Deserialize, Serialize};

pub use self::{
    groups::{Group, of as groups_of},
    loss::losses,
};
use super::{
    os_text::OsText,
    patience,
    process::{Pid, ProcessError, status},
};
use crate::sys::scheduling::{self, Scheduling};

/// How a process is confined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its capabilities.
    pub capabilities: Capabilities,
    /// Whether it can get no more rights by executing a program.
    pub no_new_privileges: bool,
    /// The processors that it may run on; `None` if there are more than can be asked for.
    pub processors: Option<Vec<u32>>,
    /// How it shares the processors with others.
    pub scheduling: Scheduling,
    /// Class and level of its input and output, as `ioprio_set` takes them.
    pub io_priority: i32,
    /// The execution domain and its flags, as `personality` takes them.
    pub personality: u32,
    /// Its groups in hierarchies of control groups version 1.
    pub groups: Vec<Group>,
    /// Its root directory, if it was executed inside of another one than ours.
    pub root: Option<OsText>,
    /// How many seccomp filters it has, which nobody can copy.
    pub filters: u32,
    /// What a security module calls it.
    pub label: Option<String>,
}

/// Sets of capabilities, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What an executed program may get at most.
    pub bounding: u64,
    /// What an executed program may keep of it.
    pub inheritable: u64,
    /// What an executed program has though its user is not root.
    pub ambient: u64,
    /// What root has of what it could have: it gave the rest up, or is kept from it by secure bits, which nobody sees.
    #[serde(default)]
    pub of_root: Option<u64>,
}

impl Capabilities {
    /// Leaves root no more than it has. Says whether it could have had more.
    pub fn keep_to_what_root_has(&mut self) -> bool {
        let Some(permitted) = self.of_root.take() else { return false };
        let had = self.bounding;
        self.bounding &= permitted;
        self.inheritable &= permitted;
        self.bounding != had
    }

    /// Nothing of them is left: what they were is of another user namespace.
    pub const fn give_up_all(&mut self) {
        *self = Self { bounding: 0, inheritable: 0, ambient: 0, of_root: Some(0) };
    }

    /// What a process of this user that has these cannot pass on through a launcher that has those, by name.
    pub fn not_passed_on_by(&self, launcher: &Self, user: u32) -> Vec<String> {
        let of_root = self.of_root.filter(|_| user == ROOT).unwrap_or(0);
        let held = (of_root & self.bounding) | self.ambient;
        let lacking = CapabilitySet::from_bits_retain(held & !launcher.bounding);
        lacking.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
    }
}

const ROOT: u32 = 0;

impl Confinement {
    /// That of a running process.
    ///
    /// # Errors
    ///
    /// When the process is gone, or may not be looked at.
    pub fn of(pid: Pid) -> Result<Self, ProcessError> {
        let status = status(pid)?;
        let capabilities = Capabilities {
            bounding: status.capbnd.unwrap_or(u64::MAX),
            inheritable: status.capinh,
            ambient: status.capamb.unwrap_or(0),
            of_root: (status.euid == ROOT).then_some(status.capprm),
        };
        let io_priority = scheduling::io_priority(pid.get())
            .map_err(|error| ProcessError::reading(pid, "the I/O priority", error.into()))?;
        Ok(Self {
            capabilities,
            no_new_privileges: status.nonewprivs == Some(1),
            processors: processors(pid),
            scheduling: scheduling::of(pid.get())
                .map_err(|error| ProcessError::reading(pid, "the scheduling", error.into()))?,
            io_priority,
            personality: personality(pid)?,
            groups: groups::of(pid)?,
            root: root(pid)?,
            filters: loss::filters(pid, status.seccomp)?,
            label: loss::label(pid),
        })
    }
}

/// More processors than the system call is given room for is an error of the call only.
fn processors(pid: Pid) -> Option<Vec<u32>> {
    let set = sched_getaffinity(rustix::process::Pid::from_raw(pid.get())).ok()?;
    let all = 0..rustix::thread::CpuSet::MAX_CPU;
    Some(all.filter(|it| set.is_set(*it)).filter_map(|it| it.try_into().ok()).collect())
}

fn personality(pid: Pid) -> Result<u32, ProcessError> {
    const MOST: u64 = 64;
    let text = patience::read(pid, "personality", MOST)
        .map_err(|error| ProcessError::reading(pid, "the personality", error.into()))?;
    Ok(u32::from_str_radix(String::from_utf8_lossy(&text).trim(), 16).unwrap_or(0))
}

/// Servers that change their root themselves do so after they were executed, by a program that is outside of it: their
/// successor does it again.
fn root(pid: Pid) -> Result<Option<OsText>, ProcessError> {
    let link = |name: &str| {
        fs::read_link(format!("/proc/{pid}/{name}"))
            .map_err(|error| ProcessError::reading(pid, "the root directory", error.into()))
    };
    let (root, program) = (link("root")?, link("exe")?);
    Ok((root != Path::new("/") && program.starts_with(&root)).then(|| root.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_is_ours() {
        let ours = Confinement::of(Pid::ours()).unwrap();
        let set = rustix::thread::capabilities(None).unwrap();
        assert_eq!(ours.capabilities.inheritable, set.inheritable.bits());
        let bounded = rustix::thread::CapabilitySet::CHOWN;
        let kernel = rustix::thread::capability_is_in_bounding_set(bounded).unwrap();
        assert_eq!(ours.capabilities.bounding & bounded.bits() != 0, kernel);
        assert_eq!(ours.no_new_privileges, rustix::thread::no_new_privs().unwrap());
        assert!(!ours.processors.clone().unwrap().is_empty());
        assert_eq!(ours.root, None);
        let json = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Confinement>(&json).unwrap(), ours);
    }
}
