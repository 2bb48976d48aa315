//! The Unix sockets of a network namespace, by the kernel's table of them.
//!
//! Their addresses are whatever their processes like: any bytes, also line ends. Such a one may look like a line of the table;
//! what is read here says where to look, and decides nothing by itself.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path};

use super::{bounded, sock_diag::SocketInode};

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnixSocket<'a> {
    pub(super) inode: SocketInode,
    /// Whether it has no peer: it listens, or takes datagrams.
    pub(super) is_unconnected: bool,
    /// Where it is bound, or where that was that accepted it; one without a name in the file system begins with `@`.
    pub(super) address: Option<&'a [u8]>,
}

impl<'a> UnixSocket<'a> {
    /// Its name in the file system.
    pub(super) fn path(&self) -> Option<&'a Path> {
        let address = self.address.filter(|address| address.starts_with(b"/"))?;
        Some(Path::new(OsStr::from_bytes(address)))
    }

    /// Number, references, protocol, flags, type, state, inode, and the address if it has one (`unix_seq_show`). A small inode
    /// has blanks before it, and an address may have some inside.
    fn parse(line: &'a [u8]) -> Option<Self> {
        const BEFORE_STATE: usize = 5;
        let mut rest = line;
        let mut word = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            rest = behind;
            Some(word).filter(|it| !it.is_empty())
        };
        for _ in 0..BEFORE_STATE {
            word()?;
        }
        let (state, inode) = (word()?, word()?);
        Some(Self {
            inode: SocketInode(str::from_utf8(inode).ok()?.parse().ok()?),
            is_unconnected: state == SS_UNCONNECTED,
            address: rest.strip_prefix(b" "),
        })
    }
}

/// The table, as a file of `/proc` shows it.
///
/// # Errors
///
/// When it cannot be read, or is larger than anybody's.
pub(super) fn table(path: &Path) -> io::Result<Vec<u8>> {
    /// Some 400,000 sockets with the longest of names.
    const MOST: u64 = 64 << 20;
    bounded::read(path, MOST)
}

/// What is in the table.
pub(super) fn sockets(table: &[u8]) -> impl Iterator<Item = UnixSocket<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(UnixSocket::parse)
}

/// Two hexadecimal digits.
const SS_UNCONNECTED: &[u8] = b"01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whatever_they_are() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   17 /run/a b\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 94576 @\xff\n\
            0000000000000000: 00000003 00000000 00000000 0002 01 94577\n\
            half a line\n";
        let found: Vec<_> = sockets(table).collect();
        let socket = |inode, is_unconnected, address| UnixSocket {
            inode: SocketInode(inode),
            is_unconnected,
            address,
        };
        assert_eq!(
            found,
            [
                socket(17, true, Some(&b"/run/a b"[..])),
                socket(94576, false, Some(b"@\xff")),
                socket(94577, true, None),
            ]
        );
        assert_eq!(found[0].path(), Some(Path::new("/run/a b")));
        assert_eq!(found[1].path(), None);
    }
}
