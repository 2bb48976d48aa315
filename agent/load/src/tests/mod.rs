//! The generator against servers of known faults: its report holds exactly those.

mod faults;
mod languages;
mod node;
mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::server::{Server, Step};
use super::{Class, FailureKind, Load, Plan, Report, Source, StartError};

async fn run(plan: Plan, duration: Duration) -> Report {
    let running = Load::start(plan).unwrap();
    tokio::time::sleep(duration).await;
    running.stop().await
}

/// Runs one connection per request for a moment and returns how they failed, having checked that all are accounted for.
async fn failures_of_one_shots(plan: Plan) -> Vec<FailureKind> {
    let report = run(plan.one_shot(100), Duration::from_millis(200)).await;
    let class = report.summary.class(Class::OneShot);
    let lost = class.failures.values().map(|kind| kind.count).sum::<u64>();
    assert!(class.connections >= 10, "{}", report.summary);
    assert_eq!(class.answers + lost, class.connections, "{}", report.summary);
    class.failures.keys().copied().collect()
}

fn one(kind: FailureKind) -> BTreeMap<FailureKind, u64> {
    BTreeMap::from([(kind, 1)])
}

fn counts(report: &Report, class: Class) -> BTreeMap<FailureKind, u64> {
    report
        .summary
        .class(class)
        .failures
        .iter()
        .map(|(kind, failures)| (*kind, failures.count))
        .collect()
}

#[tokio::test]
async fn a_healthy_server_has_no_failures() {
    let server = Server::start(&[Step::Answer(3)]).await;
    let plan = Plan::http(server.address)
        .one_shot(200)
        .keep_alive(4, Duration::from_millis(10))
        .generations(3..=3);
    let begun = Instant::now();
    let report = run(plan, Duration::from_millis(500)).await;
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    assert_eq!(report.summary.generations(), BTreeMap::from([(3, report.summary.answers())]));
    let kept = report.summary.class(Class::KeepAlive);
    assert_eq!(kept.connections, 4);
    assert!(kept.answers > 20, "{}", report.summary);
    let new = report.summary.class(Class::OneShot);
    let due = report.summary.elapsed.as_secs_f64() * 200.0 + 1.0;
    assert!(new.connections >= 50 && f64::from(u32::try_from(new.connections).unwrap()) <= due);
    assert_eq!(new.connect.count, new.connections);
    assert_eq!(u64::try_from(report.observations.len()).unwrap(), report.summary.answers());
    assert_eq!(report.stale(begun, 3).len(), 0);
    assert_eq!(report.stale(begun, 4).len(), report.observations.len());
    assert_eq!(report.stale(Instant::now(), 4).len(), 0);
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let plan = Plan::http(server.address);
    drop(server);
    tokio::task::yield_now().await;
    assert_eq!(failures_of_one_shots(plan).await, [FailureKind::Refused]);
}

