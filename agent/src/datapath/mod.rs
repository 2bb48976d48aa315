//! The kernel side as the agent sees it: the only user of aya.
//!
//! Everything that steers lives in pinned maps and links, so that it works without any process of ours. A [`Datapath`]
//! therefore adopts what is pinned, or, where that is not whole, is built beside it and takes its place.
//!
//! - [`Datapath::steer`] is the switch: one update of one hash element.
//! - `listeners` takes running listeners over and gives them back, `flows` their open connections.
//! - `group` has connections moved whose listener closes before they were accepted.
//! - [`probe`] rehearses all of it where it disturbs nobody, to find out what this kernel can do.
//! - `pins` is where all of it is pinned, `programs` how they come into their places.
//! - `endpoints` and `slots` are pure: what the maps should hold.

mod endpoints;
mod error;
mod events;
mod flows;
mod group;
mod held;
mod kernel;
mod listeners;
mod pins;
pub mod probe;
mod programs;
mod slots;
mod survey;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use agent_ebpf::{
    bind::BindRule,
    endpoint::{Endpoint as EndpointValue, EndpointKey},
    flow::{FlowCounts, GenerationKey, Tag},
    socket::Adoption,
    steering::{ListenerSet, ListenerSetKey, PLAIN, SteerCounts, Steering},
};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};

pub use self::{
    error::DatapathError,
    events::{Event, Events},
    flows::FlowAddress,
    group::Group,
    kernel::KernelLogs,
    listeners::{AdoptedListener, ListenerToAdopt},
    pins::{Pinned, clear, examine},
    survey::{Survey, steers, steers_elsewhere},
};
use self::{
    error::Named as _,
    kernel::Kernel,
    programs::{ATTACHED, STEER},
};
use crate::service::{Endpoint, GenerationId, GenerationNumber, ServiceId};

/// The pinned maps and programs of one agent.
pub struct Datapath {
    kernel: Kernel,
    endpoints: HashMap<MapData, EndpointKey, EndpointValue>,
    services: HashMap<MapData, u32, Steering>,
    listener_sets: HashMap<MapData, ListenerSetKey, ListenerSet>,
    flows: HashMap<MapData, GenerationKey, FlowCounts>,
    bind_rules: HashMap<MapData, u64, BindRule>,
    moved_binds: HashMap<MapData, u64, u32>,
    adoptions: HashMap<MapData, u64, Adoption>,
    steered: PerCpuArray<MapData, SteerCounts>,
    /// A plain handle: socket storage is read through `sock_diag` and written by the programs.
    tags: OwnedFd,
}

impl Datapath {
    /// Adopts what is pinned below `pin_dir`, all of which is there: maps as they are, links with our programs put in.
    ///
    /// `steer` belongs to the calling thread's network namespace; the bind programs to `cgroup`, whose children (at depth
    /// `generation_level`) hold one generation each.
    ///
    /// # Errors
    ///
    /// Names the step and the object. What was pinned before stays, and steers on.
    pub fn adopt(
        pin_dir: &Path,
        cgroup: &File,
        generation_level: u32,
    ) -> Result<Self, DatapathError> {
        Self::of(Kernel::adopt(pin_dir, cgroup, generation_level)?)
    }

    /// Begins anew beside what is pinned, if anything is: with empty maps, and no program in its place before
    /// [`Self::assist`] and [`Self::take_over_steering`].
    ///
    /// # Errors
    ///
    /// Names the step and the object. What was pinned before steers on.
    pub fn begin(pin_dir: &Path, generation_level: u32) -> Result<Self, DatapathError> {
        Self::of(Kernel::begin(pin_dir, generation_level)?)
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
            endpoints: kernel.hash("ENDPOINTS")?,
            services: kernel.hash("SERVICES")?,
            listener_sets: kernel.hash("LISTENER_SETS")?,
            flows: kernel.hash("FLOWS")?,
            bind_rules: kernel.hash("GENERATION_CGROUPS")?,
            moved_binds: kernel.hash("MOVED_BINDS")?,
            adoptions: kernel.hash("ADOPTIONS")?,
            steered: kernel.per_cpu("STEERED")?,
            tags: kernel.descriptor("TAGS")?,
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

    /// Makes exactly the endpoints of these services ours: adds, changes and removes what differs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a change; those before it stay made.
    pub fn set_endpoints<'a>(
        &mut self,
        services: impl IntoIterator<Item = (ServiceId, &'a [Endpoint])>,
    ) -> Result<(), DatapathError> {
        let wanted = endpoints::entries(services);
        let present: BTreeMap<_, _> =
            self.endpoints.iter().collect::<Result<_, _>>().named("read", "ENDPOINTS")?;
        for (key, value) in &wanted {
            if present.get(key) != Some(value) {
                self.endpoints.insert(key, value, 0).named("write", "ENDPOINTS")?;
            }
        }
        for key in present.keys().filter(|key| !wanted.contains_key(key)) {
            self.endpoints.remove(key).named("remove from", "ENDPOINTS")?;
        }
        Ok(())
    }

    /// Switches a service: from the next packet on, on every CPU and all its ports at once.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; steering is then as it was.
    pub fn steer(&mut self, service: ServiceId, steering: &Steering) -> Result<(), DatapathError> {
        self.services.insert(service.0, steering, 0).named("write", "SERVICES")
    }

    /// Where a service's new connections go, if it has any steering.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn steering(&self, service: ServiceId) -> Result<Option<Steering>, DatapathError> {
        error::found(self.services.get(&service.0, 0)).named("read", "SERVICES")
    }

