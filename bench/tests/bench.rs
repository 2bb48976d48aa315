//! The comparison counts what it should: a restart loses connections, and the agent none, by the same code.

use std::time::Duration;

use agent_bench::comparison::{self as bench, Contender, Rules, Turn};
use anyhow::Result;

fn turn(name: &str) -> Result<Turn> {
    let rules = Rules { upgrades: 1, interval: Duration::from_secs(1), rate: 300 };
    let turn = bench::turn(&Contender::named(name)?, &rules)?;
    assert_eq!(turn.switches.len(), 2, "{turn:?}");
    for switch in &turn.switches {
        assert!(switch.first_new_ms.is_some(), "nobody saw the wanted version: {turn:?}");
        assert!(!switch.connect_us.is_empty(), "{turn:?}");
    }
    Ok(turn)
}

#[test]
fn a_restart_loses_new_and_established_connections() -> Result<()> {
    let turn = turn("kill-restart")?;
    assert!(turn.failed_new() > 0, "{turn:?}");
    assert!(turn.failed["one_shot"]["refused"] > 0, "{turn:?}");
    assert!(turn.broken["keep_alive"].values().sum::<u64>() > 0, "{turn:?}");
    assert!(turn.broken["stream"]["cut_in_the_middle"] > 0, "{turn:?}");
    assert!(turn.switches.iter().all(|switch| switch.agent_cpu_ms.is_none()), "{turn:?}");
    Ok(())
}

#[test]
fn the_agent_loses_none() -> Result<()> {
    let turn = turn("agent-nginx")?;
    assert_eq!((turn.failed_new(), turn.broken_established()), (0, 0), "{turn:?}");
    assert!(turn.failed.is_empty(), "{turn:?}");
    assert!(turn.attempts() > 300, "{turn:?}");
    assert!(turn.switches.iter().all(|switch| switch.agent_cpu_ms > Some(0.0)), "{turn:?}");
    Ok(())
}
