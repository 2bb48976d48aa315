//! `agent launch`: becoming a server.

use std::ffi::OsString;

use super::arguments::{Cli, ColourChoice, Command, Format, GlobalOptions, LogFormat};
use crate::{
    api::{Problem, ProblemKind},
    exit::ExitCode,
    places::Places,
};

/// Whether the command line is the one that the agent starts servers by.
pub(super) fn is_asked_for(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, command, ..] if command == "launch")
}

/// The command line with nothing but that. Not parsed: the parser would look at the environment.
pub(super) fn command_line() -> Cli {
    let global = GlobalOptions {
        runtime_dir: Places::RUNTIME_DIR.into(),
        pin_dir: Places::PIN_DIR.into(),
        cgroup: None,
        output: Format::Table,
        json: false,
        color: ColourChoice::Auto,
        verbose: 0,
        log_format: LogFormat::Text,
        config: None,
    };
    Cli { global, command: Command::Launch }
}

/// Does not return when it goes well: the process is the server then.
pub(super) fn run() -> Result<ExitCode, Problem> {
    Err(Problem::new(ProblemKind::Failed, "launching a server is not built in yet"))
}
