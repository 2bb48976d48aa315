//! Derives the state from what the kernel has and what runs.
//!
//! | what | from |
//! | --- | --- |
//! | services and their endpoints | `ENDPOINTS` |
//! | which generation is primary | `SERVICES` |
//! | which generations there are | tags of listeners and flows, `MEMBERS` |
//! | listeners | their tags; the public port of a moved one from `MOVED_BINDS` |
//! | processes | `MEMBERS`, the generation's cgroup, those that have its flows and accept from its listeners |
//! | whether we launched it, and the service's name | the cgroup, `NAME.N@INODE` |
//! | what to launch the next one with | the primary's process |
//!
//! What nobody can know: plans and deadlines, which begin anew with the default ones, and past rollouts.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use agent_api::{Problem, ProblemKind};
use agent_ebpf::{flow::GenerationKey, steering::Steering};
use agent_rollout::{
    DrainPlan, Generation, Kind, ListenerRecord, Listening, Origin, Phase, Readiness, Rollout,
    RolloutId, Service, Status, Timestamp,
};
use agent_terms::{Endpoint, GenerationNumber, ServiceId, ServiceName};

use super::{groups_of, refuse_other_namespace};
use crate::{
    daemon::{
        StateFile,
        identify::{found, who},
        launch::given::Given,
        launch::groups::{self, Groups},
        state::{
            clock,
            state_file::{self, Record},
            whereabouts::Whereabouts,
        },
    },
    datapath::{Datapath, Survey},
    host::{
        cgroup::{Cgroup, Hierarchy},
        context::{self, Context},
        holders::{self, Holder},
        process::{self, Pid, Process, ProcessIdentity},
        sock_diag::{self, Connection, Listener, SocketInode},
    },
    places::Places,
};

/// The state of every service of which something lives.
///
/// # Errors
///
/// When what is pinned cannot be read, steers another network namespace, or contradicts itself.
pub(super) fn state(places: &Places) -> Result<StateFile, Problem> {
    let survey = Survey::of(&places.pin_dir).map_err(|error| {
        Problem::from(error).fix(format!(
            "nobody can tell any more what these pins do; `rm -r {}` gives the ports back to the kernel, then attach again",
            places.pin_dir.display()
        ))
    })?;
    refuse_other_namespace(places)?;
    let world = World::gather(places, survey)?;
    let mut services = Vec::new();
    for (id, endpoints) in &world.survey.endpoints {
        services.extend(world.record(places, *id, endpoints)?);
    }
    let group = Groups::above_in(places, &world.hierarchy);
    Ok(StateFile {
        network_namespace: context::network_namespace_of(Pid::ours())
            .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?,
        boot_id: state_file::boot_id()?,
        services,
        // As `attach` starts it.
        exit_when_detached: true,
        whereabouts: group.ok().map(|group| Whereabouts::new(places, group.directory())),
    })
}

/// Everything that was found.
struct World {
    survey: Survey,
    hierarchy: Hierarchy,
    listeners: Vec<(GenerationKey, Listener)>,
    flows: Vec<(GenerationKey, Connection)>,
    holders: Vec<Holder>,
    cgroups: BTreeMap<GenerationKey, Cgroup>,
}

impl World {
    fn gather(places: &Places, survey: Survey) -> Result<Self, Problem> {
        use std::os::fd::AsFd as _;
        let hierarchy =
            Hierarchy::find().map_err(|error| Problem::caused(ProblemKind::Preflight, &error))?;
        let tags = survey.tags.as_fd();
        let owner = |tag: &Option<Vec<u8>>| {
            tag.as_deref().and_then(Datapath::parse_tag).map(|tag| tag.generation)
        };
        let listeners: Vec<_> = sock_diag::tagged_listeners(tags)?
            .into_iter()
            .filter_map(|listener| Some((owner(&listener.tag)?, listener)))
            .collect();
        let connections = sock_diag::tagged_connections(tags)?.into_iter();
        let flows: Vec<_> = connections.filter_map(|it| Some((owner(&it.tag)?, it))).collect();
        let mut inodes: HashSet<SocketInode> = listeners.iter().map(|it| it.1.inode).collect();
        inodes.extend(flows.iter().filter_map(|(_, flow)| flow.inode));
        let holders = holders::holders(&inodes)?.found;
        let cgroups = cgroups(places, &hierarchy, &survey);
        Ok(Self { survey, hierarchy, listeners, flows, holders, cgroups })
    }

