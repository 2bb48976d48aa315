//! The arguments of the commands that change something.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use agent_api::Selected;
use agent_terms::{Limit, Loss, Release, ServiceName, Signal};
use clap::{Args, ValueEnum, builder::BoolishValueParser};

use super::Variable;

/// Take charge of a port that a server serves
///
/// Finds the server that listens there and from then on steers each new connection to it. No connection is lost or
/// delayed, and the server is not restarted. Starts the agent in the background if none is running. Doing it again changes
/// nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo agent attach --port 8080
  sudo agent attach --port 80,443 --name web")]
pub(in crate::cli) struct AttachArguments {
    /// The port; several of one server will be switched at the same instant
    #[arg(short, long = "port", value_name = "PORT", value_delimiter = ',')]
    #[arg(required = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) ports: Vec<u16>,

    /// Only listeners on this address
    #[arg(long)]
    pub(in crate::cli) address: Option<IpAddr>,

    /// What to call the service [default: after the program and the first port]
    #[arg(long)]
    pub(in crate::cli) name: Option<ServiceName>,

    /// Which process is the server, or its master, where others have the listener open or share the port
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(in crate::cli) pid: Option<i32>,
}

/// Bring in a new generation of a server, and let the old one finish
///
/// Starts the command with what the running generation was started with: its user, directory, environment and limits. Without a
/// command it starts the running one's again: a restart.
///
/// Once it accepts, all new connections go to it. The old generation keeps the connections it has; when they have ended, and
/// the new one has proved itself, it is told to end. If the new generation does not become ready, or fails soon after, the
/// old one serves on.
///
/// The command waits and shows how it goes. Interrupting it does not stop the rollout.
#[derive(Debug, Args)]
#[command(override_usage = "\
agent upgrade [OPTIONS] <NAME|--port <PORT>> [-- <COMMAND>...]
       agent upgrade [OPTIONS] <NAME|--port <PORT>> <--pid <PID>|--listen <PORT>>")]
#[command(after_long_help = "\
Examples:
  sudo agent upgrade --port 8080 -- ./server-v2 --threads 4
  sudo agent upgrade web --drain graceful --drain-timeout 30m -- /opt/web/bin/server
  sudo agent upgrade web                   (a restart: the same command again)
  sudo agent upgrade web --listen 9090     (it was started by somebody else, on port 9090)")]
pub(in crate::cli) struct UpgradeArguments {
    #[command(flatten)]
    pub(in crate::cli) service: OneService,

    #[command(flatten)]
    pub(in crate::cli) new: NewServer,

    /// What you call the new version, up to 128 bytes: asked for again while it is under way or serves, nothing is begun
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) release: Option<Release>,

    /// How far to wait
    #[arg(long, value_enum, default_value_t = Wait::Drained)]
    pub(in crate::cli) wait: Wait,

    /// What shows that the new generation works
    #[arg(long, value_name = "WHEN", value_enum)]
    #[arg(default_value_t = Ready::Accept)]
    pub(in crate::cli) ready: Ready,

    /// How long the new generation may take until it is ready
    #[arg(long, value_name = "TIME", default_value = "60s")]
    #[arg(value_parser = some_time)]
    pub(in crate::cli) timeout: Duration,

    /// How long after the switch the new generation has to prove itself: if it dies, closes a listener or accepts nothing,
    /// new connections go back to the old one, which is told nothing until then; 0s to go without
    #[arg(long, value_name = "TIME", default_value = "2500ms")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) settle: Duration,

    /// Refuse if another generation takes the new connections now
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::cli) if_generation: Option<u32>,

    /// Go on although other ports of the old generation end with it, or a supervisor starts it again
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub(in crate::cli) also: bool,

    /// Only say what would be done
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub(in crate::cli) dry_run: bool,

    #[command(flatten)]
    pub(in crate::cli) launch: LaunchOptions,

    #[command(flatten)]
    pub(in crate::cli) drain: DrainOptions,
}

/// Put the previous generation back
///
/// Gives all new connections to the generation that had them before, which must still be alive: it is, as long as it
/// drains or is kept (`--keep-old`). The generation that is taken back keeps the connections it has, and drains in turn.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  sudo agent undo --port 8080")]
pub(in crate::cli) struct UndoArguments {
    #[command(flatten)]
    pub(in crate::cli) service: OneService,

    /// How far to wait
    #[arg(long, value_enum, default_value_t = UndoWait::Switched)]
    pub(in crate::cli) wait: UndoWait,

    /// Refuse if another generation takes the new connections now
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::cli) if_generation: Option<u32>,

    /// Refuse if what would be taken back is not this release
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) if_release: Option<Release>,

    #[command(flatten)]
    pub(in crate::cli) drain: DrainOptions,
}

/// The service that a command is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct OneService {
    /// The service, by its name or one of its ports
    #[arg(value_name = "NAME")]
    pub(in crate::cli) service: Option<Selected>,

    /// The service, by one of its ports
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) port: Option<u16>,
}

