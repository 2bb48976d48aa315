//! What must not be there when no port is attached.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::wait;

/// What is left of an agent that had a moment to end.
///
/// # Errors
///
/// If it cannot be looked for.
pub(super) fn found() -> Result<Vec<String>> {
    // What is left after that is what the list below names.
    wait::until("the agent to end", LIMIT, || Ok(list()?.is_empty().then_some(()))).ok();
    list()
}

fn list() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for folder in ["/sys/fs/bpf", "/sys/fs/cgroup"] {
        let names = names(Path::new(folder))?;
        let agents = names.iter().filter(|name| name.starts_with("agent"));
        left.extend(agents.map(|name| format!("{folder}/{name}")));
    }
    let runtime = Path::new("/run/agent");
    if runtime.exists() {
        let names = names(runtime)?;
        let files = names.iter().filter(|name| !KEPT.contains(&name.as_str()));
        left.extend(files.map(|name| format!("/run/agent/{name}")));
    }
    Ok(left)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The outputs of servers that it launched, which serve on.
const KEPT: [&str; 1] = ["services"];
const LIMIT: Duration = Duration::from_secs(5);
