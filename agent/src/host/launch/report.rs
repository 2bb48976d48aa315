//! What the trampoline tells the parent: that it has begun, and the step that failed.
//!
//! The last step replaces the trampoline's program. Its end of the pipe closes by that
//! (close-on-exec), so an end of the stream after the first byte means success, and an end before
//! it that the trampoline never ran.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::Poll,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    thread::{CapabilitySet, SecureComputingMode, capabilities, secure_computing_mode},
};
use serde::{Deserialize, Serialize};

use super::LaunchError;
use crate::host::{context::Context, limit::Resource};

/// The parent's end of the pipe: it can be waited for, and is never waited on.
#[derive(Debug)]
pub struct Report {
    pipe: File,
    told: Vec<u8>,
    /// Whom a failure may be about.
    uid: u32,
    task_limit: Option<u64>,
}

impl Report {
    /// Of the launch of a server with this context; and the trampoline's end.
    pub(super) fn new(context: &Context) -> io::Result<(Self, OwnedFd)> {
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // This end only: they are two open files.
        fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        let nproc = context.limits.iter().find(|limit| limit.resource == Resource::Nproc);
        let task_limit = nproc.and_then(|it| it.soft);
        Ok((Self { pipe: pipe.into(), told: Vec::new(), uid: context.uid, task_limit }, writer))
    }

    /// Whether the trampoline has become the server, as far as it has told.
    ///
    /// # Errors
    ///
    /// Names the step that failed. The trampoline is about to exit then, or has never been one.
    pub fn poll(&mut self) -> Poll<Result<(), LaunchError>> {
        let mut chunk = [0; 4096];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return Poll::Ready(self.judge()),
                Ok(_) if self.told.len() > LONGEST => {
                    let endless = io::Error::other("it does not end");
                    return Poll::Ready(Err(LaunchError::Report(endless)));
                }
                Ok(length) => self.told.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(LaunchError::Report(error))),
            }
        }
    }

    fn judge(&self) -> Result<(), LaunchError> {
        match self.told.split_first() {
            Some((&BEGUN, [])) => Ok(()),
            Some((&BEGUN, failure)) => Err(self.failed_step(failure)),
            // It failed before it could say that it runs, or it is no trampoline at all.
            Some((_, _)) => Err(self.failed_step(&self.told)),
            None => Err(LaunchError::Silent),
        }
    }

    fn failed_step(&self, failure: &[u8]) -> LaunchError {
        let Ok(failure) = serde_json::from_slice::<Failure>(failure) else {
            return LaunchError::Silent;
        };
        let (step, subject, filtered) = (failure.step, failure.subject.clone(), failure.filtered);
        let source = failure.into_error();
        match (step, source.kind()) {
            (Step::Execute, io::ErrorKind::NotFound) => {
                LaunchError::ProgramNotFound { program: subject.into(), source }
            }
            (Step::Execute, io::ErrorKind::PermissionDenied) => {
                LaunchError::ProgramNotPermitted { program: subject.into(), source }
            }
            (Step::Execute | Step::ChangeUser, io::ErrorKind::WouldBlock) => {
                LaunchError::TooManyProcesses { uid: self.uid, limit: self.task_limit, source }
            }
            (Step::ChangeDirectory, io::ErrorKind::PermissionDenied) => {
                LaunchError::DirectoryNotPermitted {
                    directory: subject.into(),
                    uid: self.uid,
                    source,
                }
            }
            _ if filtered => LaunchError::Filtered { on: on(step, &subject), source },
            (_, io::ErrorKind::PermissionDenied) => match step.right(&subject) {
                Some(right) => LaunchError::Forbidden { on: on(step, &subject), right, source },
                None => LaunchError::Failed { step, on: on(step, &subject), source },
            },
            _ => LaunchError::Failed { step, on: on(step, &subject), source },
        }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Bytes: a step, a path and an error.
const LONGEST: usize = 64 << 10;

/// The byte that says the trampoline runs.
pub(super) const BEGUN: u8 = b'+';

/// A step of the trampoline, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Read what to do.
    ReadSpec,
    /// Close what was inherited.
    CloseDescriptors,
    /// Join the control group.
    JoinCgroup,
    /// Leave the agent's session.
    NewSession,
    /// Set the memory score.
    SetOomScore,
    /// Set the scheduling priority.
    SetPriority,
    /// Set processors, policy and I/O priority.
    SetScheduling,
    /// Get a keyring of its own.
    NewKeyring,
    /// Set a limit.
    SetLimit,
    /// Set the groups.
    JoinGroups,
    /// Enter the namespaces.
    EnterNamespaces,
    /// Change the directory.
    ChangeDirectory,
    /// Change the root directory.
    ChangeRoot,
    /// Set the execution domain.
    SetPersonality,
    /// Set the capabilities.
    SetCapabilities,
    /// Become another user.
    ChangeUser,
    /// Connect standard input and output.
    ConnectStandardStreams,
    /// Execute the program.
    Execute,
}

impl Step {
    /// What it takes of the agent, where the kernel may refuse it for that, and what to do without.
    fn right(self, subject: &str) -> Option<String> {
        let (_, right) = self.capability()?;
        Some(match self {
            Self::SetLimit => {
                let limit = subject.to_lowercase();
                format!(
                    "{right} beyond the agent's own limit: give it that, or the server less (`--limit {limit}=…`)"
                )
            }
            _ => format!("{right} of the agent"),
        })
    }

