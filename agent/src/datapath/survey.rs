//! What the maps say, read without loading or attaching anything.
//!
//! Those that the attached programs work on are read, for they are what steers: a pin may be of another map by now.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use agent_ebpf::{
    endpoint::{Endpoint as EndpointValue, EndpointKey},
    flow::GenerationKey,
    steering::Steering,
};
use agent_terms::{Endpoint, ServiceId};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};

use super::{
    DatapathError,
    behind::{Behind, behind},
    directories::is_nothing,
    endpoints,
    error::{Named as _, program_error},
    in_use::{maps_in_use, steering_program},
    members::{MEMBERS, all_members},
    pins::{Pins, link},
    programs::STEER,
};

/// The content of the maps that an agent fills: what the kernel does, as long as nobody changes it.
#[derive(Debug)]
pub struct Survey {
    /// The endpoints of each service.
    pub endpoints: BTreeMap<ServiceId, Vec<Endpoint>>,
    /// Where each service's new connections go.
    pub steering: BTreeMap<ServiceId, Steering>,
    /// Whose the processes are that belong to a generation, by our numbers.
    pub members: BTreeMap<u32, GenerationKey>,
    /// The public ports of listeners whose binds were moved, by their cookies.
    pub moved_binds: BTreeMap<u64, u16>,
    /// The storage map whose value every socket of a generation carries, for `sock_diag` to read it from.
    pub tags: OwnedFd,
}

impl Survey {
    /// Reads what is in use or pinned below `pin_dir`.
    ///
    /// # Errors
    ///
    /// When a map is gone, or of another version.
    pub fn of(pin_dir: &Path) -> Result<Self, DatapathError> {
        let maps = Maps::below(pin_dir)?;
        let moved = maps.entries::<u64, u32>("MOVED_BINDS", Map::LruHashMap)?;
        let port = |(cookie, port)| Some((cookie, u16::try_from(port).ok()?));
        Ok(Self {
            endpoints: maps.endpoints()?,
            steering: maps
                .entries::<u32, Steering>("SERVICES", Map::HashMap)?
                .into_iter()
                .map(|(service, steering)| (ServiceId(service), steering))
                .collect(),
            members: maps
                .map(MEMBERS)
                .and_then(|map| all_members(&map))
                .named("read", MEMBERS)?
                .into_iter()
                .map(|(_, member)| (member.pid, member.generation))
                .collect(),
            moved_binds: moved.into_iter().filter_map(port).collect(),
            tags: maps.descriptor("TAGS")?,
        })
    }
}

/// Whether what is in use or pinned below `pin_dir` has an endpoint.
///
/// # Errors
///
/// When that cannot be read.
pub fn steers(pin_dir: &Path) -> Result<bool, DatapathError> {
    let maps = Maps::below(pin_dir)?;
    // What nobody finished has no maps in their place, and a link that is pinned nowhere has detached its program
    // (`bpf_link_free`): nothing goes by whatever else is there.
    if is_nothing(&maps.pins.maps()) && link(pin_dir, STEER)?.is_none() {
        return Ok(false);
    }
    Ok(!maps.endpoints()?.is_empty())
}

/// Whether the program that is pinned below `pin_dir` steers in another network namespace than this one.
///
/// # Errors
///
/// When the kernel does not say.
pub fn steers_elsewhere(pin_dir: &Path) -> Result<bool, DatapathError> {
    let Some(attached) = steering_program(pin_dir)? else { return Ok(false) };
    let here = File::open("/proc/thread-self/ns/net")
        .and_then(crate::sys::bpf::lookup_programs)
        .map_err(program_error("list what steers beside", STEER))?;
    Ok(!here.contains(&attached))
}

/// Where the maps are.
pub(super) struct Maps {
    in_use: BTreeMap<String, u32>,
    pins: Pins,
}

impl Maps {
    pub(super) fn below(pin_dir: &Path) -> Result<Self, DatapathError> {
        Ok(Self { in_use: maps_in_use(pin_dir)?, pins: Pins::adopt(pin_dir) })
    }

    fn endpoints(&self) -> Result<BTreeMap<ServiceId, Vec<Endpoint>>, DatapathError> {
        let entries = self.entries::<EndpointKey, EndpointValue>("ENDPOINTS", Map::HashMap)?;
        Ok(endpoints::services(&entries))
    }

    pub(super) fn entries<K: Pod + Ord, V: Pod>(
        &self,
        name: &'static str,
        kind: impl FnOnce(MapData) -> Map,
    ) -> Result<BTreeMap<K, V>, DatapathError> {
        let read = || -> Result<_, MapError> {
            let map: HashMap<_, K, V> = kind(self.map(name)?).try_into()?;
            map.iter().collect()
        };
        read().named("read", name)
    }

    fn descriptor(&self, name: &'static str) -> Result<OwnedFd, DatapathError> {
        let map = self.map(name).named("open", name)?;
        let descriptor = map.fd().as_fd().try_clone_to_owned();
        descriptor.map_err(program_error("hold a map of", STEER))
    }

    fn map(&self, name: &'static str) -> Result<MapData, MapError> {
        if let Some(id) = self.in_use.get(name) {
            return MapData::from_id(*id);
        }
        let pin = self.pins.maps().join(name);
        // What the kernel says of a program would be taken for what it says of a map.
        match behind(&pin) {
            Ok(Behind::Map { .. }) => MapData::from_pin(&pin),
            Ok(Behind::Program | Behind::Link(_)) | Err(_) => {
                Err(MapError::InvalidName { name: name.to_owned() })
            }
        }
    }
}