    /// A service; nothing if nothing of it lives.
    fn record(
        &self,
        places: &Places,
        id: ServiceId,
        endpoints: &[Endpoint],
    ) -> Result<Option<Record>, Problem> {
        let Some(steering) = self.survey.steering.get(&id) else {
            let message = format!("port {} has endpoints and no steering", endpoints[0].port);
            return Err(Problem::new(ProblemKind::Failed, message).fix(
                "remove the pins, which gives the ports back to the kernel, and attach again",
            ));
        };
        let name = self.name(id);
        let mut generations = Vec::new();
        for number in self.numbers(id, steering) {
            let generation =
                self.generation(places, id, number, endpoints, steering, name.as_ref())?;
            generations.extend(generation);
        }
        let model = generations
            .iter()
            .find(|it| *it.phase() == Phase::Primary)
            .filter(|it| !it.processes().is_empty())
            .or_else(|| generations.iter().rev().find(|it| !it.processes().is_empty()));
        let Some(model) = model else { return Ok(None) };
        let pids: Vec<_> = model.processes().iter().map(|it| it.pid).collect();
        let roots = holders::roots(&pids)?;
        let root = roots.first().copied().unwrap_or(pids[0]);
        // Who repairs stands where the agent will start its launcher.
        let shown = roots.iter().chain(&pids).map(|pid| Context::of(*pid, Pid::ours()));
        let shown = shown.into_iter().find_map(Result::ok);
        let given = match shown {
            Some(_) => BTreeMap::new(),
            // Whoever it runs as, nobody else finds out by it.
            None => [(model.number().0, Given::of_nobody_knows_whom())].into(),
        };
        let context = shown.unwrap_or_else(Context::unknown);
        let name = match name {
            Some(name) => name,
            None => found::name_of(root, endpoints[0].port)?,
        };
        let rollouts = rollouts(&generations, GenerationNumber(steering.primary));
        let service = Service::derived(id, name, endpoints.to_vec(), generations, rollouts);
        let origin_cgroup = self.origin(&service);
        Ok(Some(Record {
            service,
            context,
            mark: None,
            origin_cgroup: origin_cgroup.into(),
            unfinished: None,
            requests: BTreeMap::new(),
            given,
            kept_names: Vec::new(),
            starters: Vec::new(),
        }))
    }

    fn numbers(&self, id: ServiceId, steering: &Steering) -> BTreeSet<u32> {
        let tagged = self.listeners.iter().map(|it| it.0).chain(self.flows.iter().map(|it| it.0));
        let launched = self.cgroups.keys().copied();
        let of_service = tagged.chain(launched).filter(|key| key.service == id.0);
        of_service.map(|key| key.generation).chain([steering.primary]).collect()
    }

    /// A generation; nothing if it is neither alive nor the one that steering means.
    fn generation(
        &self,
        places: &Places,
        id: ServiceId,
        number: u32,
        endpoints: &[Endpoint],
        steering: &Steering,
        name: Option<&ServiceName>,
    ) -> Result<Option<Generation>, Problem> {
        let key = GenerationKey { service: id.0, generation: number };
        let processes = self.processes(key)?;
        let is_primary = number == steering.primary;
        if processes.is_empty() && !is_primary {
            return Ok(None);
        }
        let listeners: Vec<_> =
            self.listeners.iter().filter(|it| it.0 == key).map(|it| it.1.clone()).collect();
        let public = |listener: &Listener| self.public_port(listener, endpoints);
        let number = GenerationNumber(number);
        let origin = match (self.cgroups.get(&key), name) {
            (Some(cgroup), Some(name)) => Origin::Launched {
                program: None,
                command: command_of(&processes),
                cgroup: cgroup.directory().to_owned(),
                log: places.service_dir(name.as_str()).join(format!("generation-{number}.log")),
            },
            _ => Origin::Found,
        };
        let began = processes.iter().filter_map(|it| Process::reopen(*it).ok()?.age().ok()).max();
        let records: Vec<ListenerRecord> = found::records(&listeners, public);
        let phase = phase(number, steering, !records.is_empty(), &origin);
        let since = clock::now().since(after(began)).as_millis().try_into().unwrap_or(0);
        let hold = found::hold(&listeners, public);
        let generation = Generation::new(number, phase, origin, Timestamp(since));
        Ok(Some(generation.found(Listening { hold, listeners: records }, processes)))
    }

    fn processes(&self, key: GenerationKey) -> Result<Vec<ProcessIdentity>, Problem> {
        let flows = self.flows.iter().filter(|it| it.0 == key).filter_map(|it| it.1.inode);
        let inodes: HashSet<_> = flows.collect();
        let pids: BTreeSet<Pid> = match self.cgroups.get(&key) {
            Some(cgroup) => cgroup
                .pids()
                .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?
                .into_iter()
                .collect(),
            None => {
                let holds = |it: &&Holder| !it.inodes.is_disjoint(&inodes);
                let has_flows = self.holders.iter().filter(holds).map(|it| it.pid);
                let listeners = self.listeners.iter().filter(|it| it.0 == key);
                let listeners: Vec<_> = listeners.map(|it| it.1.clone()).collect();
                has_flows.chain(who::likely(&listeners)?).collect()
            }
        };
        let members = self.survey.members.iter().filter(|(_, owner)| **owner == key);
        let members = members.filter_map(|(pid, _)| i32::try_from(*pid).ok().and_then(Pid::new));
        let pids: BTreeSet<Pid> = pids.into_iter().chain(members).collect();
        // One that ended since it was seen is none.
        Ok(pids.into_iter().filter_map(|pid| Some(Process::open(pid).ok()?.identity())).collect())
    }

