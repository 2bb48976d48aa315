//! The clients: those of `agent load`, which count every failure by its kind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use agent_load::{KeepAlive, Load, Observations, Pace, Plan, Running};
use anyhow::{Context as _, Result};

use super::PORT;
use super::result::Counted;

/// Clients of both families, at work.
#[derive(Debug)]
pub(super) struct Traffic(Vec<(&'static str, Running)>);

impl Traffic {
    /// Starts them: 50 new connections per second, and six that are kept for a while.
    ///
    /// # Errors
    ///
    /// If the generator cannot start.
    pub(super) fn start() -> Result<Self> {
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        let plans: &[_] = match has_ipv6() {
            true => &[("IPv4", v4, 40, 4), ("IPv6", v6, 10, 2)],
            false => &[("IPv4", v4, 50, 6)],
        };
        let started = plans.iter().map(|&(name, address, rate, kept)| {
            Ok((name, Load::start(plan((address, PORT).into(), rate, kept))?))
        });
        Ok(Self(started.collect::<Result<_>>()?))
    }

    /// Lets them finish what they have begun, and counts.
    ///
    /// # Errors
    ///
    /// If there is no runtime to wait with.
    pub(super) fn stop(self, counted: &mut Counted) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for (name, running) in self.0 {
            let summary = runtime.block_on(running.stop()).summary;
            println!("{name}: {summary}");
            counted.connections +=
                summary.classes.values().map(|class| class.connections).sum::<u64>();
            counted.failures += summary.failures();
            for (kind, failures) in summary.classes.values().flat_map(|class| &class.failures) {
                let (count, first) = (failures.count, &failures.first);
                counted.wrong(format!("{count} clients by {name}: {kind:?}, first: {first}"));
            }
        }
        Ok(())
    }
}

/// Kept connections are ended by their clients in the end, since an old generation waits for that.
fn plan(target: SocketAddr, rate: u32, kept: u32) -> Plan {
    Plan {
        keep_alive: Some(KeepAlive {
            connections: kept,
            pace: Pace::Think(Duration::from_millis(500)),
            requests: Some(3),
        }),
        observations: Observations::Discard,
        ..Plan::http(target).one_shot(rate)
    }
}

/// One request on a connection of its own; the number of the generation that answers.
///
/// # Errors
///
/// If there is no connection, or no number as the answer.
pub(super) fn ask() -> Result<u32> {
    answer(request()?)
}

/// Connects and sends a request, of which nobody may hear yet.
pub(super) fn request() -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Waits for the answer to a request.
pub(super) fn answer(mut stream: TcpStream) -> Result<u32> {
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read the answer")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is no success: {head}");
    body.trim().parse().with_context(|| format!("the answer is `{body}`"))
}

/// Whether the kernel has it, and it was not switched off.
pub(super) fn has_ipv6() -> bool {
    fs::exists("/proc/net/if_inet6").unwrap_or(false)
}

/// A connection that nobody accepts any more would have to be noticed.
const PATIENCE: Duration = Duration::from_secs(10);
