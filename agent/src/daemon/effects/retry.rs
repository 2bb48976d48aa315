//! What does not work is told once, and tried again.

use std::time::Instant;

use agent_api::EventKind;

use crate::daemon::{
    agent::{Agent, RETRY},
    state::troubles::Trouble,
};

impl Agent {
    /// Notes that something does not work, which will be tried again.
    pub(in crate::daemon) fn trouble(&mut self, trouble: Trouble, message: String) {
        match self.troubles.begin(trouble, message.clone(), Instant::now() + RETRY) {
            true => self.journal.note_agent(EventKind::Warning, message),
            false => tracing::debug!("still so: {message}"),
        }
    }

    /// Notes that it works, which is only news if it did not.
    pub(in crate::daemon) fn over(&mut self, trouble: Trouble, message: &str) {
        if self.troubles.end(trouble) {
            self.journal.note_agent(EventKind::Recovered, message);
        }
    }

    /// Forgets about a trouble with what is gone.
    pub(in crate::daemon) fn moot(&mut self, trouble: Trouble) {
        self.troubles.end(trouble);
    }

    /// Tries again what does not work, once its time has come.
    pub(in crate::daemon) fn retry_where_due(&mut self) {
        for trouble in self.troubles.take_due(Instant::now()) {
            match trouble {
                Trouble::Removed => self.mend(),
                Trouble::Unsaved => self.save_or_owe(),
                Trouble::Adoption(generation) => self.adopt_generation(generation),
                Trouble::OpenPort(id) => self.hold_ports(id),
                // These are looked at when their time comes.
                Trouble::Effect(_)
                | Trouble::Look(_)
                | Trouble::Successor(_)
                | Trouble::Flows(_)
                | Trouble::Output(_) => {}
            }
        }
    }
}
