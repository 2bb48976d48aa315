//! Programs that run the agent on real servers, each a command of `cargo xtask`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`demo`] | what `cargo xtask demo` shows |
//! | [`comparison`] | what `cargo xtask bench` compares; the contenders are shell scripts beside this crate |
//! | [`measure`] | what `cargo xtask measure` measures |
//! | [`soak`] | what `cargo xtask soak` runs |
//! | [`interrupt`] | being told to stop |
//! | `bpftool`, `http`, `machine`, `traces`, `usage` | the kernel's counts, asking the agent directly, what this runs on, whether anything is left, what a process uses |
//!
//! Namespaces, servers and the agent under test are those of the integration tests, [`tests`].

pub mod comparison;
pub mod demo;
pub mod interrupt;
pub mod measure;
pub mod soak;

mod bpftool;
mod http;
mod machine;
mod traces;
mod usage;
