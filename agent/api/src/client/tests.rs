//! Against an agent that says what the test wants.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    stub::{Stub, answer, stream},
    *,
};
use crate::{Problem, ProblemKind, samples};

#[tokio::test]
async fn a_request_is_written_and_its_answer_read() {
    let services = samples::services();
    let stub = Stub::with(vec![
        answer(200, &serde_json::to_string(&services).unwrap()),
        answer(200, &serde_json::to_string(&samples::attached()).unwrap()),
        answer(200, &serde_json::to_string(&samples::explanation()).unwrap()),
        answer(200, &serde_json::to_string(&samples::detached()).unwrap()),
    ]);
    assert_eq!(stub.client.services().await.unwrap(), services);
    let request = AttachRequest { ports: vec![8080], address: None, name: None, pid: None };
    assert_eq!(stub.client.attach(&request).await.unwrap(), samples::attached());
    let local = "[fe80::1%2]:80".parse().unwrap();
    stub.client.explain(local, Some(([192, 0, 2, 1], 5).into())).await.unwrap();
    stub.client.detach(&Selected::Port(8080)).await.unwrap();
    insta::assert_snapshot!(stub.asked().join("\n"));
}

#[tokio::test]
async fn a_problem_is_handed_on_as_it_is() {
    let problem = Problem::new(ProblemKind::Locked, "web is being upgraded").fix("wait");
    let stub = Stub::with(vec![answer(409, &serde_json::to_string(&problem).unwrap())]);
    let error = stub.client.services().await.unwrap_err();
    assert!(!error.may_pass());
    assert_eq!(Problem::from(error), problem);
}

#[tokio::test]
async fn an_answer_in_other_words_is_told_apart() {
    let stub = Stub::with(vec![answer(404, "Not Found"), answer(200, "{}"), answer(200, "")]);
    let error = stub.client.services().await.unwrap_err();
    assert!(matches!(error, ClientError::Foreign { status: 404 }));
    for _ in 0..2 {
        let error = stub.client.services().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreadable(_)));
        assert!(Problem::from(error).fix.unwrap().contains("same version"));
    }
}

#[tokio::test]
async fn an_agent_that_goes_away_may_come_back() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned();
    let stub = Stub::with(vec![String::new(), cut]);
    for _ in 0..2 {
        assert!(stub.client.services().await.unwrap_err().may_pass());
    }
}

#[tokio::test]
async fn events_come_until_the_agent_ends_them() {
    let events = samples::events().events;
    let body = events.iter().map(|event| {
        format!(": still here\n\ndata: {}\n\n", serde_json::to_string(event).unwrap())
    });
    let stub = Stub::with(vec![stream(&body.collect::<String>())]);
    let mut stream = stub.client.follow_events().await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        found.push(event);
    }
    assert_eq!(found, events);
    assert_eq!(stub.asked(), ["GET /v1/events?follow=true HTTP/1.1"]);
}

fn problem_of(socket: PathBuf) -> Problem {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Problem::from(runtime.block_on(Client::new(socket).services()).unwrap_err())
}

#[test]
fn without_an_agent_the_way_to_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("agent.sock");
    let problem = problem_of(absent.clone());
    assert_eq!(problem.kind, ProblemKind::NotFound);
    assert_eq!(
        problem.fix.as_deref(),
        Some("start it with `agent daemon --background`, or attach a port")
    );

    // What a killed agent leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&absent).unwrap());
    assert_eq!(problem_of(absent).kind, ProblemKind::NotFound);
}

#[test]
fn a_socket_that_is_for_others_names_root() {
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    let problem = Problem::from(ClientError::unconnected(Path::new("/run/agent.sock"), error));
    if rustix::process::geteuid().is_root() {
        assert!(
            problem.message.contains("cannot connect"),
            "root is not told to be root: {problem:?}"
        );
        return;
    }
    assert_eq!(problem.kind, ProblemKind::Preflight);
    assert!(problem.message.contains("is for root") && problem.fix.unwrap().contains("sudo"));
}

#[test]
fn what_is_no_socket_is_no_agent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.sock");
    fs::write(&file, "").unwrap();
    assert_eq!(problem_of(file).kind, ProblemKind::NotFound);
}

#[test]
fn who_has_waited_in_vain_is_told_what_goes_on() {
    let source = io::ErrorKind::ConnectionRefused.into();
    let lost = ClientError::NotRunning { socket: "/run/agent/agent.sock".into(), source };
    let problem = Problem::from(lost.after_all());
    assert!(problem.message.starts_with("the agent has not come back"), "{problem:?}");
    assert!(problem.fix.unwrap().starts_with("steering goes on without it"));
}

/// Somebody else has detached the last service meanwhile: this agent does not answer any more, and the next one may.
#[tokio::test]
async fn an_agent_that_is_ending_is_asked_again() {
    let problem = Problem::new(ProblemKind::Ending, "the agent is ending");
    let body = serde_json::to_string(&problem).unwrap();
    let stub = Stub::with(vec![answer(problem.kind.http_status(), &body)]);
    let error = stub.client.services().await.unwrap_err();
    assert!(error.is_ending() && error.is_broken() && error.may_pass(), "{error:?}");
}
