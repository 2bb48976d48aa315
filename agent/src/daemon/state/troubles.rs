//! What is wrong around the agent now: told once when it begins and once when it is over, however often it is tried again.

use std::{collections::BTreeMap, time::Instant};

use agent_terms::{GenerationId, ServiceId};

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
    /// The output of a service takes room that nobody can give back.
    Output(ServiceId),
}

impl Trouble {
    /// Whose it is; nothing if it is everybody's.
    const fn service(self) -> Option<ServiceId> {
        match self {
            Self::Removed | Self::Unsaved => None,
            Self::Effect(id) | Self::Successor(id) | Self::OpenPort(id) | Self::Output(id) => {
                Some(id)
            }
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

    /// Takes note of one that will be tried again then; whether it is new.
    pub(in crate::daemon) fn begin(
        &mut self,
        trouble: Trouble,
        message: String,
        retry: Instant,
    ) -> bool {
        self.retry.get_or_insert(retry);
        self.lasting.insert(trouble, message).is_none()
    }

    /// Whether it lasted until now.
    pub(in crate::daemon) fn end(&mut self, trouble: Trouble) -> bool {
        self.lasting.remove(&trouble).is_some()
    }

    /// Those to try again now, if that is due.
    pub(in crate::daemon) fn take_due(&mut self, now: Instant) -> Vec<Trouble> {
        if self.retry().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.retry = None;
        self.lasting.keys().copied().collect()
    }
}
