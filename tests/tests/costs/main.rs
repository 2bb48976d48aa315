//! What the agent costs, by measures that do not depend on the machine's speed. The limits are in `limits.rs`.

mod calls;
mod limits;
mod lookups;
mod maps;
mod memory;
mod programs;
