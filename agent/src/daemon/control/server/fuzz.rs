//! Requests that people make, changed, over a socket to the real server. Behind it is no agent but one that says no, after it
//! has done to a service what the request asks for.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    panic,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use agent_api::{Problem, ProblemKind};
use agent_rollout::{Event, Origin, Plan, Service, Timestamp, simulator};
use proptest::{
    prelude::any,
    prop_oneof,
    sample::{Index, select},
    strategy::{Strategy, Union},
};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::{Door, connections, routes};
use crate::{
    daemon::control::{
        message::{Message, Request},
        socket::{ControlSocket, successors},
    },
    fuzzing::{
        Verdict, fuzz,
        json::mutated_documents,
        mutate::{Bytes, mutated},
    },
    host::{context::network_namespace_of, process::Pid},
};

/// A server on a socket of its own, until it is dropped.
struct Server {
    directory: tempfile::TempDir,
    /// How many requests have come to the agent.
    asked: Arc<AtomicU64>,
    runtime: tokio::runtime::Runtime,
}

const THREAD: &str = "control-socket";

impl Server {
    fn start(patience: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (queue, requests) = channel();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        // It ends with the last sender of the queue.
        thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || say_no(&requests, &counted))
            .unwrap();
        let changes = watch::Sender::new(0).subscribe();
        let network_namespace = network_namespace_of(Pid::ours()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(THREAD)
            .enable_all()
            .build()
            .unwrap();
        let routes = routes(Door { queue, changes, network_namespace });
        runtime.spawn(async move {
            let socket = ControlSocket::new(listener, successors().1).unwrap();
            connections::serve(socket, routes, patience, std::future::pending()).await;
        });
        Self { directory, asked, runtime }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("agent.sock")).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        stream.set_write_timeout(Some(LONGEST)).unwrap();
        stream
    }

    /// All that it answers to all that it is sent.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // It may close when it has seen enough; what it has said until then can still be read.
        let sent = stream.write_all(request);
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(sent.is_ok() || gone.contains(&sent.unwrap_err().kind()), "it takes nothing more");
        let _: io::Result<()> = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match stream.take(MOST).read_to_end(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            read => drop(read.expect("it neither answers nor closes")),
        }
        answer
    }
}

/// Nobody waits longer; others may need all processors of the machine for a while.
const LONGEST: Duration = Duration::from_secs(10);

/// More than any answer.
const MOST: u64 = 1 << 20;

fn say_no(requests: &Receiver<Message>, asked: &AtomicU64) {
    let services = simulator::examples();
    for (count, request) in requests.iter().enumerate() {
        asked.fetch_add(1, Ordering::SeqCst);
        let Message::Request(request) = request else { continue };
        let service = services[count % services.len()].clone();
        let problem = || Problem::new(ProblemKind::NotFound, "nothing is attached");
        // Who asked may have gone.
        match request {
            Request::Upgrade(_, body, _, _, reply) => {
                upgrade(service, &body);
                drop(reply.send(Err(problem())));
            }
            Request::Undo(_, body, reply) => {
                go_on(service, Event::Undo(body.drain.clone()));
                drop(reply.send(Err(problem())));
            }
            Request::Events(reply) => {
                let events = agent_api::Events { schema: agent_api::SCHEMA, events: Vec::new() };
                drop(reply.send(Ok((events, broadcast::channel(1).1))));
            }
            Request::Attach(_, _, _, reply) => drop(reply.send(Err(problem()))),
            Request::Detach(_, reply) => drop(reply.send(Err(problem()))),
            Request::Agent(reply) => drop(reply.send(Err(problem()))),
            Request::Services(reply) => drop(reply.send(Err(problem()))),
            Request::Service(_, reply) => drop(reply.send(Err(problem()))),
            Request::Flows(_, reply) => drop(reply.send(Err(problem()))),
            Request::History(_, reply) => drop(reply.send(Err(problem()))),
            Request::Rollout(_, _, reply) => drop(reply.send(Err(problem()))),
            Request::Explain(_, _, reply) => drop(reply.send(Err(problem()))),
        }
    }
}

fn upgrade(service: Service, body: &agent_api::UpgradeRequest) {
    let plan = Plan {
        release: body.release.clone(),
        ready: body.ready,
        ready_timeout: body.ready_timeout,
        settle: body.settle,
        drain: body.drain.clone(),
    };
    go_on(service, Event::Upgrade(plan, Origin::Found));
}

/// What was asked for is done, and then it comes to its end.
fn go_on(mut service: Service, event: Event) {
    if service.apply(event, Timestamp(60_000)).is_err() {
        return;
    }
    for number in service.generations().iter().map(|it| it.number()).collect::<Vec<_>>() {
        for event in [Event::Accepted(number), Event::Exited(number)] {
            // What makes no sense is refused.
            drop(service.apply(event, Timestamp(61_000)));
        }
    }
    while let Some(deadline) = service.next_deadline() {
        let before = service.clone();
        drop(service.apply(Event::Tick, deadline));
        if service == before {
            break;
        }
    }
}

/// What was said by a thread of the server as it panicked.
fn panics() -> &'static Mutex<Vec<String>> {
    static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            if thread::current().name() == Some(THREAD) {
                PANICS.lock().unwrap().push(about.to_string());
            }
            before(about);
        }));
    });
    &PANICS
}

fn drain() -> Value {
    let second = "1s";
    json!({
        "policy": {"policy": "patient", "idle": null}, "signal": 15, "queue_timeout": second,
        "timeout": second, "stop_timeout": second, "keep_old": second,
    })
}

