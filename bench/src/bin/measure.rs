//! Measures the agent, for `cargo xtask measure`: `measure ROUNDS FILE`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_bench::measure::run()
}
