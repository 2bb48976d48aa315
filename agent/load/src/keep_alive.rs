//! Connections that are kept as long as the server keeps them, with a request now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Client, Connection, Kit};
use super::failure::Failure;
use super::http::After;
use super::pacer::{Pacer, Turn};
use super::plan::{KeepAlive, Pace};
use super::report::Class;
use super::stop::Stop;

/// Keeps the thread's part of the connections until the end is requested, and then asks on each a last time.
pub(super) async fn run(client: Arc<Client>, settings: KeepAlive, stop: Stop) {
    match settings.pace {
        Pace::Think(think) => thinking(client, settings, think, stop).await,
        Pace::Rate(rate) => paced(client, settings, rate, stop).await,
    }
}

/// Each connection has its own pause between an answer and the next request.
async fn thinking(client: Arc<Client>, settings: KeepAlive, think: Duration, stop: Stop) {
    let mut clients = JoinSet::new();
    for number in (0..settings.connections).filter(|number| client.share.has(*number)) {
        // Spread over the first interval, or all connections would ask at the same instants for ever.
        let first = think * number / settings.connections;
        let kept = Kept::new(Arc::clone(&client), settings.requests);
        clients.spawn(kept.think(first, think, stop.clone()));
    }
    while let Some(ended) = clients.join_next().await {
        client.recorder.ended(ended);
    }
}

/// All connections together have a rate, at which those that are free take turns.
async fn paced(client: Arc<Client>, settings: KeepAlive, rate: u32, stop: Stop) {
    let Some(share) = client.share.among(settings.connections) else { return };
    let schedule = super::schedule::Schedule { share, ..client.schedule(rate) };
    let pacer = Arc::new(Pacer::new(schedule, Turn::Longest));
    let mut clients = JoinSet::new();
    for _ in (0..settings.connections).filter(|number| client.share.has(*number)) {
        let kept = Kept::new(Arc::clone(&client), settings.requests);
        clients.spawn(kept.take_turns(Arc::clone(&pacer)));
    }
    client.recorder.paced(Class::KeepAlive, pacer.run(stop, |_lack| {}).await);
    while let Some(ended) = clients.join_next().await {
        client.recorder.ended(ended);
    }
}

/// One connection, which is replaced whenever it ends before the run does.
#[derive(Debug)]
struct Kept {
    client: Arc<Client>,
    request: Vec<u8>,
    /// After how many answers the client ends it.
    most: Option<u32>,
    kit: Kit,
    connection: Option<Connection>,
    answers: u32,
}

impl Kept {
    fn new(client: Arc<Client>, most: Option<u32>) -> Self {
        let request = client.plan.protocol.request(After::Keep);
        let kit = client.kit();
        Self { client, request, most, kit, connection: None, answers: 0 }
    }

    async fn think(mut self, first: Duration, think: Duration, mut stop: Stop) {
        stop.pause(first).await;
        while !stop.requested() {
            self.ask(Instant::now()).await;
            let pause = if self.connection.is_some() { think } else { think.max(LEAST_PAUSE) };
            stop.pause(pause).await;
        }
        self.ask_a_last_time().await;
    }

    async fn take_turns(mut self, pacer: Arc<Pacer>) {
        while let Some(intended) = pacer.next().await {
            self.ask(intended).await;
        }
        self.ask_a_last_time().await;
    }

    /// A request that comes after the wish to stop: it shows that the connection lives to the very end.
    async fn ask_a_last_time(&mut self) {
        if self.connection.is_some() {
            self.ask(Instant::now()).await;
        }
    }

    /// One request that was due at `intended`, on a new connection if there is none.
    async fn ask(&mut self, intended: Instant) {
        self.client.recorder.begun(Class::KeepAlive, intended);
        if let Err(failure) = self.exchange(intended).await {
            self.connection = None;
            self.client.recorder.failed(Class::KeepAlive, failure);
        }
    }

    async fn exchange(&mut self, intended: Instant) -> Result<(), Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let new = self.client.connect(Class::KeepAlive, intended, None, &mut self.kit);
                let new = new.await?;
                self.answers = 0;
                self.connection.insert(new)
            }
        };
        let asked = self.client.ask(connection, &self.request, intended, &mut self.kit.patience);
        let answer = asked.await?;
        self.answers += 1;
        if !answer.reusable {
            self.connection = None;
            self.client.recorder.closed(Class::KeepAlive);
        } else if self.most == Some(self.answers) {
            self.connection = None;
        }
        Ok(())
    }
}

/// Between attempts to connect to a server that is not there.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
