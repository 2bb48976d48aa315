//! Opens connections and holds them, for the measurements: `hold ADDRESS SOURCE COUNT`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_bench::measure::hold()
}
