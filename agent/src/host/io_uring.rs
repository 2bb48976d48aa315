//! Sockets that a process has in a ring of io_uring (`IORING_REGISTER_FILES`): they are open, and need no descriptor.

use std::{collections::HashSet, ffi::OsStr, io, path::Path};

use super::{patience, process::Pid, sock_diag::SocketInode};

/// Whether a link below `/proc/PID/fd` is one to a ring.
pub(super) fn is_ring(link: &Path) -> bool {
    link.as_os_str() == "anon_inode:[io_uring]"
}

/// The sockets among the registered files of a ring, which a process has as this descriptor.
///
/// # Kernel
///
/// `io_uring_show_fdinfo` lists the files only if nobody has the ring's lock at that moment, as its owner does for as long
/// as it submits. Then it is asked again, a few times: an owner that never pauses is not waited for.
pub(super) fn registered_sockets(pid: Pid, descriptor: &Path) -> io::Result<HashSet<SocketInode>> {
    const ATTEMPTS: u32 = 8;
    /// A million sockets (`IORING_MAX_FIXED_FILES`) are less; files with long names are more, which are no sockets.
    const ENOUGH: u64 = 32 << 20;
    let Some(number) = descriptor.file_name().and_then(OsStr::to_str) else {
        return Ok(HashSet::new());
    };
    let mut found = None;
    for _attempt in 0..ATTEMPTS {
        found = sockets(&patience::read_beginning(pid, format_args!("fdinfo/{number}"), ENOUGH)?);
        if found.is_some() {
            break;
        }
        std::thread::yield_now();
    }
    Ok(found.unwrap_or_default())
}

/// The sockets in what the kernel says of a ring; `None` if it does not say what files there are.
pub(super) fn sockets(text: &[u8]) -> Option<HashSet<SocketInode>> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().skip_while(|line| !line.starts_with("UserFiles:"));
    lines.next()?;
    // Each file is on a line of its own, `    0: socket:[94576]`; what comes next is not indented.
    let files = lines.take_while(|line| line.starts_with(' '));
    let names = files.filter_map(|line| line.split_once(": "));
    Some(names.filter_map(|(_, name)| super::holders::socket_inode(Path::new(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_sockets_are_read_and_nothing_else() {
        // A file may have any name.
        let text = b"pos:\t0\nSqMask:\t0x7\nUserFiles:\t3\n    0: socket:[94576]\n    1: /tmp/\xff: socket:[1]\n    2: \
                    socket:[7]\nUserBufs:\t1\n    0: socket:[5]\nPollList:\n  op=13, task_works=0\n";
        assert_eq!(sockets(text), Some(HashSet::from([SocketInode(94576), SocketInode(7)])));
        assert_eq!(sockets(b"UserFiles:\t0\nUserBufs:\t0\n"), Some(HashSet::new()));
    }

    #[test]
    fn a_ring_whose_lock_is_held_says_nothing() {
        assert_eq!(sockets(b"pos:\t0\nflags:\t02000002\n"), None);
    }
}
