//! System calls made in vain: a filter (seccomp) answers before the kernel looks at what they ask for.

#![expect(unsafe_code, reason = "a system call is reached by its number")]

use std::io;

use nix::libc::{self, c_long};

/// A call, with what no kernel does anything for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vain {
    /// As its manual page calls it.
    pub(crate) name: &'static str,
    /// Whether a filter that lets through what the agent asks for may know no such family of sockets.
    pub(crate) is_of_no_family: bool,
    number: c_long,
    arguments: [c_long; 4],
}

/// `linux/keyctl.h`
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;

/// No descriptor, no flags and no command.
const NONE: c_long = -1;

const fn vain(name: &'static str, number: c_long, arguments: [c_long; 4]) -> Vain {
    Vain { name, is_of_no_family: false, number, arguments }
}

/// Has more to read than any, which the kernel looks at first (`bpf_check_uarg_tail_zero`: E2BIG).
pub(crate) const BPF: Vain =
    vain("bpf", libc::SYS_bpf, [u32::MAX as c_long, 0, u32::MAX as c_long, 0]);

/// A command of `bpf`, which filters tell apart, with as much to read.
const fn command(name: &'static str, number: c_long) -> Vain {
    vain(name, libc::SYS_bpf, [number, 0, u32::MAX as c_long, 0])
}

/// Commands of `bpf` without which nothing is steered, or not for long (`enum bpf_cmd`).
pub(crate) const COMMANDS: [Vain; 21] = [
    command("bpf(BPF_MAP_CREATE)", 0),
    command("bpf(BPF_MAP_LOOKUP_ELEM)", 1),
    command("bpf(BPF_MAP_UPDATE_ELEM)", 2),
    command("bpf(BPF_MAP_DELETE_ELEM)", 3),
    command("bpf(BPF_MAP_GET_NEXT_KEY)", 4),
    command("bpf(BPF_PROG_LOAD)", 5),
    command("bpf(BPF_OBJ_PIN)", 6),
    command("bpf(BPF_OBJ_GET)", 7),
    command("bpf(BPF_PROG_TEST_RUN)", 10),
    command("bpf(BPF_PROG_GET_NEXT_ID)", 11),
    command("bpf(BPF_PROG_GET_FD_BY_ID)", 13),
    command("bpf(BPF_MAP_GET_FD_BY_ID)", 14),
    command("bpf(BPF_OBJ_GET_INFO_BY_FD)", 15),
    command("bpf(BPF_PROG_QUERY)", 16),
    command("bpf(BPF_RAW_TRACEPOINT_OPEN)", 17),
    command("bpf(BPF_BTF_LOAD)", 18),
    command("bpf(BPF_MAP_FREEZE)", 22),
    command("bpf(BPF_MAP_LOOKUP_BATCH)", 24),
    command("bpf(BPF_LINK_CREATE)", 28),
    command("bpf(BPF_LINK_UPDATE)", 29),
    command("bpf(BPF_ITER_CREATE)", 33),
];

/// The structure that says what is wanted is none (`clone3`: EINVAL).
pub(crate) const CLONE3: Vain = vain("clone3", libc::SYS_clone3, [0, 0, 0, 0]);

/// Calls that whoever waits for something makes, the command line too. The kernel answers EBADF or EINVAL to each.
pub(crate) const WAITING: [Vain; 7] = [
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
    vain("writev", libc::SYS_writev, [NONE, 0, 0, 0]),
];

