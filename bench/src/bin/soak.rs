//! Lets the agent run under load for a long time, for `cargo xtask soak`: `soak DURATION SEED FILE`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_bench::soak::run()
}
