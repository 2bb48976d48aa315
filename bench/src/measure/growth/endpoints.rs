//! Growth with the ports of one service.

use std::ops::Range;

use agent_api::{Attached, Detached};
use anyhow::{Result, ensure};

use super::ground::{Ground, Tools};
use super::occupied;
use super::series::{Collector, Series, What};
use super::server::Wide;
use crate::measure::say;
use ::tests::servers::Server as _;

/// A server for each number of ports; they are attached in turn, one at a time. Upgrades come last: a generation that was
/// launched and handed back would outlive us if something failed.
pub(super) fn measure(tools: &Tools, cycles: u32, sizes: &[u32]) -> Result<Series> {
    let servers = ports(sizes)?.into_iter().map(Wide::new).collect::<Result<Vec<_>>>()?;
    let mut ground = Ground::new(tools)?;
    for server in &servers {
        ground.start(server)?;
    }
    let mut collector = Collector::new(sizes);
    for cycle in 1..=cycles {
        for (place, server) in servers.iter().enumerate() {
            say(&format!("{} ports ({cycle} of {cycles})", sizes[place]));
            to_and_fro(&mut ground, server, (&mut collector, place))?;
        }
    }
    for (place, server) in servers.iter().enumerate() {
        say(&format!("{} ports: upgrades", sizes[place]));
        upgrades(&ground, server, (&mut collector, place))?;
    }
    collector.finish()
}

/// Everything from `attach` to `detach`, without an upgrade.
fn to_and_fro(
    ground: &mut Ground,
    server: &Wide,
    (collector, place): (&mut Collector, usize),
) -> Result<()> {
    let ports = server.port_list();
    let (took, attached): (_, Attached) = ground.timed(&["attach", "--port", &ports])?;
    ensure!(attached.changed, "the ports were attached already");
    collector.add_time(What::Attach, place, took);
    collector.add(What::Steer, place, ground.steer(server.last_port(), 1)?);
    collector.add_time(What::StatusCommand, place, ground.status()?);
    let occupied = occupied(ground)?;
    collector.add(What::OwnMemory, place, occupied.own as f64);
    collector.add(What::Maps, place, occupied.maps as f64);
    collector.add(What::StateFile, place, occupied.state as f64);
    collector.add_time(What::Restore, place, ground.restart_agent()?);
    let port = server.port().to_string();
    let (took, detached): (_, Detached) = ground.timed(&["detach", "--port", &port])?;
    ensure!(detached.changed, "the ports were not attached");
    collector.add_time(What::Detach, place, took);
    Ok(())
}

fn upgrades(
    ground: &Ground,
    server: &Wide,
    (collector, place): (&mut Collector, usize),
) -> Result<()> {
    let (_, _): (_, Attached) = ground.timed(&["attach", "--port", &server.port_list()])?;
    for generation in (2..).take(UPGRADES) {
        collector.add_time(What::Upgrade, place, ground.upgrade(server, generation)?);
        ground.stage.until_steady(server.port())?;
    }
    Ok(())
}

/// So many for each size, one after the other.
fn ports(sizes: &[u32]) -> Result<Vec<Range<u16>>> {
    let mut next = FIRST_PORT;
    let mut ports = Vec::new();
    for size in sizes {
        let end = next + u16::try_from(*size)?;
        ports.push(next..end);
        next = end;
    }
    Ok(ports)
}

/// Below those that the kernel gives to clients.
const FIRST_PORT: u16 = 10_000;
const UPGRADES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        assert_eq!(ports(&[1, 10]).unwrap(), [10_000..10_001, 10_001..10_011]);
    }
}
