//! The stage for integration tests of the upgrade agent: private namespaces, real servers, and the agent as a black box.
//!
//! Everything is as its users have it: servers are started by their own commands, the agent by its command line. Nothing
//! is shared between two tests, and every guard ends and removes what it made when it is dropped, so tests can run side
//! by side and fail at any point. All of it needs root.
//!
//! | module | holds |
//! | --- | --- |
//! | [`namespace`] | a network namespace without a name |
//! | [`servers`] | nginx, Python, Node, Redis and Go, each in as many generations as asked for |
//! | [`agent`] | the agent's command line, with private directories |
//! | [`stage`] | a namespace with an agent, and what nearly every test does there |
//! | [`other_build`] | the agent with other programs inside |
//! | [`process`] | ending what was started, and nothing else |
//! | [`lookup`] | running `steer` without a SYN
//! | [`systemd`] | systemd as process 1 of a machine within the machine |
//! | [`wait`] | waiting for a condition, with an end |
//! | [`guest`] | what is in the virtual machines of `cargo xtask kernels` |
//!
//! The clients are the load generator of the agent itself, [`agent_load`].

pub mod agent;
pub mod guest;
pub mod lookup;
pub mod loss;
pub mod namespace;
pub mod other_build;
pub mod process;
pub mod servers;
pub mod stage;
pub mod systemd;
pub mod wait;
