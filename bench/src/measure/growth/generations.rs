//! Growth with the generations that are alive: one takes new connections, the others drain with a flow each.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::ground::{Ground, Tools, rest};
use super::occupied;
use super::series::{Collector, Series, What};
use super::server::Wide;
use crate::measure::control::Control;
use crate::measure::say;

/// More and more generations. Then all clients leave, all but the last generation end, and it begins again.
pub(super) fn measure(tools: &Tools, cycles: u32, sizes: &[u32]) -> Result<Series> {
    let server = Wide::new(PORT..PORT + 1)?;
    let mut ground = Ground::new(tools)?;
    ground.start(&server)?;
    ground.stage.agent.attach(PORT)?.success()?;
    let mut control = Control::connect(ground.stage.agent.runtime(), PORT)?;
    let mut collector = Collector::new(sizes);
    let mut last = 1;
    for cycle in 1..=cycles {
        let mut held = vec![ground.hold(PORT, 1, SOURCE)?];
        for (place, size) in sizes.iter().enumerate() {
            say(&format!("{size} generations ({cycle} of {cycles})"));
            while held.len() < usize::try_from(*size)? {
                last += 1;
                let took = ground.upgrade(&server, last)?;
                collector.add_time(What::Upgrade, place, took);
                held.push(ground.hold(PORT, 1, SOURCE)?);
                rest(&mut control, last - 1)?;
            }
            let alive: Vec<_> = (last + 1 - size..=last).map(|number| (number, 1)).collect();
            ground.expect_counts(PORT, &alive)?;
            look(&ground, &mut control, last, (&mut collector, place))?;
        }
        drop(held);
        ground.stage.until_steady(PORT)?;
    }
    collector.finish()
}

fn look(
    ground: &Ground,
    control: &mut Control,
    last: u32,
    (collector, place): (&mut Collector, usize),
) -> Result<()> {
    for _ in 0..BATCHES {
        collector.add(What::Steer, place, ground.steer(PORT, last)?);
        collector.add_time(What::StatusCommand, place, ground.status()?);
        collector.add_time(What::StatusRequest, place, control.status()?.0);
    }
    ground.switches(control, (collector, place))?;
    let offers = ground.offers((Ipv4Addr::LOCALHOST, PORT).into())?;
    collector.add(What::Offers, place, offers as f64);
    collector.add(What::DrainCpu, place, ground.use_at_rest()?);
    collector.add(What::OwnMemory, place, occupied(ground)?.own as f64);
    Ok(())
}

const PORT: u16 = 8080;
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const BATCHES: u32 = 3;