/// Calls that the agent makes on its way to the first service, and as it serves. The kernel answers EBADF, EFAULT or EINVAL to each.
/// What a filter may tell apart by an argument is there once for each that is used.
pub(crate) const USED: [Vain; 56] = [
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
    // A name at no address.
    vain("prctl(PR_SET_NAME)", libc::SYS_prctl, [libc::PR_SET_NAME as c_long, 0, 0, 0]),
    // No capability has the number.
    vain("prctl(PR_CAPBSET_READ)", libc::SYS_prctl, [libc::PR_CAPBSET_READ as c_long, NONE, 0, 0]),
    // What is to be cleared takes no capability.
    vain(
        "prctl(PR_CAP_AMBIENT)",
        libc::SYS_prctl,
        [libc::PR_CAP_AMBIENT as c_long, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_long, 1, 0],
    ),
    // It cannot be taken back.
    vain(
        "prctl(PR_SET_NO_NEW_PRIVS)",
        libc::SYS_prctl,
        [libc::PR_SET_NO_NEW_PRIVS as c_long, 0, 0, 0],
    ),
    vain("pwrite64", libc::SYS_pwrite64, [NONE, 0, 0, 0]),
    vain("sched_getattr", libc::SYS_sched_getattr, [NONE, 0, 0, 0]),
    vain("seccomp", libc::SYS_seccomp, [NONE, 0, 0, 0]),
    // A filter at no address.
    vain(
        "seccomp(SECCOMP_SET_MODE_FILTER)",
        libc::SYS_seccomp,
        [libc::SECCOMP_SET_MODE_FILTER as c_long, 0, 0, 0],
    ),
    vain("setpgid", libc::SYS_setpgid, [NONE, NONE, 0, 0]),
    vain("unlinkat", libc::SYS_unlinkat, [NONE, 0, NONE, 0]),
    vain("fchmod", libc::SYS_fchmod, [NONE, 0, 0, 0]),
    vain("fchown", libc::SYS_fchown, [NONE, NONE, NONE, 0]),
    vain("pread64", libc::SYS_pread64, [NONE, 0, 0, 0]),
    vain("shutdown", libc::SYS_shutdown, [NONE, 0, 0, 0]),
    vain("getsockname", libc::SYS_getsockname, [NONE, 0, 0, 0]),
    vain("getpeername", libc::SYS_getpeername, [NONE, 0, 0, 0]),
    vain("lseek", libc::SYS_lseek, [NONE, 0, 0, 0]),
    // It takes nothing that could be wrong, and does nothing.
    vain("getpid", libc::SYS_getpid, [0, 0, 0, 0]),
    vain("pidfd_send_signal", libc::SYS_pidfd_send_signal, [NONE, 0, 0, NONE]),
    vain("fstat", libc::SYS_fstat, [NONE, 0, 0, 0]),
    vain("newfstatat", libc::SYS_newfstatat, [NONE, 0, 0, 0]),
    vain("pidfd_open", libc::SYS_pidfd_open, [NONE, 0, 0, 0]),
    vain("prlimit64", libc::SYS_prlimit64, [0, NONE, 0, 0]),
    vain("statfs", libc::SYS_statfs, [0, 0, 0, 0]),
    vain("statx", libc::SYS_statx, [NONE, 0, NONE, 0]),
    // Of no family, which who restricts families refuses in these words.
    vain("socket", libc::SYS_socket, [NONE, NONE, NONE, 0]).or_no_family(),
    // The kind is none that any family has.
    vain("socket(AF_UNIX)", libc::SYS_socket, [libc::AF_UNIX as c_long, NONE, 0, 0]),
    vain("socket(AF_NETLINK)", libc::SYS_socket, [libc::AF_NETLINK as c_long, NONE, 0, 0]),
    vain("socket(AF_INET)", libc::SYS_socket, [libc::AF_INET as c_long, NONE, 0, 0]),
    vain("memfd_create", libc::SYS_memfd_create, [0, NONE, 0, 0]),
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

/// Calls by which files and directories are changed by their names, which are at no address. Of the C library, and of the other
/// architecture, which has the newer ones alone.
#[cfg(target_arch = "x86_64")]
pub(crate) const BY_NAME: [Vain; 7] = [
    vain("chmod", libc::SYS_chmod, [0, 0, 0, 0]),
    vain("dup2", libc::SYS_dup2, [NONE, NONE, 0, 0]),
    vain("mkdir", libc::SYS_mkdir, [0, 0, 0, 0]),
    vain("readlink", libc::SYS_readlink, [0, 0, 0, 0]),
    vain("rename", libc::SYS_rename, [0, 0, 0, 0]),
    vain("rmdir", libc::SYS_rmdir, [0, 0, 0, 0]),
    vain("unlink", libc::SYS_unlink, [0, 0, 0, 0]),
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const BY_NAME: [Vain; 4] = [
    vain("fchmodat", libc::SYS_fchmodat, [NONE, 0, 0, 0]),
    vain("mkdirat", libc::SYS_mkdirat, [NONE, 0, 0, 0]),
    vain("readlinkat", libc::SYS_readlinkat, [NONE, 0, 0, 0]),
    vain("renameat", libc::SYS_renameat, [NONE, 0, NONE, 0]),
];

/// Takes a capability that is none; without CAP_SETPCAP the kernel refuses any (`cap_prctl_drop`).
pub(crate) const CAPBSET_DROP: Vain =
    vain("prctl(PR_CAPBSET_DROP)", libc::SYS_prctl, [libc::PR_CAPBSET_DROP as c_long, NONE, 0, 0]);

/// More groups than there may be; without CAP_SETGID the kernel refuses any (`may_setgroups`).
pub(crate) const SETGROUPS: Vain =
    vain("setgroups", libc::SYS_setgroups, [i32::MAX as c_long, 0, 0, 0]);

/// Joins a keyring with a name at no address.
pub(crate) const KEYCTL: Vain =
    vain("keyctl", libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 1, 0, 0]);

/// Calls by which servers are started, of a launcher that is the agent's own.
pub(crate) const LAUNCHING: [Vain; 16] = [
    vain(
        "prctl(PR_SET_PDEATHSIG)",
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as c_long, NONE, 0, 0],
    ),
    vain("execve", libc::SYS_execve, [0, 0, 0, 0]),
    vain("dup3", libc::SYS_dup3, [NONE, NONE, NONE, 0]),
    vain("fchdir", libc::SYS_fchdir, [NONE, 0, 0, 0]),
    vain("setns", libc::SYS_setns, [NONE, 0, 0, 0]),
    // Nothing is to be changed.
    vain("setresuid", libc::SYS_setresuid, [NONE, NONE, NONE, 0]),
    vain("setresgid", libc::SYS_setresgid, [NONE, NONE, NONE, 0]),
    vain("setpriority", libc::SYS_setpriority, [NONE, 0, 0, 0]),
    vain("sched_setattr", libc::SYS_sched_setattr, [NONE, 0, 0, 0]),
    vain("sched_setaffinity", libc::SYS_sched_setaffinity, [0, 8, 0, 0]),
    vain("sched_getaffinity", libc::SYS_sched_getaffinity, [0, 1, 0, 0]),
    vain("ioprio_set", libc::SYS_ioprio_set, [NONE, 0, 0, 0]),
    // It is only asked for.
    vain("personality", libc::SYS_personality, [u32::MAX as c_long, 0, 0, 0]),
    // No set of signals has no size.
    vain("signalfd4", libc::SYS_signalfd4, [NONE, 0, 0, 0]),
    vain("wait4", libc::SYS_wait4, [NONE, 0, NONE, 0]),
    vain("waitid", libc::SYS_waitid, [NONE, 0, 0, 0]),
];

