//! What can be typed, and nothing about what it does.
//!
//! Every option has a key in the configuration file. Global options have a variable `AGENT_…` named after them too; options of
//! one command have none, because the same word means something else for another command. A test keeps it so.

mod load;
mod operation;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub(super) use self::{
    load::{ClientOptions, ExchangeOptions, LoadArguments, ProtocolChoice, SourceChoice},
    operation::{
        AnyService, AttachArguments, DrainOptions, DrainWhen, LaunchOptions, Namespaces, NewServer,
        OneService, Ready, UndoArguments, UpgradeArguments, Wait,
    },
    values::Variable,
};
use crate::places::Places;

/// Upgrades network servers without losing a connection.
///
/// The agent takes charge of a TCP port that an unmodified server serves. From then on it steers each new connection to
/// the newest generation of that server, while the connections that an older generation has stay with it until they end.
#[derive(Debug, Parser)]
#[command(name = "agent", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_long_help = EXAMPLE)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalOptions,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLE: &str = "\
Examples:
  sudo agent attach --port 8080
  sudo agent upgrade --port 8080 -- ./server-v2
  sudo agent status";

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalOptions {
    /// Directory of the control socket, the state and the logs
    #[arg(long, env = "AGENT_RUNTIME_DIR", value_name = "DIR", global = true)]
    #[arg(default_value = Places::RUNTIME_DIR)]
    pub(super) runtime_dir: PathBuf,

    /// Where maps and links are pinned, on a BPF file system
    #[arg(long, env = "AGENT_PIN_DIR", value_name = "DIR", global = true)]
    #[arg(default_value = Places::PIN_DIR)]
    pub(super) pin_dir: PathBuf,

    /// The control group below which servers are launched [default: `agent`, below the mount point]
    #[arg(long, env = "AGENT_CGROUP", value_name = "DIR", global = true)]
    pub(super) cgroup: Option<PathBuf>,

    /// How the answer is written
    #[arg(short, long, env = "AGENT_OUTPUT", value_name = "FORMAT", global = true)]
    #[arg(value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,

    /// Short for `--output json`
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// When to use colour; `auto` also looks at NO_COLOR and CLICOLOR_FORCE
    #[arg(long, env = "AGENT_COLOR", value_name = "WHEN", global = true)]
    #[arg(value_enum, default_value_t = ColourChoice::Auto)]
    pub(super) color: ColourChoice,

    /// Log more: once what is decided, twice each step, three times everything
    #[arg(short, long, action = ArgAction::Count, env = "AGENT_VERBOSE", global = true)]
    pub(super) verbose: u8,

    /// How the log is written, to the standard error
    #[arg(long, env = "AGENT_LOG_FORMAT", value_name = "FORMAT", global = true)]
    #[arg(value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,

    /// File with defaults for all options [default: `/etc/agent.toml`, if there is one]
    ///
    /// Keys are the long names of the options: those of every command at the top, those of one command in a section that
    /// is named after it, as in `[upgrade]` followed by `drain-timeout = "30m"`. A variable and an option on the command
    /// line come first.
    #[arg(long, env = "AGENT_CONFIG", value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For people with room
    Wide,
    /// The answer of the API as it is
    Json,
    /// One element per line
    Jsonl,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColourChoice {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Verbs change, nouns read.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Attach(AttachArguments),
    Upgrade(UpgradeArguments),
    Undo(UndoArguments),
    Detach(DetachArguments),
    Status(StatusArguments),
    Flows(FlowsArguments),
    Events(EventsArguments),
    History(HistoryArguments),
    Explain(ExplainArguments),
    // Its name until now stays for scripts.
    #[command(alias = "bench")]
    Load(LoadArguments),
    Doctor(DoctorArguments),
    Daemon(DaemonArguments),
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual, a page per command.
    #[command(hide = true)]
    Manual {
        /// Folder that the pages go to
        directory: PathBuf,
    },
}

/// Hand a port back to the kernel's own lookup
///
/// Changes nothing for the server that serves now, and for no connection. Refused while connections would be lost: during
/// a rollout, and while the serving generation is bound to another port. The agent ends after the last one, if `attach`
/// started it.
#[derive(Debug, Args)]
pub(super) struct DetachArguments {
    #[command(flatten)]
    pub(super) service: OneService,
}

/// Show services and their generations
///
/// One line per generation; the pointer is at the one that takes new connections.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    pub(super) service: AnyService,

    /// Stay, and show each change: as a picture on a terminal, as a line of JSON elsewhere
    #[arg(short, long, value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) watch: bool,

    /// End with 0 if all is steady, 10 if a rollout is under way, 11 if a service is degraded
    #[arg(long, conflicts_with = "watch")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) exit_code: bool,
}

/// Show flows (established connections), and which generation has each
#[derive(Debug, Args)]
pub(super) struct FlowsArguments {
    #[command(flatten)]
    pub(super) service: AnyService,
}

/// Show what happened
#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// Stay, and show what happens next too
    #[arg(short, long, value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) follow: bool,
}

/// Show the rollouts of a service and how they ended
#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    #[command(flatten)]
    pub(super) service: AnyService,
}

/// Say which generation would get a connection, and why
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// Where the connection goes to
    #[arg(value_name = "ADDRESS:PORT")]
    pub(super) local: std::net::SocketAddr,

    /// Where it comes from
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) from: Option<std::net::SocketAddr>,
}

/// Say whether this machine has what the agent needs
///
/// Changes nothing unless told to repair. Ends with 4 if something is missing, and says how to get it.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Mend what an agent left that does not run: write a lost state anew from what runs, start the agent, remove leftovers
    #[arg(long)]
    pub(super) repair: bool,
}

/// Run the agent in the foreground
///
/// Takes over whatever an earlier agent left behind: services, rollouts and their timers. Ending it ends no server and
/// changes no steering.
#[derive(Debug, Args)]
pub(super) struct DaemonArguments {
    /// Take over from the agent that runs, once this one is known to work here; connections do not notice
    #[arg(long)]
    pub(super) replace: bool,
    /// Return when it answers, and leave it in the background; it ends after the last detach, and logs to agent.log
    #[arg(long)]
    pub(super) background: bool,
    /// Have servers started by who answers at this socket (agent-launcher.socket), and not by a process of the agent's own: the
    /// agent can be confined then, and they are not
    #[arg(long, value_name = "SOCKET", conflicts_with = "background")]
    pub(super) launcher: Option<PathBuf>,
    /// End after the last service was detached; the first line of the standard output says how the start went.
    #[arg(long, hide = true, conflicts_with = "background")]
    pub(super) exit_when_detached: bool,
    /// End, too, when who reads the standard output goes before anything is attached.
    #[arg(long, hide = true, requires = "exit_when_detached")]
    pub(super) for_attach: bool,
}
