//! Users as another user namespace numbers them.

use std::{fs, path::PathBuf};

use super::LaunchError;
use crate::host::process::Pid;

/// The user `uid`, as we number it, as the user namespace of `pid` does.
pub(super) fn user_inside(uid: u32, pid: Pid) -> Result<u32, LaunchError> {
    let map = IdMap::read(format!("/proc/{pid}/uid_map").into())?;
    map.inside(uid).ok_or(LaunchError::UnmappedUser { uid, path: map.path })
}

/// `/proc/PID/uid_map`: lines of first number inside, first number outside (as the reader numbers
/// it), and how many.
struct IdMap {
    path: PathBuf,
    ranges: Vec<[u32; 3]>,
}

impl IdMap {
    fn read(path: PathBuf) -> Result<Self, LaunchError> {
        match fs::read_to_string(&path) {
            Ok(table) => Ok(Self { ranges: ranges(&table), path }),
            Err(source) => Err(LaunchError::UserMap { path, source }),
        }
    }

    fn inside(&self, outside: u32) -> Option<u32> {
        self.ranges.iter().find_map(|[inside_first, outside_first, count]| {
            let offset = outside.checked_sub(*outside_first).filter(|offset| offset < count)?;
            inside_first.checked_add(offset)
        })
    }
}

fn ranges(table: &str) -> Vec<[u32; 3]> {
    let range = |line: &str| {
        let numbers: Vec<u32> =
            line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        numbers.try_into().ok()
    };
    table.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_mapped_by_ranges() {
        let table = "         0     100000      65536\n     70000       1000          1\n";
        let map = IdMap { path: PathBuf::new(), ranges: ranges(table) };
        assert_eq!(map.inside(100_000), Some(0));
        assert_eq!(map.inside(100_033), Some(33));
        assert_eq!(map.inside(1000), Some(70_000));
        assert_eq!(map.inside(1001), None);
        assert_eq!(map.inside(165_536), None);
    }
}
