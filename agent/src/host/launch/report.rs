//! What the trampoline tells the parent: that it has begun, and the step that failed.
//!
//! The last step replaces the trampoline's program. Its end of the pipe closes by that
//! (close-on-exec), so an end of the stream after the first byte means success, and an end before
//! it that the trampoline never ran.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

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
}

impl Failure {
    pub(super) fn new(step: Step, subject: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self {
            step,
            subject: subject.to_string(),
            number: error.raw_os_error(),
            words: error.to_string(),
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
}
