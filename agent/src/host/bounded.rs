//! Reads files of which others decide how large they are.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// A whole file.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`] if it has more than `most` bytes, and whatever the file system says.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let bytes = read_beginning(path, most + 1)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        let message = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The first `most` bytes of a file.
///
/// # Errors
///
/// Whatever the file system says.
pub fn read_beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_too_large() {
        let error = read(Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_beginning(Path::new("/dev/zero"), 4096).unwrap().len(), 4096);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "four").unwrap();
        assert_eq!(read(file.path(), 4).unwrap(), b"four");
        assert!(read(file.path(), 3).is_err());
    }
}
