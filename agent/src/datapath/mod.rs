//! The kernel side as the agent sees it: the only user of aya.
//!
//! Everything that steers lives in pinned maps and links, so that it works without any process of ours. A [`Datapath`]
//! therefore adopts what is pinned, or, where that is not whole, is built beside it and takes its place.
//!
//! - [`Datapath::steer`] is the switch: one update of one hash element.
//! - `listeners` takes running listeners over and gives them back, `flows` their open connections.
//! - `members` is which processes are a generation's, `types` how the programs find their way in the kernel's structures.
//! - `group` has connections moved whose listener closes before they were accepted.
//! - [`probe`] rehearses all of it where it disturbs nobody, to find out what this kernel can do.
//! - `pins` is where all of it is pinned, `programs` how they come into their places, which `place` knows.
//! - `directories` is how the directories of pins are made and removed, whatever is in there.
//! - `in_use` is which maps the attached programs go by, whatever is pinned.
//! - `whole` says whether what is pinned is that, and not something else of its name; `behind` is how one finds out.
//! - `tables` is what the programs go by, each a `table` that knows its name, `primary_sets` a copy that spares them a lookup, `counts` what they have counted.
//! - `contents` is of whom the maps have something, `restore` writes again what somebody changed in them.
//! - `way` is where a connection would go by the maps as they are.
//! - `others` finds the programs of others that steer here too.
//! - `endpoints` and `slots` are pure: what the maps should hold.

mod behind;
mod contents;
mod counts;
mod directories;
mod endpoints;
mod error;
mod events;
mod flows;
mod group;
mod held;
mod in_use;
mod kernel;
mod listeners;
mod lists;
mod members;
mod others;
mod pins;
mod place;
mod primary_sets;
pub mod probe;
mod programs;
mod restore;
mod slots;
mod survey;
mod table;
mod tables;
mod types;
mod way;
mod whole;