/// Calls that do what they are for whatever they are made with. They are for a process that ends right after.
pub(crate) const LASTING: [Vain; 2] =
    [vain("setsid", libc::SYS_setsid, [0, 0, 0, 0]), vain("umask", libc::SYS_umask, [0, 0, 0, 0])];

impl Vain {
    const fn or_no_family(self) -> Self {
        Self { is_of_no_family: true, ..self }
    }

    /// What is answered; nothing where the kernel does as it is asked, and has nothing to do.
    pub(crate) fn answer(self) -> Option<io::Error> {
        let [first, second, third, fourth] = self.arguments;
        // SAFETY: each call is refused for a descriptor, a flag, a command or a size that does not exist, or for an address at which
        // nothing is, before the kernel reads or writes anything of ours: see where it is named.
        let result = unsafe {
            libc::syscall(self.number, first, second, third, fourth, 0 as c_long, 0 as c_long)
        };
        (result < 0).then(io::Error::last_os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_what_no_filter_does() {
        let all = USED.into_iter().chain(BY_NAME).chain(WAITING).chain(LAUNCHING).chain(COMMANDS);
        for call in all.chain([BPF, CLONE3, CAPBSET_DROP, SETGROUPS, KEYCTL]) {
            let answer = call.answer().and_then(|it| it.raw_os_error());
            let ours = [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::E2BIG];
            assert!(answer.is_none_or(|it| ours.contains(&it)), "{}: {answer:?}", call.name);
        }
    }
}
