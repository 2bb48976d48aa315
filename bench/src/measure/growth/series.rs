//! The same values at several sizes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::measure::sample::{Sample, Unit};

/// What is measured at each size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::measure) enum What {
    /// `steer`, for each connection.
    Steer,
    /// Requests per second on new connections, attached by not attached.
    NewConnections,
    /// The request to undo.
    SwitchRequest,
    /// The same right after another switch, which the agent has yet to look after.
    SwitchAtOnce,
    /// `agent undo`.
    SwitchCommand,
    /// The request to look at one service.
    StatusRequest,
    /// `agent status`.
    StatusCommand,
    /// `agent attach`.
    Attach,
    /// `agent upgrade` until the switch.
    Upgrade,
    /// From the start of an agent that was killed until it answers.
    Restore,
    /// `agent detach`.
    Detach,
    /// What the agent uses of a processor while a generation drains and nothing else happens.
    DrainCpu,
    /// Of the agent, without files.
    OwnMemory,
    /// What the kernel has for our tag of a flow.
    FlowMemory,
    /// All pinned maps.
    Maps,
    /// The state file.
    StateFile,
    /// Generations that a new connection is offered to.
    Offers,
}

/// All values of one kind of growth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::measure) struct Series {
    pub(in crate::measure) sizes: Vec<u32>,
    /// As many samples as sizes, each.
    pub(in crate::measure) samples: BTreeMap<What, Vec<Sample>>,
}

/// Values that come in.
#[derive(Debug)]
pub(super) struct Collector {
    sizes: Vec<u32>,
    values: BTreeMap<What, Vec<Vec<f64>>>,
}

impl Collector {
    pub(super) fn new(sizes: &[u32]) -> Self {
        Self { sizes: sizes.to_vec(), values: BTreeMap::new() }
    }

    /// A value at the size with this place in the list.
    pub(super) fn add(&mut self, what: What, place: usize, value: f64) {
        let empty = || vec![Vec::new(); self.sizes.len()];
        self.values.entry(what).or_insert_with(empty)[place].push(value);
    }

    pub(super) fn add_time(&mut self, what: What, place: usize, time: Duration) {
        self.add(what, place, time.as_nanos() as f64 / 1e6);
    }

    /// # Errors
    ///
    /// If something was not measured at each size.
    pub(super) fn finish(self) -> Result<Series> {
        let samples = self.values.into_iter().map(|(what, values)| {
            let each = values.into_iter().map(|values| Sample::of(what.unit(), values));
            let samples = each.collect::<Result<_>>().with_context(|| format!("{what:?}"))?;
            Ok((what, samples))
        });
        Ok(Series { sizes: self.sizes, samples: samples.collect::<Result<_>>()? })
    }
}

impl Series {
    /// The median at the largest size by that at the smallest one.
    pub(in crate::measure) fn growth(&self, what: What) -> Option<f64> {
        let samples = self.samples.get(&what)?;
        Some(samples.last()?.median / samples.first()?.median)
    }

    /// The sample at the largest size.
    pub(in crate::measure) fn largest(&self, what: What) -> Option<&Sample> {
        self.samples.get(&what)?.last()
    }
}

impl What {
    const fn unit(self) -> Unit {
        match self {
            Self::Steer => Unit::Nanoseconds,
            Self::NewConnections => Unit::Ratio,
            Self::SwitchRequest
            | Self::SwitchAtOnce
            | Self::SwitchCommand
            | Self::StatusRequest
            | Self::StatusCommand
            | Self::Attach
            | Self::Upgrade
            | Self::Restore
            | Self::Detach => Unit::Milliseconds,
            Self::DrainCpu => Unit::Share,
            Self::OwnMemory | Self::FlowMemory | Self::Maps | Self::StateFile => Unit::Bytes,
            Self::Offers => Unit::Count,
        }
    }

    /// In a word or two.
    pub(super) const fn short(self) -> &'static str {
        match self {
            Self::SwitchRequest => "switch",
            Self::SwitchAtOnce => "switch after switch",
            Self::StatusCommand => "status",
            Self::Attach => "attach",
            Self::Upgrade => "upgrade",
            Self::Restore => "restart of the agent",
            Self::Detach => "detach",
            other => other.name(),
        }
    }

    /// As people read it.
    pub(in crate::measure) const fn name(self) -> &'static str {
        match self {
            Self::Steer => "`steer`, per connection",
            Self::NewConnections => "new connections, attached / not attached",
            Self::SwitchRequest => "switch: the request to undo",
            Self::SwitchAtOnce => "switch: the same, right after another switch",
            Self::SwitchCommand => "switch: `agent undo`",
            Self::StatusRequest => "the request to look at the service",
            Self::StatusCommand => "`agent status`",
            Self::Attach => "`agent attach`",
            Self::Upgrade => "`agent upgrade`, until the switch",
            Self::Restore => "start of an agent that was killed, until it answers",
            Self::Detach => "`agent detach`",
            Self::DrainCpu => "CPU of the agent during a drain",
            Self::OwnMemory => "memory of the agent without files",
            Self::FlowMemory => "memory of the kernel for each flow (socket storage)",
            Self::Maps => "memory of the maps",
            Self::StateFile => "state file",
            Self::Offers => "generations that a connection is offered to",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_medians() {
        let mut collector = Collector::new(&[1, 10]);
        for (place, value) in [(0, 1.0), (0, 2.0), (0, 9.0), (1, 3.0)] {
            collector.add(What::Steer, place, value);
        }
        assert_eq!(collector.finish().unwrap().growth(What::Steer), Some(1.5));
    }

    #[test]
    fn a_size_that_was_left_out_is_noticed() {
        let mut collector = Collector::new(&[1, 10]);
        collector.add(What::Steer, 1, 1.0);
        collector.finish().unwrap_err();
    }
}
