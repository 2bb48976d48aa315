//! Starts the agent: one at a time, adopting what an earlier one left.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    os::unix::net::UnixListener as Bound,
    path::Path,
    sync::mpsc,
    thread,
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc::UnboundedReceiver, oneshot, watch},
};

use super::{
    StateFile,
    agent::Agent,
    control_socket::{self, ControlSocket},
    descriptors,
    journal::Journal,
    message::Message,
    presence::Presence,
    server::{self, Door},
    troubles::Troubles,
    watch::Watcher,
};
use crate::{
    api::{Problem, ProblemKind},
    datapath::Datapath,
    host::{
        cgroup::{Cgroup, Hierarchy},
        context,
        process::Pid,
    },
    places::Places,
    rollout::{Event, Origin, Phase},
    service::{GenerationId, ServiceId},
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directories.
    pub places: Places,
    /// Whether to end, leaving nothing behind, when the last service is detached: for an agent that `attach` started.
    pub exit_when_detached: bool,
}

/// Runs the agent until SIGTERM, SIGINT or, if so told, the last `detach`. `ready` is called when it answers.
///
/// # Errors
///
/// When something that it needs is missing, or another agent runs. Nothing has changed then.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), Problem> {
    require_root()?;
    descriptors::allow_all();
    let places = &options.places;
    private_directory(&places.runtime_dir)?;
    let lock = lock(places)?;
    let (messages, queue) = mpsc::channel();
    let (sockets, rebound) = control_socket::successors();
    let presence = Presence::new(lock, sockets);
    let agent = assemble(options, presence, messages.clone())?;
    let (changes, network_namespace) = (agent.changes.subscribe(), agent.network_namespace);
    let listener = bind(&places.socket())?;
    write_private(&places.pid_file(), &Pid::ours().to_string())?;
    let door = Door { queue: messages.clone(), changes, network_namespace };
    let (ended, has_ended) = oneshot::channel();
    let writer = thread::Builder::new().name("agent".to_owned()).spawn(move || {
        let result = agent.run(&queue);
        // Nobody waits any more only if the runtime ended first.
        let _: Result<(), ()> = ended.send(());
        result
    });
    let writer = writer
        .map_err(|error| Problem::new(ProblemKind::Failed, format!("start a thread: {error}")))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("start the runtime: {error}"))
        })?;
    let served = runtime.block_on(serve((listener, rebound), door, messages, has_ended, ready));
    drop(runtime);
    let written = writer
        .join()
        .map_err(|_panic| Problem::new(ProblemKind::Failed, "the agent's thread panicked"))?;
    served.map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("serve the control socket: {error}"))
    })?;
    written
}

async fn serve(
    (listener, rebound): (Bound, UnboundedReceiver<Bound>),
    door: Door,
    messages: mpsc::Sender<Message>,
    has_ended: oneshot::Receiver<()>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let socket = ControlSocket::new(listener, rebound)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tell_service_manager();
    ready();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = has_ended => {}
        }
        // It may have ended already.
        let _: Result<(), _> = messages.send(Message::Stop);
    };
    // Followers of events would keep the server open: they are cut, and see that the agent ended.
    let (stopped, mut has_stopped) = watch::channel(false);
    let serving = server::serve(socket, door, async move {
        stop.await;
        stopped.send_replace(true);
    });
    tokio::select! {
        served = serving => served,
        _ = async {
            // Ends only together with the sender, after the stop.
            let _: Result<_, _> = has_stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        } => Ok(()),
    }
}

