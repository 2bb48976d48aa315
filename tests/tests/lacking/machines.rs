//! The machines, each of which lacks one thing.

/// A machine that lacks something.
pub(crate) struct Lacking {
    /// Run before the agent, with `$RUN` and `$PINS` for the places where its directories are to be, in a mount namespace of its own;
    /// may set these, `$DIR`, `$PIN` and `$GROUP`, to others.
    pub(crate) prepare: &'static str,
    /// In front of the agent; `$FILTER NUMBER ANSWER` has a system call answered like that, and `$NAME` is its number.
    pub(crate) wrapper: &'static str,
    /// What `attach` and `daemon` say.
    pub(crate) reason: &'static str,
    /// What of the fix.
    pub(crate) fix: &'static str,
    /// The check of `doctor` that is not as it should be.
    pub(crate) check: &'static str,
}

pub(crate) const MACHINES: &[Lacking] = &[
    Lacking {
        prepare: "mount -t tmpfs -o ro none $RUN",
        wrapper: "",
        reason: "Read-only file system",
        fix: "mount -o remount,rw",
        check: "runtime directory",
    },
    Lacking {
        prepare: "mount -t tmpfs -o nr_inodes=1 none $RUN",
        wrapper: "",
        reason: "No space left on device",
        fix: "make room",
        check: "runtime directory",
    },
    Lacking {
        prepare: "mount -t tmpfs -o size=64k none $RUN; ! head -c 1M /dev/zero > $RUN/full 2> /dev/null",
        wrapper: "",
        reason: "No space left on device",
        fix: "make room",
        check: "runtime directory",
    },
    Lacking {
        prepare: "mount -t bpf none $PINS; mount -o remount,ro $PINS",
        wrapper: "",
        reason: "Read-only file system",
        fix: "mount -o remount,rw",
        check: "BPF file system",
    },
    Lacking {
        prepare: "",
        wrapper: "prlimit --nofile=8",
        reason: "",
        fix: "LimitNOFILE=",
        check: "open files",
    },
    Lacking {
        prepare: "",
        wrapper: "prlimit --nofile=14",
        reason: "at most 14 files may be open",
        fix: "LimitNOFILE=",
        check: "open files",
    },
    Lacking {
        prepare: "",
        wrapper: "prlimit --nofile=80",
        reason: "at most 80 files may be open",
        fix: "LimitNOFILE=",
        check: "open files",
    },
    Lacking {
        prepare: "",
        wrapper: "prlimit --fsize=1000",
        reason: "File too large",
        fix: "LimitFSIZE=",
        check: "runtime directory",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin",
        reason: "the agent lacks CAP_SYS_ADMIN",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace",
        reason: "the agent lacks CAP_SYS_PTRACE: without it nobody can see whose a listener is",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "setpriv --bounding-set=-dac_override --inh-caps=-dac_override",
        reason: "the agent lacks CAP_DAC_OVERRIDE",
        fix: "in a container, give it this capability",
        check: "capabilities",
    },
    Lacking {
        prepare: "",
        wrapper: "unshare --user --map-root-user",
        reason: "root of a user namespace only",
        fix: "not in a rootless container",
        check: "user",
    },
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $BPF $EPERM",
        "a filter of system calls (seccomp) refuses `bpf`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $BPF $ENOSYS",
        "a filter of system calls (seccomp) refuses `bpf`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $PIDFD_OPEN $EPERM",
        "a filter of system calls (seccomp) refuses `pidfd_open`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $PIDFD_OPEN $ENOSYS",
        "a filter of system calls (seccomp) refuses `pidfd_open`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $CLONE3 $EPERM",
        "a filter of system calls (seccomp) refuses `clone3`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $PRLIMIT64 $EPERM",
        "a filter of system calls (seccomp) refuses `prlimit64`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $STATFS $EPERM",
        "a filter of system calls (seccomp) refuses `statfs`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $STATX $ENOSYS",
        "a filter of system calls (seccomp) refuses `statx`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SOCKET $EPERM",
        "a filter of system calls (seccomp) refuses `socket`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $GETSOCKOPT $EPERM",
        "a filter of system calls (seccomp) refuses `getsockopt`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SETSOCKOPT $EPERM",
        "a filter of system calls (seccomp) refuses `setsockopt`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $ACCEPT4 $EPERM",
        "a filter of system calls (seccomp) refuses `accept4`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $ACCEPT4 $ENOSYS",
        "a filter of system calls (seccomp) refuses `accept4`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $EPOLL_CTL $EPERM",
        "a filter of system calls (seccomp) refuses `epoll_ctl`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SOCKETPAIR $EAFNOSUPPORT",
        "a filter of system calls (seccomp) refuses `socketpair`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SOCKET:1 $EAFNOSUPPORT",
        "a filter of system calls (seccomp) refuses `socket(AF_UNIX)`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SOCKET:16 $EAFNOSUPPORT",
        "a filter of system calls (seccomp) refuses `socket(AF_NETLINK)`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $PRCTL:1 $EPERM",
        "a filter of system calls (seccomp) refuses `prctl(PR_SET_PDEATHSIG)`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $PRCTL:24 $EPERM",
        "a filter of system calls (seccomp) refuses `prctl(PR_CAPBSET_DROP)`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SETRESUID $EPERM",
        "a filter of system calls (seccomp) refuses `setresuid`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $SCHED_SETATTR $EPERM",
        "a filter of system calls (seccomp) refuses `sched_setattr`",
    ),
    filtered(
        "/usr/bin/python3 -c \"$FILTER\" $MEMFD_CREATE $ENOSYS",
        "a filter of system calls (seccomp) refuses `memfd_create`",
    ),
    // As the kernel answers what is made in vain, so that the launcher is the first to see it.
    Lacking {
        prepare: "",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $PRCTL:1 $EINVAL",
        reason: "the launcher, as it started, could not end with the agent",
        fix: "let it pass, whatever refuses it",
        check: "launcher",
    },
    Lacking {
        prepare: "",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $SOCKETPAIR $EMFILE",
        reason: "a pair of Unix sockets cannot be had",
        fix: "let the agent open more files",
        check: "kernel objects",
    },
    Lacking {
        prepare: "",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $INOTIFY_INIT1 $EMFILE",
        reason: "an inotify instance cannot be had",
        fix: "sysctl fs.inotify.max_user_instances=",
        check: "kernel objects",
    },
    Lacking {
        prepare: "",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $INOTIFY_ADD_WATCH $ENOSPC",
        reason: "an inotify watch cannot be had",
        fix: "sysctl fs.inotify.max_user_watches=",
        check: "kernel objects",
    },
    Lacking {
        prepare: "",
        wrapper: "sh -c 'umount -l /proc && exec \"$@\"' sh",
        reason: "`/proc` is not mounted",
        fix: "mount -t proc proc /proc",
        check: "process file system",
    },
    Lacking {
        prepare: "",
        wrapper: "unshare --pid --fork",
        reason: "`/proc` shows the processes of another PID namespace",
        fix: "mount -t proc proc /proc",
        check: "process file system",
    },
    Lacking {
        prepare: "mount -t proc -o subset=pid proc /proc",
        wrapper: "",
        reason: "`/proc` shows nothing but processes",
        fix: "ProcSubset=all",
        check: "process file system",
    },
    Lacking {
        prepare: "umount -a -t cgroup2",
        wrapper: "",
        reason: "no cgroup2 file system is mounted",
        fix: "mount it: ",
        check: "control groups",
    },
    Lacking {
        prepare: "mount -t tmpfs -o ro none /proc/sys",
        wrapper: "",
        reason: "`/proc/sys` does not show the settings of the kernel",
        fix: "umount /proc/sys",
        check: "process file system",
    },
    Lacking {
        prepare: "mount -t tmpfs none /dev; mknod -m 666 /dev/urandom c 1 9",
        wrapper: "",
        reason: "`/dev/null`, which the agent and servers are started with, cannot be used",
        fix: "mknod -m 666 /dev/null c 1 3",
        check: "null device",
    },
    Lacking {
        prepare: "mount -t tmpfs none /sys",
        wrapper: "",
        reason: "sysfs is not mounted at `/sys`",
        fix: "mount -t sysfs sysfs /sys",
        check: "sysfs",
    },
    Lacking {
        prepare: "PIN=$PINS/$(printf %0300d 0)",
        wrapper: "",
        reason: "its name has more than 255 bytes",
        fix: "--pin-dir",
        check: "BPF file system",
    },
    Lacking {
        prepare: "PIN=$PINS",
        wrapper: "",
        reason: "is where the BPF file system is mounted",
        fix: "name one below it",
        check: "BPF file system",
    },
    Lacking {
        prepare: "PIN=$RUN/pins",
        wrapper: "",
        reason: "is no BPF file system",
        fix: "--pin-dir",
        check: "BPF file system",
    },
    Lacking {
        prepare: "! mountpoint -q /sys/fs/bpf || umount -l /sys/fs/bpf; PIN=/sys/fs/bpf/agent-of-a-test",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $MOUNT $EPERM",
        reason: "mount the BPF file system at `/sys/fs/bpf`",
        fix: "pass it in",
        check: "pinning",
    },
    Lacking {
        prepare: "PIN=$PINS/a.b",
        wrapper: "",
        reason: "the BPF file system takes no name with a dot",
        fix: "--pin-dir",
        check: "BPF file system",
    },
    Lacking {
        prepare: "DIR=$RUN/other; mkdir $DIR; chown 1000 $DIR",
        wrapper: "",
        reason: "belongs to uid 1000",
        fix: "--runtime-dir",
        check: "runtime directory",
    },
    Lacking {
        prepare: "DIR=$RUN/other; mkdir -m 1777 $DIR",
        wrapper: "",
        reason: "can be changed by others",
        fix: "--runtime-dir",
        check: "runtime directory",
    },
    Lacking {
        prepare: "DIR=$RUN/$(printf %0100d 0)",
        wrapper: "",
        reason: "longer than 107 bytes",
        fix: "--runtime-dir",
        check: "runtime directory",
    },
    Lacking {
        prepare: "DIR=$RUN/file; touch $DIR",
        wrapper: "",
        reason: "is no directory",
        fix: "--runtime-dir",
        check: "runtime directory",
    },
    Lacking {
        prepare: "ABOVE=${GROUP%/*}; mount --bind $ABOVE $ABOVE; mount -o remount,bind,ro $ABOVE",
        wrapper: "",
        reason: "Read-only file system",
        fix: "mount -o remount,rw",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-few; GROUP=$ABOVE/agent; mkdir $ABOVE; echo 0 > $ABOVE/cgroup.max.descendants",
        wrapper: "",
        reason: "Resource temporarily unavailable",
        fix: "/cgroup.max.descendants`",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-few; GROUP=$ABOVE/agent; mkdir $ABOVE; echo 2 > $ABOVE/cgroup.max.descendants",
        wrapper: "",
        reason: "Resource temporarily unavailable",
        fix: "/cgroup.max.descendants`",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-few; GROUP=$ABOVE/agent; mkdir $ABOVE; echo 3 > $ABOVE/cgroup.max.descendants",
        wrapper: "",
        reason: "Resource temporarily unavailable",
        fix: "/cgroup.max.descendants`",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-flat; GROUP=$ABOVE/agent; mkdir $ABOVE; echo 0 > $ABOVE/cgroup.max.depth",
        wrapper: "",
        reason: "Resource temporarily unavailable",
        fix: "/cgroup.max.depth`",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-flat; GROUP=$ABOVE/agent; mkdir $ABOVE; echo 1 > $ABOVE/cgroup.max.depth",
        wrapper: "",
        reason: "Resource temporarily unavailable",
        fix: "/cgroup.max.depth`",
        check: "control groups",
    },
    Lacking {
        prepare: "ABOVE=$GROUP-threads; GROUP=$ABOVE/agent; mkdir $ABOVE; echo threaded > $ABOVE/cgroup.type",
        wrapper: "",
        reason: "no process can join control group",
        fix: "name another group (`--cgroup`)",
        check: "control groups",
    },
    Lacking {
        prepare: "GROUP=${GROUP%/*}/cgroup.procs",
        wrapper: "",
        reason: "Not a directory",
        fix: "name another group (`--cgroup`)",
        check: "control groups",
    },
    Lacking {
        prepare: "GROUP=${GROUP%/*}/cgroup.procs/agent",
        wrapper: "",
        reason: "Not a directory",
        fix: "name another group (`--cgroup`)",
        check: "control groups",
    },
    Lacking {
        prepare: "trap 'echo 20480 > /proc/sys/net/core/optmem_max' EXIT; echo 100 > /proc/sys/net/core/optmem_max",
        wrapper: "",
        reason: "`net.core.optmem_max` is 100",
        fix: "sysctl net.core.optmem_max=20480",
        check: "socket options",
    },
    Lacking {
        prepare: "DIR=${GROUP%/*}/agent-test-run",
        wrapper: "",
        reason: "files cannot be made in",
        fix: "--runtime-dir",
        check: "runtime directory",
    },
    Lacking {
        prepare: "",
        wrapper: "/usr/bin/python3 -c \"$FILTER\" $BPF:0 $ENOMEM",
        reason: "Cannot allocate memory",
        fix: "more memory",
        check: "tables",
    },
    Lacking {
        prepare: "mount -t tmpfs none /sys/kernel",
        wrapper: "",
        reason: "",
        fix: "umount /sys/kernel",
        check: "kernel types (BTF)",
    },
    Lacking {
        prepare: "mount --bind /dev/null /sys/kernel/btf/vmlinux",
        wrapper: "",
        reason: "",
        fix: "umount /sys/kernel/btf/vmlinux",
        check: "kernel types (BTF)",
    },
];

/// One on which something like a container refuses a system call.
const fn filtered(wrapper: &'static str, reason: &'static str) -> Lacking {
    let (fix, check) = ("let it pass: in a container by its profile", "system calls");
    Lacking { prepare: "", wrapper, reason, fix, check }
}
