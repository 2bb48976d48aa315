//! What the agent answers.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use agent_rollout::PortHold;
use agent_terms::{Endpoint, GenerationNumber, OptionalSpan, Release, ServiceName, Span};
use serde::{Deserialize, Serialize};

use super::{RolloutView, Serving, Stranger};

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentView {
    /// Version of these types.
    pub schema: u32,
    /// Version of the agent.
    pub version: String,
    /// Its process.
    pub pid: i32,
    /// Inode number of the network namespace that it serves.
    pub network_namespace: u64,
    /// Its directories.
    pub runtime_dir: PathBuf,
    /// Where the maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Below which cgroup it launches generations.
    pub cgroup: PathBuf,
}

/// All services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Services {
    /// Version of these types.
    pub schema: u32,
    /// Sorted by name.
    pub services: Vec<ServiceView>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// Where its clients connect to.
    pub endpoints: Vec<Endpoint>,
    /// How it is.
    pub state: ServiceState,
    /// New connections that were steered as meant.
    pub steered: u64,
    /// New connections that went by the kernel's own lookup, because the generation cannot be steered to.
    pub plain: u64,
    /// New connections that went to another generation than meant, because it had no listener left.
    pub fallback: u64,
    /// New connections for which no generation had a listener.
    pub unreached: u64,
    /// Connections that nobody had accepted when their listener closed, and that another listener took over.
    #[serde(default)]
    pub moved: u64,
    /// Of such connections, those that no listener of the service could take over.
    #[serde(default)]
    pub stranded: u64,
    /// Those that live, oldest first.
    pub generations: Vec<GenerationView>,
    /// The rollouts under way, oldest first.
    pub rollouts: Vec<RolloutView>,
    /// The last rollout, if the new generation did not stay.
    #[serde(default)]
    pub setback: Option<RolloutView>,
    /// What is wrong around the agent, and so with every service.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Who gets the new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    /// Processes that listen there too and are not the service's: steering gives them nothing.
    #[serde(default)]
    pub beside: Vec<Stranger>,
    /// What else people have to know and to do something about, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Connections that the one that serves has not accepted for too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// Connections that wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    /// How many.
    pub connections: u64,
    /// For how long the first of them has.
    #[serde(with = "Span")]
    pub longest: Duration,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// One generation serves.
    Steady,
    /// A rollout is under way.
    RollingOut,
    /// No generation lives, the one that should serve has no listener or accepts nothing, or something is wrong around the
    /// agent.
    Degraded,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GenerationView {
    /// Its number.
    pub number: GenerationNumber,
    /// What the deploy that brought it calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Where in its life it is.
    pub state: GenerationState,
    /// Whether steering leads new connections to it.
    pub takes_new_connections: bool,
    /// Its processes, the root ones first.
    pub pids: Vec<i32>,
    /// The command line of its first process, or what was launched.
    pub command: Vec<String>,
    /// Whether the agent launched it.
    pub launched: bool,
    /// Its listeners.
    pub listeners: Vec<ListenerView>,
    /// How it holds the port.
    pub hold: PortHold,
    /// What that means, in one line, where it needs saying.
    pub note: Option<String>,
    /// Connections that it got, those that were open when it was found included.
    pub new_connections: u64,
    /// Of those, how many are open.
    pub open_flows: u64,
    /// Of those that ended, how many were reset.
    pub reset_flows: u64,
    /// How long ago it was launched or found.
    #[serde(with = "Span")]
    pub age: Duration,
    /// How long until its state is ended by force.
    #[serde(with = "OptionalSpan")]
    pub deadline_in: Option<Duration>,
    /// Where its standard output and error go, if the agent launched it.
    pub log: Option<PathBuf>,
}

