//! Why a next generation is not launched.

use std::{io, path::PathBuf};

use agent_api::ProblemKind;
use agent_ebpf::{MAX_MEMBERS, MAX_MEMBERS_OF_SERVICE};
use agent_terms::Loss;
use nix::errno::Errno;

use crate::{
    daemon::{DirectoryError, world_error::WorldError},
    host::{cgroup::CgroupError, context::Namespace, launch::LaunchError, process::Pid},
};

/// Why a next generation is not launched.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum NotLaunched {
    /// The running one could not be looked at, or the world not be changed.
    #[error(transparent)]
    World(WorldError),
    /// Its control group has not the limits of the one before.
    #[error(transparent)]
    Limits(CgroupError),
    /// It can have no control group of its own.
    #[error(transparent)]
    Group(CgroupError),
    /// Its first process was not started.
    #[error(transparent)]
    Process(#[from] LaunchError),
    /// It has no directory for its output.
    #[error("nothing has changed: {0}")]
    LogDirectory(#[source] DirectoryError),
    /// What was to be launched is known to the agent that was asked for it only.
    #[error("nobody knows what to launch any more")]
    Forgotten,
    /// Words of a command, without the first one.
    #[error("the command is empty")]
    NoCommand,
    /// The same of one whose program is that of the running generation.
    #[error("there are arguments, and no program")]
    NoProgram,
    /// The command of the running generation is for its own user.
    #[error("another user or group than that of the running generation needs a command")]
    OtherUser,
    /// There is no running generation.
    #[error("no generation takes new connections, whose command could be launched again")]
    NoPrimary,
    /// The running generation ended meanwhile.
    #[error("the server has just ended: nobody can see any more what it was started with")]
    Ended,
    /// It runs, and its command is not known.
    #[error("process {process} does not show what it was started with: {why}")]
    Unclear {
        /// Its first process, as people know it.
        process: String,
        /// Why.
        #[source]
        why: Unclear,
    },
    /// The launcher has less rights than the running generation.
    #[error(
        "the running server has {}, and the agent's launcher, of which the next one is born, has not",
        lacking.join(", ")
    )]
    LacksCapabilities {
        /// Which.
        lacking: Vec<String>,
    },
    /// The running generation is confined by what cannot be given to another process.
    #[error("{what}: the next one could do more")]
    Loses {
        /// What would be lost, as it is given up by name.
        loss: Loss,
        /// What it is, in words.
        what: String,
    },
    /// Its server ended while it was looked at how that is confined.
    #[error("process {pid} ended while it was looked at")]
    EndedMeanwhile {
        /// Its number.
        pid: Pid,
    },
    /// Its control group has not a program that the one before has.
    #[error("the new control group cannot be given {program} of the old one: {source}")]
    ProgramRefused {
        /// Which, and where it is asked.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program is not where the running generation is confined to.
    #[error(
        "the running server has the root directory `{}`, in which there is no `{}`",
        root.display(),
        program.display()
    )]
    NotInRoot {
        /// Where that is.
        root: PathBuf,
        /// The program.
        program: PathBuf,
    },
    /// Its namespaces ended with the server.
    #[error(
        "the running server lived in namespaces of its own ({}), which nobody can enter since it has ended",
        names(namespaces)
    )]
    NamespacesGone {
        /// Which.
        namespaces: Vec<Namespace>,
    },
    /// A root directory that is one only where the running generation is.
    #[error(
        "the running server has the root directory `{}` in a mount namespace of its own, and outside of that the next one could do more",
        root.display()
    )]
    RootElsewhere {
        /// What it is called there.
        root: PathBuf,
    },
    /// The running generation does not show as whom it was started.
    #[error(
        "the running server may have been started as root, or as user {uid}, and nobody can prove either"
    )]
    MayBeRoot {
        /// The user that it is now.
        uid: u32,
    },
    /// The service has as many processes as are followed.
    #[error(
        "the service has {processes} processes, and the agent follows {MAX_MEMBERS_OF_SERVICE} of each service at most"
    )]
    ServiceCrowded {
        /// How many.
        processes: u32,
    },
    /// All services together have.
    #[error(
        "all services together have as many processes as the agent follows ({MAX_MEMBERS}): {}",
        counts(most)
    )]
    Crowded {
        /// The services that have most.
        most: Vec<(String, u32)>,
    },
    /// Another agent has the same control groups.
    #[error("the control group `{}` holds processes that are not of this service", path.display())]
    GroupInUse {
        /// Its directory.
        path: PathBuf,
    },
    /// Nobody has this name.
    #[error("there is no user `{user}`")]
    NoUser {
        /// The name.
        user: String,
    },
    /// A number that is nobody's.
    #[error("nobody knows the group of user {user}, who is not in the user database")]
    NoGroupOfUser {
        /// The number.
        user: u32,
    },
    /// No group has this name.
    #[error("there is no group `{group}`")]
    NoGroup {
        /// The name.
        group: String,
    },
    /// The user database does not answer.
    #[error("look up the user `{user}`")]
    LookUpUser {
        /// Of whom it was asked.
        user: String,
        /// The system's answer.
        #[source]
        source: Errno,
    },
    /// The group database does not.
    #[error("look up the group `{group}`")]
    LookUpGroup {
        /// Of which it was asked.
        group: String,
        /// The system's answer.
        #[source]
        source: Errno,
    },
    /// The directory of the one before is gone.
    #[error("the working directory `{}` does not exist", directory.display())]
    NoDirectory {
        /// Which.
        directory: PathBuf,
    },
    /// The directory is on a file system that does not answer.
    #[error(
        "look at where the new generation is to run, `{}`, and for its program there",
        directory.display()
    )]
    NoAnswer {
        /// Which.
        directory: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A word of the command names another file where the running generation is.
    #[error(
        "`{}` is `{}` here, but the new generation runs where the old one does, and finds {} at `{}`",
        word.display(),
        here.join(word).display(),
        if *is_there { "another file" } else { "nothing" },
        there.join(word).display()
    )]
    OtherDirectory {
        /// Which.
        word: PathBuf,
        /// Where the command was called.
        here: PathBuf,
        /// Where the running generation is.
        there: PathBuf,
        /// Whether there is anything of that name.
        is_there: bool,
    },
}

