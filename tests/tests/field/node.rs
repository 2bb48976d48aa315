//! A cluster in Node: the primary accepts, and hands connections to its workers.

use anyhow::Result;
use tests::servers::{Keeps, Kind};

use crate::procedure::goes_through_all;

const CLUSTER: Kind = Kind {
    name: "node-cluster",
    port: 8080,
    user: Some("www-data"),
    keeps: Keeps::Connections,
    pid_file: None,
    release: |release| {
        let broken = APPLICATION.replace("node:http", "a-module-that-is-not-installed");
        let application = release.file("server.js", APPLICATION, &broken)?;
        Ok(["node", &application].map(str::to_owned).to_vec())
    },
};

/// Workers that end are replaced, as the documentation of Node shows it.
const APPLICATION: &str = r"const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < 2; worker++) cluster.fork();
  cluster.on('exit', () => cluster.fork());
} else {
  const http = require('node:http');
  http.createServer((request, response) => response.end('@VERSION@\n')).listen(@PORT@);
}
";

#[tokio::test]
async fn a_cluster_in_node() -> Result<()> {
    goes_through_all(CLUSTER, &[]).await
}
