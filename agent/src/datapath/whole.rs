//! Whether what is pinned is what an agent would have pinned, and not only something of that name.
//!
//! Pins may be replaced: by an empty map of the same shape, a program, a link of somebody else. So each one is looked at:
//!
//! - a map has the shape that our object declares, and the name;
//! - a link keeps a program of that name in the place that it is for, in this network namespace and control group;
//! - the program works on these maps, which shows by their numbers: it would go by others for as long as it is attached, and
//!   what we write would steer nothing.
//!
//! One that is not as it should be is enough to build all of it anew: while it was missing, something was not counted, not
//! followed or not steered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use aya::{
    EbpfError,
    maps::MapInfo,
    programs::{ProgramInfo, loaded_programs},
};

use super::{
    DatapathError,
    behind::{Behind, Link, Shape, Unusable, behind, directory},
    directories::{is_open, names, pin_error},
    error::program_error,
    kernel::{MAPS, OBJECT},
    pins::{Judgement, Pinned, judge, version},
    place::Place,
    programs::{ATTACHED, COMFORTS, WITHOUT_MAPS, is_aside, kernel_name},
};

/// Looks, and changes nothing.
///
/// # Errors
///
/// When the directory cannot be read, or a later agent made what is in it.
pub fn examine(root: &Path, place: Place) -> Result<Pinned, DatapathError> {
    let failed = |source| pin_error("read", root, source);
    match fs::metadata(root) {
        Ok(known) if known.is_dir() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) if fs::symlink_metadata(root).is_err() => return Ok(Pinned::Nothing),
        Ok(_) | Err(_) => return Ok(Pinned::Broken(said(root, &Unusable::NoDirectory))),
    }
    Ok(match judge(&names(root).map_err(failed)?) {
        Judgement::Other(found) => return Err(DatapathError::other_schema(root, found)),
        Judgement::Nothing => Pinned::Nothing,
        Judgement::Broken(what) => Pinned::Broken(what),
        Judgement::Ours => match Look::at(root, place)?.faults {
            faults if faults.is_empty() => Pinned::Whole,
            faults => Pinned::Broken(listed(&faults)),
        },
    })
}

/// The links in a directory that a program of ours can be put behind: each is of our program, and in its place.
pub(super) fn usable_links(
    links: &Path,
    place: Place,
) -> Result<BTreeSet<&'static str>, DatapathError> {
    let found: BTreeMap<_, _> = ATTACHED
        .into_iter()
        .chain(COMFORTS)
        .filter_map(|name| match behind(&links.join(name)) {
            Ok(Behind::Link(link)) if place.is_of(name, &link.attachment) => Some((name, link)),
            Ok(_) | Err(_) => None,
        })
        .collect();
    let programs = programs(found.values())?;
    let is_ours = |(name, link): &(&'static str, Link)| is_named(&programs, link, name);
    Ok(found.into_iter().filter(is_ours).map(|(name, _)| name).collect())
}

