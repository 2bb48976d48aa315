//! Who speaks another version of the API is told so.

use std::process::{Child, Command, Stdio};

use agent_api::SCHEMA;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::stage::{LIMIT, Stage};
use tests::wait;


/// Asks as any program may: from the agent's network namespace, since it answers nobody else.
const ASK: &str = "
import http.client, socket, sys
class Control(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
control = Control('agent')
control.request(sys.argv[2], sys.argv[3], sys.argv[4] or None, {'Content-Type': 'application/json'})
answer = control.getresponse()
print(answer.status)
sys.stdout.write(answer.read().decode())
";

/// Stands between a command and the agent, and makes the command's version another one.
const OTHER_VERSION: &str = "
import socket, sys
ours, theirs, version = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(ours)
listener.listen()
while True:
    command, _ = listener.accept()
    request = command.recv(65536).replace(b' /v1/', b' /v%s/' % version.encode(), 1)
    agent = socket.socket(socket.AF_UNIX)
    agent.connect(theirs)
    agent.sendall(request.replace(b'\\r\\n', b'\\r\\nconnection: close\\r\\n', 1))
    while answer := agent.recv(65536):
        command.sendall(answer)
    command.close()
";

fn ask(stage: &Stage, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut command = Command::new("python3");
    command.args(["-c", ASK]).arg(stage.agent.runtime().join("agent.sock"));
    let output = stage.namespace.output(command.args([method, path, body]))?;
    let answer = String::from_utf8(output.stdout)?;
    let (status, body) = answer
        .split_once('\n')
        .with_context(|| format!("{method} {path}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((status.parse()?, body.to_owned()))
}

#[test]
fn a_request_in_another_version_is_told_both_and_what_to_do() -> Result<()> {
    let stage = Stage::new()?;
    stage.agent.start_daemon()?;
    for (version, fix) in [(SCHEMA + 1, "--replace"), (SCHEMA - 1, "installed with it")] {
        for (method, path) in [("GET", "services"), ("POST", "services/web/upgrade")] {
            let (status, body) = ask(&stage, method, &format!("/v{version}/{path}"), "{}")?;
            let problem: Value = serde_json::from_str(&body)?;
            assert_eq!((status, &problem["kind"]), (501, &json!("version")), "{problem}");
            let said = problem.to_string();
            let versions = [format!("version {SCHEMA} "), format!("in version {version}")];
            assert!(versions.iter().all(|it| said.contains(it)) && said.contains(fix), "{said}");
        }
    }
    let (status, body) = ask(&stage, "GET", "/services", "")?;
    assert!(status == 404 && body.contains("not_found"), "{status} {body}");
    Ok(())
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

#[test]
fn a_command_of_another_version_says_so_and_exits_with_4() -> Result<()> {
    let stage = Stage::new()?;
    stage.agent.start_daemon()?;
    for version in [SCHEMA + 1, SCHEMA - 1] {
        let between = tempfile::tempdir()?;
        let socket = between.path().join("agent.sock");
        let mut relay = Command::new("python3");
        relay.args(["-c", OTHER_VERSION]).arg(&socket);
        relay.arg(stage.agent.runtime().join("agent.sock")).arg(version.to_string());
        let _relay = Ended(stage.namespace.spawn(relay.stdout(Stdio::null()))?);
        wait::until("the relay", LIMIT, || Ok(socket.exists().then_some(())))?;
        for words in
            [&["status"][..], &["upgrade", "web", "--", "/bin/true"], &["events", "--follow"]]
        {
            let mut command = Command::new(stage.agent.binary());
            command.args(["--config=/dev/null", "--runtime-dir"]).arg(between.path()).args(words);
            let output = stage.namespace.output(&mut command)?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{words:?}: {said}");
            let versions = [format!("version {SCHEMA} "), format!("in version {version}")];
            assert!(versions.iter().all(|it| said.contains(it)), "{words:?}: {said}");
            assert!(said.contains("fix: "), "{words:?}: {said}");
        }
    }
    Ok(())
}