    fn public_port(&self, listener: &Listener, endpoints: &[Endpoint]) -> u16 {
        let is_public = endpoints.iter().any(|endpoint| endpoint.port == listener.port);
        match self.survey.moved_binds.get(&listener.cookie.0) {
            Some(port) => *port,
            None if is_public => listener.port,
            None => endpoints[0].port,
        }
    }

    fn name(&self, id: ServiceId) -> Option<ServiceName> {
        let cgroup = self.cgroups.iter().find(|(key, _)| key.service == id.0)?.1;
        groups::service_of(cgroup.directory())
    }

    /// Where processes return to at `detach`: where one is that we did not launch. Nothing where there is none: nobody knows then.
    fn origin(&self, service: &Service) -> PathBuf {
        let found = service.generations().iter().filter(|it| *it.origin() == Origin::Found);
        let mut pids = found.flat_map(|it| it.processes()).map(|it| it.pid);
        let origin = pids.find_map(|pid| self.hierarchy.of(pid).ok());
        origin.map(|it| it.directory().to_owned()).unwrap_or_default()
    }
}

/// The cgroups of launched generations that are there, known by the processes in them.
fn cgroups(
    places: &Places,
    hierarchy: &Hierarchy,
    survey: &Survey,
) -> BTreeMap<GenerationKey, Cgroup> {
    let groups = groups_of(places).ok().flatten();
    let entries = groups.and_then(|(groups, _)| fs::read_dir(groups.above()).ok());
    let groups = entries.into_iter().flatten().filter_map(Result::ok);
    let groups = groups.filter_map(|entry| hierarchy.open(&entry.path()).ok());
    let with_owner = |group: Cgroup| {
        let pids = group.pids().ok()?;
        let owner = |pid: &Pid| survey.members.get(&pid.get().cast_unsigned()).copied();
        Some((pids.iter().find_map(owner)?, group))
    };
    groups.filter(|group| group.directory().is_dir()).filter_map(with_owner).collect()
}

/// What a living generation is doing, with the default plan. One that listens and is not the primary was replaced; a
/// launched one that is younger and does not was being made ready.
fn phase(number: GenerationNumber, steering: &Steering, listens: bool, origin: &Origin) -> Phase {
    let (now, drain) = (clock::now(), DrainPlan::default());
    if number.0 == steering.primary {
        return Phase::Primary;
    }
    if number.0 > steering.primary && !listens && *origin != Origin::Found {
        let ready_by = now.after(DrainPlan::READY_TIMEOUT);
        let (ready, settle) = (Readiness::default(), DrainPlan::SETTLE);
        return Phase::Starting { ready_by, ready, listens: false, settle, obstacle: None, drain };
    }
    Phase::Clearing {
        until: now.after(drain.queue_timeout),
        keep_until: Timestamp::default(),
        drain,
    }
}

/// One for each generation that is on its way, so that it is seen and can be followed.
fn rollouts(generations: &[Generation], primary: GenerationNumber) -> Vec<Rollout> {
    let began = clock::now();
    let under_way = generations.iter().filter(|it| *it.phase() != Phase::Primary);
    let rollout = |(generation, id): (&Generation, u64)| {
        let starting = matches!(generation.phase(), Phase::Starting { .. });
        let (from, to) = match starting {
            true => (primary, generation.number()),
            false => (generation.number(), primary),
        };
        let kind = if to > from { Kind::Upgrade } else { Kind::Undo };
        let status = if starting { Status::MakingReady } else { Status::Draining };
        let switched = (!starting).then_some(began);
        Rollout {
            id: RolloutId(id),
            kind,
            from,
            to,
            release: None,
            began,
            switched,
            settled: None,
            settle: Duration::ZERO,
            ended: None,
            status,
            waited: 0,
        }
    };
    under_way.zip(1..).map(rollout).collect()
}

fn command_of(processes: &[ProcessIdentity]) -> Vec<String> {
    let pids: Vec<_> = processes.iter().map(|it| it.pid).collect();
    let root = holders::roots(&pids).ok().and_then(|roots| roots.first().copied());
    let command = root.and_then(|root| process::command_line(root).ok()).unwrap_or_default();
    command.iter().map(|word| word.as_os_str().to_string_lossy().into_owned()).collect()
}

/// A moment so long after the machine's start.
fn after(age: Option<Duration>) -> Timestamp {
    Timestamp::default().after(age.unwrap_or_default())
}
