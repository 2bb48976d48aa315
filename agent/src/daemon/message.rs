//! What the agent is told or asked.

use std::net::SocketAddr;

use tokio::sync::{broadcast, oneshot};

use crate::{
    api::{self, Problem},
    datapath,
    host::process::Ending,
    rollout::RolloutId,
    service::GenerationId,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// What the agent is told or asked.
pub(super) enum Message {
    /// Somebody asks for something.
    Request(Request),
    /// A kernel program reports.
    Kernel(datapath::Event),
    /// So many reports of kernel programs were lost, because nobody took them for too long.
    ReportsLost(u64),
    /// A process of a generation has ended: of one that was found running, or the first one of a launched one.
    ProcessEnded(GenerationId, Option<Ending>),
    /// The last process of a launched generation has ended.
    CgroupEmptied(GenerationId),
    /// Something was removed from a directory that the agent lives in.
    Removed,
    /// Leave everything as it is and end.
    Stop,
}

/// What can be asked for. Services are selected by name or port.
pub(super) enum Request {
    Attach(api::AttachRequest, Reply<api::Attached>),
    Detach(String, Reply<api::Detached>),
    Upgrade(String, Box<api::UpgradeRequest>, Reply<api::UpgradeAnswer>),
    Undo(String, api::UndoRequest, Reply<api::RolloutView>),
    Agent(Reply<api::AgentView>),
    Services(Reply<api::Services>),
    Service(String, Reply<api::ServiceView>),
    Flows(String, Reply<api::Flows>),
    History(String, Reply<api::History>),
    Rollout(String, RolloutId, Reply<api::RolloutView>),
    Explain(SocketAddr, Option<SocketAddr>, Reply<api::Explanation>),
    Events(Reply<(api::Events, broadcast::Receiver<api::EventView>)>),
}

/// What the agent ends with.
pub(super) enum LastAnswer {
    Attach(Reply<api::Attached>, Problem),
    Detach(Reply<api::Detached>, api::Detached),
}