fn launch() -> Value {
    json!({
        "program": "/bin/server", "arguments": ["server", "-v"], "user": "www", "environment": {"A": "1"},
        "limits": [{"resource": "nofile", "soft": 1024, "hard": null}], "namespaces": "agent",
        "unconfined": ["seccomp"],
    })
}

/// Paths and bodies of requests that change something.
fn bodies() -> Vec<(&'static str, Value)> {
    let upgrade = |new: Value| {
        json!({
            "new": new, "ready": "accept", "ready_timeout": "1m", "drain": drain(),
            "if_generation": 1, "also": true, "dry_run": false, "request": "7",
        })
    };
    vec![
        ("/v1/services", json!({"ports": [80, 443], "address": "::1", "name": "web", "pid": 7})),
        ("/v1/services/web/upgrade", upgrade(json!({"launch": launch()}))),
        ("/v1/services/80/upgrade", upgrade(json!({"process": 7}))),
        ("/v1/services/80/upgrade", upgrade(json!({"listening": 8080}))),
        ("/v1/services/web/undo", json!({"drain": drain(), "request": "8"})),
    ]
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn requests() -> Vec<Vec<u8>> {
    let paths = [
        "/v1/agent",
        "/v1/services",
        "/v1/services/web",
        "/v1/flows",
        "/v1/history",
        "/v2/services",
        "/v1/services/80/flows",
        "/v1/services/web/history",
        "/v1/services/web/rollouts/7",
        "/v1/services/web/rollouts/7/progress",
        "/v1/explain?local=127.0.0.1:80&remote=%5B::1%5D:7",
        "/v1/events?follow=true",
    ];
    let gets = paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: agent\r\n\r\n").into_bytes());
    let chunked =
        b"POST /v1/services HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\nd\r\n{\"ports\":[80]\r\n1\r\n}\r\n0\r\n\r\n";
    let detach = b"DELETE /v1/services/web HTTP/1.1\r\nhost: agent\r\n\r\n";
    let two = [&gets[0][..], &gets[1]].concat();
    let bodies = bodies().into_iter().map(|(path, body)| post(path, body.to_string().as_bytes()));
    bodies.chain(gets).chain([chunked.to_vec(), detach.to_vec(), two]).collect()
}

const WORDS: [&str; 16] = [
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    " HTTP/1.0",
    "transfer-encoding: chunked\r\n",
    "content-length: 5\r\n",
    "content-length: 99999999999\r\n",
    "expect: 100-continue\r\n",
    "connection: close\r\n",
    "upgrade: h2c\r\nconnection: upgrade\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ffffffffffffffff\r\n",
    "%00",
    "%2f..%2f",
    "?follow=true&follow=1",
    "OPTIONS",
];

/// Their text as a whole, or what is said in a body that has the right frame.
fn inputs() -> impl Strategy<Value = Bytes> {
    let whole = mutated(requests(), &WORDS);
    let framed = Union::new(bodies().into_iter().map(|(path, document)| {
        let body = mutated_documents(vec![document], &["null", "\\u0000", "[[[[", "\"launch\":"]);
        body.prop_map(move |body| post(path, body.as_ref()).into())
    }));
    let cut = (any::<Index>(), select(requests())).prop_map(|(at, mut request)| {
        request.truncate(at.index(request.len()));
        request.into()
    });
    prop_oneof![4 => whole, 4 => framed, 1 => cut]
}

#[test]
fn no_request_breaks_the_server_and_each_has_an_end() {
    let panics = panics();
    let server = Server::start(LONGEST / 2);
    fuzz("control_socket", &inputs(), |request| {
        let before = server.asked.load(Ordering::SeqCst);
        let answer = server.answer(request.as_ref());
        // Whoever asks several times at once is answered as often, and may be told what was said.
        let answers = answer.windows(7).filter(|it| *it == b"HTTP/1.").count();
        let most = answers * (4 << 10) + request.as_ref().len();
        assert!(answer.len() <= most, "it says too much");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "it answers something else");
        let panics = std::mem::take(&mut *panics.lock().unwrap());
        assert!(panics.is_empty(), "{panics:?}");
        if server.asked.load(Ordering::SeqCst) > before { Verdict::Taken } else { Verdict::Refused }
    });
    server.runtime.shutdown_background();
}

#[test]
fn who_does_not_say_what_is_wanted_is_sent_away() {
    let server = Server::start(Duration::from_millis(100));
    let began = Instant::now();
    for part in ["", "GET /v1/ag", "GET /v1/agent HTTP/1.1\r\nhost: agent\r\n"] {
        let mut stream = server.connect();
        stream.write_all(part.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it is kept");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{part}");
    }
    assert!(began.elapsed() < LONGEST);
    server.runtime.shutdown_background();
}

#[test]
fn a_request_without_an_end_is_refused_before_it_is_kept() {
    let server = Server::start(LONGEST);
    let long = "a".repeat(3 << 20);
    let path = format!("GET /{long} HTTP/1.1\r\nhost: agent\r\n\r\n");
    let head = format!("GET /v1/agent HTTP/1.1\r\nhost: agent\r\na: {long}\r\n\r\n");
    let body = post("/v1/services", format!("{{\"name\":\"{long}\"}}").as_bytes());
    let word = post("/v1/services", format!("{{\"{}\":1}}", &long[..1 << 20]).as_bytes());
    assert!(server.answer(&word).len() < 4 << 10, "what was wrong is said once more as a whole");
    for request in [path.as_bytes(), head.as_bytes(), &body] {
        let answer = server.answer(request);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    server.runtime.shutdown_background();
}
