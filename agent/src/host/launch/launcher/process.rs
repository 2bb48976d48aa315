//! The launcher itself.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::ExitCode,
};

use nix::sys::{
    signal::{SigSet, Signal as Standard},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, WaitOptions, set_parent_process_death_signal, waitpid},
};

use super::{Answer, Request, receive, send};
use crate::host::{
    launch::{
        LaunchError,
        report::{Failure, Step},
        spawn::{Descriptors, Here, Spawn as _},
    },
    process::{Ending, Pid, Process},
};

/// Answers the agent whose socket is our standard input, until it is gone.
///
/// To be called first of all in the program that [`Launcher::start`](super::Launcher::start) starts, or a service manager when
/// [`Launcher::connect`](super::Launcher::connect) does.
pub fn launcher() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let socket = io::stdin();
    let mut children = match begin() {
        Ok(children) => children,
        Err((what, error)) => {
            let unready = Answer::Unready { what: what.to_owned(), number: error.raw_os_error() };
            // Who is told says so.
            return send(&socket, &unready, &[]).map(|()| ExitCode::FAILURE);
        }
    };
    loop {
        children.take_zombies_until_asked(&socket)?;
        let Some((request, descriptors)) = receive(&socket)? else { break };
        let answer = match request {
            Request::Spawn { in_pid_namespace } => {
                let answer = spawn(in_pid_namespace, &descriptors);
                children.note(&answer);
                answer
            }
            Request::Reap(pid) => Answer::Reaped(children.reap(pid)),
            Request::Introduce => Answer::Introduced(Pid::ours()),
        };
        match send(&socket, &answer, &[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            sent => sent?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn begin() -> Result<Children, (&'static str, Errno)> {
    // With the agent that is our parent at once, and not when we next read.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ("end with the agent (`prctl`, PR_SET_PDEATHSIG)", error))?;
    rustix::thread::set_name(c"agent-launcher")
        .map_err(|error| ("bear its name (`prctl`, PR_SET_NAME)", error))?;
    Children::new().map_err(|error| ("hear of its children's end (`signalfd4`)", error))
}

fn spawn(in_pid_namespace: bool, descriptors: &[OwnedFd]) -> Answer {
    let failed = |error: io::Error| Answer::NotSpawned(Failure::new(Step::Execute, "", error));
    let [input, report, log, spec, sockets @ ..] = descriptors else {
        return failed(io::Error::other("a request without descriptors"));
    };
    let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    let descriptors = Descriptors {
        input: input.as_fd(),
        report: report.as_fd(),
        log: log.as_fd(),
        sockets: &sockets,
        spec: spec.as_fd(),
    };
    // The program that runs now, even if a newer one has been installed over it.
    match Here(Path::new("/proc/self/exe")).spawn(&descriptors, in_pid_namespace) {
        Ok(pid) => Answer::Spawned(pid),
        Err(LaunchError::PidNamespace { source }) => {
            Answer::NotEntered(Failure::new(Step::EnterNamespaces, "", source))
        }
        Err(LaunchError::Start { source, .. } | LaunchError::Prepare { source, .. }) => {
            failed(source)
        }
        Err(other) => failed(io::Error::other(other)),
    }
}

/// The processes whose parent we are.
struct Children {
    /// Those that we have spawned, and whose zombies the agent has taken away when it has seen them end.
    ours: HashSet<Pid>,
    ended: SignalFd,
}

impl Children {
    /// Nobody but us has this signal blocked: whoever is spawned gets an empty mask (`std::process::Command`).
    fn new() -> Result<Self, Errno> {
        let mut signals = SigSet::empty();
        signals.add(Standard::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let ended = signals.thread_block().and_then(|()| SignalFd::with_flags(&signals, flags));
        let ended = ended.map_err(|error| Errno::from_raw_os_error(error as i32))?;
        Ok(Self { ours: HashSet::new(), ended })
    }

    /// Waits for a request, and takes the zombies away that nobody else would.
    fn take_zombies_until_asked(&self, socket: &io::Stdin) -> io::Result<()> {
        loop {
            let mut both = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN),
            ];
            poll(&mut both, None)?;
            let [asked, ended] = both.map(|it| !it.revents().is_empty());
            if ended {
                while self.ended.read_signal()?.is_some() {}
                self.reap_others();
            }
            if asked {
                return Ok(());
            }
        }
    }

    fn note(&mut self, answer: &Answer) {
        if let Answer::Spawned(pid) = answer {
            self.ours.insert(*pid);
        }
    }

    /// Of a child of ours, whose number is nobody else's: only we take its zombie away. Others are not ours to wait for.
    fn reap(&mut self, pid: Pid) -> Option<Ending> {
        let ending = Process::of_child(pid).ok()?.reap().ok()?;
        if ending.is_some() {
            self.ours.remove(&pid);
        }
        ending
    }

    /// A server can make its children ours (`CLONE_PARENT`), and nobody waits for those.
    fn reap_others(&self) {
        // A kernel that does not list them (`CONFIG_PROC_CHILDREN`) leaves them where they are.
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let pids = children.split_ascii_whitespace().filter_map(|it| Pid::new(it.parse().ok()?));
        for pid in pids.filter(|pid| !self.ours.contains(pid)) {
            let child = rustix::process::Pid::from_raw(pid.get());
            // It may live yet, and be looked at when it has ended.
            let _: Result<_, _> = waitpid(child, WaitOptions::NOHANG);
        }
    }
}
