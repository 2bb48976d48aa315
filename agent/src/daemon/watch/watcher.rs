//! Waits for everything that is a descriptor, and puts what happens into the agent's queue.
//!
//! One thread and one epoll instance: the kernel's reports, the ends of processes, the emptying of cgroups, and what is
//! removed by hand.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};

use agent_terms::GenerationId;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::Socket;

use super::{log_watch::LogWatch, removals::Removals};
use crate::{
    daemon::control::message::Message,
    datapath::{Events, KernelLogs},
    host::{
        cgroup::PopulatedWatch,
        launch::{Launcher, Report},
        process::{Process, ProcessIdentity},
    },
};

/// The waiting thread's shared half.
pub(in crate::daemon) struct Watcher {
    epoll: OwnedFd,
    watched: Mutex<Watched>,
    launcher: Arc<Launcher>,
    queue: Sender<Message>,
    removals: Removals,
    log_watch: LogWatch,
}

#[derive(Default)]
struct Watched {
    last_key: u64,
    by_key: HashMap<u64, (GenerationId, Subject)>,
    /// The processes among them.
    processes: HashSet<(GenerationId, ProcessIdentity)>,
}

/// What is waited for on behalf of a generation.
enum Subject {
    Process(Process),
    Cgroup(PopulatedWatch),
    Probe(Arc<Socket>),
    Launch(OwnedFd),
}

/// How long a process may take from leaving its cgroup to being reapable.
const ENDING: Duration = Duration::from_millis(100);
/// Reports that are taken together.
const AT_ONCE: usize = 4096;
const EVENTS: u64 = 0;
const LOGS: u64 = 1;
const REMOVALS: u64 = 2;
const LOG_WATCH: u64 = 3;
const LAUNCHER: u64 = 4;
const ASKER: u64 = 5;