/// The service that a command is about, or all.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(in crate::cli) struct AnyService {
    /// The service, by its name or one of its ports [default: all]
    #[arg(value_name = "NAME")]
    pub(in crate::cli) service: Option<Selected>,

    /// The service, by one of its ports
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) port: Option<u16>,
}

impl OneService {
    /// Which it is.
    pub(in crate::cli) fn selected(&self) -> Selected {
        AnyService { service: self.service.clone(), port: self.port }
            .selected()
            .expect("the parser asks for exactly one of them")
    }
}

impl AnyService {
    /// Which it is, if not all are meant.
    pub(in crate::cli) fn selected(&self) -> Option<Selected> {
        self.service.clone().or(self.port.map(Selected::Port))
    }
}

/// Where the new generation comes from.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(in crate::cli) struct NewServer {
    /// The command that starts it; its program is looked up from here [default: what the old generation was started with]
    #[arg(last = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<String>,

    /// This process, already started, on whatever port it listens
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(in crate::cli) pid: Option<i32>,

    /// The processes that listen on this port, already started
    #[arg(long, value_name = "PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) listen: Option<u16>,
}

/// In what the command differs from the generation that it replaces.
#[derive(Debug, Args)]
#[command(next_help_heading = "Launch options")]
pub(in crate::cli) struct LaunchOptions {
    /// User, by name or number [default: that of the old generation, like all of these]
    #[arg(long, conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) user: Option<String>,

    /// Group, by name or number
    #[arg(long, conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) group: Option<String>,

    /// Working directory; `.` is where this command is run
    #[arg(long = "cwd", value_name = "DIR", conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) working_directory: Option<PathBuf>,

    /// Set a variable, or unset it (`NAME-`); can be given again
    #[arg(long = "env", value_name = "NAME=VALUE", conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) environment: Vec<Variable>,

    /// Start from an empty environment
    #[arg(long = "clear-env", conflicts_with_all = ["pid", "listen"])]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(in crate::cli) clear_environment: bool,

    /// Change a limit, as in `nofile=4096:8192`; can be given again
    #[arg(long = "limit", value_name = "RESOURCE=SOFT[:HARD]", conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) limits: Vec<Limit>,

    /// Whose mount, PID, UTS, IPC and user namespaces it lives in
    #[arg(long, value_name = "WHOSE", value_enum, conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) namespaces: Option<Namespaces>,

    /// Go on though this confines the old generation and cannot be given to the new one: `seccomp`, `label` (that of a
    /// security module), `bpf` (programs of its control group) or `groups` (control groups that are gone); can be given again
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["pid", "listen"])]
    pub(in crate::cli) unconfined: Vec<Loss>,
}

/// Where a launched generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Namespaces {
    /// In those of the old generation
    Replaced,
    /// In those of the agent
    Agent,
}

/// How the replaced generation leaves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Drain options")]
pub(in crate::cli) struct DrainOptions {
    /// When the replaced generation is told to end
    #[arg(long, value_name = "WHEN", value_enum)]
    #[arg(default_value_t = DrainWhen::Patient)]
    pub(in crate::cli) drain: DrainWhen,

    /// How long its flows (established connections) are waited for; those left then end with it
    #[arg(long, value_name = "TIME", default_value = "1h")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) drain_timeout: Duration,

    /// With `patient`: no longer wait for flows once all have been silent for this long
    #[arg(long, value_name = "TIME")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) drain_idle: Option<Duration>,

    /// The signal that tells it to end, by name or number
    #[arg(long, value_name = "SIGNAL", default_value = "TERM")]
    pub(in crate::cli) drain_signal: Signal,

    /// How long connections that it has not accepted yet are waited for
    #[arg(long, value_name = "TIME", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) queue_timeout: Duration,

    /// How long it may take to end after the signal, before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) stop_timeout: Duration,

    /// How long after the switch it is kept alive to fall back to, even if it has drained; flows left at the drain timeout
    /// still end with it
    #[arg(long, value_name = "TIME", default_value = "0s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(in crate::cli) keep_old: Duration,
}

/// When a replaced generation is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DrainWhen {
    /// When its flows have ended: right for servers that die at a signal
    Patient,
    /// At once: right for servers that finish their flows by themselves
    Graceful,
}

/// The point of a rollout that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Wait {
    /// The new generation is ready
    Ready,
    /// It gets all new connections
    Switched,
    /// It has proved itself
    Settled,
    /// The old generation has drained, and is gone unless it is kept
    Drained,
}

/// What shows that a new generation works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Ready {
    /// It listens on every port
    Listen,
    /// It has accepted a connection of the agent on every port
    Accept,
}

/// The point of an undo that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum UndoWait {
    /// The previous generation gets all new connections
    Switched,
    /// The other one has drained, and is gone unless it is kept
    Drained,
}

impl From<UndoWait> for Wait {
    fn from(wait: UndoWait) -> Self {
        match wait {
            UndoWait::Switched => Self::Switched,
            UndoWait::Drained => Self::Drained,
        }
    }
}

/// A time that can pass: with none, nothing could happen in it.
fn some_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("it must be longer than that, or nothing can be ready".to_owned())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}
