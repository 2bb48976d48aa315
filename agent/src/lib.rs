//! Upgrades unmodified network servers without losing a connection.
//!
//! In reading order: [`service`] has the words; [`rollout`] decides; [`datapath`] is the kernel side.

pub mod api;
pub mod datapath;
pub mod exit;
pub mod places;
pub mod rollout;
pub mod service;
