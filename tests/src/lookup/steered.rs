//! The agent's maps and programs without an agent, in a namespace of their own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use agent::datapath::{Datapath, ListenerToAdopt, Place};
use agent_ebpf::steering::Steering;
use agent_terms::{Endpoint, GenerationId, GenerationNumber, LocalAddress, ServiceId};
use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramFd, loaded_programs};
use rustix::net::sockopt;

use super::{Looked, Lookup};
use crate::namespace::Namespace;

/// One service, with one endpoint on every IPv4 address.
pub const SERVICE: ServiceId = ServiceId(1);

/// The endpoint's port.
pub const PORT: u16 = 8080;

/// Maps, programs and their pins; removed when dropped. It belongs to the thread that made it.
pub struct Steered {
    datapath: Option<Datapath>,
    pins: PathBuf,
    steer: ProgramFd,
}

impl Steered {
    /// Moves the calling thread into a new namespace and has new connections steered there, to nobody yet.
    ///
    /// # Errors
    ///
    /// Without the right to do so.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Namespace::new()?.settle()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("agent-test-lookup-{}-{number}", std::process::id());
        let pins = Path::new("/sys/fs/bpf").join(name);
        let mut datapath = Datapath::begin(&pins, Place::with(None)?)?;
        match begin(&mut datapath, &pins) {
            Ok(steer) => Ok(Self { datapath: Some(datapath), pins, steer }),
            Err(error) => {
                datapath.abandon();
                Err(error)
            }
        }
    }

    /// Takes these listeners over as those of a generation, in place of any that it had.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn adopt(&mut self, generation: u32, listeners: &[&TcpListener]) -> Result<()> {
        let to_adopt = listeners.iter().map(|listener| {
            Ok(ListenerToAdopt {
                cookie: cookie(listener)?,
                port: PORT,
                address: LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED),
                share: false,
                multipath: false,
            })
        });
        let to_adopt = to_adopt.collect::<Result<Vec<_>>>()?;
        self.datapath().adopt_listeners(id(generation), &[endpoint()], &to_adopt)?;
        Ok(())
    }

    /// Has the maps forget a generation.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget(&mut self, generation: u32) -> Result<()> {
        Ok(self.datapath().forget(id(generation), &[endpoint()])?)
    }

    /// Has the maps forget all generations but one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_only(&mut self, generation: u32) -> Result<()> {
        Ok(self.datapath().keep_only(&[id(generation).key()].into())?)
    }

    /// Switches.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn steer(&mut self, steering: &Steering) -> Result<()> {
        Ok(self.datapath().steer(SERVICE, steering)?)
    }

    /// What the kernel has.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn steering(&mut self) -> Result<Steering> {
        self.datapath().steering(SERVICE)?.context("the service has no steering")
    }

    /// Has `steer` look a connection to a port up, so often.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn look_up(&self, port: u16, times: u32) -> Result<Looked> {
        Ok(lookup(port).run(&self.steer, times)?)
    }

    /// Has `steer` look up one connection of a client with this port.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn look_up_from(&self, client: u16) -> Result<Looked> {
        let remote = (Ipv4Addr::LOCALHOST, client).into();
        Ok(Lookup { remote, ..lookup(PORT) }.run(&self.steer, 1)?)
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("it is only taken when dropped")
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        let removed = self.datapath.take().map_or(Ok(()), Datapath::remove);
        if let Err(error) = removed {
            eprintln!("`{}` was left behind: {error}", self.pins.display());
        }
    }
}

/// A client that connects to a port of this machine.
pub fn lookup(port: u16) -> Lookup {
    Lookup {
        remote: (Ipv4Addr::LOCALHOST, 40_000).into(),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    }
}

/// A listener on any free port: steering does not care which.
///
/// # Errors
///
/// When the kernel refuses.
pub fn listener() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?)
}

/// The kernel's number for a listener.
///
/// # Errors
///
/// When the kernel does not say.
pub fn cookie(listener: &TcpListener) -> Result<u64> {
    Ok(sockopt::socket_cookie(listener)?)
}

fn begin(datapath: &mut Datapath, pins: &Path) -> Result<ProgramFd> {
    datapath.set_endpoints([(SERVICE, &[endpoint()][..])])?;
    // Only the programs for control groups would ask for one.
    datapath.take_over_steering(&File::open("/")?)?;
    steer_of(pins)
}

fn endpoint() -> Endpoint {
    Endpoint {
        number: 0,
        port: PORT,
        address: LocalAddress::Ipv4(Ipv4Addr::UNSPECIFIED),
        since: None,
    }
}

fn id(generation: u32) -> GenerationId {
    GenerationId { service: SERVICE, number: GenerationNumber(generation) }
}

fn steer_of(pins: &Path) -> Result<ProgramFd> {
    let link = pins.join(format!("v{}/links/steer", agent_ebpf::SCHEMA));
    let number = FdLink::from(PinnedLink::from_pin(link)?).info()?.program_id();
    for program in loaded_programs() {
        let program = program?;
        if program.id() == number {
            return Ok(program.fd()?);
        }
    }
    anyhow::bail!("program {number} is not loaded")
}
