//! The file systems that a server's machine has.

use std::fs;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use super::words::Words;

/// What one needs to be told anything and to tell anything.
pub(super) fn mount_first() -> Result<()> {
    mount_at("/proc", "proc", None)?;
    mount_at("/sys", "sysfs", None)?;
    mount_at("/dev", "devtmpfs", None)
}

/// All the others.
pub(super) fn mount_all(words: &Words) -> Result<()> {
    for (path, kind) in [
        ("/dev/shm", "tmpfs"),
        ("/run", "tmpfs"),
        ("/tmp", "tmpfs"),
        ("/sys/fs/bpf", "bpf"),
        ("/sys/kernel/security", "securityfs"),
    ] {
        mount_at(path, kind, None)?;
    }
    if words.is_cgroup_v1() {
        mount_at("/sys/fs/cgroup", "tmpfs", None)?;
        return mount_at("/sys/fs/cgroup/cpu", "cgroup", Some("cpu"));
    }
    mount_at("/sys/fs/cgroup", "cgroup2", None)
}

fn mount_at(path: &str, kind: &str, options: Option<&str>) -> Result<()> {
    // Those of the kernel itself are there, and none can be made in them.
    if !fs::exists(path)? {
        fs::create_dir_all(path).with_context(|| format!("create `{path}`"))?;
    }
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mount {kind} at `{path}`"))
}
