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

/// Writes as much into files that nobody sees, and that are gone right after.
///
/// # Errors
///
/// When the file system refuses.
pub fn examine(directory: &Path) -> io::Result<()> {
    let written = FILES.map(|length| {
        let mut file = nameless(directory)?;
        file.write_all(&vec![0; length])?;
        Ok(file)
    });
    // All at the same time.
    written.into_iter().collect::<io::Result<Vec<File>>>().map(drop)
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
        examine(directory.path()).unwrap();
        unnamed(directory.path()).unwrap().write_all(b"text").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        examine(Path::new("/proc/self")).unwrap_err();
    }
}
