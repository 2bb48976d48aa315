//! Which processes belong to a generation, as the kernel programs follow them.

use std::{collections::BTreeMap, fs::File, io};

use agent_ebpf::{
    MAX_MEMBERS,
    flow::GenerationKey,
    member::{Enlistment, Member},
};
use agent_terms::{GenerationId, ServiceId};
use aya::maps::{Array, MapData, MapError};

use super::{
    Datapath, DatapathError, error::Named as _, kernel::Kernel, lists::Lists, table::Table,
};
use crate::{host::process::Pid, sys};

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
        let all = self.members.all()?;
        let its = all.into_iter().filter(|(_, member)| member.generation == generation.key());
        Ok(its.filter_map(|(_, member)| pid_of(member)).collect())
    }

    /// Whose a process is, if it is anybody's.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn generation_of(&self, pid: Pid) -> Result<Option<GenerationKey>, DatapathError> {
        let mut all = self.members.all()?.into_iter();
        let found = all.find(|(_, member)| pid_of(*member) == Some(pid));
        Ok(found.map(|(_, member)| member.generation))
    }

    /// How many processes each service has.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn members_by_service(&self) -> Result<BTreeMap<ServiceId, u32>, DatapathError> {
        let mut counts = BTreeMap::new();
        for (_, member) in self.members.all()? {
            *counts.entry(ServiceId(member.generation.service)).or_default() += 1;
        }
        Ok(counts)
    }

    /// What the kernel lists of all processes, again and again, for as long as this is kept.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn lists(&self) -> Result<Lists, DatapathError> {
        Lists::of(&self.kernel)
    }

    /// Forgets the processes of a generation.
    pub(super) fn dismiss_all(&mut self, generation: GenerationKey) -> Result<(), DatapathError> {
        let its =
            |(process, member): (u32, Member)| (member.generation == generation).then_some(process);
        let all = self.members.all()?;
        self.members.remove(ServiceId(generation.service), all.into_iter().filter_map(its))
    }

    /// A service that is forgotten has none.
    pub(super) fn forget_members(&mut self, service: ServiceId) -> Result<(), DatapathError> {
        self.members.count(service, 0)
    }

    fn walk_processes(
        &mut self,
        generation: GenerationKey,
        pids: impl IntoIterator<Item = Pid>,
    ) -> Result<(), DatapathError> {
        // Of an agent that was killed in its walk.
        for pid in self.enlistments.keys()? {
            self.enlistments.remove(pid)?;
        }
        let mut wanted = Vec::new();
        for pid in pids {
            let pid = pid.get().cast_unsigned();
            self.enlistments.put(pid, Enlistment { generation })?;
            wanted.push(pid);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let walked = self.kernel.walk_tasks().and_then(read_to_end);
        for pid in wanted {
            self.enlistments.remove(pid)?;
        }
        walked
    }
}

/// Who belongs to which generation. The kernel programs write it, also while we read.
pub(super) struct MemberMap {
    map: Table<u32, Member>,
    /// The same map.
    whole: MapData,
    /// How many each service has, so that the programs give none more than its share. It may be a few off, because what is read and
    /// written here changes in between: the share is no number that anything else goes by.
    counts: Array<MapData, u64>,
}

impl MemberMap {
    pub(super) fn of(kernel: &mut Kernel) -> Result<Self, DatapathError> {
        let whole = MapData::from_fd(kernel.descriptor(MEMBERS)?).named("open", MEMBERS)?;
        Ok(Self { map: kernel.table(MEMBERS)?, whole, counts: kernel.array(COUNTS)? })
    }

    /// By their numbers in the machine's first PID namespace.
    pub(super) fn all(&self) -> Result<Vec<(u32, Member)>, DatapathError> {
        all_members(&self.whole).named("read", MEMBERS)
    }

    fn remove(
        &mut self,
        service: ServiceId,
        processes: impl IntoIterator<Item = u32>,
    ) -> Result<(), DatapathError> {
        let mut removed = 0;
        for process in processes {
            removed += u64::from(self.map.remove(process)?);
        }
        let before = self.counts.get(&service.0, 0).named("read", COUNTS)?;
        self.count(service, before.saturating_sub(removed))
    }

    fn count(&mut self, service: ServiceId, members: u64) -> Result<(), DatapathError> {
        self.counts.set(service.0, members, 0).named("write", COUNTS)
    }
}

/// What `MEMBERS` has, wherever it is.
pub(super) fn all_members(map: &MapData) -> Result<Vec<(u32, Member)>, MapError> {
    sys::bpf::entries(map, MAX_MEMBERS)
}

fn pid_of(member: Member) -> Option<Pid> {
    i32::try_from(member.pid).ok().and_then(Pid::new)
}

/// The program writes nothing: reading is what makes the kernel walk.
fn read_to_end(mut file: File) -> Result<(), DatapathError> {
    io::copy(&mut file, &mut io::sink()).map(drop).map_err(DatapathError::Walk)
}

pub(super) const MEMBERS: &str = "MEMBERS";
const COUNTS: &str = "MEMBER_COUNTS";
