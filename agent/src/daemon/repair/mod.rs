//! Mends what can be mended while no agent runs: `agent doctor --repair`.
//!
//! - [`examine`] says what is wrong with what an agent left, and changes nothing.
//! - [`repair`] mends it, as far as what runs says how: see `derive` for what is taken from where.

mod derive;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind};

use super::{
    Above, Lock, StateFile, StateFileError,
    identify::found::describe,
    launch::groups::Groups,
    start::{Made, agent_answers, read_state, without_group},
    state::state_file,
};
use crate::{
    datapath::{self, Pinned, Place},
    host::{bpf_links::holders_of_program, cgroup::Hierarchy, context, process::Pid},
    places::Places,
};

/// What an agent left, or leaves to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// Nothing, or an agent that runs and minds it.
    Fine(&'static str),
    /// Everything that an agent needs to go on, or to build what is missing.
    Startable(String),
    /// Pins that steer, and no state that says what: it can be derived from what runs.
    Stateless(String),
    /// Nothing is attached; this is left, and an agent can start all the same.
    Harmless(String),
    /// Nothing is attached; this is only in the way.
    Rubbish(String),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// In the order in which it was done; empty if nothing had to be.
    pub done: Vec<String>,
    /// Whether there is something that an agent has to mind, and none that does.
    pub start: bool,
}

/// Looks, and changes nothing.
///
/// # Errors
///
/// When it cannot be read, or is of another version or another network namespace.
pub fn examine(places: &Places) -> Result<Leftovers, Problem> {
    if agent_answers(places) {
        return Ok(Leftovers::Fine("an agent runs"));
    }
    refuse_pins_in_use(places)?;
    let groups = groups_of(places)?;
    let place = Place::with(groups.as_ref().map(|(groups, _)| groups.above()))?;
    let pinned = datapath::examine(&places.pin_dir, place)?;
    let quoted = |path: &Path| format!("`{}`", path.display());
    let left = |path: &Path| Leftovers::Harmless(format!("{} is left over", quoted(path)));
    let (state, file) = (read(places)?, places.state_file());
    Ok(match (&pinned, &state) {
        (Pinned::Whole, Read::Services) => Leftovers::Startable("no agent runs".into()),
        (Pinned::Broken(what), Read::Services) => {
            Leftovers::Startable(format!("no agent runs, and the pins: {what}"))
        }
        (Pinned::Nothing, Read::Services) => {
            Leftovers::Startable(format!("no agent runs, and {} is gone", quoted(&places.pin_dir)))
        }
        (Pinned::Nothing, Read::Gone | Read::Empty) => match left_over_group(places)? {
            Some(group) => left(&group),
            None if matches!(state, Read::Empty) => left(&file),
            None => Leftovers::Fine("nothing is attached"),
        },
        (Pinned::Nothing, Read::Damaged) => {
            Leftovers::Rubbish(format!("{} is damaged", quoted(&file)))
        }
        (Pinned::Whole | Pinned::Broken(_), Read::Empty) => left(&places.pin_dir),
        (Pinned::Whole | Pinned::Broken(_), Read::Gone | Read::Damaged) => {
            // What cannot be read may steer.
            match (datapath::steers(&places.pin_dir), &state) {
                (Ok(false), Read::Gone) => left(&places.pin_dir),
                (Ok(false), _) => Leftovers::Rubbish(format!("{} is damaged", quoted(&file))),
                (Ok(true) | Err(_), state) => {
                    let how = if *state == Read::Gone { "gone" } else { "damaged" };
                    Leftovers::Stateless(format!("{} is {how}", quoted(&file)))
                }
            }
        }
    })
}

/// Whoever has the pins open minds them, and has his state in another runtime directory, or does not answer.
fn refuse_pins_in_use(places: &Places) -> Result<(), Problem> {
    let Some(program) = datapath::steering_program(&places.pin_dir)? else { return Ok(()) };
    let holders = holders_of_program(program)?;
    let Some(holder) = holders.first() else { return Ok(()) };
    let message = format!(
        "the pins below `{}` are in use by process {}, and no agent answers in `{}`",
        places.pin_dir.display(),
        describe(*holder),
        places.runtime_dir.display()
    );
    Err(Problem::new(ProblemKind::Locked, message).fix(
        "name the runtime directory of that agent (`--runtime-dir`), or other pins (`--pin-dir`)",
    ))
}

/// Mends. What steers goes on steering all the while.
///
/// # Errors
///
/// When nothing can be derived that deserves trust; nothing has changed then.
pub fn repair(places: &Places) -> Result<Repaired, Problem> {
    let mut done = Vec::new();
    match examine(places)? {
        Leftovers::Fine(_) => Ok(Repaired { done, start: false }),
        Leftovers::Startable(_) => Ok(Repaired { done, start: true }),
        Leftovers::Stateless(_) => {
            let mut made = Made::default();
            let _lock = lock(places, &mut made)?;
            let state = derive::state(places)?;
            made.keep();
            set_aside(places, &mut done)?;
            if state.services.is_empty() {
                clear(places, &mut done)?;
                return Ok(Repaired { done, start: false });
            }
            state.write(&places.state_file())?;
            let names: Vec<_> =
                state.services.iter().map(|it| it.service.name().as_str()).collect();
            let path = places.state_file();
            done.push(format!("wrote `{}` anew: {}", path.display(), names.join(", ")));
            Ok(Repaired { done, start: true })
        }
        Leftovers::Harmless(_) | Leftovers::Rubbish(_) => {
            let mut made = Made::default();
            let _lock = lock(places, &mut made)?;
            set_aside(places, &mut done)?;
            clear(places, &mut done)?;
            made.keep();
            Ok(Repaired { done, start: false })
        }
    }
}

