//! A load generator that counts every failure by its kind and knows which generation answered.
//!
//! Closed-loop generators slow down with the server and merge refused with reset connections. This one has an open loop
//! for new connections, and three classes of clients that an upgrade can hurt in other ways: kept connections, large
//! answers read slowly, and request bodies sent slowly. Servers under test answer with the number of their generation,
//! so that steering and pinning are checked, not assumed.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use agent_load::{Load, Plan};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Plan::http("127.0.0.1:8080".parse()?).one_shot(500).keep_alive(16, Duration::from_millis(20)).stream(1);
//! let running = Load::start(plan)?;
//! tokio::time::sleep(Duration::from_secs(5)).await;
//! let report = running.stop().await;
//! assert_eq!(report.summary.failures(), 0, "{}", report.summary);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod plan;
mod report;
mod running;

mod alarm;
mod failure;
mod notes;
mod pacer;
mod patience;
mod recorder;
mod schedule;
mod stop;

mod answer;
mod chunks;
mod client;
mod http;
mod line;
mod redis;
mod socket;

mod keep_alive;
mod one_shot;
mod stream;
mod upload;

#[cfg(test)]
mod tests;

pub use failure::{FailureKind, Shortage};
pub use plan::{
    KeepAlive, Marks, Observations, OneShot, Pace, Plan, Protocol, Source, Stream, Upload,
};
pub use report::{Class, ClassSummary, Failures, Incident, Latency, Observation, Report, Summary};
pub use running::{Load, Running, StartError};
