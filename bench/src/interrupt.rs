//! Being told to stop, by Ctrl-C or `kill`: everything is still taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Knows whether somebody wants this run to end.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals that would end this process at once.
    ///
    /// They are handled and not blocked: servers and agents that are started here would inherit a blocked signal, and not hear
    /// when they are told to end.
    ///
    /// # Errors
    ///
    /// If the signals cannot be handled, or the thread that waits for them cannot be made.
    pub fn listen() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate, mut hangup) = runtime
            .block_on(async {
                let kinds =
                    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
                let [interrupt, terminate, hangup] = kinds.map(signal);
                Ok::<_, std::io::Error>((interrupt?, terminate?, hangup?))
            })
            .context("handle the signals to stop")?;
        let asked = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&asked);
        let wait = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            heard.store(true, Ordering::Relaxed);
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(wait))?;
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
