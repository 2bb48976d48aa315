//! The control socket is what its documents say, and who speaks another version of it is told so.

mod schema;

use std::fs;
use std::process::{Child, Command, Stdio};

use agent_api::{Operation, SCHEMA};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::servers::{Node, Script, Server as _};
use tests::stage::{LIMIT, Stage};
use tests::wait;

const PORT: u16 = 8080;
const DOCUMENT: &str = include_str!("../../../docs/api/openapi.json");

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

/// Who asks and compares what comes with the document.
struct Asker<'a> {
    stage: &'a Stage,
    document: Value,
    asked: Vec<Operation>,
}

impl<'a> Asker<'a> {
    fn new(stage: &'a Stage) -> Result<Self> {
        Ok(Self { stage, document: serde_json::from_str(DOCUMENT)?, asked: Vec::new() })
    }

    /// The body of an answer, which has this status, and is what the document says for that.
    fn ask(
        &mut self,
        operation: Operation,
        (service, query): (&str, &str),
        body: &Value,
        expected: u16,
    ) -> Result<Value> {
        let method = operation.method();
        let filled = operation.path().replace("{service}", service).replace("{id}", "1");
        let path = format!("{filled}{query}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = ask(self.stage, method.as_str(), &path, &body)?;
        ensure!(status == expected, "{method} {path}: {status} {answer}");
        let described = &self.document["paths"][operation.path()][method.as_str().to_lowercase()];
        let content = &described["responses"][status.to_string()]["content"];
        let is_stream = answer.starts_with("data:");
        let schema = match is_stream {
            true => &content["text/event-stream"]["schema"]["contentSchema"],
            false => &content["application/json"]["schema"],
        };
        ensure!(schema.is_object(), "{method} {path}: {status} is not described");
        let values = match is_stream {
            true => answer.lines().filter_map(|line| line.strip_prefix("data:")).collect(),
            false => vec![answer.as_str()],
        };
        let mut last = Value::Null;
        for value in values {
            last = serde_json::from_str(value)?;
            let checked = schema::check(&self.document, schema, &last);
            checked.with_context(|| format!("{method} {path}: {last:#}"))?;
        }
        if status == 200 {
            self.asked.push(operation);
        }
        Ok(last)
    }
}

const NOTHING: Value = Value::Null;

#[test]
fn each_operation_answers_as_the_document_says() -> Result<()> {
    let server = Node::new(PORT)?;
    let stage = Stage::new()?;
    let _first = stage.start(&server, 1)?;
    stage.agent.start_daemon()?;
    let mut asker = Asker::new(&stage)?;
    let (all, web) = (("", ""), ("web", ""));
    asker.ask(Operation::Agent, all, &NOTHING, 200)?;
    let attach = json!({"ports": [PORT], "name": "web"});
    assert_eq!(asker.ask(Operation::Attach, all, &attach, 200)?["changed"], true);
    let _flow = stage.connect(server.address())?;
    let argv = server.command(2)?;
    let program = json!({"program": which(&argv[0])?, "arguments": argv});
    let upgrade = json!({"new": {"launch": program}, "settle": "0s", "drain": {"keep_old": "1h"}});
    let mut preview = upgrade.clone();
    preview["dry_run"] = true.into();
    let previewed = asker.ask(Operation::Upgrade, web, &preview, 200)?;
    assert!(previewed["would_do"].is_object(), "{previewed}");
    let begun = asker.ask(Operation::Upgrade, web, &upgrade, 200)?;
    assert!(begun["begun"].is_object(), "{begun}");
    let mut unexpected = upgrade.clone();
    unexpected["if_generation"] = 77.into();
    asker.ask(Operation::Upgrade, web, &unexpected, 409)?;
    asker.ask(Operation::Services, all, &NOTHING, 200)?;
    wait::until("the switch", LIMIT, || {
        let rollout = asker.ask(Operation::Rollout, web, &NOTHING, 200)?;
        Ok(rollout["switched_after"].is_string().then_some(()))
    })?;
    asker.ask(Operation::Service, ("8080", ""), &NOTHING, 200)?;
    asker.ask(Operation::Undo, web, &json!({"drain": {"timeout": "0s"}}), 200)?;
    let ended = asker.ask(Operation::Progress, web, &NOTHING, 200)?;
    assert_eq!(ended["status"]["status"], "ended", "{ended}");
    for operation in [Operation::AllFlows, Operation::Flows] {
        let flows = asker.ask(operation, web, &NOTHING, 200)?;
        assert_eq!(flows["flows"][0]["service"], "web", "{flows}");
    }
    for operation in [Operation::AllHistory, Operation::History] {
        let history = asker.ask(operation, web, &NOTHING, 200)?;
        assert_eq!(history["rollouts"].as_array().map(Vec::len), Some(2), "{history}");
    }
    let query = "?local=127.0.0.1:8080&remote=127.0.0.1:5";
    let explained = asker.ask(Operation::Explain, ("", query), &NOTHING, 200)?;
    assert_eq!(explained["offers"][0]["generation"], 1, "{explained}");
    asker.ask(Operation::Events, all, &NOTHING, 200)?;

    asker.ask(Operation::Service, ("mail", ""), &NOTHING, 404)?;
    asker.ask(Operation::Explain, ("", "?local=8080"), &NOTHING, 400).unwrap_err();
    let odd = json!({"ports": [PORT], "later": 1});
    let refused = asker.ask(Operation::Attach, all, &odd, 400)?;
    assert!(refused["fix"].as_str().is_some_and(|it| it.contains("--replace")), "{refused}");
    stage.until_steady(PORT)?;
    asker.ask(Operation::Detach, web, &NOTHING, 200)?;
    let left: Vec<_> = Operation::ALL.iter().filter(|it| !asker.asked.contains(it)).collect();
    assert!(left.is_empty(), "nobody has asked for {left:?}");
    Ok(())
}

fn which(program: &str) -> Result<String> {
    let path = std::env::var("PATH")?;
    let candidates = path.split(':').map(|folder| format!("{folder}/{program}"));
    let mut there = [program.to_owned()].into_iter().chain(candidates);
    let found = there.find(|it| it.starts_with('/') && fs::exists(it).unwrap_or(false));
    found.with_context(|| format!("find `{program}`"))
}

/// As the command line shows a rollout, so it is in the API, with what was said on the way.
#[test]
fn an_upgrade_as_json_has_all_that_was_told() -> Result<()> {
    let server = Script::new(PORT)?;
    let (stage, _first) = Stage::attached(&server)?;
    let document: Value = serde_json::from_str(DOCUMENT)?;
    let schema = json!({"$ref": "#/components/schemas/Begun"});
    let argv = server.command(2)?;
    let options = ["--json", "--release", "v2", "--limit", "core=0"];
    let words = tests::agent::upgrade(PORT, &options, &argv);
    for changed in [true, false] {
        let output = stage.agent.run(&words)?.success()?;
        let said = output.json()?;
        assert_eq!(said["changed"], changed, "{said}");
        if !changed {
            // It serves already: nothing else is to be told.
            assert_eq!(said["release"], "v2", "{said}");
            continue;
        }
        schema::check(&document, &schema, &said)?;
        let warnings = said["warnings"].as_array().context("warnings")?;
        for line in output.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")) {
            assert!(warnings.iter().any(|it| it == line), "`{line}` is not in {said}");
        }
    }
    Ok(())
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
