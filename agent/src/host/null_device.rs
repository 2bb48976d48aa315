//! Whether there is a `/dev/null`, which whoever is started gets for a standard stream.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use rustix::fs::{major, minor};

/// There is none, or something else in its place.
#[derive(Debug, thiserror::Error)]
#[error("`/dev/null`, which the agent and servers are started with, cannot be used: {0}")]
pub struct NoNullDevice(io::Error);

impl NoNullDevice {
    /// What to do about it.
    pub const FIX: &str = "`rm -f /dev/null; mknod -m 666 /dev/null c 1 3`; in a container, give it a `/dev` of its own";
}

/// Looks at it.
///
/// # Errors
///
/// When it cannot be opened, or keeps what is written there (`NULL_MINOR`).
pub fn examine() -> Result<(), NoNullDevice> {
    let device = OpenOptions::new().read(true).write(true).open(PATH);
    let known = device.and_then(|device| device.metadata()).map_err(NoNullDevice)?;
    let is_it =
        known.file_type().is_char_device() && (major(known.rdev()), minor(known.rdev())) == (1, 3);
    let what = fs::canonicalize(PATH).unwrap_or_default();
    let other = || io::Error::other(format!("`{}` is something else", what.display()));
    if is_it { Ok(()) } else { Err(NoNullDevice(other())) }
}

const PATH: &str = "/dev/null";

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_there() {
        super::examine().unwrap();
    }
}
