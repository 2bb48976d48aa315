//! The control socket: HTTP/JSON, each request one message to the agent.

mod connections;
#[cfg(test)]
mod fuzz;

use std::{convert::Infallible, net::SocketAddr, sync::mpsc::Sender, time::Duration};

use agent_api::{EventView, Operation, Problem, ProblemKind, RolloutView};
use agent_rollout::RolloutId;
use axum::{
    Json, Router,
    extract::{
        ConnectInfo, FromRequest, Path, Query, Request as HttpRequest, State,
        rejection::JsonRejection,
    },
    http::StatusCode,
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{MethodRouter, delete, get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::BroadcastStream;

use self::connections::{PATIENCE, Peer};
use super::{
    message::{Message, Reply, Request},
    socket::ControlSocket,
};
use crate::{
    daemon::identify::{asked::Asked, search::Search},
    host::{context, process::Pid},
};

/// What every request needs.
#[derive(Clone)]
pub(in crate::daemon) struct Door {
    pub(in crate::daemon) queue: Sender<Message>,
    pub(in crate::daemon) changes: watch::Receiver<u64>,
    pub(in crate::daemon) network_namespace: u64,
}

/// Longest time between two looks at a rollout that somebody follows.
const PROGRESS: Duration = Duration::from_secs(1);

/// Serves until the shutdown future is done.
pub(in crate::daemon) async fn serve(
    socket: ControlSocket,
    door: Door,
    shutdown: impl Future<Output = ()>,
) {
    connections::serve(socket, routes(door), PATIENCE, shutdown).await;
}

fn routes(door: Door) -> Router {
    let router = Operation::ALL.into_iter().fold(Router::new(), |router, operation| {
        router.route(&operation.path(), handler(operation))
    });
    router
        .fallback(async |request: HttpRequest| {
            let nothing = agent_api::nothing_at(request.uri().path(), env!("CARGO_PKG_VERSION"));
            hear_out(request).await;
            Failure(nothing)
        })
        .method_not_allowed_fallback(async || {
            Failure(Problem::new(ProblemKind::Usage, "that method does nothing here"))
        })
        .layer(middleware::from_fn_with_state(door.clone(), check_peer))
        .with_state(door)
}

/// Takes what comes of a body that nobody looks at: who still sends it when the connection closes does not read the answer.
async fn hear_out(request: HttpRequest) {
    const MOST: usize = 1 << 20;
    let heard = axum::body::to_bytes(request.into_body(), MOST);
    // Who sends more, or is slower, has what it wanted.
    let _: Result<_, _> = tokio::time::timeout(PATIENCE, heard).await;
}

/// Who answers it. There is no other way to a route, so that the API is what `Operation` says it is.
fn handler(operation: Operation) -> MethodRouter<Door> {
    match operation {
        Operation::Agent => get(agent),
        Operation::Services => get(services),
        Operation::Attach => post(attach),
        Operation::Service => get(service),
        Operation::Detach => delete(detach),
        Operation::Upgrade => post(upgrade),
        Operation::Undo => post(undo),
        Operation::AllFlows => get(all_flows),
        Operation::Flows => get(flows),
        Operation::AllHistory => get(all_history),
        Operation::History => get(history),
        Operation::Rollout => get(rollout),
        Operation::Progress => get(progress),
        Operation::Explain => get(explain),
        Operation::Events => get(events),
    }
}

impl Peer {
    fn asked(&self) -> Asked {
        Asked::By(self.0.and_then(|it| it.pid()).and_then(Pid::new))
    }
}

/// The socket's mode keeps others out already; this holds even where somebody changed it. A caller from another network
/// namespace would be told about, and would change, ports that are not the ones that it sees.
async fn check_peer(
    State(door): State<Door>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let refuse =
        |message: &str| Failure(Problem::new(ProblemKind::Preflight, message)).into_response();
    let Some(peer) = peer else { return refuse("the kernel does not say who you are") };
    if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
        return refuse("only root and the agent's own user may use the control socket");
    }
    let theirs =
        peer.pid().and_then(Pid::new).and_then(|pid| context::network_namespace_of(pid).ok());
    if theirs.is_some_and(|theirs| theirs != door.network_namespace) {
        let problem = Problem::new(
            ProblemKind::Preflight,
            "this agent serves another network namespace than yours",
        );
        let fix = "run one in yours, with its own --runtime-dir, --pin-dir and --cgroup";
        return Failure(problem.fix(fix)).into_response();
    }
    next.run(request).await
}

/// A problem as an HTTP answer.
struct Failure(Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

/// A body, or a problem that says what is wrong with it.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Failure> {
        /// Characters. What is wrong with a body is said with the words of it, which may be all there are.
        const MOST: usize = 1000;
        let refuse = |message: String| {
            let message = message.chars().take(MOST).collect::<String>();
            let problem = Problem::new(ProblemKind::Usage, message);
            // A newer command may ask for what came later.
            let is_newer = ["unknown field", "unknown variant"];
            Failure(match is_newer.iter().any(|it| problem.message.contains(it)) {
                true => problem.fix(concat!(
                    "the agent that runs is version ",
                    env!("CARGO_PKG_VERSION"),
                    ": if the command is newer, put its agent in place with `agent daemon --background --replace`"
                )),
                false => problem,
            })
        };
        let parsed = tokio::time::timeout(PATIENCE, Json::from_request(request, state)).await;
        let parsed: Result<Json<T>, JsonRejection> = parsed.map_err(|_elapsed| {
            refuse(format!("the request was not complete after {} s", PATIENCE.as_secs()))
        })?;
        parsed.map(|Json(body)| Self(body)).map_err(|rejection| refuse(rejection.body_text()))
    }
}