impl Watcher {
    /// Starts the waiting thread.
    ///
    /// # Errors
    ///
    /// When the system has no descriptors or threads left.
    pub(in crate::daemon) fn start(
        events: Events,
        logs: KernelLogs,
        launcher: Arc<Launcher>,
        queue: Sender<Message>,
    ) -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &events, EventData::new_u64(EVENTS), EventFlags::IN)?;
        epoll::add(&epoll, &logs, EventData::new_u64(LOGS), EventFlags::IN)?;
        let removals = Removals::new()?;
        epoll::add(&epoll, &removals, EventData::new_u64(REMOVALS), EventFlags::IN)?;
        let log_watch = LogWatch::new()?;
        epoll::add(&epoll, &log_watch, EventData::new_u64(LOG_WATCH), EventFlags::IN)?;
        // Its end only: what it answers is for who has asked.
        epoll::add(&epoll, &*launcher, EventData::new_u64(LAUNCHER), EventFlags::RDHUP)?;
        let watched = Mutex::new(Watched {
            last_key: ASKER,
            by_key: HashMap::new(),
            processes: HashSet::new(),
        });
        let watcher = Arc::new(Self { epoll, watched, launcher, queue, removals, log_watch });
        let waiting = Arc::clone(&watcher);
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || waiting.wait(events, logs))?;
        Ok(watcher)
    }

    /// Tells the agent when nobody reads our standard output any more, once.
    ///
    /// # Errors
    ///
    /// When it is nothing that could be waited for, as a file.
    pub(in crate::daemon) fn watch_asker(&self) -> io::Result<()> {
        // That the other end of a pipe is closed is an error, which nobody has to ask for.
        let once = EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, io::stdout(), EventData::new_u64(ASKER), once)?)
    }

    /// Tells the agent when the process ends, and reaps it if it is ours.
    pub(in crate::daemon) fn watch_process(
        &self,
        generation: GenerationId,
        process: Process,
    ) -> io::Result<()> {
        let identity = process.identity();
        // It may end, and be forgotten again, as soon as it is waited for.
        self.watched().processes.insert((generation, identity));
        self.watch(generation, Subject::Process(process), EventFlags::IN).map(drop).inspect_err(
            |_error| {
                self.watched().processes.remove(&(generation, identity));
            },
        )
    }

    /// Whether this very process is waited for already.
    pub(in crate::daemon) fn is_watched(
        &self,
        generation: GenerationId,
        process: ProcessIdentity,
    ) -> bool {
        self.watched().processes.contains(&(generation, process))
    }

    /// Tells the agent when the last process of the cgroup has ended, also if it has already: the kernel reports only what
    /// changes from now on.
    pub(in crate::daemon) fn watch_cgroup(
        &self,
        generation: GenerationId,
        cgroup: PopulatedWatch,
    ) -> io::Result<()> {
        let key = self.watch(generation, Subject::Cgroup(cgroup), EventFlags::PRI)?;
        // An agent that does not take from its queue any more is ending.
        let _takes = self.tell(key);
        Ok(())
    }

    /// Tells the agent when a probe is answered.
    pub(in crate::daemon) fn watch_probe(
        &self,
        generation: GenerationId,
        probe: Arc<Socket>,
    ) -> io::Result<()> {
        // Each change once, the end of the handshake too: what was closed stays readable.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.watch(generation, Subject::Probe(probe), flags).map(drop)
    }

    /// Stops waiting for answers to a generation's probes.
    pub(in crate::daemon) fn forget_probe(&self, generation: GenerationId) {
        let is_probe = |subject: &Subject| matches!(subject, Subject::Probe(_));
        self.watched().by_key.retain(|_, (of, it)| *of != generation || !is_probe(it));
    }

    /// Tells the agent when a launch reports, or ends.
    pub(in crate::daemon) fn watch_launch(
        &self,
        generation: GenerationId,
        report: &Report,
    ) -> io::Result<()> {
        let report = report.as_fd().try_clone_to_owned()?;
        let flags = EventFlags::IN | EventFlags::ET;
        self.watch(generation, Subject::Launch(report), flags).map(drop)
    }

    /// Stops waiting for what a generation's launch reports.
    pub(in crate::daemon) fn forget_launch(&self, generation: GenerationId) {
        let is_launch = |subject: &Subject| matches!(subject, Subject::Launch(_));
        self.watched().by_key.retain(|_, (of, it)| *of != generation || !is_launch(it));
    }

    /// Tells the agent when something is removed from this directory.
    pub(in crate::daemon) fn watch_directory(&self, directory: &Path) -> io::Result<()> {
        self.removals.watch(directory)
    }

    /// Tells the agent when a server writes to this file, once.
    pub(in crate::daemon) fn watch_log(&self, file: &Path) -> io::Result<()> {
        self.log_watch.watch(file)
    }

    /// Stops waiting on behalf of a generation, but for the ends of its processes: those that are ours have to be reaped, also
    /// when they have been detached long since.
    pub(in crate::daemon) fn forget(&self, generation: GenerationId) {
        let is_process = |subject: &Subject| matches!(subject, Subject::Process(_));
        self.watched().by_key.retain(|_, (of, it)| *of != generation || is_process(it));
    }

    fn watch(
        &self,
        generation: GenerationId,
        subject: Subject,
        flags: EventFlags,
    ) -> io::Result<u64> {
        let mut watched = self.watched();
        watched.last_key += 1;
        let key = watched.last_key;
        epoll::add(&self.epoll, subject.as_fd(), EventData::new_u64(key), flags)?;
        watched.by_key.insert(key, (generation, subject));
        Ok(key)
    }

    /// Ends with the agent, when nobody takes from its queue any more.
    fn wait(&self, mut events: Events, mut logs: KernelLogs) {
        let mut ready = Vec::with_capacity(64);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for the kernel's reports any more");
                    return;
                }
            }
            for event in &ready {
                let messages = match event.data.u64() {
                    EVENTS => reports(&mut events),
                    LOGS => {
                        logs.flush();
                        Vec::new()
                    }
                    REMOVALS => {
                        self.removals.any().then_some(Message::Removed).into_iter().collect()
                    }
                    LOG_WATCH => {
                        self.log_watch.take();
                        vec![Message::LogWritten]
                    }
                    LAUNCHER => {
                        // Told once.
                        let _: Result<_, _> = epoll::delete(&self.epoll, &*self.launcher);
                        vec![Message::LauncherGone]
                    }
                    ASKER => vec![Message::AskerGone],
                    key => {
                        if !self.tell(key) {
                            return;
                        }
                        Vec::new()
                    }
                };
                for message in messages {
                    if self.queue.send(message).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the agent what has happened to a subject, and answers whether it still takes from its queue. Who finds out that a process
    /// has ended tells it before anybody else can tell of its cgroup: the lock is kept until then.
    fn tell(&self, key: u64) -> bool {
        let mut watched = self.watched();
        self.note(&mut watched, key).into_iter().all(|message| self.queue.send(message).is_ok())
    }

    fn note(&self, watched: &mut Watched, key: u64) -> Vec<Message> {
        let Some((generation, subject)) = watched.by_key.get(&key) else { return Vec::new() };
        let generation = *generation;
        match subject {
            Subject::Process(_) => watched.ended(key, &self.launcher).into_iter().collect(),
            Subject::Probe(_) => vec![Message::ProbeAnswered(generation)],
            Subject::Launch(_) => vec![Message::LaunchReported(generation)],
            Subject::Cgroup(cgroup) => match cgroup.is_populated() {
                Ok(true) => Vec::new(),
                // If it cannot be read, the directory is gone, and the processes with it.
                Ok(false) | Err(_) => {
                    watched.by_key.remove(&key);
                    // A process leaves its cgroup just before it can be reaped: how it ended is to be told first.
                    let mut messages = watched.processes_of(generation, &self.launcher);
                    messages.push(Message::CgroupEmptied(generation));
                    messages
                }
            },
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the kernel programs have reported, and whether it is all that they had to. Reports only say what happened to whom: one
/// more of the same, as a server with a thousand listeners sends them, says nothing more.
fn reports(events: &mut Events) -> Vec<Message> {
    // Whoever makes the kernel report faster than we take has no say in when we end: more wakes us again.
    let mut reported: Vec<_> = std::iter::from_fn(|| events.take()).take(AT_ONCE).collect();
    reported.dedup();
    let mut messages: Vec<_> = reported.into_iter().map(Message::Kernel).collect();
    match events.newly_lost() {
        Ok(0) => {}
        Ok(lost) => messages.push(Message::ReportsLost(lost)),
        Err(error) => tracing::warn!(%error, "cannot find out whether reports were lost"),
    }
    messages
}

impl Watched {
    fn processes_of(&mut self, generation: GenerationId, launcher: &Launcher) -> Vec<Message> {
        let of_generation = self.by_key.iter().filter(|(_, (of, _))| *of == generation);
        let keys: Vec<_> = of_generation.map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.ended(key, launcher)).collect()
    }

    /// Has a process reaped that ends now, if we launched it.
    fn ended(&mut self, key: u64, launcher: &Launcher) -> Option<Message> {
        let (generation, Subject::Process(process)) = self.by_key.get(&key)? else { return None };
        let generation = *generation;
        // One that the launcher does not know, or the end of the launcher, says nothing of how.
        let exited = process.has_exited_within(ENDING);
        let ended = exited.ok().and_then(|_ended| launcher.reap(process).ok()).flatten();
        self.processes.remove(&(generation, process.identity()));
        self.by_key.remove(&key);
        Some(Message::ProcessEnded(generation, ended))
    }
}

impl Subject {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Process(process) => process.as_fd(),
            Self::Cgroup(cgroup) => cgroup.as_fd(),
            Self::Probe(probe) => probe.as_fd(),
            Self::Launch(report) => report.as_fd(),
        }
    }
}
