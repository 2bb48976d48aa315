//! The connections to the control socket: so many at most, and each has to say soon what it wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{BoxError, Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixStream, unix::UCred},
    sync::watch,
    task::{self, AbortHandle, JoinSet},
};

use crate::{daemon::control::socket::ControlSocket, sys::memory};

/// Who is at the other end, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) Option<UCred>);

/// How long a request may take to be there as a whole, and a connection between two of them.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Half of them could each follow a service, of as many as there can be, and the others ask.
const MOST: usize = 2 * agent_ebpf::MAX_SERVICES as usize;
/// What so many leave behind is worth to be given back.
const MANY: usize = 256;
/// Bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;

/// Answers by the routes until the shutdown future is done; then what was asked is still answered.
pub(super) async fn serve(
    mut socket: ControlSocket,
    routes: Router,
    patience: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let (stopped, has_stopped) = watch::channel(false);
    let mut connections = Connections::default();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                connections.forget(id);
            }
            stream = socket.accept(), if connections.have_room() => {
                connections.add(stream, (&routes, patience), has_stopped.clone());
            }
        }
    }
    drop(socket);
    stopped.send_replace(true);
    while connections.tasks.join_next().await.is_some() {}
}

/// Those that are open, the oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: Vec<Open>,
    /// How many were open at once, since their memory was given back.
    most: usize,
}

struct Open {
    task: AbortHandle,
    /// Whether a request has come on it: who has asked is answered.
    has_asked: Arc<AtomicBool>,
}

impl Connections {
    /// Whether there is room for one more, if need be in place of one that has said nothing yet.
    fn have_room(&self) -> bool {
        self.open.len() < MOST || self.first_silent().is_some()
    }

    fn first_silent(&self) -> Option<usize> {
        self.open.iter().position(|it| !it.has_asked.load(Ordering::Relaxed))
    }

    fn add(
        &mut self,
        stream: UnixStream,
        (routes, patience): (&Router, Duration),
        has_stopped: watch::Receiver<bool>,
    ) {
        if self.open.len() >= MOST
            && let Some(silent) = self.first_silent()
        {
            self.open.remove(silent).task.abort();
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let peer = Peer(stream.peer_cred().ok());
        // The routes are shared: layers around them would be a copy for each connection.
        let routes = TowerToHyperService::new(routes.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            routes.call(request)
        });
        let task = self.tasks.spawn(answer(stream, service, patience, has_stopped));
        self.open.push(Open { task, has_asked });
        self.most = self.most.max(self.open.len());
    }

    fn forget(&mut self, ended: task::Id) {
        self.open.retain(|it| it.task.id() != ended);
        if self.most >= MANY && self.open.len() < MANY / 2 {
            self.most = self.open.len();
            memory::give_back_unused();
        }
    }
}

/// Whoever broke the connection, or was too slow, knows it.
async fn answer(
    stream: UnixStream,
    service: impl HttpService<Incoming, ResBody = Body, Error: Into<BoxError>, Future: Send>,
    patience: Duration,
    mut has_stopped: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // The sender lives as long as the tasks do.
        () = async { drop(has_stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the control socket broke");
    }
}
