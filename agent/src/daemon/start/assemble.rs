//! Puts the agent together: state, kernel side, and what has to be done again.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use tokio::sync::watch;

use super::{
    Options, Other, contents,
    made::Made,
    plan::{Plan, plan},
};
use crate::{
    api::{Problem, ProblemKind},
    daemon::{
        StateFile,
        agent::Agent,
        clock,
        groups::Groups,
        journal::Journal,
        message::Message,
        outstanding::Outstanding,
        presence::Presence,
        returns::Returns,
        state_file,
        step::{Step, change},
        successor::Strangers,
        troubles::{Trouble, Troubles},
        watch::Watcher,
    },
    datapath::{self, Contents, Datapath, DatapathError, Pinned, Place},
    host::{
        cgroup::{Cgroup, Hierarchy},
        context,
        launch::Launcher,
        mounts,
        process::Pid,
        syn_cookies,
    },
    places::Places,
    rollout::{Event, Generation, Origin, Phase},
    service::{GenerationId, ServiceId},
};

/// Everything but the threads.
pub(super) fn assemble(
    options: &Options,
    made: &mut Made,
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
    let hierarchy = Hierarchy::find().map_err(|error| {
        Problem::caused(ProblemKind::Preflight, &error)
            .fix("mount it: `mount -t cgroup2 none /sys/fs/cgroup`")
    })?;
    let mut groups = Groups::of(&places, &hierarchy, network_namespace);
    let pinned = examine(&places.pin_dir, groups.above(), state.as_ref())?;
    // What cannot be read belongs to what is broken, which only a state can mend.
    let steers = datapath::steers(&places.pin_dir).unwrap_or(false);
    let plan = plan(&places, state.as_ref(), &pinned, steers)?;
    let state = state.unwrap_or_default();
    let cgroup = create_cgroup(&hierarchy, &mut groups, made)?;
    made.expect_pins(&places.pin_dir);
    let (attach_to, place) = (open(&cgroup)?, Place::with(Some(cgroup.directory()))?);
    let mut datapath = change(Step::OpenDatapath, || {
        Ok(match plan {
            Plan::Adopt => Datapath::adopt(&places.pin_dir, &attach_to),
            Plan::Build { .. } => Datapath::begin(&places.pin_dir, place),
        }?)
    })?;
    let (events, logs) = (datapath.take_events()?, datapath.take_logs()?);
    let watcher =
        Watcher::start(events, logs, Arc::clone(&launcher), messages).map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("wait for the kernel's reports: {error}"))
        })?;
    // One that takes over goes on as the one before would have.
    let inherited = options.other == Other::Replace && state.exit_when_detached;
    let records = state.services.into_iter().map(|record| (record.service.id, record)).collect();
    let mut agent = Agent {
        places,
        network_namespace,
        boot_id,
        began: clock::now(),
        presence,
        hierarchy,
        cgroup,
        groups,
        former_groups: std::collections::HashMap::new(),
        datapath,
        records,
        watcher,
        launcher,
        journal: Journal::new(),
        troubles: Troubles::default(),
        changes: watch::Sender::new(0),
        launches: std::collections::HashMap::new(),
        launching: std::collections::HashMap::new(),
        outstanding: Outstanding::default(),
        next_log_look: None,
        looks: std::collections::HashMap::new(),
        strangers: Strangers::default(),
        returns: Returns::default(),
        told: std::collections::HashMap::new(),
        listeners_rest: Instant::now(),
        half_open: std::collections::HashMap::new(),
        cookies_sent: syn_cookies::sent().unwrap_or_default(),
        flows: std::collections::HashMap::new(),
        count_cost: std::time::Duration::ZERO,
        probes: std::collections::HashMap::new(),
        backlogs: std::collections::HashMap::new(),
        moves: std::collections::HashMap::new(),
        held_ports: std::collections::BTreeMap::new(),
        unattributed: std::collections::HashSet::new(),
        exit_when_detached: options.exit_when_detached || inherited,
        detached_last: false,
        last_answer: None,
        superseded: None,
    };
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
    let failed = |error| Problem::caused(ProblemKind::Preflight, &error);
    change(Step::MakeCgroup, || {
        hierarchy.create(&groups.keeper()).map_err(failed)?;
        groups.hold().map_err(|error| {
            let path = groups.keeper();
            Problem::new(ProblemKind::Failed, format!("lock `{}`: {error}", path.display()))
        })?;
        hierarchy.open(groups.above()).map_err(failed)
    })
}

fn open(cgroup: &Cgroup) -> Result<File, Problem> {
    File::open(cgroup.directory()).map_err(|error| {
        let path = cgroup.directory().display();
        Problem::new(ProblemKind::Failed, format!("open `{path}`: {error}"))
    })
}

