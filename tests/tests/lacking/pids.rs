//! A control group that allows few processes.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tests::stage::LIMIT;
use tests::wait;

/// One whose processes are counted, wherever the controller is mounted. It goes with this.
pub(crate) struct Pids(PathBuf);

impl Pids {
    /// Makes one; nothing where there is no such controller.
    pub(crate) fn mounted() -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let point = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            let [_, point, kind, options, ..] = fields[..] else { return None };
            let counts = match kind {
                "cgroup" => options.split(',').any(|it| it == "pids"),
                "cgroup2" => fs::read_to_string(format!("{point}/cgroup.subtree_control"))
                    .is_ok_and(|passed_on| passed_on.split_whitespace().any(|it| it == "pids")),
                _ => false,
            };
            counts.then(|| PathBuf::from(point))
        };
        let Some(point) = mounts.lines().find_map(point) else { return Ok(None) };
        let group = point.join(format!("agent-test-pids-{}", std::process::id()));
        fs::create_dir(&group)?;
        Ok(Some(Self(group)))
    }

    /// Executes what follows where there may be so many processes and threads, itself being the first.
    pub(crate) fn wrapper(&self, most: u32) -> String {
        let group = self.0.display();
        format!(
            "sh -c 'echo {most} > {group}/pids.max && echo 0 > {group}/cgroup.procs && exec \"$@\"' sh"
        )
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        // Whoever ended last may be about to leave it.
        let removed = || Ok(fs::remove_dir(&self.0).is_ok().then_some(()));
        if let Err(error) = wait::until("the group to be empty", LIMIT, removed) {
            eprintln!("{error:?}");
        }
    }
}