/// Everything but the threads.
fn assemble(
    options: &Options,
    presence: Presence,
    messages: mpsc::Sender<Message>,
) -> Result<Agent, Problem> {
    let places = options.places.clone();
    let network_namespace = context::network_namespace_of(Pid::ours())
        .map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    let boot_id = read_boot_id()?;
    let state = read_state(&places, network_namespace, &boot_id)?;
    let hierarchy = Hierarchy::find().map_err(|error| {
        Problem::caused(ProblemKind::Preflight, &error)
            .fix("mount it: `mount -t cgroup2 none /sys/fs/cgroup`")
    })?;
    let path =
        places.cgroup.clone().unwrap_or_else(|| hierarchy.root().directory().join(Places::CGROUP));
    let was_there = path.exists();
    let cgroup =
        hierarchy.create(&path).map_err(|error| Problem::caused(ProblemKind::Preflight, &error))?;
    let opened = mount_bpf(&places.pin_dir).and_then(|()| open_datapath(&places, &cgroup));
    let mut datapath = opened.inspect_err(|_| {
        if !was_there && let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "cannot remove the cgroup that was made in vain");
        }
    })?;
    if state.services.is_empty() && datapath.has_endpoints()? {
        return Err(Problem::new(
            ProblemKind::Preflight,
            format!("`{}` steers services, but `{}` is gone", places.pin_dir.display(), places.state_file().display()),
        )
        .fix("steering goes on; to start anew, remove the pins, which gives the ports back to the kernel, and attach again"));
    }
    let (events, logs) = (datapath.take_events()?, datapath.take_logs()?);
    let watcher = Watcher::start(events, logs, messages).map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("wait for the kernel's reports: {error}"))
    })?;
    let records = state.services.into_iter().map(|record| (record.service.id, record)).collect();
    let mut agent = Agent {
        places,
        network_namespace,
        boot_id,
        presence,
        hierarchy,
        cgroup,
        datapath,
        records,
        watcher,
        journal: Journal::new(),
        troubles: Troubles::default(),
        changes: watch::Sender::new(0),
        launches: std::collections::HashMap::new(),
        unfinished: std::collections::VecDeque::new(),
        looks: std::collections::HashMap::new(),
        half_open: std::collections::HashMap::new(),
        flows: std::collections::HashMap::new(),
        exit_when_detached: options.exit_when_detached,
        detached_last: false,
        last_answer: None,
        superseded: None,
    };
    agent.watch_places()?;
    agent.adopt()?;
    Ok(agent)
}

impl Agent {
    /// Continues what an earlier agent left: repeats what it may not have done, and looks who died meanwhile.
    fn adopt(&mut self) -> Result<(), Problem> {
        let ids: Vec<ServiceId> = self.records.keys().copied().collect();
        for id in ids {
            let service = self.record(id).service.clone();
            tracing::info!(service = %service.name, generations = service.generations.len(), "adopting");
            self.unfinished.extend(service.resume().into_iter().map(|effect| (id, effect)));
            self.finish_effects();
            for generation in service.generations {
                self.adopt_generation(
                    GenerationId { service: id, number: generation.number },
                    &generation,
                )?;
            }
        }
        self.set_endpoints()?;
        self.look_where_due();
        Ok(())
    }

    fn adopt_generation(
        &mut self,
        generation: GenerationId,
        known: &crate::rollout::Generation,
    ) -> Result<(), Problem> {
        let alive = !self.pids_of(generation)?.is_empty();
        match (&known.origin, &known.phase) {
            (Origin::Found, Phase::Starting { .. }) => {
                let why = "the agent was restarted before it was introduced".to_owned();
                self.feed(generation.service, Event::Failed(generation.number, why))?;
            }
            (_, Phase::Dead) => {}
            _ if !alive => self.feed(generation.service, Event::Exited(generation.number))?,
            (Origin::Launched { .. }, _) => {
                if let Some(cgroup) = self.cgroup_of(generation)? {
                    self.watch_cgroup(generation, &cgroup)?;
                }
                self.looks.insert(generation, std::time::Instant::now());
            }
            (Origin::Found, _) => {
                for process in &known.processes {
                    // One that ended meanwhile is not waited for.
                    if self.watch_process(generation, *process).is_err() {
                        tracing::debug!(pid = process.pid.get(), "ended while no agent ran");
                    }
                }
            }
        }
        Ok(())
    }
}

