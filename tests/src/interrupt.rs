//! Being told to stop, by Ctrl-C or `kill`: everything is still taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Knows whether somebody wants this run to end.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals that would end this process at once. Call it before any thread is made.
    ///
    /// # Errors
    ///
    /// If the signals cannot be held back, or the thread that waits for them cannot be made.
    pub fn listen() -> Result<Self> {
        let signals: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block().context("hold back the signals to stop")?;
        let asked = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&asked);
        let wait = move || {
            while signals.wait().is_ok() {
                heard.store(true, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
        Ok(Self { asked })
    }

    /// Goes on unless somebody wants the run to end.
    ///
    /// # Errors
    ///
    /// Once somebody does.
    pub fn check(&self) -> Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
