//! Which maps the programs that are attached work on, whatever is pinned under their names by now.

use std::{collections::BTreeMap, path::Path};

use super::{
    DatapathError,
    behind::{Behind, Link, behind},
    error::program_error,
    pins::link,
    programs::{ATTACHED, STEER},
    whole::{is_named, map_name, programs},
};

/// The numbers of the maps by their names. Where programs differ, as while maps are built anew, the one that steers is right.
pub(super) fn maps_in_use(pin_dir: &Path) -> Result<BTreeMap<String, u32>, DatapathError> {
    let mut links = Vec::new();
    for name in ATTACHED.into_iter().rev() {
        links.extend(pinned_link(pin_dir, name)?.map(|link| (name, link)));
    }
    let programs = programs(links.iter().map(|(_, link)| link))?;
    let mut maps = BTreeMap::new();
    for (name, link) in &links {
        if !is_named(&programs, link, name) {
            continue;
        }
        let ids = programs[&link.program].map_ids().map_err(program_error("examine", name))?;
        for id in ids.unwrap_or_default() {
            let Some(map) = map_name(id) else { continue };
            maps.entry(map).or_insert(id);
        }
    }
    Ok(maps)
}

/// The number of the program that is pinned below `pin_dir` to steer, if one is.
///
/// # Errors
///
/// When the kernel does not say.
pub fn steering_program(pin_dir: &Path) -> Result<Option<u32>, DatapathError> {
    let Some(link) = pinned_link(pin_dir, STEER)? else { return Ok(None) };
    let is_ours = is_named(&programs([&link])?, &link, STEER);
    Ok(is_ours.then_some(link.program))
}

/// The link that is pinned under a program's name, of whatever version, if what is there is one.
fn pinned_link(pin_dir: &Path, program: &str) -> Result<Option<Link>, DatapathError> {
    let Some(pin) = link(pin_dir, program)? else { return Ok(None) };
    Ok(match behind(&pin) {
        Ok(Behind::Link(link)) => Some(link),
        Ok(Behind::Map { .. } | Behind::Program) | Err(_) => None,
    })
}
