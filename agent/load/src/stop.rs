//! The request to come to an end, as the clients hear it.

use std::time::Duration;

use tokio::sync::watch;

/// What the owner of a run wants of it. Its sender's end means that nobody waits for the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Run,
    Finish,
}

/// Tells a client when to come to an end.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<Wish>);

impl Stop {
    pub(super) fn new() -> (watch::Sender<Wish>, Self) {
        let (sender, receiver) = watch::channel(Wish::Run);
        (sender, Self(receiver))
    }

    pub(super) fn requested(&self) -> bool {
        *self.0.borrow() == Wish::Finish
    }

    /// Waits until the end is requested, or nobody is left who could.
    pub(super) async fn wait(&mut self) {
        // An error says that the sender is gone, which is an end as well.
        self.0.wait_for(|wish| *wish == Wish::Finish).await.ok();
    }

    /// Waits until nobody is interested in the run any more.
    pub(super) async fn abandoned(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Waits for a time, or less if the end is requested.
    pub(super) async fn pause(&mut self, duration: Duration) {
        tokio::time::timeout(duration, self.wait()).await.ok();
    }
}
