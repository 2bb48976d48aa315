//! System calls that no crate we use offers: the only module of the agent with `unsafe` in it.

pub(crate) mod aside;
pub(crate) mod bpf;
pub(crate) mod calls;
pub(crate) mod descriptors;
pub(crate) mod group_programs;
pub(crate) mod keyring;
pub(crate) mod memory;
pub(crate) mod scheduling;
pub(crate) mod signal;