/// Where in its life a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// Being made ready.
    Starting,
    /// Takes new connections.
    Primary,
    /// Died with nobody to take over.
    Dead,
    /// Replaced; its kernel queues are waited for.
    Clearing,
    /// Replaced; its flows are waited for.
    Draining,
    /// Drained; kept to fall back to.
    Standby,
    /// About to be told to end.
    Parting,
    /// Told to end after its flows.
    Finishing,
    /// Told to end.
    Stopping,
}

impl GenerationState {
    /// As people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Primary => "primary",
            Self::Dead => "dead",
            Self::Clearing => "clearing",
            Self::Draining => "draining",
            Self::Standby => "standby",
            Self::Parting => "parting",
            Self::Finishing => "finishing",
            Self::Stopping => "stopping",
        }
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListenerView {
    /// What it is bound to.
    pub bound: SocketAddr,
    /// The kernel's number for it.
    pub cookie: u64,
}

/// Answer to `attach`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attached {
    /// Version of these types.
    pub schema: u32,
    /// Whether anything was done.
    pub changed: bool,
    /// The service.
    pub service: ServiceView,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Answer to `detach`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Detached {
    /// Version of these types.
    pub schema: u32,
    /// Whether anything was done.
    pub changed: bool,
    /// The service.
    pub service: ServiceName,
    /// Whether it was the last one, so that the agent has removed everything and ends.
    pub last: bool,
    /// What the operator should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Answer to `upgrade`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UpgradeAnswer {
    /// It has begun.
    Begun(Box<Begun>),
    /// The release serves already, and nothing was changed.
    Serves(Unchanged),
    /// What would be done.
    WouldDo(UpgradePreview),
}

/// That the release that was asked for serves already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unchanged {
    /// Version of these types.
    pub schema: u32,
    /// Always false.
    pub changed: bool,
    /// The service.
    pub service: ServiceName,
    /// The generation that serves.
    pub generation: GenerationNumber,
    /// What it is.
    pub release: Release,
}

/// An upgrade that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Begun {
    /// Whether this request has begun it; otherwise another one did that asked for the same release.
    #[serde(default = "begins")]
    pub changed: bool,
    /// Where it stands.
    #[serde(flatten)]
    pub rollout: RolloutView,
    /// What the operator should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

const fn begins() -> bool {
    true
}

/// Exactly what an upgrade would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpgradePreview {
    /// Version of these types.
    pub schema: u32,
    /// The generation that would be replaced.
    pub from: GenerationNumber,
    /// The generation that would take over.
    pub to: GenerationNumber,
    /// One line per step, in order.
    pub steps: Vec<String>,
    /// What the operator should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The flows of a service, or of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Flows {
    /// Version of these types.
    pub schema: u32,
    /// By service, the oldest generation first.
    pub flows: Vec<FlowView>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FlowView {
    /// The service whose port it came to.
    pub service: ServiceName,
    /// Who has it; `None` for one that is not ours.
    pub generation: Option<GenerationNumber>,
    /// The client.
    pub remote: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// State of the connection, as the kernel names it.
    pub state: String,
    /// Whether the server has accepted it.
    pub accepted: bool,
    /// For how long no data went in either direction.
    #[serde(with = "OptionalSpan")]
    pub idle: Option<Duration>,
}

/// The rollouts of a service, or of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// Version of these types.
    pub schema: u32,
    /// Oldest first.
    pub rollouts: Vec<RolloutView>,
}

/// What the kernel would do with a connection, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// Version of these types.
    pub schema: u32,
    /// Where the connection would go to.
    pub local: SocketAddr,
    /// The service that has the endpoint, if one has.
    pub service: Option<ServiceName>,
    /// The generations in the order in which they would be offered the connection.
    pub offers: Vec<Offer>,
    /// The reasoning, one line per step.
    pub steps: Vec<String>,
}

/// One generation that would be offered a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offer {
    /// The generation.
    pub generation: GenerationNumber,
    /// Its live listeners for the endpoint.
    pub listeners: Vec<ListenerView>,
}
