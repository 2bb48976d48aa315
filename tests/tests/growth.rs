//! Growth is measured, and a count that is not exact ends the measurement.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;
use tests::namespace::Namespace;
use tests::wait;

/// Lets everything grow a little.
fn measure() -> Result<(Child, TempDir)> {
    let folder = tempfile::tempdir()?;
    let sizes = r#"{"cycles":1,"flows":[2,30],"endpoints":[1,3],"generations":[2,3]}"#;
    let child = Command::new(env!("CARGO_BIN_EXE_measure"))
        .arg(sizes)
        .arg(folder.path().join("growth.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((child, folder))
}

#[test]
fn each_kind_of_growth_is_measured_at_each_size() -> Result<()> {
    let (child, folder) = measure()?;
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "{output:?}");
    let growth: Value = serde_json::from_slice(&std::fs::read(folder.path().join("growth.json"))?)?;
    for (kind, what) in [
        ("flows", "switch_request"),
        ("flows", "flow_memory"),
        ("endpoints", "steer"),
        ("endpoints", "restore"),
        ("generations", "steer"),
    ] {
        let samples = &growth[kind]["samples"][what];
        for size in [0, 1] {
            assert!(samples[size]["minimum"].as_f64() > Some(0.0), "{kind} {what}: {samples}");
        }
    }
    // A port more is more to write down.
    let state = &growth["endpoints"]["samples"]["state_file"];
    assert!(state[0]["median"].as_f64() < state[1]["median"].as_f64(), "{state}");
    Ok(())
}

/// The one that nobody counts on comes as soon as the server listens, in the namespace that the measurement has moved into.
#[test]
fn a_connection_more_than_clients_hold_ends_it() -> Result<()> {
    let (child, folder) = measure()?;
    let ours = std::fs::read_link("/proc/self/ns/net")?;
    let stranger = wait::until("the server to listen", LIMIT, || {
        if std::fs::read_link(format!("/proc/{}/ns/net", child.id()))? == ours {
            return Ok(None);
        }
        Namespace::of(child.id())?
            .enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).ok()))
    });
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let _stranger = stranger?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("clients hold [(1, 2), (2, 1)]"), "{said}");
    assert!(said.contains("(4, [(1, 3), (2, 1)])"), "{said}");
    assert!(!folder.path().join("growth.json").exists());
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(30);
