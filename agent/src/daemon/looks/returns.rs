//! When to look whether a server is started again, and what whoever starts it does besides.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use agent_terms::ServiceId;

use crate::host::{process::Pid, starter::Seen};

/// Services of which a server may just be started again.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Returns {
    expected: HashMap<ServiceId, Expected>,
    suspects: Vec<Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    since: Instant,
    next_look: Instant,
}

/// Between two looks at first: a server that finds its port taken has ended again soon.
const LOOK: Duration = Duration::from_millis(50);
/// Later a part of the time that has passed.
const SHARE: u32 = 20;
/// For how long somebody who starts a server again may wait before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child of a starter that was not the server when it was seen first.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    starter: Pid,
    pid: Pid,
    since: Instant,
}

/// How long it may take until it is: whatever starts a server executes one program after the other (`env`, a shim).
const BECOMING: Duration = Duration::from_secs(2);

impl Returns {
    /// Whether a starter has other children than the server: one that stays another one, or ends as such.
    pub(in crate::daemon) fn has_other_work(&mut self, starter: Pid, seen: &Seen) -> bool {
        let now = Instant::now();
        let (of_it, of_others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.suspects).into_iter().partition(|it| it.starter == starter);
        self.suspects = of_others;
        let mut has_work = false;
        for suspect in &of_it {
            has_work |= match seen.others.contains(&suspect.pid) {
                true => now >= suspect.since + BECOMING,
                false => !seen.servers.contains(&suspect.pid),
            };
        }
        self.suspects.extend(seen.others.iter().map(|pid| {
            let known = of_it.iter().find(|it| it.pid == *pid);
            known.copied().unwrap_or(Suspect { starter, pid: *pid, since: now })
        }));
        has_work
    }

    /// From then on, if nothing later is expected already.
    pub(in crate::daemon) fn expect(&mut self, service: ServiceId, since: Instant) {
        let fresh = Expected { since, next_look: since + LOOK };
        let known = self.expected.entry(service).or_insert(fresh);
        known.since = known.since.max(since);
        known.next_look = known.next_look.min(fresh.next_look);
    }

    /// When the next look is due.
    pub(in crate::daemon) fn next_look(&self) -> Option<Instant> {
        self.expected.values().map(|it| it.next_look).min()
    }

    /// Those whose look is due, which is made now.
    pub(in crate::daemon) fn take_due(&mut self, now: Instant) -> Vec<ServiceId> {
        let due = self.expected.iter_mut().filter(|(_, it)| it.next_look <= now);
        due.map(|(id, it)| {
            it.next_look = it.since.max(now + LOOK.max((now - it.since) / SHARE));
            *id
        })
        .collect()
    }

    /// Whether nothing is expected of a service any more.
    pub(in crate::daemon) fn give_up(&mut self, service: ServiceId, now: Instant) -> bool {
        let is_over = self.expected.get(&service).is_some_and(|it| now >= it.since + PATIENCE);
        if is_over {
            self.forget(service);
        }
        is_over
    }

    /// Nothing is expected of it any more.
    pub(in crate::daemon) fn forget(&mut self, service: ServiceId) {
        self.expected.remove(&service);
        if self.expected.is_empty() {
            self.suspects.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::new(number).unwrap()
    }

    fn seen(servers: &[i32], others: &[i32]) -> Seen {
        let pids = |numbers: &[i32]| numbers.iter().map(|it| pid(*it)).collect();
        Seen { servers: pids(servers), others: pids(others), ..Seen::default() }
    }

    #[test]
    fn what_becomes_the_server_is_no_other_work_and_what_ends_as_something_else_is() {
        let mut returns = Returns::default();
        assert!(!returns.has_other_work(pid(1), &seen(&[], &[7])));
        assert!(!returns.has_other_work(pid(2), &seen(&[], &[8])), "of another one");
        assert!(!returns.has_other_work(pid(1), &seen(&[7], &[])), "it has become the server");
        assert!(!returns.has_other_work(pid(1), &seen(&[], &[])), "which has ended");
        assert!(returns.has_other_work(pid(2), &seen(&[], &[])), "it has ended as what it was");
    }

    #[test]
    fn looks_become_seldom_and_end() {
        let (mut returns, begun) = (Returns::default(), Instant::now());
        returns.expect(ServiceId(1), begun);
        let mut looks = 0;
        while let Some(at) = returns.next_look() {
            assert_eq!(returns.take_due(at), [ServiceId(1)]);
            looks += 1;
            if returns.give_up(ServiceId(1), at) {
                assert!(at >= begun + PATIENCE && at < begun + 2 * PATIENCE);
            }
        }
        assert!((50..200).contains(&looks), "{looks}");
    }
}
