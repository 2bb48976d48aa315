//! What may become of a pin.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_ebpf::bind::BindRule;
use agent_ebpf::endpoint::{Endpoint, EndpointKey};
use agent_ebpf::flow::{FlowCounts, GenerationKey};
use agent_ebpf::member::Member;
use agent_ebpf::steering::{FULL_SHARE, ListenerSet, ListenerSetKey, Steering};
use anyhow::{Context as _, Result, bail, ensure};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, SockMap};
use aya::programs::links::{FdLink, PinnedLink};

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    Map(&'static str),
    Link(&'static str),
    /// The directory of the maps.
    Maps,
    /// The directory of the links.
    Links,
    /// The directory of both.
    Version,
    /// Something in that directory that is none of ours.
    Beside(&'static str),
    /// The directory in which an agent builds.
    HalfBuilt,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It is not there.
    Removed,
    /// It is the one of another agent.
    Twin,
    /// It is a map of another agent, of another shape.
    OtherMap,
    /// It is a map of ours, but another one.
    OwnMap,
    /// It is a link of ours, but another one.
    OwnLink,
    /// It is a program.
    Program,
    /// It is a link that is attached to nothing any more.
    Detached,
    /// It is a directory with something in it.
    Directory,
    /// It is a symbolic link to what it was.
    Symlink,
    /// Others may use it.
    Open,
    /// It belongs to somebody else.
    Foreign,
    /// Nothing is in it.
    Emptied,
    /// What is in it makes no sense.
    Nonsense,
}

/// The pins of two agents.
pub(crate) struct Pins {
    pub(crate) ours: PathBuf,
    pub(crate) others: PathBuf,
}

impl Pins {
    pub(crate) fn path(&self, pin: Pin) -> PathBuf {
        match pin {
            Pin::Map(name) => self.ours.join("maps").join(name),
            Pin::Link(name) => self.ours.join("links").join(name),
            Pin::Maps => self.ours.join("maps"),
            Pin::Links => self.ours.join("links"),
            Pin::Version => self.ours.clone(),
            Pin::Beside(name) => self.ours.join(name),
            Pin::HalfBuilt => PathBuf::from(format!("{}-new", self.ours.display())),
        }
    }

    pub(crate) fn damage(&self, pin: Pin, damage: Damage) -> Result<()> {
        let path = self.path(pin);
        self.do_damage(&path, pin, damage).with_context(|| format!("{pin:?}, {damage:?}"))
    }

    fn do_damage(&self, path: &Path, pin: Pin, damage: Damage) -> Result<()> {
        match (damage, pin) {
            (Damage::Open, _) => fs::set_permissions(path, Permissions::from_mode(0o666))?,
            (Damage::Foreign, _) => chown(path, Some(1000), None)?,
            (Damage::Detached, _) => bpftool(&["link", "detach", "pinned", &text(path)])?,
            (Damage::Emptied, Pin::Map(map)) => self.empty(map, path)?,
            (Damage::Nonsense, Pin::Map(map)) => confuse(map, path)?,
            (Damage::Symlink, _) => {
                let aside = self.aside();
                fs::rename(path, &aside)?;
                symlink(&aside, path)?;
            }
            _ => self.replace(path, pin, damage)?,
        }
        Ok(())
    }

    fn kept(&self) -> PathBuf {
        PathBuf::from(format!("{}-kept", self.aside().display()))
    }

    /// A second name for what is about to be damaged, or for what that directory is called meanwhile.
    pub(crate) fn keep(&self, pin: Pin, damage: Damage) -> Result<PathBuf> {
        let kept = self.kept();
        let path = self.path(pin);
        match pin {
            _ if [Damage::Symlink, Damage::Open, Damage::Foreign].contains(&damage) => {}
            Pin::Map(_) | Pin::Link(_) => fs::hard_link(path, &kept)?,
            Pin::Maps | Pin::Links | Pin::Version => fs::rename(path, &kept)?,
            Pin::Beside(_) | Pin::HalfBuilt => {}
        }
        Ok(kept)
    }

    /// As it was before.
    pub(crate) fn mend(&self, pin: Pin, damage: Damage, kept: &Path) -> Result<()> {
        let path = self.path(pin);
        match damage {
            Damage::Symlink => {
                remove(&path)?;
                fs::rename(self.aside(), &path)?;
            }
            Damage::Open => {
                let mode = if path.is_dir() { 0o700 } else { 0o600 };
                fs::set_permissions(path, Permissions::from_mode(mode))?;
            }
            Damage::Foreign => chown(path, Some(0), None)?,
            _ => {
                remove(&path)?;
                if kept.exists() {
                    fs::rename(kept, path)?;
                }
            }
        }
        Ok(())
    }

    /// Outside of the pin directory, where what was moved goes on to live.
    pub(crate) fn aside(&self) -> PathBuf {
        let root = self.ours.parent().expect("a version is in the pin directory");
        PathBuf::from(format!("{}-aside", root.display()))
    }

    fn replace(&self, path: &Path, pin: Pin, damage: Damage) -> Result<()> {
        let ours = |below: &str| self.ours.join(below);
        let program = program_of(&self.others.join("links/steer"))?;
        let other_map = MapData::from_pin(self.others.join("maps/LOST_REPORTS"))?;
        let other_set = MapData::from_pin(self.others.join("maps/SERVICES"))?;
        let own_map = match pin {
            Pin::Map("LOST_REPORTS") => ours("maps/SERVICES"),
            _ => ours("maps/LOST_REPORTS"),
        };
        let own_map = if own_map.exists() { Some(MapData::from_pin(own_map)?) } else { None };
        let own_link = match pin {
            Pin::Link("share_bind4") => ours("links/share_bind6"),
            _ => ours("links/share_bind4"),
        };
        let own_link = PinnedLink::from_pin(own_link).map(FdLink::from).ok();
        remove(path)?;
        match (damage, pin) {
            (Damage::Removed, _) => {}
            (Damage::Twin, Pin::Map(name)) => {
                MapData::from_pin(self.others.join("maps").join(name))?.pin(path)?;
            }
            (Damage::Twin, Pin::Link(name)) => {
                let link = PinnedLink::from_pin(self.others.join("links").join(name))?;
                drop(FdLink::from(link).pin(path)?);
            }
            (Damage::OtherMap, Pin::Map("LOST_REPORTS")) => other_set.pin(path)?,
            (Damage::OtherMap, _) => other_map.pin(path)?,
            (Damage::OwnMap, _) => own_map.context("it was there")?.pin(path)?,
            (Damage::OwnLink, _) => drop(own_link.context("it was there")?.pin(path)?),
            (Damage::Program, _) => {
                bpftool(&["prog", "pin", "id", &program.to_string(), &text(path)])?;
            }
            (Damage::Directory, _) => {
                fs::create_dir_all(path.join("below"))?;
                other_map.pin(path.join("below/map"))?;
            }
            other => bail!("nobody does that: {other:?}"),
        }
        Ok(())
    }

    fn empty(&self, map: &str, path: &Path) -> Result<()> {
        match map {
            "ENDPOINTS" => empty::<EndpointKey, Endpoint>(path),
            "SERVICES" => empty::<u32, Steering>(path),
            "LISTENER_SETS" => empty::<ListenerSetKey, ListenerSet>(path),
            "FLOWS" => empty::<GenerationKey, FlowCounts>(path),
            "BIND_RULES" => empty::<GenerationKey, BindRule>(path),
            "MEMBERS" => empty::<u32, Member>(path),
            "LISTENERS" => {
                let sets =
                    hash::<ListenerSetKey, ListenerSet>(&self.path(Pin::Map("LISTENER_SETS")))?;
                let mut listeners: SockMap<_> =
                    Map::SockMap(MapData::from_pin(path)?).try_into()?;
                for set in sets.iter() {
                    let (_, set) = set?;
                    for slot in set.first..set.first + set.count {
                        listeners.clear_index(&slot)?;
                    }
                }
                Ok(())
            }
            other => bail!("nobody empties {other}"),
        }
    }
}

/// A test that fails leaves nothing either.
impl Drop for Pins {
    fn drop(&mut self) {
        for path in [self.aside(), self.kept()] {
            // Whoever looks for what is left finds it.
            let _: Result<()> = remove(&path);
        }
    }
}

fn hash<K: Pod, V: Pod>(path: &Path) -> Result<HashMap<MapData, K, V>> {
    Ok(Map::HashMap(MapData::from_pin(path)?).try_into()?)
}

fn entries<K: Pod + Ord, V: Pod>(map: &HashMap<MapData, K, V>) -> Result<BTreeMap<K, V>> {
    Ok(map.iter().collect::<Result<_, _>>()?)
}

fn empty<K: Pod + Ord, V: Pod>(path: &Path) -> Result<()> {
    let mut map = hash::<K, V>(path)?;
    let keys = entries(&map)?;
    ensure!(!keys.is_empty(), "`{}` was empty", path.display());
    keys.into_keys().try_for_each(|key| Ok(map.remove(&key)?))
}

/// Values that lead nowhere, and generations that there never were.
fn confuse(map: &str, path: &Path) -> Result<()> {
    let nobody = ListenerSet { first: 4_000, count: 900 };
    match map {
        "ENDPOINTS" => {
            let mut map = hash::<EndpointKey, Endpoint>(path)?;
            let (mut key, value) = entries(&map)?.pop_first().context("there is one")?;
            map.insert(key, Endpoint { endpoint: 77, ..value }, 0)?;
            key.port = 1;
            map.insert(key, value, 0)?;
        }
        "SERVICES" => {
            let mut map = hash::<u32, Steering>(path)?;
            for (service, steering) in entries(&map)? {
                let nonsense = Steering {
                    candidate: 77,
                    share: FULL_SHARE,
                    standbys: [u32::MAX; _],
                    primary_sets: [nobody; _],
                    ..steering
                };
                map.insert(service, nonsense, 0)?;
            }
            map.insert(500, Steering { primary: 9, ..Steering::default() }, 0)?;
        }
        "LISTENER_SETS" => {
            let mut map = hash::<ListenerSetKey, ListenerSet>(path)?;
            for key in entries(&map)?.into_keys() {
                map.insert(key, nobody, 0)?;
                map.insert(ListenerSetKey { generation: u32::MAX, ..key }, nobody, 0)?;
            }
        }
        "FLOWS" => {
            let mut map = hash::<GenerationKey, FlowCounts>(path)?;
            for key in entries(&map)?.into_keys() {
                let nobody = GenerationKey { generation: u32::MAX, ..key };
                map.insert(nobody, FlowCounts::default(), 0)?;
            }
        }
        other => bail!("nobody confuses {other}"),
    }
    Ok(())
}

pub(crate) fn program_of(link: &Path) -> Result<u32> {
    Ok(FdLink::from(PinnedLink::from_pin(link)?).info()?.program_id())
}

/// Whatever it is.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(known) if known.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn bpftool(words: &[&str]) -> Result<()> {
    let output = Command::new("bpftool").args(words).output().context("run bpftool")?;
    ensure!(output.status.success(), "bpftool {words:?}: {output:?}");
    Ok(())
}
