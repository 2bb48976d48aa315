//! Makes, examines and removes directories of pins, whatever somebody may have put there.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    },
    path::Path,
};

use super::DatapathError;

/// The pin directory, where nothing or something else may be.
///
/// # Errors
///
/// When it cannot be made, or is not on a BPF file system: there is nothing of ours then that could be removed.
pub(super) fn make_root(root: &Path) -> Result<(), DatapathError> {
    if !root.is_dir() {
        if fs::symlink_metadata(root).is_ok() && !root.parent().is_some_and(is_bpf) {
            return Err(DatapathError::NoBpfFileSystem(root.to_owned()));
        }
        remove(root)?;
        make_directory(root)?;
    }
    if !is_bpf(root) {
        return Err(DatapathError::NoBpfFileSystem(root.to_owned()));
    }
    match is_open(root).map_err(|source| pin_error("examine", root, source))? {
        true => make_private(root),
        false => Ok(()),
    }
}

/// The part of a pin directory's name that the BPF file system does not take.
///
/// # Kernel
///
/// It keeps names with a dot for itself (`bpf_lookup`), and answers EPERM, also to who only looks. What exists is there, whatever
/// its name: it may be where the file system is mounted.
pub fn impossible_name(root: &Path) -> Option<&OsStr> {
    let missing = || root.ancestors().take_while(|it| fs::symlink_metadata(it).is_err());
    let above = missing().last().and_then(Path::parent)?;
    let has_dot = |name: &&OsStr| name.as_bytes().contains(&b'.');
    missing().filter_map(Path::file_name).find(has_dot).filter(|_| is_bpf(above))
}

/// Whether others could put something else in the place of what is in the pin directory. It may be one that others use too,
/// in which only its owner removes a thing.
pub(super) fn is_open(root: &Path) -> io::Result<bool> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let known = fs::metadata(root)?;
    let is_foreign = known.uid() != rustix::process::geteuid().as_raw();
    let is_shared = known.mode() & OTHERS_WRITE != 0 && known.mode() & STICKY == 0;
    Ok(is_foreign || is_shared)
}

/// Takes a directory away from whoever else may have got it.
pub(super) fn make_private(path: &Path) -> Result<(), DatapathError> {
    let failed = |source| pin_error("take back", path, source);
    let ours = rustix::process::geteuid().as_raw();
    lchown(path, Some(ours), None).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Removes what is at a path, with all that is below it, wherever it came from. No symbolic link is followed.
pub(super) fn remove(path: &Path) -> Result<(), DatapathError> {
    if is_nothing(path) {
        return Ok(());
    }
    let removed = if is_directory(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(pin_error("remove", path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A file system that cannot be written says that, also of what is not there.
pub(super) fn is_nothing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Of a symbolic link it is not asked where it leads.
pub(super) fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|known| known.is_dir())
}

pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

pub(super) fn make_directory(path: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| pin_error("create", path, source))
}

/// Whether a place is on a BPF file system.
pub fn is_bpf(path: &Path) -> bool {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|it| it.f_type as u64 == BPF_FS_MAGIC)
}

pub(super) fn pin_error(operation: &'static str, path: &Path, source: io::Error) -> DatapathError {
    DatapathError::Pin { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn whatever_is_in_the_way_is_removed_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (pins, elsewhere) = (directory.path().join("pins"), directory.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "").unwrap();
        fs::create_dir_all(pins.join("links/foreign/below")).unwrap();
        symlink(&elsewhere, pins.join("links/steer")).unwrap();
        symlink(&elsewhere, pins.join("maps")).unwrap();
        remove(&pins).unwrap();
        assert!(!pins.exists() && elsewhere.join("file").exists());
        let link = directory.path().join("link");
        symlink(&elsewhere, &link).unwrap();
        remove(&link).unwrap();
        remove(&link).unwrap();
        assert!(!link.exists() && elsewhere.join("file").exists());
    }

    #[test]
    fn nothing_is_removed_that_cannot_be_a_pin() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(make_root(&file), Err(DatapathError::NoBpfFileSystem(_))));
        assert!(file.exists());
    }

    #[test]
    fn a_directory_that_others_may_change_is_open() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, open) in [(0o700, false), (0o755, false), (0o1777, false), (0o770, true)] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open(directory.path()).unwrap(), open, "{mode:o}");
        }
    }
}
