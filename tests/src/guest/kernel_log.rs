//! What the kernel has to complain of.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;

/// The lines of its log that tell of something wrong, a few at most.
///
/// # Errors
///
/// If the log cannot be read.
pub(super) fn troubles() -> Result<Vec<String>> {
    let mut log = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg")
        .context("open the kernel's log")?;
    let mut troubles = Vec::new();
    let mut record = [0; 8192];
    loop {
        // Each read is one record.
        match log.read(&mut record) {
            Ok(length) => {
                let record = String::from_utf8_lossy(&record[..length]);
                troubles
                    .extend(message(&record).filter(|line| is_trouble(line)).map(str::to_owned));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Overwritten by later ones meanwhile: the next read goes on with those.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("read the kernel's log"),
        }
    }
    troubles.truncate(MOST);
    Ok(troubles)
}

/// `PRIORITY,NUMBER,TIME,FLAGS;MESSAGE`, and lines with more behind it.
fn message(record: &str) -> Option<&str> {
    record.lines().next()?.split_once(';').map(|(_, message)| message)
}

fn is_trouble(line: &str) -> bool {
    WORDS.iter().any(|word| line.contains(word))
}

const WORDS: [&str; 8] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "refcount_t",
    "Call Trace",
    "self-detected stall",
    "detected stalls",
    "blocked for more than",
];
const MOST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_from_what_the_kernel_says_of_itself() {
        let record = "4,512,3141592,-;WARNING: CPU: 0 PID: 71 at net/core/sock.c:1\n SUBSYSTEM=x\n";
        assert_eq!(message(record), Some("WARNING: CPU: 0 PID: 71 at net/core/sock.c:1"));
        assert!(is_trouble(message(record).unwrap()));
        assert!(!is_trouble("Booting the kernel"));
    }
}
