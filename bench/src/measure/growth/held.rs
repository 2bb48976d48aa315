//! Clients that do nothing but hold connections, in processes of their own: one process may not have 100,000 descriptors.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::measure::cores::Cores;
use tests::stage::LIMIT;

/// Connections that stay open until this is dropped; then they are reset, so that no `TIME_WAIT` is left of them.
#[derive(Debug)]
pub(super) struct Held {
    holders: Vec<Child>,
}

impl Held {
    /// Opens so many connections, from the clients' core. Each process has a source address of its own: `first` and those
    /// after it.
    ///
    /// # Errors
    ///
    /// If one connection fails.
    pub(super) fn open(
        program: &Path,
        cores: &Cores,
        address: SocketAddr,
        (count, first): (u32, Ipv4Addr),
    ) -> Result<Self> {
        let mut held = Self { holders: Vec::new() };
        let mut answers = Vec::new();
        let mut left = count;
        let mut source = first;
        while left > 0 {
            let part = left.min(EACH);
            let mut command = Command::new(program);
            command.args([address.to_string(), source.to_string(), part.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = cores.on_clients(|| {
                command.spawn().with_context(|| format!("start `{}`", program.display()))
            })?;
            answers.push(child.stdout.take().context("no output of a holder")?);
            held.holders.push(child);
            left -= part;
            source = Ipv4Addr::from_bits(source.to_bits() + 1);
        }
        answers.into_iter().try_for_each(ready)?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // It ends when its input does. All of them at once.
            drop(holder.stdin.take());
        }
        for holder in &mut self.holders {
            match holder.wait() {
                Ok(_) => {}
                Err(error) => eprintln!("a holder of connections is left behind: {error}"),
            }
        }
    }
}

/// Waits until a holder has opened all that it should; it has said on the standard error why if it ends before.
fn ready(answers: ChildStdout) -> Result<()> {
    let mut line = String::new();
    BufReader::new(answers).read_line(&mut line)?;
    ensure!(line.trim() == READY, "a holder of connections could not open all of them");
    Ok(())
}

/// What a holder does: opens connections, says so, and holds them until its input ends.
pub(crate) fn hold() -> ExitCode {
    match connections() {
        Ok(held) => {
            drop(held);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn connections() -> Result<Vec<TcpStream>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [address, source, count] = words.as_slice() else {
        anyhow::bail!("use `cargo xtask measure`: this takes an address, a source and a number");
    };
    let (address, source): (SocketAddr, IpAddr) = (address.parse()?, source.parse()?);
    let count: u32 = count.parse()?;
    let open = |number: u32| {
        open(address, source).with_context(|| format!("open connection {number} from {source}"))
    };
    let held = (1..=count).map(open).collect::<Result<_>>()?;
    println!("{READY}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(held)
}

fn open(address: SocketAddr, source: IpAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), LIMIT)?;
    Ok(socket.into())
}

/// How many connections one process has at most: less than the descriptors that it may have, and than half of the ports that
/// an address has.
const EACH: u32 = 12_500;
const READY: &str = "ready";
