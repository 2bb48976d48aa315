//! The listening half of the control socket, which can be bound again and works when descriptors run out.

use std::{fs::File, io, os::unix::net::UnixListener as Bound, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::descriptors;

/// Accepts from the socket that was bound last.
pub(in crate::daemon) struct ControlSocket {
    listener: UnixListener,
    successors: UnboundedReceiver<Bound>,
    /// Given up for one connection when there is no other descriptor left, so that who asks is told so.
    reserve: Option<File>,
}

/// How long to wait where accepting fails for a reason that does not go away by itself.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a socket goes that was bound in place of the one before.
pub(in crate::daemon) fn successors() -> (UnboundedSender<Bound>, UnboundedReceiver<Bound>) {
    unbounded_channel()
}

impl ControlSocket {
    pub(in crate::daemon) fn new(
        listener: Bound,
        successors: UnboundedReceiver<Bound>,
    ) -> io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, successors, reserve: reserve() })
    }

    /// The next connection, however long that takes.
    pub(in crate::daemon) async fn accept(&mut self) -> UnixStream {
        // Not again further down: what was given up is for the next connection.
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
        loop {
            let accepted = tokio::select! {
                // Who waits at the socket before has come first.
                biased;
                accepted = self.listener.accept() => accepted,
                Some(successor) = self.successors.recv() => {
                    self.succeed(successor);
                    continue;
                }
            };
            match accepted {
                Ok((stream, _address)) => return stream,
                Err(error)
                    if descriptors::are_exhausted(&error) && self.reserve.take().is_some() => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn succeed(&mut self, successor: Bound) {
        match UnixListener::from_std(successor) {
            Ok(listener) => self.listener = listener,
            Err(error) => {
                tracing::error!(%error, "cannot use the control socket that was bound again");
            }
        }
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
