//! The command line: what is typed, what is asked of the agent, what is shown.
//!
//! `arguments` says what can be typed and `config` completes it. Each command is one module. A command asks through
//! `client`, shows by `output`, and ends with an [`ExitCode`] or a [`Problem`].

mod arguments;
mod attach;
mod completions;
mod conclusion;
mod config;
mod daemon;
mod detach;
pub mod doctor;
mod drain;
mod events;
mod explain;
mod flows;
mod follow;
mod history;
pub mod load;
mod logging;
mod manual;
mod output;
mod persist;
mod program;
mod progress;
mod published;
mod report;
#[cfg(test)]
mod samples;
mod serving;
mod start;
mod status;
mod table;
mod undo;
mod upgrade;
mod words;

use std::{ffi::OsString, io::IsTerminal};

pub use self::{arguments::Cli, config::Refused};
use agent_api::{ExitCode, Problem, ProblemKind, client::Client};

use self::{
    arguments::{ColourChoice, Command, GlobalOptions},
    output::Console,
};
use crate::{
    host::{cgroup, objects, seccomp},
    places::Places,
};

/// What every command has at hand.
#[derive(Debug)]
struct Context {
    options: GlobalOptions,
    places: Places,
    client: Client,
    console: Console,
}

impl Cli {
    /// Reads the command line, the environment and the configuration file.
    ///
    /// # Errors
    ///
    /// When one of them makes no sense, and when only help was asked for.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Refused> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        config::parse(&arguments)
    }

    /// Starts the log, to the standard error.
    pub fn start_log(&self) {
        logging::start(&self.global, matches!(self.command, Command::Daemon(_)));
    }

    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// When it cannot be done; the kind of the problem says how to end.
    pub fn run(&self) -> Result<ExitCode, Problem> {
        crate::sys::signal::survive_file_size_limit();
        let context = Context::new(self.global.clone())?;
        match &self.command {
            Command::Daemon(arguments) => {
                crate::sys::memory::allocate_in_one_place();
                daemon::run(&context, arguments)
            }
            Command::Completions { shell } => completions::run(&context, *shell),
            Command::Manual { directory } => manual::run(directory),
            Command::Doctor(arguments) => doctor::run(&context, arguments),
            command => {
                if let Some(filtered) = seccomp::filtered_of_waiting() {
                    return Err(filtered.into());
                }
                objects::runtime()?.block_on(ask(&context, command))
            }
        }
    }

    /// Tells a problem, to the standard error.
    pub fn report(&self, problem: &Problem) {
        tell(problem, self.global.color);
    }
}

/// The commands that wait: for the agent, and `load` for its load.
async fn ask(context: &Context, command: &Command) -> Result<ExitCode, Problem> {
    match command {
        Command::Attach(arguments) => attach::run(context, arguments).await,
        Command::Upgrade(arguments) => upgrade::run(context, arguments).await,
        Command::Undo(arguments) => undo::run(context, arguments).await,
        Command::Detach(arguments) => detach::run(context, arguments).await,
        Command::Status(arguments) => status::run(context, arguments).await,
        Command::Flows(arguments) => flows::run(context, arguments).await,
        Command::Events(arguments) => events::run(context, arguments).await,
        Command::History(arguments) => history::run(context, arguments).await,
        Command::Explain(arguments) => explain::run(context, arguments).await,
        Command::Load(arguments) => load::run(context, arguments).await,
        Command::Daemon(_)
        | Command::Completions { .. }
        | Command::Manual { .. }
        | Command::Doctor(_) => unreachable!("these need no runtime and were run without one"),
    }
}

impl Context {
    fn new(options: GlobalOptions) -> Result<Self, Problem> {
        // The agent that may be started has another working directory.
        let absolute = |path: &std::path::Path| {
            std::path::absolute(path).map_err(|error| Problem::caused(ProblemKind::Usage, &error))
        };
        let group = |path: &std::path::Path| {
            let meant = cgroup::meant_here(path);
            meant.map_err(|error| Problem::caused(ProblemKind::Usage, &error))
        };
        let places = Places {
            runtime_dir: absolute(&options.runtime_dir)?,
            pin_dir: absolute(&options.pin_dir)?,
            cgroup: options.cgroup.as_deref().map(group).transpose()?,
        };
        let client = Client::new(places.socket());
        let console = Console::new(&options);
        Ok(Self { options, places, client, console })
    }
}

fn tell(problem: &Problem, choice: ColourChoice) {
    let terminal = std::io::stderr().is_terminal();
    let colour = output::colour(choice, terminal, |name| std::env::var_os(name));
    output::tell(report::text(problem, colour).trim_end());
}

impl Refused {
    /// Says so, and how the process ends.
    pub fn report(self) -> std::process::ExitCode {
        match self {
            Self::CommandLine(error) => {
                match error.print() {
                    // Nobody is left to tell when the terminal is gone.
                    Err(failed) if failed.kind() != std::io::ErrorKind::BrokenPipe => {
                        let problem = Problem::new(ProblemKind::Failed, "cannot write the answer");
                        tell(&problem.because(&failed), ColourChoice::Auto);
                        if !error.use_stderr() {
                            return ExitCode::Failed.into();
                        }
                    }
                    Ok(()) | Err(_) => {}
                }
                u8::try_from(error.exit_code()).unwrap_or(ExitCode::Usage as u8).into()
            }
            Self::Configuration(problem) => {
                tell(&problem, ColourChoice::Auto);
                problem.kind.exit_code().into()
            }
        }
    }
}

#[cfg(test)]
mod tests;
