//! How much of the state may be of one service. All of it is written at every step of any service, and has an end.

use std::io;

use agent_terms::{ServiceId, ServiceName};

use super::state_file::{MAX_BYTES, Record};
use crate::daemon::agent::Agent;

/// Bytes that are remembered of one service at most. A server with 4 KiB of environment takes some 20,000.
const MOST_OF_ONE: u64 = 1 << 20;

/// What a service may take beside others that take so much: never so much that there is no room for one more.
const fn share(of_others: u64) -> u64 {
    let half = MAX_BYTES.saturating_sub(of_others) / 2;
    if half < MOST_OF_ONE { half } else { MOST_OF_ONE }
}

impl Agent {
    /// Refuses what would have more written down of a service than its share. Most of it is the server's own words.
    ///
    /// # Errors
    ///
    /// When it is more.
    pub(in crate::daemon) fn keep_to_state_share(&self, id: ServiceId) -> Result<(), TooMuch> {
        let of = |ours: bool| {
            let records = self.records.iter().filter(move |(other, _)| (**other == id) == ours);
            records.map(|(_, record)| length(record)).sum::<u64>()
        };
        let (wanted, share) = (of(true), share(of(false)));
        if wanted <= share {
            return Ok(());
        }
        let service = self.record(id).service.name().clone();
        Err(TooMuch { service, wanted, share })
    }
}

/// More would be written down of a service than its share.
#[derive(Debug, thiserror::Error)]
#[error("what has to be remembered of `{service}` takes {wanted} bytes, and may take {share}")]
pub(in crate::daemon) struct TooMuch {
    service: ServiceName,
    wanted: u64,
    share: u64,
}

impl TooMuch {
    pub(in crate::daemon) const FIX: &str = "start the server with fewer or shorter variables and arguments: control characters take six bytes each";
}

/// As it is written down.
fn length(record: &Record) -> u64 {
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, record) {
        Ok(()) => counter.0,
        // What cannot be written down has no place there.
        Err(_) => u64::MAX,
    }
}

struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_one_more_whatever_the_others_take() {
        let mut taken = 0;
        for _greedy in 0..68 {
            assert!(share(taken) >= 20_000, "{taken}");
            taken += share(taken);
        }
        assert!(taken < MAX_BYTES);
        assert_eq!(share(MAX_BYTES), 0);
        assert_eq!(share(0), MOST_OF_ONE);
    }
}
