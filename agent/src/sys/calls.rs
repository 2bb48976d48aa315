//! System calls made in vain: a filter (seccomp) answers before the kernel looks at what they ask for.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

use std::io;

use nix::libc::{self, c_long};

/// A call, with what no kernel does anything for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vain {
    /// As its manual page calls it.
    pub(crate) name: &'static str,
    number: c_long,
    arguments: [c_long; 4],
}

/// No descriptor, no flags and no command.
const NONE: c_long = -1;

const fn vain(name: &'static str, number: c_long, arguments: [c_long; 4]) -> Vain {
    Vain { name, number, arguments }
}

/// Has more to read than any, which the kernel looks at first (`bpf_check_uarg_tail_zero`: E2BIG).
pub(crate) const BPF: Vain =
    vain("bpf", libc::SYS_bpf, [u32::MAX as c_long, 0, u32::MAX as c_long, 0]);

/// The structure that says what is wanted is none (`clone3`: EINVAL).
pub(crate) const CLONE3: Vain = vain("clone3", libc::SYS_clone3, [0, 0, 0, 0]);

/// Calls that whoever waits for something makes, the command line too. The kernel answers EBADF or EINVAL to each.
pub(crate) const WAITING: [Vain; 6] = [
    vain("epoll_create1", libc::SYS_epoll_create1, [NONE, 0, 0, 0]),
    vain("epoll_ctl", libc::SYS_epoll_ctl, [NONE, 0, NONE, 0]),
    // Of the C library, and of the other architecture.
    #[cfg(target_arch = "x86_64")]
    vain("epoll_wait", libc::SYS_epoll_wait, [NONE, 0, 0, 0]),
    #[cfg(not(target_arch = "x86_64"))]
    vain("epoll_pwait", libc::SYS_epoll_pwait, [NONE, 0, 0, 0]),
    vain("eventfd2", libc::SYS_eventfd2, [0, NONE, 0, 0]),
    vain("socketpair", libc::SYS_socketpair, [NONE, NONE, NONE, 0]),
    vain("fcntl", libc::SYS_fcntl, [NONE, 0, 0, 0]),
];

/// Calls that the agent makes on its way to the first service. The kernel answers EBADF, EFAULT or EINVAL to each.
pub(crate) const USED: [Vain; 35] = [
    vain("capget", libc::SYS_capget, [0, 0, 0, 0]),
    vain("chdir", libc::SYS_chdir, [0, 0, 0, 0]),
    // A thread that shares nothing with the others.
    vain("clone", libc::SYS_clone, [libc::CLONE_THREAD as c_long, 0, 0, 0]),
    // The last one is before the first.
    vain("close_range", libc::SYS_close_range, [1, 0, 0, 0]),
    vain("ftruncate", libc::SYS_ftruncate, [NONE, 0, 0, 0]),
    vain("getdents64", libc::SYS_getdents64, [NONE, 0, 0, 0]),
    vain("inotify_add_watch", libc::SYS_inotify_add_watch, [NONE, 0, 0, 0]),
    vain("ioctl", libc::SYS_ioctl, [NONE, 0, 0, 0]),
    vain("ioprio_get", libc::SYS_ioprio_get, [NONE, 0, 0, 0]),
    // More than may be open.
    vain("ppoll", libc::SYS_ppoll, [0, NONE, 0, 0]),
    vain("prctl", libc::SYS_prctl, [NONE, 0, 0, 0]),
    vain("pwrite64", libc::SYS_pwrite64, [NONE, 0, 0, 0]),
    vain("sched_getattr", libc::SYS_sched_getattr, [NONE, 0, 0, 0]),
    vain("seccomp", libc::SYS_seccomp, [NONE, 0, 0, 0]),
    vain("setpgid", libc::SYS_setpgid, [NONE, NONE, 0, 0]),
    vain("pidfd_open", libc::SYS_pidfd_open, [NONE, 0, 0, 0]),
    vain("prlimit64", libc::SYS_prlimit64, [0, NONE, 0, 0]),
    vain("statfs", libc::SYS_statfs, [0, 0, 0, 0]),
    vain("statx", libc::SYS_statx, [NONE, 0, NONE, 0]),
    vain("socket", libc::SYS_socket, [NONE, NONE, NONE, 0]),
    vain("bind", libc::SYS_bind, [NONE, 0, 0, 0]),
    vain("listen", libc::SYS_listen, [NONE, 0, 0, 0]),
    vain("accept4", libc::SYS_accept4, [NONE, 0, 0, 0]),
    vain("connect", libc::SYS_connect, [NONE, 0, 0, 0]),
    vain("getsockopt", libc::SYS_getsockopt, [NONE, 0, 0, 0]),
    vain("setsockopt", libc::SYS_setsockopt, [NONE, 0, 0, 0]),
    vain("sendto", libc::SYS_sendto, [NONE, 0, 0, 0]),
    vain("recvfrom", libc::SYS_recvfrom, [NONE, 0, 0, 0]),
    vain("sendmsg", libc::SYS_sendmsg, [NONE, 0, 0, 0]),
    vain("recvmsg", libc::SYS_recvmsg, [NONE, 0, 0, 0]),
    vain("inotify_init1", libc::SYS_inotify_init1, [NONE, 0, 0, 0]),
    vain("flock", libc::SYS_flock, [NONE, 0, 0, 0]),
    vain("pipe2", libc::SYS_pipe2, [0, NONE, 0, 0]),
    vain("capset", libc::SYS_capset, [0, 0, 0, 0]),
    vain("renameat2", libc::SYS_renameat2, [NONE, 0, NONE, 0]),
];

impl Vain {
    /// What is answered.
    pub(crate) fn answer(self) -> io::Error {
        let [first, second, third, fourth] = self.arguments;
        // SAFETY: each call is refused for a descriptor, a flag, a command or a size that does not exist, or for an address at which
        // nothing is, before the kernel reads or writes anything of ours: see where it is named.
        let result = unsafe {
            libc::syscall(self.number, first, second, third, fourth, 0 as c_long, 0 as c_long)
        };
        debug_assert!(result < 0, "no kernel takes `{}` like that", self.name);
        io::Error::last_os_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_what_no_filter_does() {
        for call in USED.into_iter().chain(WAITING).chain([BPF, CLONE3]) {
            let answer = call.answer().raw_os_error();
            let ours = [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::E2BIG, libc::EAFNOSUPPORT];
            assert!(answer.is_some_and(|it| ours.contains(&it)), "{}: {answer:?}", call.name);
        }
    }
}
