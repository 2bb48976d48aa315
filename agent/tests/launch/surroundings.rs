//! Where a test launches.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use agent::host::{
    cgroup::{Cgroup, Hierarchy},
    context::Context,
    launch::{Directory, LaunchSpec, launch},
    process::{Ending, Pid, Process},
};
use anyhow::{Result, ensure};

use crate::{report::launched, us};

/// A directory and a control group of a test's own; both go with it, and all processes in the
/// group.
pub(crate) struct Surroundings {
    directory: tempfile::TempDir,
    pub(crate) cgroup: Cgroup,
}

impl Surroundings {
    pub(crate) fn new(hierarchy: &Hierarchy, name: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // The server's user must get in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let path = PathBuf::from(format!("agent-test-{}-{name}", std::process::id()));
        Ok(Self { directory, cgroup: hierarchy.create(&path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// A shell script as the server, in the context of this test.
    pub(crate) fn spec(&self, script: &str) -> Result<LaunchSpec> {
        Ok(LaunchSpec {
            directory: Directory::Named,
            program: "/bin/sh".into(),
            argument_zero: None,
            arguments: vec!["-c".into(), script.into()],
            context: Context {
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                ..Context::of(Pid::ours(), Pid::ours())?
            },
            namespaces_of: None,
            cgroup: self.cgroup.directory().into(),
            log: Some(self.log().into()),
            socket_names: Vec::new(),
        })
    }

    /// Launches, waits for a good end, and gives what the server printed.
    pub(crate) fn printed(&self, spec: &LaunchSpec) -> Result<String> {
        let launched = launched(launch(&us(), spec, &[])?)?;
        self.printed_by(&launched)
    }

    pub(crate) fn printed_by(&self, launched: &Process) -> Result<String> {
        ensure!(launched.has_exited_within(Duration::from_secs(20))?, "the server does not end");
        let log = fs::read_to_string(self.log())?;
        let ending = launched.reap()?;
        ensure!(ending == Some(Ending::Exited(0)), "got {ending:?}, printed {log:?}");
        Ok(log)
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        let cleaned = (|| -> Result<()> {
            self.cgroup.kill()?;
            ensure!(
                self.cgroup.watch_populated()?.is_empty_within(Duration::from_secs(10))?,
                "processes are left"
            );
            Ok(self.cgroup.remove()?)
        })();
        cleaned.expect("the test's control group can be emptied and removed");
    }
}
