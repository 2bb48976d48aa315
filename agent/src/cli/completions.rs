//! `agent completions`.

use agent_api::{ExitCode, Problem};
use clap::CommandFactory;

use super::{Context, arguments::Cli};

/// Prints the script for a shell.
pub(super) fn run(context: &Context, shell: clap_complete::Shell) -> Result<ExitCode, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "agent", &mut script);
    context.console.print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
