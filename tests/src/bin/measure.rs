//! Measures the agent, for `cargo xtask measure`: `measure ROUNDS FILE`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::measure::run()
}
