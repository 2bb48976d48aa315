//! The `agent` command.

use std::{env, ffi::OsString, process::ExitCode};

use agent::{
    cli::{self, Cli},
    host,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(descriptor) = cli::trampoline::asked_for(&arguments) {
        return host::launch::trampoline(descriptor);
    }
    let cli = match Cli::read(&arguments) {
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
