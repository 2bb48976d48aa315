//! The `agent` command.

use std::{env, ffi::OsString, process::ExitCode};

use agent::{
    cli::Cli,
    host::launch::{LAUNCHER_ARGUMENT, TRAMPOLINE_ARGUMENT, launcher, trampoline},
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    // Before anything else: this process becomes a server, which inherits what we would set up.
    if let Some(descriptor) = trampoline_descriptor(&arguments) {
        return trampoline(descriptor);
    }
    if matches!(&arguments[..], [_, command] if command == LAUNCHER_ARGUMENT) {
        return launcher();
    }
    let cli = match Cli::read(arguments) {
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

/// `agent launch N` is how the agent starts servers, and no command for people.
fn trampoline_descriptor(arguments: &[OsString]) -> Option<i32> {
    match arguments {
        [_, command, descriptor] if command == TRAMPOLINE_ARGUMENT => {
            descriptor.to_str()?.parse().ok()
        }
        _ => None,
    }
}
