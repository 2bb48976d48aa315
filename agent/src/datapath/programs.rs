//! Loads the programs, and puts each in its place: attached for the first time, or in place of the one that is there.
//!
//! An agent always puts its own programs in: they are then of its build, and work on the maps that it has open, whoever left
//! the links. There is no moment in which none is attached, and a step that fails leaves the old one where it was.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use aya::{
    Btf, Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, PinnedLink},
    },
};

use super::{
    DatapathError,
    error::program_error,
    pins::{Pins, pin_error},
};
use crate::sys;

/// Every program that is attached for good, by its name in the object and in the pin directory; the one that steers comes
/// last, when everything that it leads to is there.
pub(super) const ATTACHED: [&str; 7] = [
    FOLLOW_EXIT,
    FOLLOW_FORK,
    TRACK_FLOWS,
    "share_bind4",
    "share_bind6",
    "refuse_multipath",
    STEER,
];

/// Follows processes that are born, and those that end. The latter comes first: whoever is followed is let go too.
const FOLLOW_FORK: &str = "follow_fork";
const FOLLOW_EXIT: &str = "follow_exit";

/// The one that counts.
pub(super) const TRACK_FLOWS: &str = "track_flows";

/// Comfort: attached where the kernel takes them, and done without where it does not.
pub(super) const COMFORTS: [&str; 2] = ["public_port4", "public_port6"];

/// What is lost without them.
pub const WITHOUT_COMFORTS: &str = "a server whose listener was moved sees that other port, not the public one, when it asks for its own address";

/// The one that gives connections to generations.
pub(super) const STEER: &str = "steer";

/// Those that only the agent runs, when it takes over what runs already.
pub(super) const ON_DEMAND: [&str; 3] = [ITERATOR, ENLIST, ADOPT_FLOW];

/// Walks the processes.
pub(super) const ENLIST: &str = "enlist";

/// Walks the listeners.
pub(super) const ITERATOR: &str = "adopt_listeners";

/// Finds one flow.
pub(super) const ADOPT_FLOW: &str = "adopt_flow";

/// Attached to reuseport groups, which keep it: it has no link and no pin.
pub(super) const MIGRATE: &str = "migrate";

/// Has the verifier look at a program.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str, btf: &Btf) -> Result<(), DatapathError> {
    let loaded = match program(ebpf, name) {
        Program::SkLookup(steer) => steer.load(),
        Program::CgroupSockAddr(bind) => bind.load(),
        Program::CgroupSock(create) => create.load(),
        Program::BtfTracePoint(tracepoint) => tracepoint.load(tracepoint_of(name), btf),
        Program::Iter(iterator) => iterator.load(if name == ENLIST { "task" } else { "tcp" }, btf),
        Program::SkReuseport(migrate) => migrate.load(),
        Program::SchedClassifier(flow) => flow.load(),
        other => Err(ProgramError::UnexpectedProgramType).inspect_err(|_| {
            tracing::error!(?other, "a program of a kind that nobody attaches");
        }),
    };
    loaded.map_err(program_error("load", name))
}

fn tracepoint_of(name: &str) -> &'static str {
    match name {
        FOLLOW_FORK => "sched_process_fork",
        FOLLOW_EXIT => "sched_process_exit",
        _ => "inet_sock_set_state",
    }
}

/// Puts a loaded program behind the link that is pinned under its name; where there is none, or what it was attached to is
/// gone, attaches it anew.
pub(super) fn put_in_place(
    ebpf: &mut Ebpf,
    name: &'static str,
    pins: &Pins,
    cgroup: &File,
) -> Result<(), DatapathError> {
    let pin = pins.links().join(name);
    #[cfg(debug_assertions)]
    if is_switched_off(name) {
        return fs::remove_file(&pin).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(pin_error("remove", &pin, error)),
        });
    }
    if !pin.exists() {
        let link = attach(ebpf, name, cgroup)?;
        return link.pin(&pin).map(drop).map_err(program_error("pin the link of", name));
    }
    // The link ops of the kernel's tracing links have no `update_prog`.
    if matches!(program(ebpf, name), Program::BtfTracePoint(_)) {
        return relieve(ebpf, name, &pin, cgroup);
    }
    match update(ebpf, name, &pin) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => {
            tracing::warn!(program = name, "what the program was attached to is gone");
            relieve(ebpf, name, &pin, cgroup)
        }
        updated => updated.map_err(program_error("replace", name)),
    }
}

/// Whether a test wants to see what is missed without a program.
#[cfg(debug_assertions)]
fn is_switched_off(name: &str) -> bool {
    std::env::var("AGENT_WITHOUT").is_ok_and(|names| names.split(',').any(|it| it == name))
}

fn update(ebpf: &mut Ebpf, name: &'static str, pin: &Path) -> io::Result<()> {
    let link = sys::bpf::open_pinned(pin)?;
    let program = program(ebpf, name).fd().map_err(io::Error::other)?;
    sys::bpf::update_link(&link, program)
}

/// Attaches the new one before the old one goes. For a moment both run at every change of a socket's state, one after the
/// other under that socket's lock: whichever comes first changes the role in the socket's tag, and with it keeps the other
/// from counting again. A report that comes twice has the agent look twice, and a process that is followed twice is followed.
fn relieve(
    ebpf: &mut Ebpf,
    name: &'static str,
    pin: &Path,
    cgroup: &File,
) -> Result<(), DatapathError> {
    let old = PinnedLink::from_pin(pin).map_err(program_error("adopt the pinned link of", name))?;
    let aside = pin.with_file_name(format!("{name}-next"));
    // Of an agent that ended just here.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(pin_error("remove", &aside, error));
        }
        Ok(()) | Err(_) => {}
    }
    let new = attach(ebpf, name, cgroup)?;
    let new = new.pin(&aside).map_err(program_error("pin the link of", name))?;
    fs::rename(&aside, pin).map_err(|source| pin_error("replace", pin, source))?;
    drop((new, old));
    Ok(())
}

fn attach(ebpf: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<FdLink, DatapathError> {
    let failed = || program_error("attach", name);
    match program(ebpf, name) {
        Program::SkLookup(steer) => {
            // Of the thread, which may have left the process's.
            let namespace = File::open("/proc/thread-self/ns/net")
                .map_err(program_error("open the network namespace for", name))?;
            let link = steer.attach(namespace).map_err(failed())?;
            steer.take_link(link).map(Into::into).map_err(failed())
        }
        Program::BtfTracePoint(tracepoint) => {
            let link = tracepoint.attach().map_err(failed())?;
            tracepoint.take_link(link).map(Into::into).map_err(failed())
        }
        Program::CgroupSock(create) => {
            let link = create.attach(cgroup, CgroupAttachMode::Single).map_err(failed())?;
            let link = create.take_link(link).map_err(failed())?;
            link.try_into().map_err(program_error("attach", name))
        }
        Program::CgroupSockAddr(bind) => {
            let link = bind.attach(cgroup, CgroupAttachMode::Single).map_err(failed())?;
            let link = bind.take_link(link).map_err(failed())?;
            link.try_into().map_err(program_error("attach", name))
        }
        _ => Err(failed()(ProgramError::UnexpectedProgramType)),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> &'a mut Program {
    ebpf.program_mut(name).expect("every program is in the object that we embed")
}
