//! Other programs that steer in this network namespace, and what other agents among them have in charge.

use std::{collections::BTreeMap, fs::File, path::Path};

use agent_ebpf::endpoint::{Endpoint as EndpointValue, EndpointKey};
use agent_terms::Endpoint;
use aya::{
    maps::{HashMap, Map, MapData, MapError, MapInfo},
    programs::{ProgramInfo, loaded_programs},
};

use super::{
    DatapathError, endpoints, error::program_error, in_use::steering_program, programs::STEER,
};

/// A program that is asked for each new connection of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupProgram {
    /// Its number in the kernel.
    pub id: u32,
    /// Its name; empty if it has none.
    pub name: String,
    /// What it has in charge, if it is an agent's.
    pub endpoints: Option<Vec<Endpoint>>,
}

/// The programs of this network namespace, in the order in which they run, but the one that is pinned below `pin_dir`.
///
/// # Errors
///
/// When the kernel does not say.
pub fn others(pin_dir: &Path) -> Result<Vec<LookupProgram>, DatapathError> {
    let mut attached = attached()?;
    let ours = steering_program(pin_dir)?;
    attached.retain(|id| Some(*id) != ours);
    Ok(described(&attached))
}

/// All programs of this network namespace, in the order in which they run.
///
/// # Errors
///
/// When the kernel does not say.
pub fn lookup_programs() -> Result<Vec<LookupProgram>, DatapathError> {
    Ok(described(&attached()?))
}

fn attached() -> Result<Vec<u32>, DatapathError> {
    File::open("/proc/thread-self/ns/net")
        .and_then(crate::sys::bpf::lookup_programs)
        .map_err(program_error("list what steers beside", STEER))
}

/// Those that have not gone meanwhile.
fn described(attached: &[u32]) -> Vec<LookupProgram> {
    if attached.is_empty() {
        return Vec::new();
    }
    let known: BTreeMap<u32, ProgramInfo> = loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| attached.contains(&program.id()))
        .map(|program| (program.id(), program))
        .collect();
    attached.iter().filter_map(|id| known.get(id)).map(LookupProgram::of).collect()
}

impl LookupProgram {
    fn of(program: &ProgramInfo) -> Self {
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let maps = program.map_ids().ok().flatten().unwrap_or_default();
        let endpoints = (name == STEER)
            .then(|| maps.iter().find_map(|id| endpoints_in(*id).ok().flatten()))
            .flatten();
        Self { id: program.id(), name, endpoints }
    }
}

/// The content of a map, if it is one of endpoints as we know them: of the same name, and the same sizes.
fn endpoints_in(id: u32) -> Result<Option<Vec<Endpoint>>, MapError> {
    if MapInfo::from_id(id)?.name_as_str() != Some("ENDPOINTS") {
        return Ok(None);
    }
    let map: HashMap<_, EndpointKey, EndpointValue> =
        Map::HashMap(MapData::from_id(id)?).try_into()?;
    let entries = map.iter().collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(Some(endpoints::services(&entries).into_values().flatten().collect()))
}
