//! Shows the agent at work, for `cargo xtask demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_bench::demo::run()
}
