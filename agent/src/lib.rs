//! Upgrades unmodified network servers without losing a connection.
//!
//! In reading order: [`agent_terms`] has the words; [`agent_rollout`] decides; [`datapath`] is the kernel side and [`host`] the rest
//! of the machine; [`daemon`] is the single writer; [`agent_api`] is what goes over its control socket and [`cli`] what people type.
//! [`agent_load`] measures what upgrades cost.

pub mod cli;
pub mod daemon;
pub mod datapath;
pub mod doctor;
#[cfg(test)]
mod fuzzing;
pub mod host;
pub mod places;
mod sys;
