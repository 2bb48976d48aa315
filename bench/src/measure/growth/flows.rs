//! Growth with the flows of one service.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use agent_api::RolloutView;
use anyhow::{Context as _, Result};

use super::ground::{Ground, Tools, rest};
use super::held::Held;
use super::occupied;
use super::series::{Collector, Series, What};
use super::server::Wide;
use crate::measure::closed_loop::{self, Between};
use crate::measure::control::Control;
use crate::measure::say;

/// More and more flows, at generation 1, which takes new connections while nothing is switched; generation 2 has one flow and
/// drains. Then all are released, and it begins again.
pub(super) fn measure(tools: &Tools, cycles: u32, sizes: &[u32]) -> Result<Series> {
    let most = sizes.iter().copied().max().unwrap_or_default();
    let server = Wide::new(PORT..PORT + 1)?.first_also_on(DIRECT).for_connections(most);
    let mut ground = Ground::new(tools)?;
    ground.start(&server)?;
    ground.stage.agent.attach(PORT)?.success()?;
    let first = ground.hold(PORT, 1, SOURCE)?;
    ground.upgrade(&server, 2)?;
    let second = ground.hold(PORT, 1, SOURCE)?;
    let mut control = Control::connect(ground.stage.agent.runtime(), PORT)?;
    rest(&mut control, 1)?;
    control.undo()?;
    rest(&mut control, 2)?;
    let mut collector = Collector::new(sizes);
    for cycle in 1..=cycles {
        let mut held: Vec<Held> = Vec::new();
        let (mut open, mut source) = (1, SOURCE.to_bits());
        for (place, size) in sizes.iter().enumerate() {
            say(&format!("{size} flows ({cycle} of {cycles})"));
            // Each holder has addresses of its own, so many that those of the next one are others.
            source += 256;
            held.push(ground.hold(PORT, size - open, Ipv4Addr::from_bits(source))?);
            open = *size;
            ground.expect_counts(PORT, &[(1, open.into()), (2, 1)])?;
            look(&ground, &mut control, (&mut collector, place))?;
        }
        drop(held);
        ground.expect_counts(PORT, &[(1, 1), (2, 1)])?;
    }
    drop([first, second]);
    collector.finish()
}

/// Everything at one size.
fn look(
    ground: &Ground,
    control: &mut Control,
    (collector, place): (&mut Collector, usize),
) -> Result<()> {
    for _ in 0..LOOKS {
        collector.add_time(What::StatusCommand, place, ground.status()?);
        collector.add_time(What::StatusRequest, place, control.status()?.0);
    }
    ground.switches(control, (collector, place))?;
    for _ in 0..SWITCHES {
        let port = PORT.to_string();
        let (took, rollout): (_, RolloutView) = ground.timed(&["undo", "--port", &port])?;
        rest(control, rollout.from.0)?;
        collector.add_time(What::SwitchCommand, place, took);
    }
    collector.add(What::NewConnections, place, ratio(ground)?);
    collector.add(What::DrainCpu, place, ground.use_at_rest()?);
    let occupied = occupied(ground)?;
    collector.add(What::OwnMemory, place, occupied.own as f64);
    collector.add(What::FlowMemory, place, option_memory()?);
    collector.add(What::Maps, place, occupied.maps as f64);
    Ok(())
}

/// What the kernel has for the options of the first flow, of which our tag is the only one (`SK_MEMINFO_OPTMEM`).
fn option_memory() -> Result<f64> {
    let mut command = Command::new("ss");
    command.args(["-Htnm", "state", "established", "sport", "=", &format!(":{PORT}")]);
    command.args(["and", "dst", &SOURCE.to_string()]);
    let output = command.output().context("run `ss`")?;
    let text = String::from_utf8(output.stdout)?;
    let memory = text.split("skmem:(").nth(1).and_then(|rest| rest.split(')').next());
    let options = memory.and_then(|fields| fields.split(',').find_map(|it| it.strip_prefix('o')));
    options.and_then(|bytes| bytes.parse().ok()).with_context(|| format!("no memory in `{text}`"))
}

/// Requests per second on new connections to the attached port, by those to the other one.
fn ratio(ground: &Ground) -> Result<f64> {
    let slice = |port| {
        ground.check()?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let done = closed_loop::run(&ground.tools.cores, address, Between::Reconnect, SLICE)?;
        Ok::<_, anyhow::Error>(done.per_second())
    };
    let (direct, attached) = (slice(DIRECT)?, slice(PORT)?);
    Ok(attached / direct)
}

const PORT: u16 = 8080;
const DIRECT: u16 = 8081;
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const SLICE: Duration = Duration::from_millis(700);
const LOOKS: u32 = 10;
/// An even number: generation 1 takes new connections again afterwards.
const SWITCHES: u32 = 12;
