//! Who holds the attachment of a BPF program: whoever steers besides us has a process, a pin, or both.

use std::{fs, path::Path};

use super::{
    holders::all_pids,
    process::{Pid, ProcessError},
};

/// The processes that have a link of this program open, rising.
///
/// # Errors
///
/// When the machine's processes cannot be listed.
pub fn holders_of_program(id: u32) -> Result<Vec<Pid>, ProcessError> {
    Ok(all_pids()?.into_iter().filter(|pid| holds(*pid, id)).collect())
}

fn holds(pid: Pid, id: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|descriptor| {
        let is_link = fs::read_link(descriptor.path())
            .is_ok_and(|target| NAMES.iter().any(|name| target == Path::new(name)));
        let name = descriptor.file_name();
        let information = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(name);
        is_link && fs::read_to_string(information).is_ok_and(|text| program_of(&text) == Some(id))
    })
}

/// As the kernel calls a link that it has just made, and one that was opened by its pin.
const NAMES: [&str; 2] = ["anon_inode:bpf_link", "anon_inode:bpf-link"];

/// The number in the line `prog_id:\t42` (`bpf_link_show_fdinfo`).
pub(super) fn program_of(information: &str) -> Option<u32> {
    let number = information.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_link_is_read() {
        let text = "pos:\t0\nlink_type:\tnetns\nlink_id:\t7\nprog_tag:\t6deef7357e7b4530\nprog_id:\t42\nnetns_ino:\t1\n";
        assert_eq!(program_of(text), Some(42));
        assert_eq!(program_of("pos:\t0\n"), None);
    }
}