impl Agent {
    /// Continues what an earlier agent left: does what it decided and did not do, and looks who died meanwhile.
    fn adopt(&mut self) -> Result<(), Problem> {
        self.settle_unfinished();
        let ids: Vec<ServiceId> = self.records.keys().copied().collect();
        for id in ids {
            let service = self.record(id).service.clone();
            tracing::info!(service = %service.name, generations = service.generations.len(), "adopting");
            self.forget_probes_of(id);
            let seen = self.seen(id)?;
            let effects = self.record_mut(id).service.resume(&seen, clock::now());
            self.outstanding.add(id, effects);
            self.finish_effects_of(id);
            for generation in service.generations {
                self.adopt_generation(GenerationId { service: id, number: generation.number });
            }
        }
        self.look_for_closed_listeners()?;
        self.set_endpoints()?;
        let living = self.records.iter().flat_map(|(id, record)| {
            let numbers = record.service.generations.iter().map(|it| it.number);
            numbers.map(|number| GenerationId { service: *id, number }.key())
        });
        self.datapath.keep_only(&living.collect())?;
        for id in self.records.keys().copied().collect::<Vec<_>>() {
            self.guard_queues(id);
            self.hold_ports(id);
            self.await_return(id);
            self.hand_on_after_restart(id);
        }
        self.look_where_due();
        self.look_at_logs();
        for id in self.records.keys().copied().collect::<Vec<_>>() {
            if let Some(number) = self.record(id).service.primary().map(|it| it.number) {
                self.remember_mark(GenerationId { service: id, number });
            }
        }
        // Only now: a server that serves again must not be taken for one that does not.
        for id in self.records.keys() {
            self.strangers.look_at(*id, Instant::now());
        }
        Ok(())
    }

    /// An attach that was not finished is taken back: whoever asked for it was not told that it is done. A detach is
    /// finished: what it has taken away already does not come back by itself.
    fn settle_unfinished(&mut self) {
        let half_done = self.records.iter().filter(|(_, record)| record.unfinished.is_some());
        for id in half_done.map(|(id, _)| *id).collect::<Vec<_>>() {
            let name = self.record(id).service.name.clone();
            match self.release(id) {
                Ok(()) => tracing::info!(service = %name, "finished what was half done"),
                Err(problem) => {
                    tracing::error!(service = %name, problem = problem.in_full(), "cannot finish what is half done");
                }
            }
        }
    }

    /// One that cannot be followed is tried again: it keeps the agent from no other one.
    pub(in crate::daemon) fn adopt_generation(&mut self, generation: GenerationId) {
        let trouble = Trouble::Adoption(generation);
        let Some(known) = self.generation(generation).cloned() else { return self.moot(trouble) };
        let name = self.record(generation.service).service.name.clone();
        let number = generation.number;
        match self.follow_as(generation, &known) {
            Ok(()) => self.over(trouble, &format!("{name}: generation {number} is followed again")),
            Err(problem) => {
                let problem = problem.in_full();
                self.trouble(
                    trouble,
                    format!("{name}: cannot follow generation {number}: {problem}"),
                );
            }
        }
    }

    fn follow_as(&mut self, generation: GenerationId, known: &Generation) -> Result<(), Problem> {
        let alive = !self.pids_of(generation)?.is_empty();
        match (&known.origin, &known.phase) {
            (Origin::Found, Phase::Starting { listens: true, .. }) if alive => {
                self.follow_again(generation)?;
                self.feed(generation.service, Event::Covers(generation.number, known.hold))?;
            }
            (Origin::Found, Phase::Starting { .. }) => {
                let why = "the agent was restarted before it was introduced".to_owned();
                self.feed(generation.service, Event::Failed(generation.number, why))?;
            }
            // One that was not launched yet never is: nobody knows any more what was to be launched.
            (Origin::Launched { .. }, Phase::Starting { .. }) if !alive => {
                let why = "the agent was restarted meanwhile, and nothing of it runs".to_owned();
                self.feed(generation.service, Event::NotYet(generation.number, why))?;
                self.feed(generation.service, Event::Exited(generation.number))?;
            }
            (_, Phase::Dead) => {}
            _ if !alive => self.note_exit(generation),
            (Origin::Launched { .. }, _) => {
                if let Some(cgroup) = self.cgroup_of(generation)? {
                    self.watch_cgroup(generation, &cgroup)?;
                }
                self.follow_again(generation)?;
                self.looks.insert(generation, Instant::now());
            }
            (Origin::Found, _) => {
                self.follow_again(generation)?;
                self.looks.insert(generation, Instant::now());
            }
        }
        Ok(())
    }

    /// Those that we found once, or launched, where the maps that knew them are gone.
    fn follow_again(&mut self, generation: GenerationId) -> Result<(), Problem> {
        let pids = self.pids_of(generation)?;
        self.enlist(generation, pids)?;
        self.count_processes(generation)
    }
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
    if state.network_namespace != network_namespace && !state.services.is_empty() {
        return Err(Problem::new(
            ProblemKind::Preflight,
            format!("`{}` is of an agent in another network namespace", places.state_file().display()),
        )
        .fix("start the agent in that namespace, or give this one its own --runtime-dir, --pin-dir and --cgroup"));
    }
    Ok(Some(state))
}

/// Mounts the BPF file system at its usual place where nobody has.
pub(in crate::daemon) fn mount_bpf(pin_dir: &Path) -> Result<(), Problem> {
    const USUAL: &str = "/sys/fs/bpf";
    let mounted = mounts::of_type("bpf").map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("read the mount table: {error}"))
    })?;
    if !pin_dir.starts_with(USUAL) || mounted.iter().any(|mount| mount.point == Path::new(USUAL)) {
        return Ok(());
    }
    tracing::info!("mounting the BPF file system at {USUAL}");
    let flags = nix::mount::MsFlags::MS_NOSUID
        | nix::mount::MsFlags::MS_NODEV
        | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), USUAL, Some("bpf"), flags, Some("mode=0700")).map_err(|error| {
        Problem::new(
            ProblemKind::Preflight,
            format!("mount the BPF file system at `{USUAL}`: {error}"),
        )
        .fix(format!("mount it: `mount -t bpf bpf {USUAL}`"))
    })
}
