//! Servers that do one thing wrong now and then: the report has exactly those requests, by their kind.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{Class, ClassSummary, FailureKind, Plan};
use super::run;
use super::server::{Server, Step};

/// A new connection for each request, from two threads, and what became of them.
async fn seen_of(server: &Server, rate: u32, timeout: Duration, lasts: Duration) -> ClassSummary {
    let plan = Plan { threads: 2, timeout, ..Plan::http(server.address) };
    let report = run(plan.one_shot(rate).generations(1..=1), lasts).await;
    let class = report.summary.class(Class::OneShot);
    assert!(class.begun >= u64::from(rate) / 2, "{}", report.summary);
    assert_eq!(class.begun, class.connections, "{}", report.summary);
    class
}

/// Every fault of the server is one failure of this kind, and there is no other.
fn exactly(class: &ClassSummary, kind: FailureKind, server: &Server) -> u64 {
    let faults = server.faults.load(Ordering::Relaxed);
    let failures: BTreeMap<_, _> =
        class.failures.iter().map(|(kind, failures)| (*kind, failures.count)).collect();
    assert!(faults > 0, "{class:?}");
    assert_eq!(failures, BTreeMap::from([(kind, faults)]));
    faults
}

#[tokio::test]
async fn a_reset_of_one_connection_in_a_thousand_is_found() {
    let server = Server::faulty(1_000, &[Step::Reset]);
    let class = seen_of(&server, 1_000, LIMIT, Duration::from_secs(3)).await;
    let faults = exactly(&class, FailureKind::ResetBeforeFirstByte, &server);
    assert_eq!(faults, class.connections / 1_000);
    assert_eq!(class.answers + faults, class.connections);
}

#[tokio::test]
async fn an_answer_that_is_reset_in_its_middle_is_found() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1".to_vec());
    // What was not read yet would be lost with the reset, and nothing be in the middle.
    let read = Step::Wait(Duration::from_millis(300));
    let server = Server::faulty(100, &[half, read, Step::Reset]);
    let class = seen_of(&server, 500, LIMIT, Duration::from_secs(1)).await;
    let faults = exactly(&class, FailureKind::CutInTheMiddle, &server);
    assert_eq!(class.answers + faults, class.connections);
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_found_and_an_earlier_one_shows_in_the_latency() {
    let late = |millis| [Step::Wait(Duration::from_millis(millis)), Step::Answer(1)];
    let server = Server::faulty(50, &late(4_000));
    let class = seen_of(&server, 200, Duration::from_millis(1_500), Duration::from_secs(1)).await;
    let faults = exactly(&class, FailureKind::TimedOut, &server);
    assert_eq!(class.answers + faults, class.connections);

    let server = Server::faulty(50, &late(400));
    let class = seen_of(&server, 200, LIMIT, Duration::from_secs(1)).await;
    assert!(class.failures.is_empty(), "{class:?}");
    assert_eq!(class.answers, class.connections);
    assert!(class.answer.max_us >= 400_000 && class.answer.p50_us < 400_000, "{class:?}");
}

#[tokio::test]
async fn an_answer_of_a_wrong_generation_is_found_and_counted_as_an_answer() {
    let server = Server::faulty(100, &[Step::Answer(2)]);
    let class = seen_of(&server, 1_000, LIMIT, Duration::from_secs(1)).await;
    let faults = exactly(&class, FailureKind::WrongGeneration, &server);
    assert_eq!(class.generations, BTreeMap::from([(1, class.answers - faults), (2, faults)]));
    assert_eq!(class.answers, class.connections);
}

#[tokio::test]
async fn a_rate_on_kept_connections_is_kept_and_each_of_them_used() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let plan = Plan { threads: 2, ..Plan::http(server.address) };
    let report = run(plan.keep_alive_at(7, 1_000), Duration::from_secs(1)).await;
    let class = report.summary.class(Class::KeepAlive);
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    assert_eq!(class.connections, 7, "{}", report.summary);
    let due = report.summary.elapsed.as_secs_f64() * 1_000.0 + 2.0 + 7.0;
    assert!(class.answers + class.unbegun >= 900, "{}", report.summary);
    assert!((class.answers as f64) <= due, "{}", report.summary);
    let observed = report.observations.iter().map(|seen| seen.connection);
    assert_eq!(observed.collect::<std::collections::BTreeSet<_>>().len(), 7);
}

#[tokio::test]
async fn a_stall_of_kept_connections_is_in_the_latency_of_all_that_were_due() {
    // One connection: while its first request waits for half a second, fifty others become due.
    let stall = [Step::Wait(Duration::from_millis(500)), Step::Answer(1), Step::Answer(1)];
    let server = Server::start(&stall).await;
    let plan = Plan::http(server.address).keep_alive_at(1, 100);
    let report = run(plan, Duration::from_millis(900)).await;
    let class = report.summary.class(Class::KeepAlive);
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    // Sent one after the other, all but the first of them were answered at once.
    assert!(class.late >= 40, "{}", report.summary);
    assert!(class.answer.p90_us > 250_000, "{}", report.summary);
}

/// Longer than any answer of these servers takes, however busy the machine.
const LIMIT: Duration = Duration::from_secs(10);
