//! Compares ways to upgrade a server, for `cargo xtask bench`: `bench ROUNDS FOLDER COMMAND [NAME…]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_bench::comparison::run()
}
