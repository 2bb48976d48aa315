//! Loads the programs, and puts each in its place: attached for the first time, or in place of the one that is there.
//!
//! An agent always puts its own programs in: they are then of its build, and work on the maps that it has open, whoever left
//! the links. There is no moment in which none is attached, and a step that fails leaves the old one where it was.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError, links::FdLink},
};

use super::{
    DatapathError,
    directories::{pin_error, remove},
    error::{load_error, program_error},
    pins::Pins,
};
use crate::sys::{self, bpf::AttachType};

/// Every program that is attached for good, by its name in the object and in the pin directory; the one that steers comes
/// last, when everything that it leads to is there.
pub const ATTACHED: [&str; 7] =
    [FOLLOW_EXIT, FOLLOW_FORK, TRACK_FLOWS, "share_bind4", "share_bind6", WITHOUT_MAPS, STEER];

/// Follows processes that are born, and those that end. The latter comes first: whoever is followed is let go too.
const FOLLOW_FORK: &str = "follow_fork";
const FOLLOW_EXIT: &str = "follow_exit";

/// The one that counts.
pub(super) const TRACK_FLOWS: &str = "track_flows";

/// The one that goes by no map: it refuses Multipath TCP to whoever is in the control group.
pub(super) const WITHOUT_MAPS: &str = "refuse_multipath";

/// Comfort: attached where the kernel takes them, and done without where it does not.
pub const COMFORTS: [&str; 2] = ["public_port4", "public_port6"];

/// What is lost without them.
pub(super) const WITHOUT_COMFORTS: &str = "a server whose listener was moved sees that other port, not the public one, when it asks for its own address";

/// The one that gives connections to generations.
pub(super) const STEER: &str = "steer";

/// Those that only the agent runs, when it takes over what runs already.
pub(super) const ON_DEMAND: [&str; 5] =
    [ITERATOR, ENLIST, LIST_PROCESSES, LIST_SOCKETS, ADOPT_FLOW];

/// Walks the processes.
pub(super) const ENLIST: &str = "enlist";

/// Walks the processes too, and tells of each.
pub(super) const LIST_PROCESSES: &str = "list_processes";

/// Walks the files that processes have open.
pub(super) const LIST_SOCKETS: &str = "list_sockets";

/// Walks the listeners.
pub(super) const ITERATOR: &str = "adopt_listeners";

/// Finds one flow.
pub(super) const ADOPT_FLOW: &str = "adopt_flow";

/// What a link's pin is called until it takes its place.
const ASIDE: &str = "-next";

/// Attached to reuseport groups, which keep it: it has no link and no pin.
pub(super) const MIGRATE: &str = "migrate";

/// Has the verifier look at a program.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str, btf: &Btf) -> Result<(), DatapathError> {
    let loaded = match program(ebpf, name) {
        Program::SkLookup(steer) => steer.load(),
        Program::CgroupSockAddr(bind) => bind.load(),
        Program::CgroupSock(create) => create.load(),
        Program::BtfTracePoint(tracepoint) => {
            tracepoint.load(tracepoint_of(name).unwrap_or_default(), btf)
        }
        Program::Iter(iterator) => iterator.load(walked_by(name), btf),
        Program::SkReuseport(migrate) => migrate.load(),
        Program::SchedClassifier(flow) => flow.load(),
        other => Err(ProgramError::UnexpectedProgramType).inspect_err(|_| {
            tracing::error!(?other, "a program of a kind that nobody attaches");
        }),
    };
    loaded.map_err(|error| load_error(name, error))
}

/// What an iterator goes through.
fn walked_by(name: &str) -> &'static str {
    match name {
        ENLIST | LIST_PROCESSES => "task",
        LIST_SOCKETS => "task_file",
        _ => "tcp",
    }
}

/// What a tracing program is attached to.
pub(super) fn tracepoint_of(name: &str) -> Option<&'static str> {
    match name {
        FOLLOW_FORK => Some("sched_process_fork"),
        FOLLOW_EXIT => Some("sched_process_exit"),
        TRACK_FLOWS => Some("inet_sock_set_state"),
        _ => None,
    }
}

/// A program's name as the kernel keeps it (`BPF_OBJ_NAME_LEN`).
pub(super) fn kernel_name(name: &str) -> &[u8] {
    const KEPT: usize = 15;
    &name.as_bytes()[..name.len().min(KEPT)]
}

/// Whether this is where the link of a program is pinned for a moment.
pub(super) fn is_aside(pinned: &str, name: &str) -> bool {
    pinned.strip_suffix(ASIDE) == Some(name)
}

