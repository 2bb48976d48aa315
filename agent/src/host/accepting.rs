//! Signs that a process accepts connections from a listener that it holds.
//!
//! A sign says that it does. Its absence says nothing for certain: who waits in `poll` shows none.

use std::{collections::HashSet, fs, path::Path};

use nix::libc::{SYS_accept, SYS_accept4};

use super::{holders::socket_inode, io_uring, patience, process::Pid, sock_diag::SocketInode};

/// Whether a process shows that it accepts from one of these listeners: it waits in `accept`, has the listener in an epoll
/// set, or in a ring of io_uring.
pub fn accepts(pid: Pid, listeners: &HashSet<SocketInode>) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut numbers = HashSet::new();
    for descriptor in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(target) = fs::read_link(&descriptor) else { continue };
        if socket_inode(&target).is_some_and(|inode| listeners.contains(&inode)) {
            numbers.extend(number_of(&descriptor));
        } else if target == Path::new("anon_inode:[eventpoll]") {
            let set = information_on(pid, &descriptor).unwrap_or_default();
            if set.lines().filter_map(watched).any(|inode| listeners.contains(&inode)) {
                return true;
            }
        } else if io_uring::is_ring(&target) {
            let registered = io_uring::registered_sockets(pid, &descriptor).unwrap_or_default();
            if !registered.is_disjoint(listeners) {
                return true;
            }
        }
    }
    !numbers.is_empty() && threads_of(pid).any(|thread| waits_in_accept(pid, thread, &numbers))
}

fn number_of(descriptor: &Path) -> Option<u64> {
    descriptor.file_name()?.to_str()?.parse().ok()
}

fn information_on(pid: Pid, descriptor: &Path) -> Option<String> {
    start_of(pid, &format!("fdinfo/{}", number_of(descriptor)?))
}

/// The socket of a line of an epoll set: `tfd: 3 events: 19 data: 3  pos:0 ino:170f0 sdev:9`, in hexadecimal digits
/// (`ep_show_fdinfo`).
pub(super) fn watched(line: &str) -> Option<SocketInode> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(inode, 16).ok().map(SocketInode)
}

fn threads_of(pid: Pid) -> impl Iterator<Item = u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.filter_map(|thread| number_of(&thread.ok()?.path()))
}

fn waits_in_accept(pid: Pid, thread: u64, descriptors: &HashSet<u64>) -> bool {
    start_of(pid, &format!("task/{thread}/syscall")).is_some_and(|text| {
        accepted_from(&text).is_some_and(|descriptor| descriptors.contains(&descriptor))
    })
}

/// The descriptor in `288 0x3 0x7ffd… …`, if that is a call of `accept`; who runs is in no call.
pub(super) fn accepted_from(syscall: &str) -> Option<u64> {
    let mut words = syscall.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let descriptor = words.next()?.strip_prefix("0x")?;
    [SYS_accept, SYS_accept4]
        .contains(&number)
        .then(|| u64::from_str_radix(descriptor, 16).ok())
        .flatten()
}

/// The first part of a file of `/proc/PID`: an epoll set may have a million lines.
fn start_of(pid: Pid, file: &str) -> Option<String> {
    const ENOUGH: u64 = 1 << 20;
    let bytes = patience::read_beginning(pid, file, ENOUGH).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::event::epoll;

    use super::*;

    fn inode(socket: &TcpListener) -> HashSet<SocketInode> {
        HashSet::from([SocketInode(rustix::fs::fstat(socket).unwrap().st_ino)])
    }

    #[test]
    fn a_listener_in_an_epoll_set_is_a_sign() {
        let [watched, other] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        epoll::add(&set, &watched, data, epoll::EventFlags::IN).unwrap();
        assert!(accepts(Pid::ours(), &inode(&watched)));
        assert!(!accepts(Pid::ours(), &inode(&other)));
    }

    #[test]
    fn a_thread_that_waits_in_accept_is_a_sign() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let wanted = inode(&socket);
        let thread = std::thread::spawn(move || socket.accept().map(drop));
        while !accepts(Pid::ours(), &wanted) {
            assert!(!thread.is_finished());
            std::thread::yield_now();
        }
        std::net::TcpStream::connect(address).unwrap();
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn other_calls_are_no_sign() {
        assert_eq!(
            accepted_from(&format!("{SYS_accept4} 0x1f 0x0 0x0 0x0 0x0 0x0 0x1 0x2")),
            Some(31)
        );
        assert_eq!(accepted_from("0 0x1f 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), None);
        assert_eq!(accepted_from("running"), None);
        assert_eq!(watched("pos:\t0"), None);
    }
}
