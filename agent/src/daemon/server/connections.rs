//! Connections to the control socket: each gets its answers, and none that does not ask is kept.

use std::{pin::pin, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};

use super::Peer;
use crate::daemon::control_socket::ControlSocket;

/// How long somebody may take to say what is wanted: the head of a request, and then its body. Whoever is connected and asks
/// nothing is sent away as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Serves until the shutdown future is done, and then what is under way.
pub(super) async fn serve(
    mut socket: ControlSocket,
    routes: Router,
    patience: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let connections = GracefulShutdown::new();
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(patience);
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            stream = socket.accept() => stream,
        };
        let peer = ConnectInfo(Peer(stream.peer_cred().ok()));
        let service = TowerToHyperService::new(routes.clone().layer(Extension(peer)));
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the control socket has ended");
            }
        });
    }
    // Nobody may wait in its queue for an agent that does not come.
    drop(socket);
    connections.shutdown().await;
}
