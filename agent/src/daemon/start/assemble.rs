//! Puts the agent together: state, kernel side, and what has to be done again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use agent_api::{Problem, ProblemKind};
use agent_terms::ServiceId;
use tokio::sync::watch;

use super::{
    Options, Other, contents,
    group::without_group,
    made::Made,
    pin_directory::mount_bpf,
    plan::{Plan, plan},
    presence::Presence,
};
use crate::{
    daemon::{
        agent::Agent,
        control::message::Message,
        course::Course,
        effects::outstanding::Outstanding,
        launch::groups::Groups,
        looks::{returns::Returns, strangers::Strangers},
        memory::Memories,
        state::{
            above::Above,
            clock,
            journal::Journal,
            state_file::{self, Record, StateFile},
            troubles::Troubles,
            whereabouts::Whereabouts,
        },
        step::{Step, change},
        watch::watcher::Watcher,
    },
    datapath::{self, Contents, Datapath, DatapathError, Pinned, Place},
    host::{
        cgroup::{Cgroup, Hierarchy},
        context,
        launch::Launcher,
        process::Pid,
        process_table, syn_cookies,
    },
    places::Places,
};

/// What a start makes.
pub(super) struct Traces<'a> {
    /// Taken back if it fails.
    pub(super) made: &'a mut Made,
    /// Goes with the agent.
    pub(super) above: Above,
}

/// Everything but the threads.
pub(super) fn assemble(
    options: &Options,
    Traces { made, mut above }: Traces<'_>,
    presence: Presence,
    launcher: Arc<Launcher>,
    messages: mpsc::Sender<Message>,
) -> Result<Agent, Problem> {
    let places = options.places.clone();
    let network_namespace = context::network_namespace_of(Pid::ours())
        .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    let boot_id = state_file::boot_id()?;
    let state = read_state(&places, network_namespace, &boot_id)?;
    mount_bpf(&places.pin_dir)?;
    let hierarchy = find_hierarchy()?;
    let groups = Groups::of(&places, &hierarchy, network_namespace);
    let mut groups = groups.map_err(|error| without_group(&error))?;
    let pinned = examine(&places.pin_dir, groups.above(), state.as_ref())?;
    // What cannot be read belongs to what is broken, which only a state can mend.
    let steers = datapath::steers(&places.pin_dir).ok();
    let plan = plan(&places, state.as_ref(), &pinned, steers)?;
    let state = state.unwrap_or_default();
    made.expect(&places.above_file());
    note_above(&mut above, &places, groups.above());
    let cgroup = create_cgroup(&hierarchy, &mut groups, made)?;
    // Who has something attached goes on with it.
    if state.services.is_empty() {
        groups.require_room(&hierarchy).map_err(|error| without_group(&error))?;
    }
    made.expect_pins(&places.pin_dir);
    let (attach_to, place) = (open(&cgroup)?, Place::with(Some(cgroup.directory()))?);
    let mut datapath = open_datapath(&plan, &places.pin_dir, &attach_to, place)?;
    process_table::look_by(Box::new(datapath.lists()?));
    let (events, logs) = (datapath.take_events()?, datapath.take_logs()?);
    let watcher =
        Watcher::start(events, logs, Arc::clone(&launcher), messages).map_err(|error| {
            Problem::new(ProblemKind::Failed, "wait for the kernel's reports").because(&error)
        })?;
    // One that takes over goes on as the one before would have.
    let inherited = options.other == Other::Replace && state.exit_when_detached;
    let course = Course::new(options.exit_when_detached || inherited);
    let records = state.services.into_iter().map(|record| (record.service.id(), record)).collect();
    let mut agent = begun(Parts {
        places,
        above,
        network_namespace,
        boot_id,
        presence,
        hierarchy,
        cgroup,
        groups,
        datapath,
        records,
        watcher,
        launcher,
        course,
    });
    if options.for_attach
        && let Err(error) = agent.watcher.watch_asker()
    {
        tracing::warn!(%error, "cannot tell when who started us is gone");
    }
    match plan {
        Plan::Adopt => agent.refresh()?,
        Plan::Build { lost } => {
            if let Err(problem) = agent.build(&attach_to, lost.as_deref()) {
                agent.datapath.abandon();
                return Err(problem);
            }
        }
    }
    agent.watch_places()?;
    agent.adopt()?;
    Ok(agent)
}

/// Before they are made. A full disk is no reason not to steer.
fn note_above(above: &mut Above, places: &Places, group: &Path) {
    above.expect(group);
    above.expect(&places.pin_dir);
    if let Err(error) = above.write() {
        tracing::debug!(%error, "should the agent be killed, the directories above its own stay");
    }
}

fn open_datapath(
    plan: &Plan,
    pin_dir: &Path,
    attach_to: &File,
    place: Place,
) -> Result<Datapath, Problem> {
    change(Step::OpenDatapath, || {
        Ok(match plan {
            Plan::Adopt => Datapath::adopt(pin_dir, attach_to),
            Plan::Build { .. } => Datapath::begin(pin_dir, place),
        }?)
    })
}

fn find_hierarchy() -> Result<Hierarchy, Problem> {
    Hierarchy::find().map_err(|error| without_group(&error))
}