/// Takes away what an agent had begun to make, before which nothing was there.
///
/// # Errors
///
/// When another agent runs, or has left services, and when something cannot be removed.
pub fn take_back(places: &Places) -> Result<(), Problem> {
    let mut made = Made::default();
    let _lock = lock(places, &mut made)?;
    match read(places)? {
        Read::Services => Err(Problem::new(ProblemKind::Failed, "there are services now")),
        Read::Gone | Read::Damaged | Read::Empty => clear(places, &mut Vec::new()),
    }
}

/// Keeps an agent from starting meanwhile.
fn lock(places: &Places, made: &mut Made) -> Result<Lock, Problem> {
    made.expect(&places.runtime_dir);
    super::start::private_directory(&places.runtime_dir)?;
    made.expect(&places.lock_file());
    Lock::take(places)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Gone,
    Damaged,
    Empty,
    Services,
}

fn read(places: &Places) -> Result<Read, Problem> {
    match StateFile::read(&places.state_file()) {
        Err(
            StateFileError::Damaged { .. }
            | StateFileError::TooLarge { .. }
            | StateFileError::Foreign { .. },
        ) => return Ok(Read::Damaged),
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let namespace = context::network_namespace_of(Pid::ours())
        .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    Ok(match read_state(places, namespace, &state_file::boot_id()?)? {
        None => Read::Gone,
        Some(state) if state.services.is_empty() => Read::Empty,
        Some(_) => Read::Services,
    })
}

/// A damaged file may say more to a person than to us.
fn set_aside(places: &Places, done: &mut Vec<String>) -> Result<(), Problem> {
    let path = places.state_file();
    if !matches!(read(places)?, Read::Damaged) {
        return Ok(());
    }
    let aside = path.with_extension("json.damaged");
    fs::rename(&path, &aside).map_err(|error| failed("set aside", &path, &error))?;
    done.push(format!("put the damaged state aside as `{}`", aside.display()));
    Ok(())
}

fn clear(places: &Places, done: &mut Vec<String>) -> Result<(), Problem> {
    let above = Above::read(places);
    if places.pin_dir.exists() {
        refuse_other_namespace(places)?;
        datapath::clear(&places.pin_dir)?;
        done.push(format!("removed `{}`", places.pin_dir.display()));
    }
    clear_groups(places, done)?;
    for path in places.files() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path, &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    match fs::remove_dir(&places.runtime_dir) {
        // Logs, or the damaged file.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        removed => removed.map_err(|error| failed("remove", &places.runtime_dir, &error))?,
    }
    above.remove();
    Ok(())
}

/// What steers another network namespace cannot be judged from here.
fn refuse_other_namespace(places: &Places) -> Result<(), Problem> {
    if !datapath::steers_elsewhere(&places.pin_dir)? {
        return Ok(());
    }
    let message = format!(
        "the programs of `{}` are attached to another network namespace than this one",
        places.pin_dir.display()
    );
    Err(Problem::new(ProblemKind::Preflight, message).fix(format!(
        "run this in the namespace of the servers; if there is none any more, `rm -r {}` removes the pins",
        places.pin_dir.display()
    )))
}

/// The agent's control groups, where there is a tree of them.
fn groups_of(places: &Places) -> Result<Option<(Groups, Hierarchy)>, Problem> {
    let Ok(hierarchy) = Hierarchy::find() else { return Ok(None) };
    let namespace = context::network_namespace_of(Pid::ours())
        .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    let groups =
        Groups::of(places, &hierarchy, namespace).map_err(|error| without_group(&error))?;
    Ok(Some((groups, hierarchy)))
}

/// One of the agent's control groups, or the one above where nobody has any below it: those of other agents are theirs.
fn left_over_group(places: &Places) -> Result<Option<PathBuf>, Problem> {
    let Some((groups, hierarchy)) = groups_of(places)? else { return Ok(None) };
    if let Some(own) = groups.present(&hierarchy).first() {
        return Ok(Some(own.directory().to_owned()));
    }
    let is_directory = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|it| it.file_type().is_ok_and(|kind| kind.is_dir()))
    };
    let entries = fs::read_dir(groups.above());
    let unused = entries.is_ok_and(|mut entries| !entries.any(is_directory));
    Ok(unused.then(|| groups.above().to_owned()))
}

/// Servers that an agent launched may live in its control groups: they are their own now.
fn clear_groups(places: &Places, done: &mut Vec<String>) -> Result<(), Problem> {
    let Some((groups, hierarchy)) = groups_of(places)? else { return Ok(()) };
    let Some(left) = left_over_group(places)? else { return Ok(()) };
    let used =
        groups.remove(&hierarchy).map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    for group in &used {
        done.push(format!("left `{}`, where processes live", group.directory().display()));
    }
    if used.is_empty() {
        let removed = if groups.above().exists() { &left } else { groups.above() };
        done.push(format!("removed `{}`", removed.display()));
    }
    Ok(())
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Failed, format!("{operation} `{}`: {error}", path.display()))
}
