//! Which processes belong to a generation, as the kernel programs follow them.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::OwnedFd,
};

use agent_ebpf::{
    flow::GenerationKey,
    holder::SocketHolder,
    member::{Enlistment, Member},
};

use super::{
    Datapath, DatapathError,
    error::{self, Named as _},
};
use crate::{
    host::{bounded, process::Pid, sock_diag::SocketInode},
    service::GenerationId,
    sys,
};

impl Datapath {
    /// Takes processes into a generation. Whatever they fork from now on belongs to it too.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. A process that is gone is no error, but is not among the [`members`](Self::members).
    pub fn enlist(
        &mut self,
        generation: GenerationId,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), DatapathError> {
        self.walk_processes(generation.key(), pids)
    }

    /// Lets processes go. What they have forked stays where it is.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn dismiss(&mut self, pids: impl IntoIterator<Item = Pid>) -> Result<(), DatapathError> {
        self.walk_processes(GenerationKey { service: 0, generation: 0 }, pids)
    }

    /// The processes of a generation, by our own numbers.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn members(&self, generation: GenerationId) -> Result<Vec<Pid>, DatapathError> {
        let mut pids = Vec::new();
        for entry in self.members.iter() {
            let (_, member): (u32, Member) = entry.named("read", MEMBERS)?;
            if member.generation == generation.key() {
                pids.extend(i32::try_from(member.pid).ok().and_then(Pid::new));
            }
        }
        pids.sort_unstable();
        // A walk begins anew where the element that it stands at is removed.
        pids.dedup();
        Ok(pids)
    }

    /// Whose a process is, if it is anybody's.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn generation_of(&self, pid: Pid) -> Result<Option<GenerationKey>, DatapathError> {
        for entry in self.members.iter() {
            let (_, member): (u32, Member) = entry.named("read", MEMBERS)?;
            if i32::try_from(member.pid) == Ok(pid.get()) {
                return Ok(Some(member.generation));
            }
        }
        Ok(None)
    }

    /// Lists who has which sockets open, again and again, for as long as this is kept.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn open_sockets(&self) -> Result<OpenSockets, DatapathError> {
        self.kernel.link_sockets().map(OpenSockets)
    }

    /// Forgets the processes of a generation.
    pub(super) fn dismiss_all(&mut self, generation: GenerationKey) -> Result<(), DatapathError> {
        let mut gone = Vec::new();
        for entry in self.members.iter() {
            let (process, member): (u32, Member) = entry.named("read", MEMBERS)?;
            if member.generation == generation {
                gone.push(process);
            }
        }
        for process in gone {
            error::gone(self.members.remove(&process)).named("remove from", MEMBERS)?;
        }
        Ok(())
    }

    fn walk_processes(
        &mut self,
        generation: GenerationKey,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), DatapathError> {
        const MAP: &str = "ENLISTMENTS";
        // Of an agent that was killed in its walk.
        let left: Vec<u32> =
            self.enlistments.keys().collect::<Result<_, _>>().named("read", MAP)?;
        for pid in left {
            error::gone(self.enlistments.remove(&pid)).named("remove from", MAP)?;
        }
        let mut wanted = Vec::new();
        for pid in pids {
            let pid = pid.get().cast_unsigned();
            self.enlistments.insert(pid, Enlistment { generation }, 0).named("write", MAP)?;
            wanted.push(pid);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let walked = self.kernel.walk_tasks().and_then(read_to_end);
        for pid in wanted {
            error::gone(self.enlistments.remove(&pid)).named("remove from", MAP)?;
        }
        walked
    }
}

/// All sockets that processes have open, as `list_sockets` finds them.
#[derive(Debug)]
pub struct OpenSockets(OwnedFd);

impl OpenSockets {
    /// Those that there are now, by process. Sockets of io_uring that have no descriptor are not among them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, and when there are more than anybody has.
    pub fn list(&self) -> io::Result<HashMap<Pid, HashSet<SocketInode>>> {
        /// Of four million sockets.
        const MOST: u64 = 64 << 20;
        let told = bounded::whole(sys::bpf::run_iterator(&self.0)?, MOST)?;
        let mut found: HashMap<_, HashSet<_>> = HashMap::new();
        let (holders, _) = told.as_chunks::<{ size_of::<SocketHolder>() }>();
        for [a, b, c, d, e, f, g, h, pid @ .., _, _, _, _] in holders {
            let inode = u64::from_ne_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let pid = i32::try_from(u32::from_ne_bytes(*pid)).ok().and_then(Pid::new);
            if let Some(pid) = pid {
                found.entry(pid).or_default().insert(SocketInode(inode));
            }
        }
        Ok(found)
    }
}

/// The program writes nothing: reading is what makes the kernel walk.
fn read_to_end(mut file: File) -> Result<(), DatapathError> {
    io::copy(&mut file, &mut io::sink()).map(drop).map_err(DatapathError::Walk)
}

const MEMBERS: &str = "MEMBERS";
