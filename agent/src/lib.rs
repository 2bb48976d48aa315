//! Upgrades unmodified network servers without losing a connection.

pub mod datapath;
pub mod rollout;
pub mod service;
