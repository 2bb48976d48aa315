//! Lines over TCP and datagrams over UDP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};

use super::super::{Class, FailureKind, Marks, Plan, Protocol};
use super::{counts, run};

/// Answers each line with itself and a generation.
async fn lines(generation: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    let answer = format!("{} {generation}\n", line.trim_end());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    line.clear();
                }
            });
        }
    });
    address
}

/// Answers each datagram so many times.
async fn datagrams(answer: &'static str, times: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (_, client) = socket.recv_from(&mut [0; 64]).await.unwrap();
            for _ in 0..times {
                socket.send_to(answer.as_bytes(), client).await.unwrap();
            }
        }
    });
    address
}

fn datagram(target: SocketAddr) -> Plan {
    let plan = Plan::new(target, Protocol::Datagram { text: "ping".to_owned() });
    Plan { timeout: Duration::from_millis(300), ..plan }
}

#[tokio::test]
async fn a_line_is_answered_by_a_line_that_tells_the_generation() {
    let target = lines(6).await;
    let plan = Plan::new(target, Protocol::Line { line: "ping".to_owned() });
    let report =
        run(plan.one_shot(200).keep_alive_at(2, 200), Duration::from_millis(300)).await.summary;
    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(report.generations(), BTreeMap::from([(6, report.answers())]));
    assert!(report.classes.values().all(|class| class.answers >= 10), "{report}");
}

#[tokio::test]
async fn a_datagram_is_answered_by_a_datagram_that_tells_the_generation() {
    let target = datagrams("pong 2", 1).await;
    let report = run(
        datagram(target).one_shot(200).keep_alive_at(2, 200).generations(2..=2),
        Duration::from_millis(300),
    )
    .await
    .summary;
    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(report.generations(), BTreeMap::from([(2, report.answers())]));
    let kept = report.class(Class::KeepAlive);
    assert!(kept.answers >= 10 && kept.connections == 2, "{report}");
    assert_eq!(kept.connect.count, 0, "there is no handshake: {report}");
}

#[tokio::test]
async fn a_datagram_without_an_answer_has_timed_out_and_one_that_nobody_takes_is_refused() {
    let silent = datagrams("", 0).await;
    let report = run(datagram(silent).one_shot(50), Duration::from_millis(200)).await;
    let class = report.summary.class(Class::OneShot);
    assert_eq!(
        counts(&report, Class::OneShot),
        BTreeMap::from([(FailureKind::TimedOut, class.begun)])
    );
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = run(datagram(nobody).one_shot(50), Duration::from_millis(200)).await;
    let class = report.summary.class(Class::OneShot);
    assert_eq!(
        counts(&report, Class::OneShot),
        BTreeMap::from([(FailureKind::Refused, class.begun)])
    );
}

#[tokio::test]
async fn a_second_answer_to_one_datagram_is_a_wrong_one() {
    let target = datagrams("1", 2).await;
    let plan = datagram(target).keep_alive(1, Duration::from_millis(50));
    let report = run(plan, Duration::from_millis(300)).await;
    let failures = counts(&report, Class::KeepAlive);
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&FailureKind::WrongAnswer]);
}

#[tokio::test]
async fn an_answer_without_a_generation_is_wrong_only_where_it_has_to_tell_one() {
    let target = datagrams("pong", 1).await;
    let strict = run(datagram(target).one_shot(100), Duration::from_millis(100)).await;
    let failures = counts(&strict, Class::OneShot);
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&FailureKind::WrongAnswer]);
    let lax = Plan { marks: Marks::Optional, ..datagram(target).one_shot(100) };
    let lax = run(lax, Duration::from_millis(100)).await.summary;
    assert_eq!((lax.failures(), lax.generations().len()), (0, 0), "{lax}");
    assert!(lax.answers() >= 5, "{lax}");
}
