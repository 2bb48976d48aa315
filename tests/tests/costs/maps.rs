//! The memory of the maps.
//!
//! Nearly all maps are made with room for all that they may ever hold, so that none of it can run out under load: an
//! endpoint, a service or a generation more costs nothing, and what it occupies is its part of that room.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, MapInfo};
use aya::util::nr_cpus;
use tests::servers::Script;
use tests::stage::Stage;

use crate::limits::{self, Cost};

const PORT: u16 = 8080;

/// What a map occupies, and how many elements it has room for.
struct Size {
    bytes: f64,
    elements: f64,
    value: f64,
}

fn size(pin: &Path) -> Result<Size> {
    let map = MapData::from_pin(pin).with_context(|| pin.display().to_string())?;
    let number = map.fd().as_fd().as_raw_fd();
    let info: MapInfo = map.info()?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("memlock")?;
    Ok(Size {
        bytes: bytes.trim().parse()?,
        elements: info.max_entries().into(),
        value: info.value_size().into(),
    })
}

#[test]
fn the_maps_are_as_small_as_they_were() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let cpus = nr_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))? as f64;
    let of = |name: &str| size(&stage.agent.maps().join(name));
    let mut all = 0.0;
    for pin in fs::read_dir(stage.agent.maps())? {
        let pin = pin?;
        if pin.file_name() != "STEERED" {
            all += size(&pin.path())?.bytes;
        }
    }
    let each = |size: Size| size.bytes / size.elements;
    limits::hold(&[
        Cost::new("bytes of all maps but that per CPU", all, limits::ALL_MAPS),
        Cost::new("bytes of the map per CPU", of("STEERED")?.bytes / cpus, limits::MAPS_PER_CPU),
        Cost::new("bytes per address of an endpoint", each(of("ENDPOINTS")?), limits::PER_ENDPOINT),
        Cost::new("bytes per service", each(of("SERVICES")?), limits::PER_SERVICE),
        Cost::new("bytes per generation's counts", each(of("FLOWS")?), limits::PER_GENERATION),
        Cost::new("bytes of a flow's tag", of("TAGS")?.value, limits::PER_FLOW),
    ])
}
