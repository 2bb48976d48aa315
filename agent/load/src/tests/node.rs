//! Node as it comes: it answers in chunks unless it is told the length.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::{Class, FailureKind, Plan, Protocol};
use super::{counts, run};

/// A server that says its port, ended when dropped.
#[derive(Debug)]
struct Node {
    process: Child,
    address: SocketAddr,
}

impl Node {
    fn start() -> Self {
        let mut command = Command::new("node");
        command.args(["--eval", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("`cargo xtask setup` installs node");
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Self { process, address }
    }

    fn plan(&self, path: &str) -> Plan {
        let plan = Plan::http(self.address);
        Plan { protocol: Protocol::Http { path: path.to_owned() }, ..plan }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn answers_and_streams_in_chunks_are_read_to_their_end_and_connections_kept() {
    let node = Node::start();
    let plan = node.plan("/generation").one_shot(100).keep_alive_at(3, 100).stream(2);
    let report = run(plan, Duration::from_millis(700)).await.summary;
    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(report.generations(), BTreeMap::from([(42, report.answers())]), "{report}");
    assert!(report.classes.values().all(|class| class.answers > 0), "{report}");
    let kept = report.class(Class::KeepAlive);
    assert!(kept.connections == 3 && kept.answers > 3 && kept.closed == 0, "{report}");
}

#[tokio::test]
async fn bad_chunk_sizes_are_wrong_answers() {
    let node = Node::start();
    for path in ["/no-size", "/short-size"] {
        let report = run(node.plan(path).one_shot(50), Duration::from_millis(300)).await;
        let class = report.summary.class(Class::OneShot);
        let expected = BTreeMap::from([(FailureKind::WrongAnswer, class.begun)]);
        assert_eq!(counts(&report, Class::OneShot), expected, "{}", report.summary);
    }
}

const SCRIPT: &str = r"
const head = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
const server = require('node:http').createServer((request, response) => {
  switch (request.url) {
    case '/generation':
      response.write('4');
      response.end('2\n');
      break;
    case '/stream':
      for (let part = 0; part < 1000; part++) response.write('42\n'.repeat(100));
      response.end();
      break;
    case '/no-size':
      request.socket.end(head + 'two\r\n42\r\n0\r\n\r\n');
      break;
    case '/short-size':
      request.socket.end(head + '1\r\n42\r\n0\r\n\r\n');
      break;
  }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";
