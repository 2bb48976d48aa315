//! What the agent occupies, looked at now and then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::flat::{Measure, Point, Unit, Whose};
use super::world::World;
use crate::bpftool;
use crate::usage;

/// Takes samples.
#[derive(Debug)]
pub(super) struct Sampler<'world> {
    world: &'world World,
    /// Pinned maps that have entries to count.
    maps: Vec<(String, PathBuf)>,
    pub(super) series: BTreeMap<Measure, Vec<Point>>,
}

impl<'world> Sampler<'world> {
    /// Finds out what there is to look at. The agent must have attached something.
    pub(super) fn new(world: &'world World) -> Result<Self> {
        let mut maps = Vec::new();
        for entry in fs::read_dir(world.stage.agent.maps()).context("list the pinned maps")? {
            let entry = entry?;
            // Arrays are always full, what sockets store cannot be listed, and a cache forgets by itself (`lru_hash`).
            if HASHES.contains(&bpftool::map_kind(&entry.path())?.as_str()) {
                maps.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
            }
        }
        maps.sort();
        Ok(Self { world, maps, series: BTreeMap::new() })
    }

    /// Looks at everything once.
    pub(super) fn take(&mut self) -> Result<()> {
        let agent = &self.world.stage.agent;
        // It may be killed at this very moment: then this is no moment to look at it.
        if let Some(values) = agent.daemon().and_then(|it| of_process(it.pid()).ok()) {
            for (name, unit, value) in values {
                self.note(name, unit, Whose::Agent, value);
            }
        }
        for index in 0..self.maps.len() {
            let (name, path) = &self.maps[index];
            let (name, entries) = (format!("entries of map {name}"), bpftool::map_entries(path)?);
            self.note(name, Unit::Entries, Whose::System, entries);
        }
        let below = directories(self.world.stage.agent.cgroup())?;
        self.note("cgroups below the agent's", Unit::Entries, Whose::System, below);
        let (files, bytes) = files(self.world.stage.agent.runtime())?;
        self.note("files in the runtime directory", Unit::Entries, Whose::System, files);
        self.note("bytes in the runtime directory", Unit::Bytes, Whose::System, bytes);
        let state = self.world.stage.agent.state_length().context("look at the state file")?;
        self.note("bytes of the state file", Unit::Bytes, Whose::System, state);
        Ok(())
    }

    fn note(&mut self, name: impl Into<String>, unit: Unit, whose: Whose, value: u64) {
        let at = self.world.seconds(Instant::now());
        let measure = Measure { whose, name: name.into(), unit };
        self.series.entry(measure).or_default().push(Point { at, value });
    }
}

fn of_process(pid: i32) -> Result<[(&'static str, Unit, u64); 4]> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    // Not its part of shared pages: that changes with the commands that happen to run, which are the same program.
    let status = read("status")?;
    let field = |field| usage::bytes(&status, field).context("no such field");
    let listed = |folder: &str| -> Result<u64> {
        Ok(u64::try_from(fs::read_dir(format!("/proc/{pid}/{folder}"))?.count())?)
    };
    Ok([
        ("resident memory (VmRSS)", Unit::Bytes, field("VmRSS")?),
        ("of it no file (RssAnon)", Unit::Bytes, field("RssAnon")?),
        ("open descriptors", Unit::Entries, listed("fd")?),
        ("threads", Unit::Entries, listed("task")?),
    ])
}

/// How many directories there are below one. What is removed meanwhile is not there.
fn directories(path: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count += 1 + directories(&entry.path())?;
        }
    }
    Ok(count)
}

/// How many files there are below a directory, and how many bytes in them. What the hostile server writes is cut once a second,
/// so that its output has any size at the moment.
fn files(path: &Path) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let (files, bytes) = match entry.metadata() {
            Ok(kind) if kind.is_dir() => files(&entry.path())?,
            Ok(_) if entry.path().components().any(|part| part.as_os_str() == HOSTILE) => (1, 0),
            Ok(kind) => (1, kind.len()),
            Err(_gone) => (0, 0),
        };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    Ok(sum)
}

/// The folder of that server's outputs.
const HOSTILE: &str = "python3-8090";
const HASHES: [&str; 2] = ["hash", "percpu_hash"];
