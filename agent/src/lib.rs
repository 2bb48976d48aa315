//! Upgrades unmodified network servers without losing a connection.

pub mod host;