/// What an agent is made of.
struct Parts {
    places: Places,
    above: Above,
    network_namespace: u64,
    boot_id: String,
    presence: Presence,
    hierarchy: Hierarchy,
    cgroup: Cgroup,
    groups: Groups,
    datapath: Datapath,
    records: BTreeMap<ServiceId, Record>,
    watcher: Arc<Watcher>,
    launcher: Arc<Launcher>,
    course: Course,
}

/// One that has seen nothing yet.
fn begun(parts: Parts) -> Agent {
    let Parts {
        places,
        above,
        network_namespace,
        boot_id,
        presence,
        hierarchy,
        cgroup,
        groups,
        datapath,
        records,
        watcher,
        launcher,
        course,
    } = parts;
    Agent {
        places,
        above,
        network_namespace,
        boot_id,
        began: clock::now(),
        presence,
        hierarchy,
        cgroup,
        groups,
        former_groups: HashMap::new(),
        datapath,
        records,
        watcher,
        launcher,
        journal: Journal::new(),
        troubles: Troubles::default(),
        changes: watch::Sender::new(0),
        memories: Memories::default(),
        outstanding: Outstanding::default(),
        next_log_look: None,
        strangers: Strangers::default(),
        returns: Returns::default(),
        listeners_rest: Instant::now(),
        cookies_sent: syn_cookies::sent().unwrap_or_default(),
        count_cost: Duration::ZERO,
        moves: HashMap::new(),
        held_ports: BTreeMap::new(),
        unattributed: HashSet::new(),
        course,
    }
}

/// What is pinned, and whether it has what the state says.
fn examine(
    pin_dir: &Path,
    cgroup: &Path,
    state: Option<&StateFile>,
) -> Result<Pinned, DatapathError> {
    let pinned = datapath::examine(pin_dir, Place::with(Some(cgroup))?)?;
    let (Pinned::Whole, Some(state)) = (&pinned, state) else { return Ok(pinned) };
    if state.services.is_empty() {
        return Ok(pinned);
    }
    // What is half attached or half detached is taken back, whatever the maps have of it.
    let done = state.services.iter().filter(|record| record.unfinished.is_none());
    let missing = contents::missing(done.map(|record| &record.service), &Contents::of(pin_dir)?);
    Ok(missing.map_or(pinned, Pinned::Broken))
}

fn create_cgroup(
    hierarchy: &Hierarchy,
    groups: &mut Groups,
    made: &mut Made,
) -> Result<Cgroup, Problem> {
    made.expect(&groups.keeper());
    let failed = |error| without_group(&error);
    change(Step::MakeCgroup, || {
        hierarchy.create(&groups.keeper()).map_err(failed)?;
        groups.hold().map_err(|error| {
            let path = groups.keeper();
            Problem::new(ProblemKind::Failed, format!("lock `{}`", path.display())).because(&error)
        })?;
        hierarchy.open(groups.above()).map_err(failed)
    })
}

fn open(cgroup: &Cgroup) -> Result<File, Problem> {
    File::open(cgroup.directory()).map_err(|error| {
        let path = cgroup.directory().display();
        Problem::new(ProblemKind::Failed, format!("open `{path}`")).because(&error)
    })
}

/// The state, unless it is of an earlier start of the machine: then nothing of what it speaks of exists any more.
pub(in crate::daemon) fn read_state(
    places: &Places,
    network_namespace: u64,
    boot_id: &str,
) -> Result<Option<StateFile>, Problem> {
    let Some(state) = StateFile::read(&places.state_file())? else { return Ok(None) };
    if state.boot_id != boot_id {
        tracing::warn!(
            services = state.services.len(),
            "the machine was restarted: attach the services again"
        );
        return Ok(None);
    }
    refuse_to_leave(places, &state, network_namespace)?;
    Ok(Some(state))
}

/// What keeps an agent from taking over from one that runs: asked for before that one has to end.
///
/// # Errors
///
/// When it would leave behind what steers.
pub(super) fn examine_state(places: &Places) -> Result<(), Problem> {
    let network_namespace = context::network_namespace_of(Pid::ours())
        .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    // What cannot be read, the one that runs may write anew as it ends.
    let Ok(Some(state)) = StateFile::read(&places.state_file()) else { return Ok(()) };
    match state.boot_id == state_file::boot_id()? {
        true => refuse_to_leave(places, &state, network_namespace),
        false => Ok(()),
    }
}

/// What a state speaks of steers on where it is, and nobody would mind it.
fn refuse_to_leave(
    places: &Places,
    state: &StateFile,
    network_namespace: u64,
) -> Result<(), Problem> {
    if state.services.is_empty() {
        return Ok(());
    }
    if state.network_namespace != network_namespace {
        return Err(Problem::new(
            ProblemKind::Preflight,
            format!("`{}` is of an agent in another network namespace", places.state_file().display()),
        )
        .fix("start the agent in that namespace, or give this one its own --runtime-dir, --pin-dir and --cgroup"));
    }
    let Some(known) = &state.whereabouts else { return Ok(()) };
    // Where there is no hierarchy, that is told when groups are made.
    let Ok(hierarchy) = Hierarchy::find() else { return Ok(()) };
    let group = Groups::above_in(places, &hierarchy).map_err(|error| without_group(&error))?;
    known.refuse_others(&Whereabouts::new(places, group.directory()), &places.state_file())
}
