//! What pinned maps say, read without loading or attaching anything.

use std::{collections::BTreeMap, fs::File, os::fd::OwnedFd, path::Path};

use agent_ebpf::{
    endpoint::{Endpoint as EndpointValue, EndpointKey},
    flow::GenerationKey,
    member::Member,
    steering::Steering,
};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};

use super::{
    DatapathError, endpoints,
    error::{Named as _, program_error},
    others::steering_program,
    pins::Pins,
    programs::STEER,
};
use crate::service::{Endpoint, ServiceId};

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
    /// Reads what is pinned below `pin_dir`.
    ///
    /// # Errors
    ///
    /// When a map is gone or of another version.
    pub fn of(pin_dir: &Path) -> Result<Self, DatapathError> {
        let pins = Pins::adopt(pin_dir);
        let moved = entries::<u64, u32>(&pins, "MOVED_BINDS", Map::LruHashMap)?;
        let port = |(cookie, port)| Some((cookie, u16::try_from(port).ok()?));
        Ok(Self {
            endpoints: endpoints_in(&pins)?,
            steering: entries::<u32, Steering>(&pins, "SERVICES", Map::HashMap)?
                .into_iter()
                .map(|(service, steering)| (ServiceId(service), steering))
                .collect(),
            members: entries::<u32, Member>(&pins, "MEMBERS", Map::HashMap)?
                .into_values()
                .map(|member| (member.pid, member.generation))
                .collect(),
            moved_binds: moved.into_iter().filter_map(port).collect(),
            tags: pins.descriptor("TAGS")?,
        })
    }
}

/// Whether what is pinned below `pin_dir` has an endpoint.
///
/// # Errors
///
/// When that cannot be read.
pub fn steers(pin_dir: &Path) -> Result<bool, DatapathError> {
    Ok(!endpoints_in(&Pins::adopt(pin_dir))?.is_empty())
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

fn endpoints_in(pins: &Pins) -> Result<BTreeMap<ServiceId, Vec<Endpoint>>, DatapathError> {
    let entries = entries::<EndpointKey, EndpointValue>(pins, "ENDPOINTS", Map::HashMap)?;
    Ok(endpoints::services(&entries))
}

fn entries<K: Pod + Ord, V: Pod>(
    pins: &Pins,
    name: &'static str,
    kind: impl FnOnce(MapData) -> Map,
) -> Result<BTreeMap<K, V>, DatapathError> {
    let read = || -> Result<_, MapError> {
        let map: HashMap<_, K, V> = kind(MapData::from_pin(pins.maps().join(name))?).try_into()?;
        map.iter().collect()
    };
    read().named("read", name)
}
