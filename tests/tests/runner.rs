//! The runner of the agent's command line, with stand-ins for the agent: what it passes on, and that it leaves nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tests::agent::Agent;
use tests::namespace::Namespace;
use tests::process::Handle;

const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-in.sh");

#[test]
fn nothing_is_left_of_a_dropped_agent() -> Result<()> {
    let agent = Agent::with_binary(&Namespace::new()?, Path::new(STAND_IN))?;
    let output = agent.upgrade(8080, &["server".to_owned(), String::new()])?;
    assert_eq!((output.code, output.stderr.as_str()), (Some(5), "not ready\n"));
    let answer = output.json()?;
    assert_eq!(answer["arguments"], "upgrade --port 8080 -o json -- server ");
    assert!(output.success().is_err());

    let left = Handle::open(i32::try_from(answer["pid"].as_i64().unwrap())?)?;
    let (cgroup, runtime) = (agent.cgroup().to_owned(), agent.runtime().to_owned());
    assert!(cgroup.join("service/gen-2").is_dir());
    assert!(!left.ended_within(Duration::ZERO)?);
    drop(agent);
    assert!(left.ended_within(Duration::ZERO)?);
    assert!(!cgroup.exists() && !runtime.exists());
    Ok(())
}

#[test]
fn only_the_agents_own_program_is_taken_for_its_daemon() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut child = Command::new("/bin/sleep").arg("1000").spawn()?;
    let handle = Handle::open(i32::try_from(child.id())?)?;

    let other = Agent::with_binary(&namespace, Path::new("/bin/cat"))?;
    std::fs::write(other.runtime().join("agent.pid"), child.id().to_string())?;
    assert!(other.daemon().is_none());
    drop(other);
    assert!(!handle.ended_within(Duration::ZERO)?);

    let own = Agent::with_binary(&namespace, Path::new("/bin/sleep"))?;
    std::fs::write(own.runtime().join("agent.pid"), child.id().to_string())?;
    assert!(own.daemon().is_some());
    drop(own);
    assert!(handle.ended_within(Duration::ZERO)?);
    child.wait()?;
    Ok(())
}
