//! Starts the agent: one at a time, adopting what an earlier one left.
//!
//! - `lock`: one writer at a time, and how one takes over from another
//! - `contents`: whether the maps have what the state says (pure)
//! - `plan`: what to do about what is there (pure)
//! - `assemble`: does it, but for the threads
//! - `adopt`: goes on where an earlier agent stopped
//! - `made`: a start that fails leaves nothing
//! - `presence`, `mend`: what shows others that an agent is here, and is made again when somebody removes it
//! - `own_files`: the control socket's name and the PID file
//! - `directory`: where its files are, which nobody else may change
//! - `pin_directory`: where its pins are, and the file system for them
//! - `group`: below which control group its own are
//! - `privileges`, `filter`: what is given up as soon as the launcher runs

mod adopt;
mod assemble;
mod build;
mod contents;
mod directory;
mod filter;
mod group;
mod lock;
mod made;
mod mend;
mod own_files;
mod pin_directory;
mod plan;
pub(super) mod presence;
mod privileges;
mod refresh;

use std::{
    io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

pub use self::directory::{DirectoryError, examine_directory, private_directory};
pub use self::group::examine_group;
pub use self::lock::Lock;
pub use self::pin_directory::{PASS_IN, examine_pin_directory};
pub(super) use self::{
    assemble::read_state, group::without_group, lock::agent_answers, made::Made,
};
use agent_api::{Problem, ProblemKind};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc::UnboundedReceiver, oneshot, watch},
};

use self::lock::Proof;
use self::{
    assemble::{Traces, assemble, examine_state},
    presence::Presence,
};
use super::{
    agent::Agent,
    control::{
        message::Message,
        server::{self, Door},
        socket::{self, ControlSocket},
    },
    state::above::Above,
    step::obey_faults_in,
};
use crate::{
    host::{
        context, launch::Launcher, null_device, objects, open_files, process::Pid, room,
        seccomp::Launches, socket_options, tasks,
    },
    places::Places,
    sys::memory,
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directories.
    pub places: Places,
    /// Whether to end, leaving nothing behind, when the last service is detached: for an agent that `attach` started.
    pub exit_when_detached: bool,
    /// Whether to end, too, when who reads the standard output goes before anything is attached.
    pub for_attach: bool,
    /// What to do about an agent that runs already.
    pub other: Other,
    /// How to find out, before another agent has to end, whether this one works here.
    pub prove: Proof,
    /// The socket of a service manager that starts the launcher; the agent does so by itself if there is none.
    pub launcher: Option<PathBuf>,
}

/// What to do about an agent that runs already on the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Leave it alone, and refuse to start.
    Respect,
    /// Prove that this build works here, have the other one end, and go on from where it was.
    Replace,
}

/// What can be known before anything is made: the same for who starts an agent, who is one, and who only asks.
///
/// # Errors
///
/// With the first thing that keeps an agent from running here.
pub fn preflight(places: &Places, launches: Launches) -> Result<(), Problem> {
    privileges::require(launches)?;
    open_files::allow_all()?;
    null_device::examine()?;
    objects::examine()?;
    socket_options::examine()?;
    tasks::examine()?;
    examine_places(places)
}

/// What keeps an agent from having these places. Nothing is made.
///
/// # Errors
///
/// With the first that it cannot have.
pub fn examine_places(places: &Places) -> Result<(), Problem> {
    examine_directory(places)?;
    examine_pin_directory(&places.pin_dir)?;
    examine_group(places)
}

/// Runs the agent until SIGTERM, SIGINT or, if so told, the last `detach`. `ready` is called when it answers.
///
/// # Errors
///
/// When something that it needs is missing, or another agent runs. Nothing has changed then.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), Problem> {
    let places = &options.places;
    let launches = options.launcher.as_ref().map_or(Launches::Ours, |_| Launches::Others);
    preflight(places, launches)?;
    let mut made = Made::default();
    made.expect(&places.runtime_dir);
    let mut above = Above::read(places);
    above.expect(&places.runtime_dir);
    private_directory(&places.runtime_dir)?;
    made.expect(&places.lock_file());
    obey_faults_in(&places.runtime_dir);
    let lock = match options.other {
        Other::Respect => Lock::take(places),
        Other::Replace => {
            examine_state(places)?;
            Lock::take_over(places, options.prove)
        }
    }?;
    // Before there is a second thread.
    let launcher = launcher(options.launcher.as_deref())?;
    privileges::give_up()?;
    let (messages, queue) = mpsc::channel();
    let (sockets, rebound) = socket::successors();
    let presence = Presence::new(lock, sockets);
    let traces = Traces { made: &mut made, above };
    let agent = assemble(options, traces, presence, launcher.into(), messages.clone())?;
    let (changes, network_namespace) = (agent.changes.subscribe(), agent.network_namespace);
    made.expect(&places.socket());
    let listener = own_files::bind(&places.socket())?;
    require_room(&agent, options)?;
    made.expect(&places.pid_file());
    // It is for people, and for an agent that replaces this one without an answer: a full disk is no reason not to steer.
    if let Err(problem) = own_files::write_pid_file(&places.pid_file()) {
        tracing::warn!(%problem, "there is no file with the agent's number");
    }
    made.keep();
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
    let runtime = objects::runtime()?;
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

/// A full disk keeps nobody from going on with what is attached. With nothing attached there is nothing to go on with, and
/// nothing could be.
fn require_room(agent: &Agent, options: &Options) -> Result<(), Problem> {
    let directory = &options.places.runtime_dir;
    if !agent.records.is_empty() || options.other == Other::Replace {
        return Ok(());
    }
    room::examine(directory, 0).map_err(|error| {
        let message = format!("there is no room for the state in `{}`", directory.display());
        Problem::new(ProblemKind::Failed, message).because(&error)
    })
}

fn launcher(socket: Option<&Path>) -> Result<Launcher, Problem> {
    let Some(socket) = socket else {
        return Ok(Launcher::start()?);
    };
    let launcher = Launcher::connect(socket).map_err(|error| {
        let message = format!("no launcher answers at `{}`", socket.display());
        Problem::new(ProblemKind::Preflight, message)
            .because(&error)
            .on_one_line()
            .fix("`systemctl start agent-launcher.socket`, or leave `--launcher` out")
    })?;
    let [ours, theirs] = [Pid::ours(), launcher.pid()].map(context::network_namespace_of);
    if ours? == theirs? {
        return Ok(launcher);
    }
    let message = format!(
        "the launcher at `{}` (process {}) is in another network namespace than the agent",
        socket.display(),
        launcher.pid()
    );
    Err(Problem::new(ProblemKind::Preflight, message).fix("run both in the one of the servers"))
}

async fn serve(
    (listener, rebound): (UnixListener, UnboundedReceiver<UnixListener>),
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
    memory::give_back_unused();
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
        () = serving => {}
        () = async {
            // Ends only together with the sender, after the stop.
            let _: Result<_, _> = has_stopped.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        } => {}
    }
    Ok(())
}

/// Does nothing where no service manager asked to be told.
fn tell_service_manager() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell the service manager that the agent is ready");
    }
}