    /// Takes over a generation's listeners: tags them, shares their ports if `share`, puts each into the socket map, and
    /// makes them the generation's set for each endpoint they serve.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a step. What was done stays, and steers nothing until [`Self::steer`].
    pub fn adopt_listeners(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
        listeners: &[ListenerToAdopt],
    ) -> Result<Vec<AdoptedListener>, DatapathError> {
        self.count_flows_of(generation)?;
        let mut adopted = Vec::new();
        for endpoint in endpoints {
            let serving = listeners::serving(endpoint, listeners);
            let first = self.free_slots(serving.len())?;
            let placed = self.place_listeners(generation, first, &serving)?;
            let count = if placed.iter().all(|it| it.in_map) { placed.len() as u32 } else { PLAIN };
            let key = listener_set_key(generation, endpoint);
            self.listener_sets
                .insert(key, ListenerSet { first, count }, 0)
                .named("write", "LISTENER_SETS")?;
            adopted.extend(placed);
        }
        Ok(adopted)
    }

    /// The generations of a service of which any map knows anything.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn generations(
        &self,
        service: ServiceId,
    ) -> Result<BTreeSet<GenerationNumber>, DatapathError> {
        let sets = self.listener_sets.keys().map(|key| key.map(|it| (it.service, it.generation)));
        let flows = self.flows.keys().map(|key| key.map(|it| (it.service, it.generation)));
        let rules = self.bind_rules.iter().map(|entry| {
            entry.map(|(_, rule)| (rule.generation.service, rule.generation.generation))
        });
        let mut known = BTreeSet::new();
        for (map, keys) in [
            ("LISTENER_SETS", sets.collect::<Result<Vec<_>, _>>()),
            ("FLOWS", flows.collect()),
            ("GENERATION_CGROUPS", rules.collect()),
        ] {
            let of_service = keys.named("read", map)?.into_iter().filter(|key| key.0 == service.0);
            known.extend(of_service.map(|(_, number)| GenerationNumber(number)));
        }
        Ok(known)
    }

    /// Forgets a generation: its sets, its counters, its bind rule. Its sockets keep working.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn forget(
        &mut self,
        generation: GenerationId,
        endpoints: &[Endpoint],
    ) -> Result<(), DatapathError> {
        for endpoint in endpoints {
            let key = listener_set_key(generation, endpoint);
            error::gone(self.listener_sets.remove(&key)).named("remove from", "LISTENER_SETS")?;
        }
        error::gone(self.flows.remove(&generation.key())).named("remove from", "FLOWS")?;
        self.clear_bind_rule(generation)
    }

    /// Forgets whatever the maps have of generations that are not among these: an agent may have ended before it did.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn keep_only(&mut self, living: &BTreeSet<GenerationKey>) -> Result<(), DatapathError> {
        let lives = |key: &GenerationKey| living.contains(key);
        let sets = keys(&self.listener_sets).named("read", "LISTENER_SETS")?;
        let of_set =
            |it: &ListenerSetKey| GenerationKey { service: it.service, generation: it.generation };
        for key in sets.iter().filter(|key| !lives(&of_set(key))) {
            error::gone(self.listener_sets.remove(key)).named("remove from", "LISTENER_SETS")?;
        }
        for key in keys(&self.flows).named("read", "FLOWS")?.iter().filter(|key| !lives(key)) {
            error::gone(self.flows.remove(key)).named("remove from", "FLOWS")?;
        }
        for service in keys(&self.services).named("read", "SERVICES")? {
            if !living.iter().any(|key| key.service == service) {
                self.forget_service(ServiceId(service))?;
            }
        }
        for cgroup in keys(&self.bind_rules).named("read", "GENERATION_CGROUPS")? {
            let rule = error::found(self.bind_rules.get(&cgroup, 0));
            let rule = rule.named("read", "GENERATION_CGROUPS")?;
            if rule.is_some_and(|rule| !lives(&rule.generation)) {
                error::gone(self.bind_rules.remove(&cgroup))
                    .named("remove from", "GENERATION_CGROUPS")?;
            }
        }
        Ok(())
    }

    /// Forgets a service: from the next packet on its ports are the kernel's alone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; calling again continues.
    pub fn forget_service(&mut self, service: ServiceId) -> Result<(), DatapathError> {
        error::gone(self.services.remove(&service.0)).named("remove from", "SERVICES")?;
        self.kernel.reset_counts(&mut self.steered, service)
    }

    /// Says what binds of the service's ports in this cgroup meet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_bind_rule(&mut self, cgroup: u64, rule: BindRule) -> Result<(), DatapathError> {
        self.bind_rules.insert(cgroup, rule, 0).named("write", "GENERATION_CGROUPS")
    }

    /// The public port that a listener asked for, if its bind was moved to another one.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn moved_from(&self, cookie: u64) -> Result<Option<u16>, DatapathError> {
        let port = error::found(self.moved_binds.get(&cookie, 0)).named("read", "MOVED_BINDS")?;
        Ok(port.and_then(|port| u16::try_from(port).ok()))
    }

    /// How many flows a generation got, and how many of them ended.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn flow_counts(&self, generation: GenerationId) -> Result<FlowCounts, DatapathError> {
        Ok(error::found(self.flows.get(&generation.key(), 0))
            .named("read", "FLOWS")?
            .unwrap_or_default())
    }

    /// What became of the lookups for a service and of its unaccepted connections, all CPUs together.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn steer_counts(&self, service: ServiceId) -> Result<SteerCounts, DatapathError> {
        let per_cpu = self.steered.get(&service.0, 0).named("read", "STEERED")?;
        Ok(per_cpu.iter().fold(SteerCounts::default(), |sum, cpu| SteerCounts {
            steered: sum.steered + cpu.steered,
            plain: sum.plain + cpu.plain,
            fallback: sum.fallback + cpu.fallback,
            unreached: sum.unreached + cpu.unreached,
            reported_at: sum.reported_at.max(cpu.reported_at),
            moved: sum.moved + cpu.moved,
            stranded: sum.stranded + cpu.stranded,
            move_reported_at: sum.move_reported_at.max(cpu.move_reported_at),
        }))
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

    /// Gives a generation counters, unless it has some: nothing is counted without.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn count_flows_of(&mut self, generation: GenerationId) -> Result<(), DatapathError> {
        if error::found(self.flows.get(&generation.key(), 0)).named("read", "FLOWS")?.is_none() {
            self.flows
                .insert(generation.key(), FlowCounts::default(), 0)
                .named("write", "FLOWS")?;
        }
        Ok(())
    }

    fn free_slots(&self, count: usize) -> Result<u32, DatapathError> {
        let used: Vec<_> = self
            .listener_sets
            .iter()
            .map(|entry| entry.map(|(_, set)| set))
            .collect::<Result<_, _>>()
            .named("read", "LISTENER_SETS")?;
        slots::free_range(&used, count as u32).ok_or(DatapathError::SocketMapFull { wanted: count })
    }

    fn clear_bind_rule(&mut self, generation: GenerationId) -> Result<(), DatapathError> {
        let cgroups: Vec<u64> = self
            .bind_rules
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, rule)| rule.generation == generation.key())
            .map(|(cgroup, _)| cgroup)
            .collect();
        for cgroup in cgroups {
            error::gone(self.bind_rules.remove(&cgroup))
                .named("remove from", "GENERATION_CGROUPS")?;
        }
        Ok(())
    }
}

fn keys<K: aya::Pod, V: aya::Pod>(map: &HashMap<MapData, K, V>) -> Result<Vec<K>, MapError> {
    map.keys().collect()
}

const fn listener_set_key(generation: GenerationId, endpoint: &Endpoint) -> ListenerSetKey {
    ListenerSetKey {
        service: generation.service.0,
        generation: generation.number.0,
        endpoint: endpoint.number,
    }
}
