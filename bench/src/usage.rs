//! What a process uses of the machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The value of a field in a file of `/proc` that is told in units of 1,024 bytes.
pub(crate) fn bytes(text: &str, field: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| *name == field)?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// What the threads of a process have used of a processor so far.
pub(crate) fn used(pid: i32) -> Result<Duration> {
    let first = |text: &str| text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    threads(pid, "schedstat", first).map(Duration::from_nanos)
}

/// How often the threads of a process have waited for something so far: as often they were woken.
pub(crate) fn waits(pid: i32) -> Result<u64> {
    let count = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse::<u64>().ok())
    };
    threads(pid, "status", count)
}

fn threads(pid: i32, file: &str, value: impl Fn(&str) -> Option<u64>) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may have ended meanwhile.
        let Ok(text) = fs::read_to_string(thread?.path().join(file)) else { continue };
        sum += value(&text).with_context(|| format!("no number in {file} of process {pid}"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_told_from_one_that_begins_like_it() {
        let text = "Pss_Dirty:            1 kB\nPss:               5 kB\n";
        assert_eq!(bytes(text, "Pss"), Some(5_120));
        assert_eq!(bytes(text, "VmRSS"), None);
    }
}