use std::{
    collections::HashSet,
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use agent_ebpf::{
    bind::BindRule,
    endpoint::{Endpoint as EndpointValue, EndpointKey},
    flow::{FlowCounts, GenerationKey, Tag},
    member::Enlistment,
    socket::Adoption,
    steering::{ListenerSet, ListenerSetKey, SteerCounts, Steering},
};
use aya::maps::{MapData, PerCpuArray};

pub use self::{
    contents::Contents,
    directories::{impossible_name, is_bpf},
    error::DatapathError,
    events::{Event, Events},
    flows::FlowAddress,
    group::Group,
    in_use::steering_program,
    kernel::{KernelLogs, MAPS},
    listeners::{AdoptedListener, ListenerToAdopt, WithProgram},
    lists::Lists,
    others::{LookupProgram, lookup_programs, others},
    pins::{Pinned, clear},
    place::{Place, is_of_an_agent},
    programs::{ATTACHED, COMFORTS},
    survey::{Survey, steers, steers_elsewhere},
    way::{Reach, Try, Way},
    whole::examine,
};
use self::{kernel::Kernel, members::MemberMap, programs::STEER, table::Table};

/// The pinned maps and programs of one agent.
pub struct Datapath {
    kernel: Kernel,
    endpoints: Table<EndpointKey, EndpointValue>,
    services: Table<u32, Steering>,
    listener_sets: Table<ListenerSetKey, ListenerSet>,
    flows: Table<GenerationKey, FlowCounts>,
    bind_rules: Table<GenerationKey, BindRule>,
    members: MemberMap,
    enlistments: Table<u32, Enlistment>,
    moved_binds: Table<u64, u32>,
    adoptions: Table<u64, Adoption>,
    steered: PerCpuArray<MapData, SteerCounts>,
    /// A plain handle: socket storage is read through `sock_diag` and written by the programs.
    tags: OwnedFd,
    /// The numbers of programs that are `migrate`, as far as they were asked for.
    migrate_numbers: HashSet<u32>,
}

impl Datapath {
    /// Adopts what is pinned below `pin_dir`, all of which is there: maps as they are, links with our programs put in.
    ///
    /// `steer` belongs to the calling thread's network namespace; the bind programs to `cgroup`, in which generations are
    /// launched.
    ///
    /// # Errors
    ///
    /// Names the step and the object. What was pinned before stays, and steers on.
    pub fn adopt(pin_dir: &Path, cgroup: &File) -> Result<Self, DatapathError> {
        Self::of(Kernel::adopt(pin_dir, cgroup)?)
    }

    /// Begins anew beside what is pinned, if anything is: with empty maps, and no program in its place before
    /// [`Self::assist`] and [`Self::take_over_steering`]. What is pinned and attached to this place is used again.
    ///
    /// # Errors
    ///
    /// Names the step and the object. What was pinned before steers on.
    pub fn begin(pin_dir: &Path, place: Place) -> Result<Self, DatapathError> {
        Self::of(Kernel::begin(pin_dir, place)?)
    }

    /// Puts every program in its place but the one that steers. From here on what is tagged is counted, and new generations
    /// are helped.
    ///
    /// # Errors
    ///
    /// Names the program. Those before it are in their place.
    pub fn assist(&mut self, cgroup: &File) -> Result<(), DatapathError> {
        let assistants = ATTACHED.into_iter().filter(|program| *program != STEER);
        for program in assistants {
            self.kernel.put_in_place(program, cgroup)?;
        }
        self.kernel.offer_comforts(cgroup);
        Ok(())
    }

    /// Has new connections go by these maps: from one SYN to the next, in place of what steered before. What was pinned
    /// before goes.
    ///
    /// # Errors
    ///
    /// Names the step. What steered before steers on.
    pub fn take_over_steering(&mut self, cgroup: &File) -> Result<(), DatapathError> {
        self.kernel.put_in_place(STEER, cgroup)?;
        self.kernel.finish()
    }

    /// Takes back, after a failure, what was made in vain. What was pinned before stays.
    pub fn abandon(self) {
        self.kernel.abandon();
    }

    fn of(mut kernel: Kernel) -> Result<Self, DatapathError> {
        Ok(Self {
            endpoints: kernel.table("ENDPOINTS")?,
            services: kernel.table("SERVICES")?,
            listener_sets: kernel.table("LISTENER_SETS")?,
            flows: kernel.table("FLOWS")?,
            bind_rules: kernel.table("BIND_RULES")?,
            members: MemberMap::of(&mut kernel)?,
            enlistments: kernel.table("ENLISTMENTS")?,
            moved_binds: kernel.table("MOVED_BINDS")?,
            adoptions: kernel.table("ADOPTIONS")?,
            steered: kernel.per_cpu("STEERED")?,
            tags: kernel.descriptor("TAGS")?,
            migrate_numbers: HashSet::new(),
            kernel,
        })
    }

    /// The kernel's reports, once.
    ///
    /// # Errors
    ///
    /// When the ring buffer cannot be mapped.
    pub fn take_events(&mut self) -> Result<Events, DatapathError> {
        self.kernel.take_events()
    }

    /// The kernel programs' log lines, once.
    ///
    /// # Errors
    ///
    /// When their ring buffer cannot be mapped.
    pub fn take_logs(&mut self) -> Result<KernelLogs, DatapathError> {
        self.kernel.take_logs()
    }

    /// The storage map whose value every socket of a generation carries, for `sock_diag` to read it from.
    pub fn tags(&self) -> BorrowedFd<'_> {
        self.tags.as_fd()
    }

    /// Reads a tag as `sock_diag` reports it.
    pub fn parse_tag(bytes: &[u8]) -> Option<Tag> {
        let (words, rest) = bytes.as_chunks::<4>();
        let &[service, generation, role, options_set] = words else { return None };
        let word = u32::from_ne_bytes;
        rest.is_empty().then(|| Tag {
            generation: GenerationKey { service: word(service), generation: word(generation) },
            role: word(role),
            options_set: word(options_set),
        })
    }

    /// The directories of the pins.
    pub fn pin_directories(&self) -> [PathBuf; 2] {
        self.kernel.pin_directories()
    }

    /// Pins again what somebody has unpinned, and says what that was. Nothing was detached meanwhile.
    ///
    /// # Errors
    ///
    /// When a pin cannot be made; calling again continues.
    pub fn mend_pins(&self) -> Result<Vec<PathBuf>, DatapathError> {
        self.kernel.mend_pins()
    }

    /// Unpins and detaches everything: the machine is as it was before the first agent.
    ///
    /// # Errors
    ///
    /// When a pin cannot be removed.
    pub fn remove(self) -> Result<(), DatapathError> {
        self.kernel.remove()
    }
}
