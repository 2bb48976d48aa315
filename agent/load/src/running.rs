//! A load run in progress, on threads of its own.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::client::{self, Client};
use super::plan::{Plan, Protocol, Source};
use super::recorder::Recorder;
use super::report::{Observation, Report, Summary};
use super::schedule::Share;
use super::stop::{Stop, Wish};
use super::{keep_alive, one_shot, stream, upload};

/// Starts load runs.
#[derive(Debug)]
pub struct Load;

impl Load {
    /// Starts the clients of a plan.
    ///
    /// They live on new threads, each with a runtime of its own: a socket belongs to the network namespace that its thread
    /// is in, and the caller's threads must stay in theirs. Threads share nothing while the run lasts.
    ///
    /// # Errors
    ///
    /// If the plan contradicts itself, or a thread or its runtime cannot be made or enter the namespace.
    pub fn start(plan: Plan) -> Result<Running, StartError> {
        check(&plan)?;
        let plan = Arc::new(plan);
        let (wish, stop) = Stop::new();
        let threads = plan.threads.max(1);
        let start = Instant::now();
        // An early return drops the wish, and with it the threads that have begun break off.
        let threads = (0..threads)
            .map(|index| {
                Thread::start(Arc::clone(&plan), Share { index, threads }, start, stop.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Running { threads, wish })
    }
}

/// A thread of clients.
#[derive(Debug)]
struct Thread {
    recorder: Arc<Recorder>,
    finished: oneshot::Receiver<()>,
}

impl Thread {
    fn start(
        plan: Arc<Plan>,
        share: Share,
        start: Instant,
        stop: Stop,
    ) -> Result<Self, StartError> {
        let recorder = Arc::new(Recorder::new(&plan, start));
        let (ready, started) = mpsc::sync_channel(1);
        let (finish, finished) = oneshot::channel();
        let notes = Arc::clone(&recorder);
        let body = move || match prepare(&plan) {
            Ok(runtime) => {
                // The caller waits for this message, so it is there to take it.
                ready.send(Ok(())).ok();
                runtime.block_on(drive(Client::new(plan, notes, share), stop));
                // Nobody has to wait for the end.
                finish.send(()).ok();
            }
            Err(error) => {
                ready.send(Err(error)).ok();
            }
        };
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(body)
            .map_err(StartError::Thread)?;
        started.recv().map_err(StartError::Lost)??;
        Ok(Self { recorder, finished })
    }
}

impl AsRef<Recorder> for Thread {
    fn as_ref(&self) -> &Recorder {
        &self.recorder
    }
}

/// A load run in progress. If it is dropped, its clients break off at once.
#[derive(Debug)]
pub struct Running {
    threads: Vec<Thread>,
    wish: watch::Sender<Wish>,
}

impl Running {
    /// The counts and latencies so far.
    pub fn snapshot(&self) -> Summary {
        Recorder::summary(&self.threads)
    }

    /// Takes the answers kept so far, which the report will not have then: so a long run need not keep them all.
    pub fn take_observations(&self) -> Vec<Observation> {
        self.threads.iter().flat_map(|thread| thread.recorder.take_observations()).collect()
    }

    /// Begins nothing new, lets every client finish what it has begun (bounded by the plan's timeout), and reports.
    pub async fn stop(self) -> Report {
        let Self { mut threads, wish } = self;
        wish.send_replace(Wish::Finish);
        for thread in &mut threads {
            if (&mut thread.finished).await.is_err() {
                thread.recorder.broken("the load generator itself ended early");
            }
        }
        Recorder::report(&threads)
    }

    #[cfg(test)]
    pub(super) fn recorders(&self) -> Vec<std::sync::Weak<Recorder>> {
        self.threads.iter().map(|thread| Arc::downgrade(&thread.recorder)).collect()
    }
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plan asks for something that its protocol does not have.
    #[error("streams and uploads need HTTP")]
    NeedsHttp,
    /// The plan asks for sources that cannot reach its target.
    #[error("spread source addresses need a target in 127.0.0.0/8")]
    NeedsLoopback,
    /// The thread could not be made.
    #[error("start the load thread")]
    Thread(#[source] std::io::Error),
    /// The runtime could not be made.
    #[error("start the load runtime")]
    Runtime(#[source] std::io::Error),
    /// The namespace could not be entered.
    #[error("enter the network namespace of the plan")]
    Namespace(#[source] nix::Error),
    /// The thread ended before it was ready.
    #[error("the load thread ended at its start")]
    Lost(#[source] mpsc::RecvError),
}

fn check(plan: &Plan) -> Result<(), StartError> {
    let needs_http = plan.stream.is_some() || plan.upload.is_some();
    let has_http = match plan.protocol {
        Protocol::Http { .. } => true,
        Protocol::Line { .. } | Protocol::Datagram { .. } | Protocol::Redis => false,
    };
    if needs_http && !has_http {
        return Err(StartError::NeedsHttp);
    }
    if plan.source == Source::Spread && !client::takes_spread_sources(plan.target) {
        return Err(StartError::NeedsLoopback);
    }
    Ok(())
}

fn prepare(plan: &Plan) -> Result<tokio::runtime::Runtime, StartError> {
    if let Some(namespace) = &plan.namespace {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(StartError::Namespace)?;
    }
    // On the current thread only: others would not be in the namespace, and the second core is the server's.
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)
}

/// Runs all clients until they have come to their end, or nobody wants to know.
async fn drive(client: Client, mut stop: Stop) {
    let client = Arc::new(client);
    let mut clients = JoinSet::new();
    let plan = &client.plan;
    if let Some(settings) = plan.one_shot.clone() {
        clients.spawn(one_shot::run(Arc::clone(&client), settings, stop.clone()));
    }
    if let Some(settings) = plan.keep_alive.clone() {
        clients.spawn(keep_alive::run(Arc::clone(&client), settings, stop.clone()));
    }
    if let Some(settings) = &plan.stream {
        for _ in (0..settings.connections).filter(|number| client.share.has(*number)) {
            clients.spawn(stream::run(Arc::clone(&client), settings.clone(), stop.clone()));
        }
    }
    if let Some(settings) = &plan.upload {
        for _ in (0..settings.connections).filter(|number| client.share.has(*number)) {
            clients.spawn(upload::run(Arc::clone(&client), settings.clone(), stop.clone()));
        }
    }
    tokio::select! {
        () = finish(&client.recorder, clients) => {}
        () = stop.abandoned() => {}
    }
}

async fn finish(recorder: &Recorder, mut clients: JoinSet<()>) {
    while let Some(ended) = clients.join_next().await {
        recorder.ended(ended);
    }
}
