//! What is mounted where, in our mount namespace.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::bounded;

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which part of the file system it shows; `/` for all of it.
    pub root: PathBuf,
    /// Where it shows it.
    pub point: PathBuf,
}

/// All mounts of a type of file system, such as `cgroup2` or `bpf`, in the order they were made, without those that others cover.
///
/// # Errors
///
/// When `/proc/self/mountinfo` cannot be read.
pub fn of_type(kind: &str) -> io::Result<Vec<Mount>> {
    with_options(kind, |_| true)
}

/// Those of a type whose file system has options (the last field) that satisfy.
///
/// # Errors
///
/// When `/proc/self/mountinfo` cannot be read.
pub fn with_options(kind: &str, satisfy: impl Fn(&str) -> bool) -> io::Result<Vec<Mount>> {
    /// 100,000 mounts (`fs.mount-max`) with usual names are less; users may have some of them made.
    const MOST: u64 = 64 << 20;
    let table = bounded::read(Path::new("/proc/thread-self/mountinfo"), MOST)?;
    let lines = table.split(|byte| *byte == b'\n').filter(|line| {
        let options = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        satisfy(&String::from_utf8_lossy(options))
    });
    let mounts = lines.filter_map(|line| parse(line, kind));
    Ok(mounts.filter(|(number, mount)| is_at(*number, &mount.point)).map(|(_, it)| it).collect())
}

/// Whether a place leads to a mount: something may be mounted there since, or above it (`STATX_MNT_ID`, Linux 5.8).
fn is_at(number: u64, point: &Path) -> bool {
    let there = statx(CWD, point, AtFlags::empty(), StatxFlags::MNT_ID);
    there.is_ok_and(|there| there.stx_mnt_id == number)
}

/// Whether something is mounted at this very place.
pub fn is_mounted(place: &Path) -> bool {
    place.exists() && above(place) == place
}

/// Where the file system begins that this place is on.
pub fn above(place: &Path) -> &Path {
    let number = |path: &Path| {
        statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok().map(|about| about.stx_mnt_id)
    };
    let own = number(place);
    place.ancestors().take_while(|above| number(above) == own).last().unwrap_or(place)
}

/// How to have the file system that a place is on, or is to be on, written to again.
pub fn remount(place: &Path) -> String {
    let existing = place.ancestors().find(|it| it.exists()).unwrap_or(place);
    let mounted = above(existing).display();
    format!("`mount -o remount,rw {mounted}` (`remount,bind,rw` where it is a bind mount)")
}

/// A line of the table, with its number, if it is of the wanted type: number, parent, device, root, point, options,
/// any optional fields, a lone hyphen, type, source, options.
pub(super) fn parse(line: &[u8], kind: &str) -> Option<(u64, Mount)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let hyphen = fields.iter().position(|field| *field == b"-")?;
    if *fields.get(hyphen + 1)? != kind.as_bytes() {
        return None;
    }
    let number = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
    Some((number, Mount { root: unescaped(fields.get(3)?), point: unescaped(fields.get(4)?) }))
}

/// The kernel writes blanks, line ends and backslashes as a backslash and three octal digits
/// (`mangle_path`).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk::<3>().filter(|_| *first == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_begins_where_it_is_mounted() {
        assert_eq!(above(Path::new("/proc/self")), Path::new("/proc"));
        assert_eq!(above(Path::new("/")), Path::new("/"));
    }

    #[test]
    fn a_line_is_read_with_its_escapes_and_optional_fields() {
        let line = br"38 31 0:38 /part /mnt/my\040groups rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw";
        let mount = Mount { root: "/part".into(), point: "/mnt/my groups".into() };
        assert_eq!(parse(line, "cgroup2"), Some((38, mount)));
        assert_eq!(parse(line, "cgroup"), None);
        assert_eq!(parse(b"38 31 0:38 / /x rw", "cgroup2"), None);
        assert_eq!(parse(b"- cgroup2", "cgroup2"), None);
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescaped(br"a\13"), Path::new(r"a\13"));
        assert_eq!(unescaped(br"a\134b"), Path::new(r"a\b"));
    }

    #[test]
    fn the_process_file_system_is_mounted() {
        assert!(of_type("proc").unwrap().iter().any(|mount| mount.point == Path::new("/proc")));
    }
}
