//! What the kernel lists of all processes at once, as `list_processes` and `list_sockets` find it.

use std::{
    collections::HashSet,
    io::{self, BufRead as _, BufReader, Read as _},
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
        let mut found = Vec::new();
        run(self.processes.as_fd(), |told| found.extend(row(told)))?;
        Ok(found)
    }

    fn open_sockets(&self, wanted: &HashSet<SocketInode>) -> io::Result<OpenSockets> {
        open_in(self.sockets.as_fd(), wanted)
    }

    fn open_sockets_of(&self, pid: Pid, wanted: &HashSet<SocketInode>) -> io::Result<OpenSockets> {
        let pid = pid.get().cast_unsigned();
        open_in(sys::bpf::link_iterator_over(&self.list_sockets, pid)?.as_fd(), wanted)
    }
}

/// Of millions of descriptors only those are kept that matter.
fn open_in(link: BorrowedFd<'_>, wanted: &HashSet<SocketInode>) -> io::Result<OpenSockets> {
    let mut open = OpenSockets::default();
    run(link, |OpenRow { file, number, pid, kind }| {
        let Some(pid) = pid_of(pid) else { return };
        match kind {
            RING => open.add_ring(file, pid, number),
            _ if wanted.contains(&SocketInode(number)) => open.add(pid, SocketInode(number)),
            _ => {}
        }
    })?;
    Ok(open)
}

/// Takes what a program has to say, row by row: how much that is, others decide.
fn run<T: Pod>(link: BorrowedFd<'_>, mut take: impl FnMut(T)) -> io::Result<()> {
    /// The kernel passes on no more at once (`bpf_seq_read`).
    const AT_ONCE: usize = 8 * 4096;
    let mut told = BufReader::with_capacity(AT_ONCE, sys::bpf::run_iterator(link)?);
    let mut row = vec![0; size_of::<T>()];
    while !told.fill_buf()?.is_empty() {
        told.read_exact(&mut row)?;
        user::rows(&row).for_each(&mut take);
    }
    Ok(())
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
