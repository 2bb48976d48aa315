//! Reads files of which others decide what they are, and how large.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// A whole file.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] if it has more than `most` bytes, and whatever the file system says.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    whole(File::open(path)?, most)
}

/// The first `most` bytes of a file.
///
/// # Errors
///
/// Whatever the file system says.
pub fn read_beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    beginning(File::open(path)?, most)
}

/// A whole file, in whose place somebody may have put anything.
///
/// # Errors
///
/// As [`read`], and [`io::ErrorKind::InvalidInput`] if it is no regular file.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    whole(open_regular(path)?, most)
}

/// The first `most` bytes of a file, in whose place somebody may have put anything.
///
/// # Errors
///
/// As [`read_beginning`], and [`io::ErrorKind::InvalidInput`] if it is no regular file.
pub fn read_regular_beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    beginning(open_regular(path)?, most)
}

/// Opens a file to read it, in whose place somebody may have put anything.
///
/// # Errors
///
/// As [`reopen_regular`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    reopen_regular(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens for reading what was opened as a place only (`O_PATH`).
///
/// # Kernel
///
/// Opening waits at a FIFO for somebody who writes, and at a file for whoever has a lease on it (`break_lease`), unless it is
/// told not to; and it sets some devices going, such as a watchdog. A place can be opened without any of that, and stays what
/// it is between the two steps.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if it is no regular file, [`io::ErrorKind::WouldBlock`] if somebody has a lease on it.
pub fn reopen_regular(place: impl AsFd) -> io::Result<File> {
    let place = place.as_fd();
    if FileType::from_raw_mode(fstat(place)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/thread-self/fd/{}", place.as_raw_fd()))
}

/// All that is left of a file.
///
/// # Errors
///
/// As [`read`].
pub fn whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    let bytes = beginning(file, most + 1)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        let message = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn beginning(file: File, most: u64) -> io::Result<Vec<u8>> {
    // Most files below `/proc` are not larger, and say nothing of their size: without room the first read asks for 32 bytes.
    const USUAL: usize = 2048;
    let mut bytes = Vec::with_capacity(USUAL);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn what_never_ends_is_too_large() {
        let error = read(Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_beginning(Path::new("/dev/zero"), 4096).unwrap().len(), 4096);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "four").unwrap();
        for read in [read, read_regular] {
            assert_eq!(read(file.path(), 4).unwrap(), b"four");
            assert!(read(file.path(), 3).is_err());
        }
        assert_eq!(read_regular_beginning(file.path(), 3).unwrap(), b"fou");
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        for path in [&path, Path::new("/dev/zero"), directory.path()] {
            let error = read_regular(path, 4096).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
    }
}
