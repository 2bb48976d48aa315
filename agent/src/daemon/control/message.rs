//! What the agent is told or asked.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Instant,
};

use agent_api::Problem;
use agent_rollout::RolloutId;
use agent_terms::GenerationId;
use tokio::sync::{broadcast, oneshot};

use crate::{
    daemon::identify::{asked::Asked, error::IdentifyError, found::Found, search::Source},
    datapath,
    host::process::Ending,
};

/// Where an answer goes.
pub(in crate::daemon) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// What the agent is told or asked.
pub(in crate::daemon) enum Message {
    /// Somebody asks for something.
    Request(Request),
    /// A kernel program reports.
    Kernel(datapath::Event),
    /// So many reports of kernel programs were lost, because nobody took them for too long.
    ReportsLost(u64),
    /// A process of a generation has ended: of one that was found running, or the first one of a launched one.
    ProcessEnded(GenerationId, Option<Ending>),
    /// A candidate that is being launched has something to say of it, or has become the server.
    LaunchReported(GenerationId),
    /// A candidate has answered a probe: it said something, closed, or is gone.
    ProbeAnswered(GenerationId),
    /// The last process of a launched generation has ended.
    CgroupEmptied(GenerationId),
    /// Whoever starts servers for us is gone.
    LauncherGone,
    /// Whoever started us for an attach is gone.
    AskerGone,
    /// Something was removed from a directory that the agent lives in.
    Removed,
    /// A server has written to its output.
    LogWritten,
    /// Leave everything as it is and end.
    Stop,
}

/// What can be asked for. Services are selected by name or port.
pub(in crate::daemon) enum Request {
    Attach(
        agent_api::AttachRequest,
        Result<Found, IdentifyError>,
        Asked,
        Reply<agent_api::Attached>,
    ),
    Detach(String, Reply<agent_api::Detached>),
    Upgrade(String, Box<agent_api::UpgradeRequest>, Source, Asked, Reply<agent_api::UpgradeAnswer>),
    Undo(String, agent_api::UndoRequest, Reply<agent_api::Begun>),
    Agent(Reply<agent_api::AgentView>),
    Services(Reply<agent_api::Services>),
    Service(String, Reply<agent_api::ServiceView>),
    /// Of one service, or of all.
    Flows(Option<String>, Reply<agent_api::Flows>),
    /// Of one service, or of all.
    History(Option<String>, Reply<agent_api::History>),
    Rollout(String, RolloutId, Reply<agent_api::RolloutView>),
    Explain(SocketAddr, Option<SocketAddr>, Reply<agent_api::Explanation>),
    Events(Reply<(agent_api::Events, broadcast::Receiver<agent_api::EventView>)>),
}

/// What comes in, one after the other. Of equal reports that wait behind each other one is taken: they only say that there is
/// something to look at, and each is answered by a look that is made after all of them.
pub(in crate::daemon) struct Inbox<'a> {
    queue: &'a Receiver<Message>,
    next: Option<Message>,
}

impl<'a> Inbox<'a> {
    pub(in crate::daemon) const fn of(queue: &'a Receiver<Message>) -> Self {
        Self { queue, next: None }
    }

    /// The next message, waiting for it until `wake` at most, or as long as it takes.
    ///
    /// # Errors
    ///
    /// When there is none until then, or nobody is left to send one.
    pub(in crate::daemon) fn take(
        &mut self,
        wake: Option<Instant>,
    ) -> Result<Message, RecvTimeoutError> {
        let message = match (self.next.take(), wake) {
            (Some(message), _) => message,
            (None, None) => self.queue.recv().map_err(|_closed| RecvTimeoutError::Disconnected)?,
            (None, Some(wake)) => {
                self.queue.recv_timeout(wake.saturating_duration_since(Instant::now()))?
            }
        };
        if let Message::Kernel(report) = &message {
            self.skip(*report);
        }
        Ok(message)
    }

    fn skip(&mut self, report: datapath::Event) {
        self.next = loop {
            match self.queue.try_recv() {
                Ok(Message::Kernel(same)) if same == report => {}
                Ok(other) => break Some(other),
                Err(_) => break None,
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use agent_terms::{GenerationNumber, ServiceId};

    use super::*;

    fn appeared(number: u32) -> Message {
        let generation = GenerationId { service: ServiceId(1), number: GenerationNumber(number) };
        Message::Kernel(datapath::Event::ListenerAppeared(generation))
    }

    #[test]
    fn equal_reports_are_taken_once_and_nothing_else_is_lost() {
        let (sender, queue) = mpsc::channel();
        let sent = [appeared(1), appeared(1), appeared(2), Message::Removed, Message::Removed];
        for message in sent.into_iter().chain([appeared(2), Message::Stop]) {
            sender.send(message).unwrap();
        }
        drop(sender);
        let mut inbox = Inbox::of(&queue);
        let taken: Vec<_> = std::iter::from_fn(|| inbox.take(None).ok())
            .map(|message| match message {
                Message::Kernel(datapath::Event::ListenerAppeared(it)) => it.number.0,
                Message::Removed => 0,
                _ => 9,
            })
            .collect();
        assert_eq!(taken, [1, 2, 0, 0, 2, 9]);
    }

    #[test]
    fn nobody_waits_longer_than_wanted() {
        let (_sender, queue) = mpsc::channel();
        let taken = Inbox::of(&queue).take(Some(Instant::now()));
        assert!(matches!(taken, Err(RecvTimeoutError::Timeout)));
    }
}
