//! What is wrong around the agent now: told once when it begins and once when it is over, however often it is tried again.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    api::EventKind,
    daemon::agent::{Agent, RETRY},
    service::{GenerationId, ServiceId},
};

/// A kind of trouble, of which there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::daemon) enum Trouble {
    /// Something that was removed cannot be made again.
    Removed,
    /// The state cannot be written down.
    Unsaved,
    /// What was decided for a service cannot be done.
    Effect(ServiceId),
    /// A generation cannot be looked at.
    Look(GenerationId),
    /// A generation of an earlier agent cannot be followed.
    Adoption(GenerationId),
    /// A server that somebody has started anew cannot be taken up.
    Successor(ServiceId),
    /// The public port of a server that listens elsewhere is not held.
    OpenPort(ServiceId),
    /// The kernel counts flows of a generation that nobody finds.
    Flows(GenerationId),
}

impl Trouble {
    /// Whose it is; nothing if it is everybody's.
    const fn service(self) -> Option<ServiceId> {
        match self {
            Self::Removed | Self::Unsaved => None,
            Self::Effect(id) | Self::Successor(id) | Self::OpenPort(id) => Some(id),
            Self::Look(generation) | Self::Adoption(generation) | Self::Flows(generation) => {
                Some(generation.service)
            }
        }
    }
}

/// Those that last.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Troubles {
    lasting: BTreeMap<Trouble, String>,
    /// When to try again.
    retry: Option<Instant>,
}

impl Troubles {
    /// For the `status` of a service: its own, and those of all.
    pub(in crate::daemon) fn told(&self, id: ServiceId) -> Vec<String> {
        let concerning =
            self.lasting.iter().filter(|(it, _)| it.service().is_none_or(|of| of == id));
        concerning.map(|(_, message)| message.clone()).collect()
    }

    /// What people were told of one that lasts.
    pub(in crate::daemon) fn of(&self, trouble: Trouble) -> Option<&str> {
        self.lasting.get(&trouble).map(String::as_str)
    }

    pub(in crate::daemon) fn lasts(&self, trouble: Trouble) -> bool {
        self.lasting.contains_key(&trouble)
    }

    /// When to try again, while any lasts.
    pub(in crate::daemon) fn retry(&self) -> Option<Instant> {
        self.retry.filter(|_| !self.lasting.is_empty())
    }
}

impl Agent {
    /// Notes that something does not work, which will be tried again.
    pub(in crate::daemon) fn trouble(&mut self, trouble: Trouble, message: String) {
        self.troubles.retry.get_or_insert_with(|| Instant::now() + RETRY);
        match self.troubles.lasting.insert(trouble, message.clone()) {
            None => self.journal.note_agent(EventKind::Warning, message),
            Some(_) => tracing::debug!("still so: {message}"),
        }
    }

    /// Notes that it works, which is only news if it did not.
    pub(in crate::daemon) fn over(&mut self, trouble: Trouble, message: &str) {
        if self.troubles.lasting.remove(&trouble).is_some() {
            self.journal.note_agent(EventKind::Recovered, message);
        }
    }

    /// Forgets about a trouble with what is gone.
    pub(in crate::daemon) fn moot(&mut self, trouble: Trouble) {
        self.troubles.lasting.remove(&trouble);
    }

    /// Tries again what does not work, once its time has come.
    pub(in crate::daemon) fn retry_where_due(&mut self) {
        if self.troubles.retry().is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.troubles.retry = None;
        for trouble in self.troubles.lasting.keys().copied().collect::<Vec<_>>() {
            match trouble {
                Trouble::Removed => self.mend(),
                Trouble::Unsaved => self.save_or_owe(),
                Trouble::Adoption(generation) => self.adopt_generation(generation),
                Trouble::OpenPort(id) => self.hold_ports(id),
                // These are looked at when their time comes.
                Trouble::Effect(_)
                | Trouble::Look(_)
                | Trouble::Successor(_)
                | Trouble::Flows(_) => {}
            }
        }
    }
}