/// Why a process does not show what it was started with.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum Unclear {
    /// As those of the kernel have none.
    #[error("it has no command line")]
    NoCommandLine,
    /// What cannot be written down.
    #[error("its command line is no UTF-8")]
    NoText,
    /// As `server: master process`.
    #[error("its command line names no program: it gave itself a title")]
    Title,
    /// Its directories do not answer.
    #[error("{0}")]
    NoAnswer(#[source] io::Error),
}

impl<E> From<E> for NotLaunched
where
    WorldError: From<E>,
{
    fn from(error: E) -> Self {
        Self::World(error.into())
    }
}

impl NotLaunched {
    /// What kind of failure it is.
    pub(in crate::daemon) const fn kind(&self) -> ProblemKind {
        match self {
            Self::World(_)
            | Self::LogDirectory(_)
            | Self::Forgotten
            | Self::LookUpUser { .. }
            | Self::LookUpGroup { .. } => ProblemKind::Failed,
            Self::Limits(_) | Self::Process(_) | Self::ProgramRefused { .. } => {
                ProblemKind::NotReady
            }
            Self::NoCommand | Self::NoProgram | Self::OtherUser | Self::OtherDirectory { .. } => {
                ProblemKind::Usage
            }
            Self::Group(_)
            | Self::NoPrimary
            | Self::Ended
            | Self::Unclear { .. }
            | Self::LacksCapabilities { .. }
            | Self::Loses { .. }
            | Self::EndedMeanwhile { .. }
            | Self::NotInRoot { .. }
            | Self::NamespacesGone { .. }
            | Self::RootElsewhere { .. }
            | Self::MayBeRoot { .. }
            | Self::ServiceCrowded { .. }
            | Self::Crowded { .. }
            | Self::GroupInUse { .. }
            | Self::NoUser { .. }
            | Self::NoGroupOfUser { .. }
            | Self::NoGroup { .. }
            | Self::NoDirectory { .. }
            | Self::NoAnswer { .. } => ProblemKind::Preflight,
        }
    }

    /// What to do about it, where that is known.
    pub(in crate::daemon) fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::World(_)
            | Self::Limits(_)
            | Self::Group(_)
            | Self::Process(_)
            | Self::ProgramRefused { .. }
            | Self::LogDirectory(_)
            | Self::Forgotten
            | Self::NoCommand
            | Self::NoProgram
            | Self::LookUpUser { .. }
            | Self::LookUpGroup { .. } => return None,
            Self::OtherUser | Self::NoPrimary | Self::Ended | Self::Unclear { .. } => {
                "say the command: `agent upgrade … -- COMMAND`"
            }
            Self::LacksCapabilities { .. } => "start the agent with all that its servers may do",
            Self::Loses { loss, .. } => {
                return Some(format!(
                    "if it confines itself, or may do more, say `--unconfined {loss}`"
                ));
            }
            Self::EndedMeanwhile { .. } => "try again",
            Self::NotInRoot { .. } => "install the new version in there",
            Self::NamespacesGone { .. } => {
                "start it as it was started before, which the agent takes for the next generation, or launch one outside of them: `--namespaces agent`"
            }
            Self::RootElsewhere { .. } => {
                "launch it in the namespaces of the running server (`--namespaces replaced`)"
            }
            Self::MayBeRoot { uid } => {
                return Some(format!(
                    "say `--user root` if the new generation has to be root to listen and gives that up itself (as haproxy and lighttpd do), \
                     `--user {uid}` if not"
                ));
            }
            Self::ServiceCrowded { .. } | Self::Crowded { .. } => {
                "end some; `TasksMax=` of a unit and `pids.max` of a control group keep them few"
            }
            Self::GroupInUse { .. } => {
                "end them, or, if they are another agent's, give this agent a control group of its own (`--cgroup`)"
            }
            Self::NoUser { .. } => {
                "name one of the user database (`getent passwd`), or say a number"
            }
            Self::NoGroupOfUser { .. } => "say it: `--group NUMBER`",
            Self::NoGroup { .. } => {
                "name one of the group database (`getent group`), or say a number"
            }
            Self::NoDirectory { .. } => "say with `--cwd` where the new generation is to run",
            Self::NoAnswer { .. } => {
                "name a directory on a file system that answers (`--cwd`), or see to that one"
            }
            Self::OtherDirectory { .. } => {
                "say `--cwd .` to run the new generation here, or give the whole path"
            }
        };
        Some(fix.to_owned())
    }
}

fn names(namespaces: &[Namespace]) -> String {
    let names: Vec<_> = namespaces.iter().map(|it| it.file_name()).collect();
    names.join(", ")
}

fn counts(most: &[(String, u32)]) -> String {
    let counts: Vec<_> = most.iter().map(|(name, count)| format!("{name} has {count}")).collect();
    counts.join(", ")
}
