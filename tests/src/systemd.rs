//! systemd as process 1 of namespaces of its own, over the files of the machine: what is written there is gone with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use agent::host::cgroup::Hierarchy;
use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::children;
use crate::wait;

/// A machine within the machine. It ends when it is dropped, and all in it.
#[derive(Debug)]
pub struct Systemd {
    /// The parent of its first process, which ends that with itself.
    outside: Child,
    pid: i32,
    cgroup: PathBuf,
    _ground: TempDir,
}

/// How long systemd may take to be up, or to do what it is told.
const LIMIT: Duration = Duration::from_secs(60);

/// What becomes process 1. `$GROUND` is an empty folder, `$KEPT` one of the machine that is seen as it is, and `$CGROUP` the
/// control group that is the root of this one's.
const BOOT: &str = r#"
set -e
echo $$ >"$CGROUP/cgroup.procs"
exec unshare --cgroup sh -ec '
mount -t tmpfs none "$GROUND"
mkdir "$GROUND/upper" "$GROUND/work" "$GROUND/root"
mount -t overlay none -o "lowerdir=/,upperdir=$GROUND/upper,workdir=$GROUND/work" "$GROUND/root"
cd "$GROUND/root"
mkdir -p ".$KEPT" before
mount --bind "$KEPT" ".$KEPT"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs none run
mount -t tmpfs none tmp
mount --rbind /dev dev
ip link set lo up
pivot_root . before
umount -l /before
exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=no
'
"#;

impl Systemd {
    /// Starts it, with the basic units of the machine and none of its services. `kept` is a folder that it sees as it is.
    ///
    /// # Errors
    ///
    /// Without root or systemd, or if it is not up in time.
    pub fn start(kept: &Path) -> Result<Self> {
        let ground = tempfile::tempdir()?;
        let hierarchy = Hierarchy::find()?;
        let name = ground.path().file_name().context("a name")?.to_string_lossy().into_owned();
        let cgroup = hierarchy.root().directory().join(format!("agent-test-systemd{name}"));
        fs::create_dir(&cgroup).with_context(|| format!("create `{}`", cgroup.display()))?;
        let outside = Command::new("unshare")
            .args(["--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net"])
            .args(["--propagation", "private", "sh", "-c", BOOT])
            .env("GROUND", ground.path())
            .env("KEPT", kept)
            .env("CGROUP", &cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start systemd in namespaces of its own")?;
        let mut systemd = Self { outside, pid: 0, cgroup, _ground: ground };
        systemd.pid = wait::until("its first process", LIMIT, || {
            Ok(children(i32::try_from(systemd.outside.id())?)?.first().copied())
        })?;
        wait::until("systemd to be up", LIMIT, || {
            let state = systemd.run(&["systemctl", "is-system-running"])?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&state.as_str()).then_some(()))
        })?;
        Ok(systemd)
    }

    /// Runs a command inside to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn run(&self, command: &[&str]) -> Result<Output> {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.pid.to_string(), "--all", "--wd", "--"]).args(command);
        inside.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        inside.output().with_context(|| format!("run {command:?} inside"))
    }

    /// The same, where it has to succeed; gives what it printed.
    ///
    /// # Errors
    ///
    /// If it does not; with all it said.
    pub fn succeed(&self, command: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.run(command)?;
        let [out, err] = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        if status.success() {
            return Ok(out);
        }
        let log = self.run(&["journalctl", "--no-pager", "--lines=40", "--output=cat"])?;
        bail!("{command:?}: {status}\n{out}\n{err}\n{}", String::from_utf8_lossy(&log.stdout))
    }

    /// Writes a file inside.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = format!("/proc/{}/root{path}", self.pid);
        fs::write(&path, content).with_context(|| format!("write `{path}`"))
    }

    /// The network inside.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn network(&self) -> Result<Namespace> {
        Namespace::of(self.pid.cast_unsigned())
    }

    /// A property of a unit.
    ///
    /// # Errors
    ///
    /// If systemd does not tell.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.succeed(&["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(value.trim().to_owned())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.outside.kill().expect("it is our child");
        self.outside.wait().expect("it is our child");
        let removed = wait::until("its control groups to be empty", LIMIT, || {
            Ok(remove(&self.cgroup).is_ok().then_some(()))
        });
        removed.expect("all that was in it has ended");
    }
}

/// A control group with all below it, which has no processes any more.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