#[tokio::test]
async fn a_close_or_reset_is_told_apart_by_how_far_the_answer_was() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-".to_vec());
    let wait = Step::Wait(Duration::from_millis(30));
    for (script, expected) in [
        (vec![Step::Close], FailureKind::EofBeforeFirstByte),
        (vec![Step::Reset], FailureKind::ResetBeforeFirstByte),
        (vec![half.clone(), Step::Close], FailureKind::CutInTheMiddle),
        (vec![half, wait, Step::Reset], FailureKind::CutInTheMiddle),
    ] {
        let server = Server::start(&script).await;
        assert_eq!(
            failures_of_one_shots(Plan::http(server.address)).await,
            [expected],
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_after_the_timeout_has_timed_out() {
    let server = Server::start(&[Step::Wait(Duration::from_secs(2)), Step::Answer(1)]).await;
    let mut plan = Plan::http(server.address);
    plan.timeout = Duration::from_millis(100);
    assert_eq!(failures_of_one_shots(plan).await, [FailureKind::TimedOut]);
}

#[tokio::test]
async fn an_answer_in_time_is_none_however_late() {
    let server = Server::start(&[Step::Wait(Duration::from_millis(300)), Step::Answer(1)]).await;
    assert_eq!(failures_of_one_shots(Plan::http(server.address)).await, []);
}

#[tokio::test]
async fn an_error_is_a_wrong_answer() {
    let error = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Server::start(&[Step::Send(error), Step::Close]).await;
    assert_eq!(failures_of_one_shots(Plan::http(server.address)).await, [FailureKind::WrongAnswer]);
}

#[tokio::test]
async fn an_unexpected_generation_is_a_failure_and_an_answer() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let report =
        run(Plan::http(server.address).one_shot(50).generations(2..=3), Duration::from_millis(100))
            .await;
    let class = report.summary.class(Class::OneShot);
    assert_eq!(
        counts(&report, Class::OneShot),
        BTreeMap::from([(FailureKind::WrongGeneration, class.answers)])
    );
    assert_eq!(class.answers, class.connections);
}

#[tokio::test]
async fn a_kept_connection_that_changes_its_generation_has_moved() {
    let server = Server::start(&[Step::Answer(1), Step::Answer(1), Step::Answer(2)]).await;
    let report = run(
        Plan::http(server.address).keep_alive(1, Duration::from_millis(10)),
        Duration::from_millis(200),
    )
    .await;
    assert_eq!(counts(&report, Class::KeepAlive), one(FailureKind::Moved));
    assert_eq!(report.summary.class(Class::KeepAlive).connections, 1);
}

#[tokio::test]
async fn an_announced_close_is_no_failure() {
    let server = Server::start(&[Step::Answer(1), Step::AnswerAndClose(1)]).await;
    let report = run(
        Plan::http(server.address).keep_alive(1, Duration::from_millis(10)),
        Duration::from_millis(200),
    )
    .await;
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    let kept = report.summary.class(Class::KeepAlive);
    assert!(kept.closed >= 2 && kept.connections >= kept.closed, "{}", report.summary);
}

#[tokio::test]
async fn an_unannounced_close_is_one() {
    let server = Server::start(&[Step::Answer(1), Step::Close]).await;
    let plan = Plan::http(server.address).keep_alive(1, Duration::from_millis(10));
    let report = run(plan, Duration::from_millis(200)).await;
    let failures = counts(&report, Class::KeepAlive);
    assert_eq!(
        failures.keys().collect::<Vec<_>>(),
        [&FailureKind::EofBeforeFirstByte],
        "{}",
        report.summary
    );
}

#[tokio::test]
async fn a_failure_tells_whose_it_was() {
    let server = Server::start(&[Step::Answer(4), Step::Reset]).await;
    let begun = Instant::now();
    let plan = Plan::http(server.address).keep_alive(1, Duration::from_millis(10));
    let report = run(plan, Duration::from_millis(300)).await;
    assert_eq!(u64::try_from(report.incidents.len()).unwrap(), report.summary.failures());
    let incident = &report.incidents[0];
    assert_eq!((incident.class, incident.generation), (Class::KeepAlive, Some(4)));
    assert!(incident.client.is_some_and(|client| client.port() != server.address.port()));
    assert!(incident.started.is_some_and(|started| started >= begun && started < incident.at));
}

#[tokio::test]
async fn a_client_may_end_its_kept_connection_after_some_answers() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let mut plan = Plan::http(server.address).keep_alive(1, Duration::from_millis(5));
    plan.keep_alive.as_mut().unwrap().requests = Some(3);
    let report = run(plan, Duration::from_millis(300)).await;
    let kept = report.summary.class(Class::KeepAlive);
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    assert!(kept.connections > 2, "{}", report.summary);
    let least = 3 * (kept.connections - 1) + 1;
    assert!((least..=3 * kept.connections).contains(&kept.answers), "{}", report.summary);
}

#[tokio::test]
async fn answers_can_be_taken_while_a_run_goes_on() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let running = Load::start(Plan::http(server.address).one_shot(200)).unwrap();
    let some = async {
        while running.snapshot().answers() < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), some).await.unwrap();
    let taken = running.take_observations().len();
    assert!(taken > 0);
    let report = running.stop().await;
    let all = u64::try_from(taken + report.observations.len()).unwrap();
    assert_eq!(all, report.summary.answers());
}

