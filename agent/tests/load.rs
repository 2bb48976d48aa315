//! `agent load` as people run it: its exit code, its answer, and its end when it is interrupted. None of it needs root.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Answers the first line of each connection after a time, one connection after the other.
fn server(takes: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        // Nobody ever sends: waiting for it takes the time.
        let (_sender, never) = std::sync::mpsc::channel::<()>();
        for stream in listener.incoming() {
            let mut stream = stream.expect("nothing limits what is accepted");
            let mut line = String::new();
            // A client may have gone before its turn.
            if BufReader::new(&stream).read_line(&mut line).is_ok_and(|read| read > 0) {
                never.recv_timeout(takes).ok();
                stream.write_all(b"generation 1\n").ok();
            }
        }
    });
    address
}

fn bench(target: SocketAddr, options: &[&str]) -> Child {
    let folder = std::env::temp_dir().join("no-agent-has-this-directory");
    Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(["load", &target.to_string(), "--protocol", "tcp", "--config", "/dev/null"])
        .args(["-o", "json", "--runtime-dir", &folder.display().to_string()])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo has built it")
}

fn told(output: &Output) -> Value {
    assert!(output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("the answer is JSON")
}

/// A run that the machine did not keep from its processor: on a busy one even a low rate may be missed, and that is said.
fn undisturbed(run: impl Fn() -> Output) -> (Output, Value) {
    for _ in 0..20 {
        let output = run();
        let told = told(&output);
        if told["verdict"] != "overloaded" {
            return (output, told);
        }
        assert_eq!(
            (output.status.code(), &told["overload"]["rate_missed"]),
            (Some(1), &true.into())
        );
    }
    panic!("twenty runs in which the machine was too busy for a hundred requests per second")
}

#[test]
fn a_run_without_a_failure_ends_with_0_and_needs_no_agent() {
    let target = server(Duration::ZERO);
    let options = ["--rate", "100", "--duration", "500ms", "--generations", "1"];
    let (output, told) = undisturbed(|| bench(target, &options).wait_with_output().unwrap());
    assert_eq!(told["verdict"], "passed", "{told:#}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((&told["schema"], &told["failures"]), (&Value::from(1), &Value::from(0)));
    assert_eq!(told["generations"]["1"], told["classes"]["one_shot"]["answers"]);
    assert!(told["classes"]["one_shot"]["answers"].as_u64().unwrap() >= 40, "{told:#}");
}

#[test]
fn a_failure_ends_with_1_and_is_told_by_its_kind() {
    let target = server(Duration::ZERO);
    let run = bench(target, &["--rate", "50", "--duration", "300ms", "--generations", "2-3"]);
    let output = run.wait_with_output().unwrap();
    let told = told(&output);
    assert_eq!((output.status.code(), &told["verdict"]), (Some(1), &Value::from("failed")));
    let class = &told["classes"]["one_shot"];
    assert_eq!(class["failures"]["wrong_generation"]["count"], class["answers"], "{told:#}");
}

#[test]
fn a_rate_that_was_not_kept_is_said_and_no_success() {
    let target = server(Duration::from_millis(20));
    let options = ["--rate", "1000", "--in-flight", "1", "--duration", "500ms"];
    let output = bench(target, &options).wait_with_output().unwrap();
    let told = told(&output);
    assert_eq!((output.status.code(), &told["verdict"]), (Some(1), &Value::from("overloaded")));
    assert_eq!((&told["failures"], &told["overload"]["rate_missed"]), (&0.into(), &true.into()));
    let class = &told["classes"]["one_shot"];
    let [begun, unbegun] = ["begun", "unbegun"].map(|key| class[key].as_u64().unwrap());
    assert!(begun <= 30 && begun + unbegun >= 450, "{told:#}");
    // The latest that was begun had been due long before.
    assert!(told["overload"]["latest_us"].as_u64().unwrap() > 300_000, "{told:#}");
    assert!(class["answer"]["max_us"].as_u64().unwrap() > 300_000, "{told:#}");
}

#[test]
fn an_interrupted_run_ends_early_with_its_report() {
    let target = server(Duration::ZERO);
    let (output, told) = undisturbed(|| {
        let run = bench(target, &["--rate", "100", "--duration", "1h"]);
        let (_sender, never) = std::sync::mpsc::channel::<()>();
        never.recv_timeout(Duration::from_millis(1_500)).ok();
        kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        run.wait_with_output().unwrap()
    });
    assert_eq!((output.status.code(), &told["interrupted"]), (Some(0), &Value::from(true)));
    assert!(told["classes"]["one_shot"]["answers"].as_u64().unwrap() >= 10, "{told:#}");
}

#[test]
fn a_lack_of_descriptors_is_said_and_no_success() {
    let target = server(Duration::from_secs(5));
    let words = "ulimit -n 40; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", words, "sh", env!("CARGO_BIN_EXE_agent"), "load", &target.to_string()])
        .args(["--protocol", "tcp", "--rate", "300", "--duration", "500ms", "--timeout", "1s"])
        .args(["--config", "/dev/null"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("overload: ran out of descriptors"), "{text}");
}
