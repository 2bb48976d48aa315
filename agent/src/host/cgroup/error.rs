//! Why something about a control group could not be done.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::ROUNDS;
use crate::host::process::ProcessError;

/// Why something about a control group could not be done.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The operator can mount it: `mount -t cgroup2 none /sys/fs/cgroup`.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// Whether one is mounted is unknown.
    #[error("read the mount table")]
    MountTable(#[source] io::Error),
    /// The group exists, but not below the mount that we see.
    #[error("control group `{path}` is outside the mounted tree")]
    Outside {
        /// The path that leads out.
        path: PathBuf,
    },
    /// The system said no.
    #[error("{operation} control group `{path}`")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// On which group or file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A process of the group could not be killed.
    #[error("kill the processes of control group `{path}`")]
    Signal {
        /// The group's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// Its processes forked faster than they were moved.
    #[error(
        "control group `{path}` still has processes after `{ROUNDS}` rounds of moving them out"
    )]
    NeverEmpty {
        /// The group's directory.
        path: PathBuf,
    },
}
