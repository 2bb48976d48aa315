//! The launcher itself.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::ExitCode,
};

use rustix::{
    io::Errno,
    process::{Signal, set_parent_process_death_signal},
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
    if let Err((what, error)) = begin() {
        let unready = Answer::Unready { what: what.to_owned(), number: error.raw_os_error() };
        // Who is told says so.
        return send(&socket, &unready, &[]).map(|()| ExitCode::FAILURE);
    }
    while let Some((request, descriptors)) = receive(&socket)? {
        let answer = match request {
            Request::Spawn { in_pid_namespace } => spawn(in_pid_namespace, &descriptors),
            Request::Reap(pid) => Answer::Reaped(reap(pid)),
            Request::Introduce => Answer::Introduced(Pid::ours()),
        };
        match send(&socket, &answer, &[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            sent => sent?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn begin() -> Result<(), (&'static str, Errno)> {
    // With the agent that is our parent at once, and not when we next read.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ("end with the agent (`prctl`, PR_SET_PDEATHSIG)", error))?;
    rustix::thread::set_name(c"agent-launcher")
        .map_err(|error| ("bear its name (`prctl`, PR_SET_NAME)", error))
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

/// Of a child of ours, whose number is nobody else's: only we take its zombie away. Others are not ours to wait for.
fn reap(pid: Pid) -> Option<Ending> {
    Process::of_child(pid).ok()?.reap().ok()?
}