#[tokio::test]
async fn a_lost_syn_is_slow() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // A queue of no length holds one connection; with that there, further ones are not answered.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();
    let running = Load::start(Plan::http(address).one_shot(1)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _server = Server::on(listener, &[Step::Answer(1)]);
    let report = running.stop().await;
    assert_eq!(counts(&report, Class::OneShot), one(FailureKind::Slow));
    assert_eq!(report.summary.class(Class::OneShot).answers, 1);
    assert!(report.summary.class(Class::OneShot).connect.max_us >= 1_000_000);
}

#[tokio::test]
async fn a_rate_that_cannot_be_kept_is_said() {
    let server = Server::start(&[Step::Wait(Duration::from_millis(50)), Step::Answer(1)]).await;
    let mut plan = Plan::http(server.address).one_shot(100);
    plan.one_shot.as_mut().unwrap().in_flight = 1;
    let report = run(plan, Duration::from_millis(400)).await;
    let class = report.summary.class(Class::OneShot);
    assert!(class.late > 3, "{}", report.summary);
    // One takes 50 ms, so that at most eight of the forty were begun; none is forgotten.
    assert!(class.begun <= 10 && class.begun + class.unbegun >= 40, "{}", report.summary);
    assert!(class.lateness.max_us > 100_000, "{}", report.summary);
    // The wait for room counts, although each handshake was quick.
    assert!(class.connect.max_us > 10 * class.handshake.p50_us.max(1_000), "{}", report.summary);
}

#[tokio::test]
async fn a_stream_is_read_to_its_end_at_the_stop() {
    let server =
        Server::start(&[Step::Send(server::part_of_stream(7, 300_000, 300_000)), Step::Close])
            .await;
    let report = run(Plan::http(server.address).stream(2), Duration::from_millis(300)).await;
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    assert_eq!(report.summary.class(Class::Stream).generations, BTreeMap::from([(7, 2)]));
    assert_eq!(report.summary.class(Class::Stream).connections, 2);
}

#[tokio::test]
async fn a_short_stream_is_cut() {
    let server =
        Server::start(&[Step::Send(server::part_of_stream(7, 300_000, 299_999)), Step::Close])
            .await;
    let report = run(Plan::http(server.address).stream(1), Duration::from_millis(300)).await;
    assert_eq!(counts(&report, Class::Stream), one(FailureKind::CutInTheMiddle));
}

#[tokio::test]
async fn an_upload_is_sent_to_its_end_at_the_stop() {
    let server = Server::start(&[Step::AnswerAndClose(5)]).await;
    let report = run(Plan::http(server.address).upload(3), Duration::from_millis(300)).await;
    assert_eq!(report.summary.failures(), 0, "{}", report.summary);
    assert_eq!(report.summary.class(Class::Upload).generations, BTreeMap::from([(5, 3)]));
}

#[tokio::test]
async fn the_report_can_be_serialised() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let report = run(
        Plan::http(server.address).one_shot(50).source(Source::Spread),
        Duration::from_millis(100),
    )
    .await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["classes"]["one_shot"]["generations"]["1"], report.summary.answers());
}

#[tokio::test]
async fn a_dropped_run_breaks_off() {
    let server = Server::start(&[Step::Answer(1)]).await;
    let running =
        Load::start(Plan::http(server.address).keep_alive(1, Duration::from_millis(1))).unwrap();
    let recorders = running.recorders();
    drop(running);
    let gone = async {
        while recorders.iter().any(|recorder| recorder.strong_count() > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), gone).await.unwrap();
}

#[tokio::test]
async fn a_plan_that_contradicts_itself_is_refused() {
    let target = "[::1]:1".parse().unwrap();
    assert!(matches!(Load::start(Plan::redis(target).stream(1)), Err(StartError::NeedsHttp)));
    assert!(matches!(
        Load::start(Plan::http(target).source(Source::Spread)),
        Err(StartError::NeedsLoopback)
    ));
}
