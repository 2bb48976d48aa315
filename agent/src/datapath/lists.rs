//! What the kernel lists of all processes at once, as `list_processes` and `list_sockets` find it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use agent_ebpf::{
    process::{OpenRow, ProcessRow, RING},
    user,
};
use aya::Pod;

use super::{DatapathError, kernel::Kernel};
use crate::{
    host::{
        bounded,
        process::Pid,
        process_table::{Execution, KernelLists, OpenSockets, Row},
        sock_diag::SocketInode,
    },
    sys,
};

/// Links that run the two programs over everything there is.
#[derive(Debug)]
pub struct Lists {
    processes: OwnedFd,
    sockets: OwnedFd,
    /// The program of the latter, which runs over one process too.
    list_sockets: OwnedFd,
}

impl Lists {
    pub(super) fn of(kernel: &Kernel) -> Result<Self, DatapathError> {
        Ok(Self {
            processes: kernel.link_processes()?,
            sockets: kernel.link_sockets()?,
            list_sockets: kernel.list_sockets()?,
        })
    }
}

impl KernelLists for Lists {
    fn processes(&self) -> io::Result<Vec<Row>> {
        /// As many as a machine can have (`PID_MAX_LIMIT`).
        const MOST: usize = 4 << 20;
        let told: Vec<ProcessRow> = run(self.processes.as_fd(), MOST)?;
        Ok(told.into_iter().filter_map(row).collect())
    }

    fn open_sockets(&self) -> io::Result<OpenSockets> {
        open_in(self.sockets.as_fd())
    }

    fn open_sockets_of(&self, pid: Pid) -> io::Result<OpenSockets> {
        open_in(
            sys::bpf::link_iterator_over(&self.list_sockets, pid.get().cast_unsigned())?.as_fd(),
        )
    }
}

fn open_in(link: BorrowedFd<'_>) -> io::Result<OpenSockets> {
    const MOST: usize = 4 << 20;
    let mut open = OpenSockets::default();
    for OpenRow { number, pid, kind } in run(link, MOST)? {
        let Some(pid) = pid_of(pid) else { continue };
        match kind {
            RING => open.rings.entry(pid).or_default().push(number),
            _ => drop(open.sockets.entry(pid).or_default().insert(SocketInode(number))),
        }
    }
    Ok(open)
}

/// What a program has to say, up to `most` rows.
fn run<T: Pod>(link: BorrowedFd<'_>, most: usize) -> io::Result<Vec<T>> {
    let most = u64::try_from(most * size_of::<T>()).unwrap_or(u64::MAX);
    let told = bounded::whole(sys::bpf::run_iterator(link)?, most)?;
    Ok(user::rows(&told).collect())
}

fn row(told: ProcessRow) -> Option<Row> {
    let ProcessRow { program, code, stack, pid, parent, session, .. } = told;
    let ProcessRow { user, real_user, inside, threads, .. } = told;
    Some(Row {
        pid: pid_of(pid)?,
        inside: pid_of(inside)?,
        parent: pid_of(parent),
        session: pid_of(session),
        user,
        real_user,
        threads,
        execution: (program != 0).then_some(Execution { program, code, stack }),
    })
}

/// Nothing for 0, which is nobody's number.
fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::new)
}
