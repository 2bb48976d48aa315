//! How the agent says no.

use agent_rollout::Refusal;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ExitCode;

/// A failure, as the API answers it and the command line prints it. The only type that stays as it is from one version of the API
/// to the next: it says that there are two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// What kind, which decides the exit code.
    pub kind: ProblemKind,
    /// What failed, on what, and why.
    pub message: String,
    /// Deeper causes, outermost first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default)]
    pub fix: Option<String>,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request makes no sense.
    Usage,
    /// There is no such service, port or rollout.
    NotFound,
    /// A permission, a kernel feature, a mount or a generation to go back to is missing, or what was found cannot be taken
    /// charge of.
    Preflight,
    /// The new generation did not become ready.
    NotReady,
    /// Another change is under way, or the generation was not the expected one.
    Locked,
    /// The system said no.
    Failed,
    /// The agent is about to end, and has not looked at what it was asked for: another one may.
    Ending,
    /// Who asks speaks another version of the API.
    Version,
    /// One that a later agent knows.
    #[serde(other)]
    Unknown,
}

impl Problem {
    /// A failure without deeper causes.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), fix: None }
    }

    /// A failure with all that led to it.
    pub fn caused(kind: ProblemKind, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut problem = Self::new(kind, error.to_string());
        problem.add_causes(error.source());
        Self { fix: remedy(error), ..problem }
    }

    /// The same, with another failure as its cause.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.add_causes(Some(error));
        self.fix = self.fix.or_else(|| remedy(error));
        self
    }

    /// Many an error says what caused it, too.
    fn add_causes(&mut self, first: Option<&(dyn std::error::Error + 'static)>) {
        for cause in std::iter::successors(first, |cause| cause.source()) {
            let cause = cause.to_string();
            if !self.causes.last().unwrap_or(&self.message).contains(&cause) {
                self.causes.push(cause);
            }
        }
    }

    /// The same of an agent that has not begun to run, and has changed nothing: what the machine has run out of, or forbids, is
    /// missing. Told on one line.
    #[must_use]
    pub fn before_the_start(self) -> Self {
        let kind = match self.kind {
            ProblemKind::Failed if self.fix.is_some() => ProblemKind::Preflight,
            kind => kind,
        };
        Self { kind, ..self.on_one_line() }
    }

    /// The same with its causes in the message.
    #[must_use]
    pub fn on_one_line(self) -> Self {
        let message = self.in_full();
        Self { message, causes: Vec::new(), ..self }
    }

    /// On one line, with all causes.
    pub fn in_full(&self) -> String {
        let all: Vec<_> = std::iter::once(&self.message).chain(&self.causes).cloned().collect();
        all.join(": ")
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// What to do where the machine has run out of something, whatever it was wanted for.
fn remedy(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut chain = std::iter::successors(Some(error), |cause| cause.source());
    let errno = chain.find_map(|cause| match cause.downcast_ref::<std::io::Error>() {
        // Rust says so itself of what it could not allocate.
        Some(system) if system.kind() == std::io::ErrorKind::OutOfMemory => {
            Some(Errno::NOMEM.raw_os_error())
        }
        Some(system) => system.raw_os_error(),
        None => cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error()),
    })?;
    let remedy = match Errno::from_raw_os_error(errno) {
        Errno::NOSPC | Errno::DQUOT => {
            "make room on that file system (`df -h`, `df -i`), and try again"
        }
        Errno::FBIG => {
            "let the agent write larger files (`ulimit -f`, `LimitFSIZE=`), and try again"
        }
        Errno::ROFS => "make that file system writable, and try again",
        Errno::MFILE => return Some(more_files()),
        Errno::NOMEM => {
            "let the agent have more memory (`ulimit -v`, `ulimit -d`, `MemoryMax=` in its unit), and try again"
        }
        // The kernel says so too; whoever has a filter asks there first.
        Errno::PERM | Errno::NOSYS if is_filtered() => {
            "a filter of system calls (seccomp) may refuse it: let it pass, in a container by its profile, in a unit by `SystemCallFilter=`"
        }
        Errno::NFILE => "let the machine open more files (`sysctl fs.file-max`), and try again",
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// Whether we live under a filter of system calls.
fn is_filtered() -> bool {
    use rustix::thread::{SecureComputingMode, secure_computing_mode};
    secure_computing_mode() != Ok(SecureComputingMode::Disabled)
}

fn more_files() -> String {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let most = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, most)| most);
    let most = most.filter(|most| *most != RLIM_INFINITY);
    let most = most.map_or_else(|| "any number".to_owned(), |most| format!("{most} at most"));
    format!(
        "let the agent open more files, and try again: `LimitNOFILE=` in its unit, or `ulimit -n` (here {most}, and more as root with CAP_SYS_RESOURCE)"
    )
}

impl ProblemKind {
    /// How a command that met it ends.
    pub const fn exit_code(self) -> ExitCode {
        match self {
            Self::Usage => ExitCode::Usage,
            Self::NotFound => ExitCode::NotFound,
            Self::Preflight | Self::Version => ExitCode::Preflight,
            Self::NotReady => ExitCode::NotReady,
            Self::Locked => ExitCode::Locked,
            Self::Failed | Self::Ending | Self::Unknown => ExitCode::Failed,
        }
    }

    /// The HTTP status that says it best.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::Preflight => 412,
            Self::NotReady => 424,
            Self::Locked => 409,
            Self::Failed | Self::Unknown => 500,
            Self::Version => 501,
            Self::Ending => 503,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (kind, fix) = match refusal {
            Refusal::RolloutUnderWay(..) => (
                ProblemKind::Locked,
                "wait for it (`agent status --watch`), or take it back with `agent undo`",
            ),
            Refusal::NothingToUndo => (
                ProblemKind::Preflight,
                "upgrade to the version that you want back; next time `--keep-old` keeps it",
            ),
        };
        Self::new(kind, refusal.to_string()).fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_later_agent_can_be_read() {
        let later = r#"{"kind": "quota", "message": "no", "causes": [], "fix": null, "more": 7}"#;
        let problem: Problem = serde_json::from_str(later).unwrap();
        assert_eq!((problem.kind, problem.message.as_str()), (ProblemKind::Unknown, "no"));
    }
}