fn require_root() -> Result<(), Problem> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Preflight, "the agent needs root").fix(
        "run it with sudo; it uses CAP_BPF and CAP_PERFMON (programs), CAP_NET_ADMIN (steering, sock_diag), CAP_SYS_ADMIN \
         (BPF file system, cgroups), CAP_SYS_PTRACE (other users' descriptors), CAP_SETUID, CAP_SETGID and CAP_KILL (generations)",
    ))
}

pub(super) fn private_directory(path: &Path) -> Result<(), Problem> {
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("create `{}`: {error}", path.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Held for the life of the process: a killed agent leaves no lock behind.
pub(super) fn lock(places: &Places) -> Result<File, Problem> {
    let path = places.lock_file();
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("lock `{}`: {error}", path.display()))
    };
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid =
                    fs::read_to_string(places.pid_file()).unwrap_or_else(|_| "unknown".to_owned());
                let message = format!(
                    "an agent runs already on `{}` (pid {pid})",
                    places.runtime_dir.display()
                );
                return Err(Problem::new(ProblemKind::Locked, message));
            }
            Err(error) => return Err(failed(error.into())),
        }
        // One that ended in between has removed the file that we locked: then it locks nobody out.
        let locked = file.metadata().map_err(failed)?.ino();
        if fs::metadata(&path).is_ok_and(|named| named.ino() == locked) {
            return Ok(file);
        }
    }
}

/// The state, unless it is of an earlier start of the machine: then nothing of what it speaks of exists any more.
fn read_state(
    places: &Places,
    network_namespace: u64,
    boot_id: &str,
) -> Result<StateFile, Problem> {
    let Some(state) = StateFile::read(&places.state_file())? else {
        return Ok(StateFile::default());
    };
    if state.boot_id != boot_id {
        tracing::warn!(
            services = state.services.len(),
            "the machine was restarted: attach the services again"
        );
        return Ok(StateFile::default());
    }
    if state.network_namespace != network_namespace && !state.services.is_empty() {
        return Err(Problem::new(
            ProblemKind::Preflight,
            format!("`{}` is of an agent in another network namespace", places.state_file().display()),
        )
        .fix("start the agent in that namespace, or give this one its own --runtime-dir, --pin-dir and --cgroup"));
    }
    Ok(state)
}

fn read_boot_id() -> Result<String, Problem> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path)
        .map_err(|error| Problem::new(ProblemKind::Failed, format!("read `{path}`: {error}")))?;
    Ok(text.trim().to_owned())
}

fn open_datapath(places: &Places, cgroup: &Cgroup) -> Result<Datapath, Problem> {
    let directory = File::open(cgroup.directory()).map_err(|error| {
        Problem::new(
            ProblemKind::Failed,
            format!("open `{}`: {error}", cgroup.directory().display()),
        )
    })?;
    // Generations live one level below the agent's cgroup.
    Ok(Datapath::open(&places.pin_dir, &directory, cgroup.level() + 1)?)
}

/// Mounts the BPF file system at its usual place where nobody has.
pub(super) fn mount_bpf(pin_dir: &Path) -> Result<(), Problem> {
    const USUAL: &str = "/sys/fs/bpf";
    let mounted = crate::host::mounts::of_type("bpf").map_err(|error| {
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

/// Replaces the socket of an agent that was killed; the lock says that none lives.
pub(super) fn bind(path: &Path) -> Result<Bound, Problem> {
    let failed = |error: io::Error| {
        Problem::new(ProblemKind::Failed, format!("bind `{}`: {error}", path.display()))
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // The directory is private, so that nobody can connect before the mode is set.
    let listener = Bound::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Problem> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        Problem::new(ProblemKind::Failed, format!("write `{}`: {error}", path.display()))
    })
}

/// Does nothing where no service manager asked to be told.
fn tell_service_manager() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell the service manager that the agent is ready");
    }
}
