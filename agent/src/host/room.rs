//! Whether a directory takes what the agent has to write there, found out by writing.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

/// What a first service takes: the state, the room of the next one, and the file with the agent's number.
const FILES: [usize; 3] = [128 << 10, 128 << 10, 4 << 10];

/// What else an agent has there, each of which takes no room of its own but a number: the directory, the lock, the log, the socket.
pub const BESIDE: usize = 4;

/// Writes as much into files that nobody sees, and that are gone right after; and makes so many more.
///
/// # Errors
///
/// When the file system refuses.
pub fn examine(directory: &Path, beside: usize) -> io::Result<()> {
    let lengths = FILES.into_iter().chain(std::iter::repeat_n(0, beside));
    let written = lengths.map(|length| {
        let mut file = nameless(directory)?;
        file.write_all(&vec![0; length])?;
        Ok(file)
    });
    // All at the same time.
    written.collect::<io::Result<Vec<File>>>().map(drop)
}

/// Whether a directory takes files at all, as those of the kernel's own file systems do not. One that is full, or cannot be written
/// now, does.
///
/// # Errors
///
/// When it does not.
pub fn takes_files(directory: &Path) -> io::Result<()> {
    const FOR_NOW: [Errno; 6] =
        [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::ROFS, Errno::MFILE, Errno::NFILE];
    let refused = nameless(directory).err();
    let lasts = |error: &io::Error| {
        Errno::from_io_error(error).is_none_or(|errno| !FOR_NOW.contains(&errno))
    };
    refused.filter(lasts).map_or(Ok(()), Err)
}

fn nameless(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        // Not every file system has such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => unnamed(directory),
        file => Ok(file?.into()),
    }
}

/// One whose name is taken away at once.
fn unnamed(directory: &Path) -> io::Result<File> {
    // In another PID namespace our number is somebody else's.
    let path = directory.join(format!("room-{:x}", RandomState::new().hash_one(())));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        examine(directory.path(), BESIDE).unwrap();
        takes_files(directory.path()).unwrap();
        unnamed(directory.path()).unwrap().write_all(b"text").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        examine(Path::new("/proc/self"), 0).unwrap_err();
        takes_files(Path::new("/proc/self")).unwrap_err();
    }
}
