//! A stage of which nothing is left, whatever daemons and workers the servers made.

use anyhow::Result;
use tests::namespace::Namespace;
use tests::stage::Stage;

/// A stage in a namespace that is cleared at the end.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where everything happens.
    pub(crate) stage: Stage,
    /// Dropped last: by then the agent has ended what it knows of.
    _cleared: Cleared,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let stage = Stage::new()?;
        let cleared = Cleared(stage.namespace.clone());
        Ok(Self { stage, _cleared: cleared })
    }
}

#[derive(Debug)]
struct Cleared(Namespace);

impl Drop for Cleared {
    fn drop(&mut self) {
        if let Err(error) = self.0.clear() {
            eprintln!("processes are left behind: {error:#}");
        }
    }
}
