//! The layouts that the kernel programs and the agent share, and the steering decision itself.
//!
//! Everything here is plain data: `#[repr(C)]`, no hidden padding, sizes asserted at compile time on both sides. The
//! programs are in this package's binary (`src/main.rs`), which is built for the BPF target only.
//!
//! In reading order: an [`endpoint`] leads to a service, its [`steering`] value to a generation, and that to a
//! listener; a [`flow`] is counted by the tag it inherits; [`socket`] is how running sockets are taken over;
//! [`member`] is which processes are a generation's, [`process`] which there are; [`bind`] is what a new generation's `bind()` meets; [`event`] is what the kernel tells the agent.

#![no_std]

pub mod bind;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod member;
pub mod process;
pub mod socket;
pub mod steering;
#[cfg(feature = "user")]
pub mod user;

/// Version of these layouts. Part of the pin directory's name: programs and maps of one version never meet another's.
pub const SCHEMA: u32 = 6;

/// Entries of the socket map: listeners of all generations of all services together.
pub const MAX_LISTENERS: u32 = 4096;

/// Services of one agent; also the size of the per-CPU counter array that is indexed by the service.
pub const MAX_SERVICES: u32 = 1024;

/// Addresses of all endpoints of all services together, and the "any" of each of their ports.
pub const MAX_ENDPOINTS: u32 = 4096;

/// Processes of all generations of all services together.
pub const MAX_MEMBERS: u32 = 1 << 16;

/// Processes of all generations of one service: whoever forks without end takes the room of no other one.
pub const MAX_MEMBERS_OF_SERVICE: u32 = 1 << 14;
