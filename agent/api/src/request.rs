//! What is asked of the agent.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use agent_rollout::{DrainPlan, Readiness};
use agent_terms::{GenerationNumber, Limit, Loss, Release, ServiceName, Span};
use serde::{Deserialize, Serialize};

/// Take charge of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The ports; one update will switch all of them.
    pub ports: Vec<u16>,
    /// Only listeners on this address.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// What to call the service; otherwise it is named after the program and the first port.
    #[serde(default)]
    pub name: Option<ServiceName>,
    /// Which process, where unrelated ones share the port.
    #[serde(default)]
    pub pid: Option<i32>,
}

/// Bring a new generation in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// What it is.
    pub new: NewGeneration,
    /// What the asker calls it. If that is what serves or is under way, nothing is begun.
    #[serde(default)]
    pub release: Option<Release>,
    /// What shows that it works.
    #[serde(default)]
    pub ready: Readiness,
    /// How long it may take until then.
    #[serde(default = "default_ready_timeout", with = "Span")]
    pub ready_timeout: Duration,
    /// How long after the switch it has to prove itself.
    #[serde(default = "default_settle", with = "Span")]
    pub settle: Duration,
    /// How the replaced generation leaves.
    #[serde(default)]
    pub drain: DrainPlan,
    /// Refuse if another generation is the primary.
    #[serde(default)]
    pub if_generation: Option<GenerationNumber>,
    /// Go on although more would end with the replaced generation than the service, or it would be started again.
    #[serde(default)]
    pub also: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Asked again under the same number, it is not begun again.
    #[serde(default)]
    pub request: Option<RequestId>,
}

const fn default_ready_timeout() -> Duration {
    DrainPlan::READY_TIMEOUT
}

const fn default_settle() -> Duration {
    DrainPlan::SETTLE
}

/// What the asker calls a request: whatever differs from all other requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RequestId(pub String);

/// Where a new generation comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NewGeneration {
    /// The agent launches it.
    Launch(Box<Command>),
    /// This process, which somebody started, on whatever port it listens.
    Process(i32),
    /// The processes that listen on this port, which somebody started.
    Listening(u16),
}

/// What to launch. What is not given is as it is for the generation that is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Absolute path: the caller knows where it was called from. Without one, what the running generation was started with is
    /// launched again, with its arguments.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// Its name as it was typed (the zeroth argument), and the arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Working directory.
    #[serde(default)]
    pub working_directory: Option<PathBuf>,
    /// User, by name or number.
    #[serde(default)]
    pub user: Option<String>,
    /// Group, by name or number.
    #[serde(default)]
    pub group: Option<String>,
    /// Variables to set besides the replaced generation's.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables of the replaced generation's to leave out.
    #[serde(default)]
    pub without: Vec<String>,
    /// Start from an empty environment.
    #[serde(default)]
    pub clear_environment: bool,
    /// Limits that differ.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Where it lives.
    #[serde(default)]
    pub namespaces: NamespacesOf,
    /// What may confine the replaced generation and not this one.
    #[serde(default)]
    pub unconfined: Vec<Loss>,
    /// Where it was asked for, by one who may have meant that directory.
    #[serde(default)]
    pub called_from: Option<PathBuf>,
}

/// Whose mount, PID, UTS, IPC and user namespaces a launched generation gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NamespacesOf {
    /// Those of the generation that it replaces.
    #[default]
    Replaced,
    /// The agent's own.
    Agent,
}

/// Put the previous generation back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// How the generation that is taken back leaves.
    #[serde(default)]
    pub drain: DrainPlan,
    /// Refuse if another generation is the primary.
    #[serde(default)]
    pub if_generation: Option<GenerationNumber>,
    /// Refuse if something else would be taken back: the candidate, or else the primary, is of another release.
    #[serde(default)]
    pub if_release: Option<Release>,
    /// Asked again under the same number, it is not done again.
    #[serde(default)]
    pub request: Option<RequestId>,
}