impl Door {
    fn search(&self, peer: &Peer) -> Search {
        Search { asked: peer.asked(), network_namespace: self.network_namespace }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Failure> {
        let gone = || {
            Failure(Problem::new(
                ProblemKind::Ending,
                "the agent is ending; steering goes on without it",
            ))
        };
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Request(request(reply))).map_err(|_ended| gone())?;
        answer.await.map_err(|_ended| gone())?.map_err(Failure)
    }
}

/// Does what may take its time on a thread of its own.
async fn aside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let failed = |error| Failure(Problem::caused(ProblemKind::Failed, &error));
    tokio::task::spawn_blocking(look).await.map_err(failed)
}

type Answer<T> = Result<Json<T>, Failure>;

async fn agent(State(door): State<Door>) -> Answer<agent_api::AgentView> {
    door.ask(Request::Agent).await.map(Json)
}

async fn services(State(door): State<Door>) -> Answer<agent_api::Services> {
    door.ask(Request::Services).await.map(Json)
}

async fn attach(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(body): Body<agent_api::AttachRequest>,
) -> Answer<agent_api::Attached> {
    let search = door.search(&peer);
    let (server, body) = aside(move || (search.server(&body), body)).await?;
    door.ask(|reply| Request::Attach(body, server, search.asked, reply)).await.map(Json)
}

async fn service(
    State(door): State<Door>,
    Path(selector): Path<String>,
) -> Answer<agent_api::ServiceView> {
    door.ask(|reply| Request::Service(selector, reply)).await.map(Json)
}

async fn detach(
    State(door): State<Door>,
    Path(selector): Path<String>,
) -> Answer<agent_api::Detached> {
    door.ask(|reply| Request::Detach(selector, reply)).await.map(Json)
}

async fn upgrade(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(selector): Path<String>,
    Body(body): Body<agent_api::UpgradeRequest>,
) -> Answer<agent_api::UpgradeAnswer> {
    let search = door.search(&peer);
    let (source, body) = aside(move || (search.source(&body.new), Box::new(body))).await?;
    door.ask(|reply| Request::Upgrade(selector, body, source, search.asked, reply)).await.map(Json)
}

async fn undo(
    State(door): State<Door>,
    Path(selector): Path<String>,
    Body(body): Body<agent_api::UndoRequest>,
) -> Answer<agent_api::Begun> {
    door.ask(|reply| Request::Undo(selector, body, reply)).await.map(Json)
}

async fn all_flows(State(door): State<Door>) -> Answer<agent_api::Flows> {
    door.ask(|reply| Request::Flows(None, reply)).await.map(Json)
}

async fn flows(State(door): State<Door>, Path(selector): Path<String>) -> Answer<agent_api::Flows> {
    door.ask(|reply| Request::Flows(Some(selector), reply)).await.map(Json)
}

async fn all_history(State(door): State<Door>) -> Answer<agent_api::History> {
    door.ask(|reply| Request::History(None, reply)).await.map(Json)
}

async fn history(
    State(door): State<Door>,
    Path(selector): Path<String>,
) -> Answer<agent_api::History> {
    door.ask(|reply| Request::History(Some(selector), reply)).await.map(Json)
}

async fn rollout(
    State(door): State<Door>,
    Path((selector, id)): Path<(String, u64)>,
) -> Answer<RolloutView> {
    door.ask(|reply| Request::Rollout(selector, RolloutId(id), reply)).await.map(Json)
}

/// One event for each change of the agent and at least one a second, until the rollout has ended.
async fn progress(
    State(door): State<Door>,
    Path((selector, id)): Path<(String, u64)>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let first = door.ask(|reply| Request::Rollout(selector.clone(), RolloutId(id), reply)).await?;
    let views = stream::unfold(Some((door, Some(first))), move |state| {
        let selector = selector.clone();
        async move {
            let (mut door, first) = state?;
            let view = match first {
                Some(view) => view,
                None => {
                    // Whichever comes first; an ended agent ends the stream at the question below.
                    let _: Result<_, _> =
                        tokio::time::timeout(PROGRESS, door.changes.changed()).await;
                    door.ask(|reply| Request::Rollout(selector, RolloutId(id), reply)).await.ok()?
                }
            };
            let next = view.outcome().is_none().then_some((door, None));
            Some((to_event(&view), next))
        }
    });
    Ok(Sse::new(views))
}

#[derive(Deserialize)]
struct Explain {
    local: SocketAddr,
    remote: Option<SocketAddr>,
}

async fn explain(
    State(door): State<Door>,
    Query(query): Query<Explain>,
) -> Answer<agent_api::Explanation> {
    door.ask(|reply| Request::Explain(query.local, query.remote, reply)).await.map(Json)
}

#[derive(Deserialize)]
struct Follow {
    #[serde(default)]
    follow: bool,
}

async fn events(
    State(door): State<Door>,
    Query(Follow { follow }): Query<Follow>,
) -> Result<Response, Failure> {
    let (events, follower) = door.ask(Request::Events).await?;
    if !follow {
        return Ok(Json(events).into_response());
    }
    // Who is too slow misses some, and sees it by the gap in the sequence.
    let later =
        BroadcastStream::new(follower).filter_map(async |event: Result<EventView, _>| event.ok());
    let all = stream::iter(events.events).chain(later).map(|event| to_event(&event));
    Ok(Sse::new(all).keep_alive(KeepAlive::default()).into_response())
}

fn to_event(view: &impl Serialize) -> Result<Event, Infallible> {
    Ok(Event::default()
        .json_data(view)
        .unwrap_or_else(|error| Event::default().comment(error.to_string())))
}