    /// The one for want of which the kernel may refuse it.
    fn capability(self) -> Option<(CapabilitySet, &'static str)> {
        Some(match self {
            // The score below what it was once set to by who may (`oom_score_adj_min`).
            Self::SetLimit | Self::SetOomScore => (CapabilitySet::SYS_RESOURCE, "CAP_SYS_RESOURCE"),
            Self::SetPriority | Self::SetScheduling => (CapabilitySet::SYS_NICE, "CAP_SYS_NICE"),
            Self::JoinGroups => (CapabilitySet::SETGID, "CAP_SETGID"),
            Self::ChangeUser => (CapabilitySet::SETUID, "CAP_SETUID"),
            Self::ChangeRoot => (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
            Self::EnterNamespaces => (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
            Self::SetCapabilities => (CapabilitySet::SETPCAP, "CAP_SETPCAP"),
            Self::ReadSpec
            | Self::CloseDescriptors
            | Self::JoinCgroup
            | Self::NewSession
            | Self::NewKeyring
            | Self::ChangeDirectory
            | Self::SetPersonality
            | Self::ConnectStandardStreams
            | Self::Execute => return None,
        })
    }

    /// Whether the same who was refused this may do it by all that the kernel goes by: then a filter of system calls has refused it.
    fn is_filtered(self, error: &io::Error) -> bool {
        let is_refusal = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
        let may =
            |(capability, _)| capabilities(None).is_ok_and(|it| it.effective.contains(capability));
        is_refusal.contains(&error.kind())
            && self.capability().is_some_and(may)
            && secure_computing_mode() != Ok(SecureComputingMode::Disabled)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadSpec => "read what to launch",
            Self::CloseDescriptors => "close inherited descriptors",
            Self::JoinCgroup => "join control group",
            Self::NewSession => "start a session",
            Self::SetOomScore => "set the memory score",
            Self::SetPriority => "set the priority",
            Self::SetScheduling => "set the scheduling",
            Self::NewKeyring => "begin a keyring",
            Self::SetLimit => "set the limit",
            Self::JoinGroups => "join group",
            Self::EnterNamespaces => "enter the namespaces of",
            Self::ChangeDirectory => "change to directory",
            Self::ChangeRoot => "change the root directory to",
            Self::SetPersonality => "set the personality",
            Self::SetCapabilities => "set the capabilities",
            Self::ChangeUser => "become user",
            Self::ConnectStandardStreams => "connect standard streams",
            Self::Execute => "execute",
        })
    }
}

/// A step that failed: on what, and the system's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) subject: String,
    /// The error number, if it is the system's.
    number: Option<i32>,
    /// The error in words, for those that have no number.
    words: String,
    /// Whether a filter of system calls has refused it, and not the kernel.
    #[serde(default)]
    filtered: bool,
}

/// A step with what it was about.
fn on(step: Step, subject: &str) -> String {
    if subject.is_empty() { step.to_string() } else { format!("{step} `{subject}`") }
}

impl Failure {
    pub(super) fn new(step: Step, subject: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self {
            step,
            subject: subject.to_string(),
            number: error.raw_os_error(),
            words: error.to_string(),
            filtered: step.is_filtered(&error),
        }
    }

    /// The error as it was.
    pub(super) fn into_error(self) -> io::Error {
        self.number.map_or_else(|| io::Error::other(self.words), io::Error::from_raw_os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_pipe() {
        let failure = Failure::new(Step::Execute, "/bin/x", io::Error::from_raw_os_error(13));
        let json = serde_json::to_vec(&failure).unwrap();
        let error = serde_json::from_slice::<Failure>(&json).unwrap().into_error();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let other = Failure::new(Step::ReadSpec, "", io::Error::other("odd")).into_error();
        assert_eq!(other.to_string(), "odd");
    }

    #[test]
    fn what_the_agent_has_not_the_right_to_give_is_named_with_the_right() {
        let judge = |step, subject: &str, filtered| {
            let mut failure = Failure::new(step, subject, io::Error::from_raw_os_error(1));
            failure.filtered = filtered;
            let told = [vec![BEGUN], serde_json::to_vec(&failure).unwrap()].concat();
            let pipe = File::open("/proc/self/stat").unwrap();
            let report = Report { pipe, told, uid: 0, task_limit: None };
            report.judge().unwrap_err().to_string()
        };
        let judged = |step, subject: &str| judge(step, subject, false);
        let filtered = judge(Step::ChangeUser, "5", true);
        assert!(filtered.contains("become user `5`") && filtered.contains("seccomp"), "{filtered}");
        let limit = judged(Step::SetLimit, "Memlock");
        assert!(limit.contains("takes CAP_SYS_RESOURCE"), "{limit}");
        assert!(limit.contains("`--limit memlock=…`"), "{limit}");
        let groups = judged(Step::JoinGroups, "5");
        assert!(groups.contains("takes CAP_SETGID of the agent"), "{groups}");
        assert!(!judged(Step::JoinCgroup, "/a").contains("takes"));
        assert!(judged(Step::SetScheduling, "").starts_with("set the scheduling for"));
    }
}
