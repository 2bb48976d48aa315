//! The first process of a virtual machine, and all others there but the agent, for `cargo xtask kernels`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::guest::run()
}