/// Puts a loaded program behind the link that is pinned under its name. Where there is none of ours, or what it was attached
/// to is gone, attaches it anew.
pub(super) fn put_in_place(
    ebpf: &mut Ebpf,
    name: &'static str,
    pins: &Pins,
    cgroup: &File,
) -> Result<(), DatapathError> {
    let pin = pins.links().join(name);
    #[cfg(debug_assertions)]
    if is_switched_off(name) {
        return remove(&pin);
    }
    // Of an agent that ended while it attached.
    let aside = pin.with_file_name(format!("{name}{ASIDE}"));
    remove(&aside)?;
    // The link ops of the kernel's tracing links have no `update_prog`.
    if !pins.has_link(name) || matches!(program(ebpf, name), Program::BtfTracePoint(_)) {
        return relieve(ebpf, name, &pin, &aside, cgroup);
    }
    match update(ebpf, name, &pin) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => {
            tracing::warn!(program = name, "what the program was attached to is gone");
            relieve(ebpf, name, &pin, &aside, cgroup)
        }
        updated => updated.map_err(program_error("replace", name)),
    }
}

/// Whether a test wants to see what is missed without a program, or something else of the kernel.
#[cfg(debug_assertions)]
pub(super) fn is_switched_off(name: &str) -> bool {
    std::env::var("AGENT_WITHOUT").is_ok_and(|names| names.split(',').any(|it| it == name))
}

fn update(ebpf: &mut Ebpf, name: &'static str, pin: &Path) -> io::Result<()> {
    let link = sys::bpf::open_pinned(pin)?;
    let program = program(ebpf, name).fd().map_err(io::Error::other)?;
    sys::bpf::update_link(&link, program)
}

/// Attaches the new one before whatever is pinned goes. For a moment an old one and the new one may both run at every change
/// of a socket's state, one after the other under that socket's lock: whichever comes first changes the role in the socket's
/// tag, and with it keeps the other from counting again. A report that comes twice has the agent look twice, and a process that
/// is followed twice is followed.
fn relieve(
    ebpf: &mut Ebpf,
    name: &'static str,
    pin: &Path,
    aside: &Path,
    cgroup: &File,
) -> Result<(), DatapathError> {
    attach_at(ebpf, name, aside, cgroup)?;
    // Nothing but a directory is in the way of a rename.
    if pin.is_dir() {
        remove(pin)?;
    }
    fs::rename(aside, pin).map_err(|source| pin_error("replace", pin, source))
}

/// Attaches a program, by a link that is pinned.
///
/// aya makes links to control groups by the version that the kernel says it has, and takes one without a third number
/// (`7.3-rc7`) for older than all of them: so these are ours.
fn attach_at(
    ebpf: &mut Ebpf,
    name: &'static str,
    pin: &Path,
    cgroup: &File,
) -> Result<(), DatapathError> {
    let link = match program(ebpf, name) {
        Program::BtfTracePoint(tracepoint) => {
            let link = tracepoint.attach().and_then(|link| tracepoint.take_link(link));
            let link: FdLink = link.map_err(program_error("attach", name))?.into();
            return link.pin(pin).map(drop).map_err(program_error("pin the link of", name));
        }
        // Of the thread, which may have left the process's.
        steer @ Program::SkLookup(_) => File::open("/proc/thread-self/ns/net")
            .and_then(|namespace| link_to(steer, namespace, AttachType::SocketLookup)),
        other => match attach_type_of(name) {
            Some(attach_type) => link_to(other, cgroup, attach_type),
            None => Err(io::Error::other(ProgramError::UnexpectedProgramType)),
        },
    };
    let link = link.map_err(program_error("attach", name))?;
    sys::bpf::pin(link, pin).map_err(program_error("pin the link of", name))
}

fn link_to(program: &Program, target: impl AsFd, attach_type: AttachType) -> io::Result<OwnedFd> {
    sys::bpf::create_link(program.fd().map_err(io::Error::other)?, target, attach_type)
}

/// What a program of a control group is asked about.
fn attach_type_of(name: &str) -> Option<AttachType> {
    match name {
        "share_bind4" => Some(AttachType::Bind4),
        "share_bind6" => Some(AttachType::Bind6),
        "public_port4" => Some(AttachType::SocketName4),
        "public_port6" => Some(AttachType::SocketName6),
        WITHOUT_MAPS => Some(AttachType::SocketCreate),
        _ => None,
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> &'a mut Program {
    ebpf.program_mut(name).expect("every program is in the object that we embed")
}