/// Those of these programs that are there, by their numbers.
pub(super) fn programs<'a>(
    links: impl IntoIterator<Item = &'a Link>,
) -> Result<BTreeMap<u32, ProgramInfo>, DatapathError> {
    let wanted: BTreeSet<_> = links.into_iter().map(|link| link.program).collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut found = BTreeMap::new();
    for program in loaded_programs() {
        match program {
            Ok(program) if wanted.contains(&program.id()) => {
                found.insert(program.id(), program);
            }
            // One may go while the list is read.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

/// Whether a link keeps a program of this name in place.
pub(super) fn is_named(programs: &BTreeMap<u32, ProgramInfo>, link: &Link, name: &str) -> bool {
    programs.get(&link.program).is_some_and(|it| it.name() == kernel_name(name))
}

/// What was seen of a version's pins so far.
#[derive(Debug, Default)]
struct Look {
    faults: Vec<String>,
    /// The maps that are as they should be, by their numbers.
    maps: BTreeMap<u32, &'static str>,
}

impl Look {
    fn at(root: &Path, place: Place) -> Result<Self, DatapathError> {
        let mut look = Self::default();
        if is_open(root).map_err(|source| pin_error("examine", root, source))? {
            look.faults.push(format!("`{}` can be changed by others", root.display()));
        }
        let version = root.join(version());
        let [maps, links] = ["maps", "links"].map(|name| version.join(name));
        for path in [&version, &maps, &links] {
            if let Err(fault) = directory(path) {
                look.faults.push(said(path, &fault));
                return Ok(look);
            }
        }
        look.strangers(&version, |name| ["maps", "links"].contains(&name))?;
        look.strangers(&maps, |name| MAPS.contains(&name))?;
        look.strangers(&links, |name| {
            ATTACHED.into_iter().chain(COMFORTS).any(|it| it == name || is_aside(name, it))
        })?;
        look.maps_in(&maps)?;
        look.links_in(&links, place)?;
        Ok(look)
    }

    fn strangers(
        &mut self,
        directory: &Path,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), DatapathError> {
        let names = names(directory).map_err(|source| pin_error("read", directory, source))?;
        let strange = names.iter().filter(|name| !is_ours(name));
        self.faults
            .extend(strange.map(|name| format!("{} is not ours", quoted(&directory.join(name)))));
        Ok(())
    }

    fn maps_in(&mut self, directory: &Path) -> Result<(), DatapathError> {
        let shapes = shapes()?;
        for map in MAPS {
            let pin = directory.join(map);
            match behind(&pin) {
                Ok(Behind::Map { id, shape }) => {
                    if shapes.get(map) != Some(&shape) {
                        self.faults.push(format!("{} is a map of another shape", quoted(&pin)));
                    } else if map_name(id).is_some_and(|name| name != map) {
                        self.faults.push(format!("{} is another map", quoted(&pin)));
                    } else {
                        self.maps.insert(id, map);
                    }
                }
                Ok(Behind::Program | Behind::Link(_)) => {
                    self.faults.push(format!("{} is no map", quoted(&pin)));
                }
                Err(fault) => self.faults.push(said(&pin, &fault)),
            }
        }
        Ok(())
    }

    fn links_in(&mut self, directory: &Path, place: Place) -> Result<(), DatapathError> {
        let mut links = Vec::new();
        for name in ATTACHED.into_iter().chain(COMFORTS) {
            let pin = directory.join(name);
            match behind(&pin) {
                Ok(Behind::Link(link)) => links.push((name, pin, link)),
                Ok(Behind::Map { .. } | Behind::Program) => {
                    self.faults.push(format!("{} is no link", quoted(&pin)));
                }
                // A kernel that does not take them is done without them.
                Err(Unusable::Gone) if COMFORTS.contains(&name) => {}
                Err(fault) => self.faults.push(said(&pin, &fault)),
            }
        }
        let programs = programs(links.iter().map(|(_, _, link)| link))?;
        for (name, pin, link) in links {
            if !is_named(&programs, &link, name) {
                self.faults.push(format!("{} is a link of another program", quoted(&pin)));
            } else if !place.is_of(name, &link.attachment) {
                self.faults.push(format!("{} is not attached to its place", quoted(&pin)));
            } else if let Some(map) = self.foreign_map(name, &programs[&link.program])? {
                self.faults.push(format!("{} goes by {map}", quoted(&pin)));
            }
        }
        Ok(())
    }

    /// A map of ours by its name that a program works on, and that is not the one that is pinned; or that it works on none.
    fn foreign_map(
        &self,
        name: &'static str,
        program: &ProgramInfo,
    ) -> Result<Option<String>, DatapathError> {
        let ids = program.map_ids().map_err(program_error("examine", name))?.unwrap_or_default();
        let (ours, strange): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.maps.contains_key(id));
        let strange = strange.into_iter().filter_map(map_name);
        let other = strange.filter(|map| MAPS.contains(&map.as_str())).min();
        let none =
            || (ours.is_empty() && name != WITHOUT_MAPS).then(|| "no map of ours".to_owned());
        Ok(other.map(|map| format!("another `{map}`")).or_else(none))
    }
}

/// A map's name, as long as it is there. aya gives none to maps of a kernel whose version it cannot read (`7.3-rc7`).
pub(super) fn map_name(id: u32) -> Option<String> {
    let info = MapInfo::from_id(id).ok()?;
    info.name_as_str().filter(|name| !name.is_empty()).map(ToOwned::to_owned)
}

/// What the maps of our object can hold.
fn shapes() -> Result<BTreeMap<String, Shape>, DatapathError> {
    let object = aya_obj::Object::parse(OBJECT)
        .map_err(|source| DatapathError::Object(Box::new(EbpfError::ParseError(source))))?;
    let shape = |map: &aya_obj::Map| Shape {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    };
    Ok(object.maps.iter().map(|(name, map)| (name.clone(), shape(map))).collect())
}

/// The first few: where a directory was replaced, it is all of them.
fn listed(faults: &[String]) -> String {
    const FEW: usize = 4;
    let first = faults[..faults.len().min(FEW)].join(", ");
    match faults.len().saturating_sub(FEW) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

fn said(path: &Path, fault: &Unusable) -> String {
    format!("{} {fault}", quoted(path))
}

fn quoted(path: &Path) -> String {
    format!("`{}`", path.display())
}
