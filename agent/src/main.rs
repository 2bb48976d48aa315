//! The `agent` command.

use std::{env, process::ExitCode};

use agent::cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::read(env::args_os()) {
        Ok(cli) => cli,
        Err(refused) => return refused.report(),
    };
    cli.start_log();
    match cli.run() {
        Ok(code) => code.into(),
        Err(problem) => {
            cli.report(&problem);
            problem.kind.exit_code().into()
        }
    }
}
