//! The child's half of a launch: turns this process into the server, step by step.
//!
//! It runs in a program of its own, freshly executed and with one thread, rather than between
//! `fork` and `exec`: there nothing may allocate or lock, and entering a user or mount namespace
//! needs a process with one thread.

use std::{
    collections::HashSet,
    convert::Infallible,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, ExitCode},
};

use nix::unistd::{Gid, Uid};
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::Rlimit,
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};

use super::{
    LaunchSpec, confine, enter,
    report::{BEGUN, Failure, Step},
};
use crate::host::{
    context::{Context, Namespace},
    limit::{self, Limit},
    os_text::OsText,
};

/// Becomes the server that the parent described; returns only if that failed, and the parent has
/// been told.
///
/// To be called first of all in the program that [`launch()`](super::launch()) starts, while it has
/// one thread. `spec_descriptor` is the argument after `launch`.
///
/// Standard input is the process to take namespaces from, standard output the pipe to the parent,
/// standard error the log. That they are the standard ones is how they are reached without trusting
/// a number.
pub fn trampoline(spec_descriptor: RawFd) -> ExitCode {
    let Ok(mut report) = fcntl_dupfd_cloexec(io::stdout(), spec_descriptor + 1).map(File::from)
    else {
        return ExitCode::FAILURE;
    };
    let Err(failure) = run(spec_descriptor, &mut report);
    // A parent that is gone hears nothing; the log still does.
    let told = serde_json::to_writer(&report, &failure).is_ok();
    let whom = if told { "the agent knows" } else { "the agent could not be told" };
    let error = failure.clone().into_error();
    let line = format!("launch: {} `{}`: {error} ({whom})\n", failure.step, failure.subject);
    // The log may be full.
    let _: io::Result<()> = io::stderr().write_all(line.as_bytes());
    ExitCode::FAILURE
}

fn run(spec_descriptor: RawFd, report: &mut File) -> Result<Infallible, Failure> {
    let spec = read_spec(spec_descriptor)?;
    report
        .write_all(&[BEGUN])
        .map_err(|error| Failure::new(Step::ReadSpec, "the pipe to the agent", error))?;
    close_inherited(spec.socket_names.len(), report.as_raw_fd())?;
    // Paths of ours are used before the mount namespace changes, the server's own paths after.
    let null = File::open("/dev/null")
        .map_err(|error| Failure::new(Step::ConnectStandardStreams, "/dev/null", error))?;
    join_cgroup(spec.cgroup.as_ref())?;
    rustix::process::setsid().map_err(|error| Failure::new(Step::NewSession, "", error))?;
    let confinement = spec.context.confinement.as_ref();
    confinement.map_or(Ok(()), confine::join)?;
    // After the policy, which has a priority of its own: this is the one that was asked for.
    set_scheduling(&spec.context)?;
    let root = confinement.map_or(Ok(None), |it| confine::open_root(it, spec.namespaces_of))?;
    set_limits(&spec.context.limits)?;
    join_groups(&spec.context)?;
    if spec.namespaces_of.is_some() {
        enter_namespaces(&spec.context.namespaces)?;
    }
    enter::enter(&spec)?;
    root.as_ref().map_or(Ok(()), confine::change_root)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(spec.context.umask));
    confinement.map_or(Ok(()), confine::bound)?;
    become_user(spec.context.uid)?;
    connect_standard_streams(&null.into())?;
    confinement.map_or(Ok(()), confine::confine)?;
    Err(execute(&spec))
}

fn read_spec(descriptor: RawFd) -> Result<LaunchSpec, Failure> {
    let failed = |error| Failure::new(Step::ReadSpec, "", error);
    let mut json = Vec::new();
    File::open(format!("/proc/self/fd/{descriptor}"))
        .and_then(|mut file| file.read_to_end(&mut json))
        .map_err(failed)?;
    serde_json::from_slice(&json).map_err(|error| failed(error.into()))
}

/// Closes every descriptor but the standard ones, the sockets to pass, and the pipe to the parent.
/// What the agent opens is closed by its own execution, but what the agent inherited may not be.
fn close_inherited(sockets: usize, report: RawFd) -> Result<(), Failure> {
    let failed = |error| Failure::new(Step::CloseDescriptors, "", error);
    let first_other = FIRST_PASSED + RawFd::try_from(sockets).unwrap_or(RawFd::MAX - FIRST_PASSED);
    let mut open = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for descriptor in open {
        if descriptor >= first_other && descriptor != report {
            // No value here owns any of them, and the one that read the directory is closed
            // already.
            match nix::unistd::close(descriptor) {
                Ok(()) | Err(nix::Error::EBADF) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
    Ok(())
}

fn join_cgroup(directory: &Path) -> Result<(), Failure> {
    // 0 is the writer, whatever its number is in which namespace.
    fs::write(directory.join("cgroup.procs"), "0")
        .map_err(|error| Failure::new(Step::JoinCgroup, directory.display(), error))
}

/// What is as it should be stays untouched: it may be that nobody can change it.
fn set_scheduling(context: &Context) -> Result<(), Failure> {
    let score = context.oom_score_adj.to_string();
    let now = fs::read_to_string(OOM_SCORE).unwrap_or_default();
    if now.trim() != score {
        fs::write(OOM_SCORE, &score)
            .map_err(|error| Failure::new(Step::SetOomScore, score, error))?;
    }
    rustix::process::setpriority_process(None, context.nice)
        .map_err(|error| Failure::new(Step::SetPriority, context.nice, error))
}

fn set_limits(limits: &[Limit]) -> Result<(), Failure> {
    for limit in limits {
        let Limit { resource, soft, hard } = *limit;
        rustix::process::setrlimit(
            limit::to_rustix(resource),
            Rlimit { current: soft, maximum: hard },
        )
        .map_err(|error| Failure::new(Step::SetLimit, format!("{resource:?}"), error))?;
    }
    Ok(())
}

/// Enters all namespaces by one call: the kernel checks our rights before it takes any away
/// (`setns` with a pidfd). The PID namespace is the parent's part: a process never changes its own,
/// only that of children to come.
fn enter_namespaces(namespaces: &[Namespace]) -> Result<(), Failure> {
    let kinds = namespaces.iter().map(|namespace| match namespace {
        Namespace::Mount => ThreadNameSpaceType::MOUNT,
        Namespace::Pid => ThreadNameSpaceType::empty(),
        Namespace::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        Namespace::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        Namespace::Network => ThreadNameSpaceType::NETWORK,
        Namespace::User => ThreadNameSpaceType::USER,
        Namespace::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
    });
    let kinds = kinds.fold(ThreadNameSpaceType::empty(), ThreadNameSpaceType::union);
    if kinds.is_empty() {
        return Ok(());
    }
    move_into_thread_name_spaces(io::stdin().as_fd(), kinds)
        .map_err(|error| Failure::new(Step::EnterNamespaces, "the running server", error))
}

/// Before the namespaces, for two reasons: a user namespace may forbid it (`/proc/PID/setgroups`),
/// and the groups need not exist in it, as they need not for the old process. The rights to enter
/// are the user's, which stays for now.
fn join_groups(context: &Context) -> Result<(), Failure> {
    let failed = |error: nix::Error| Failure::new(Step::JoinGroups, context.gid, error);
    if !Uid::effective().is_root() && Gid::effective().as_raw() == context.gid {
        // An agent without privilege launches with its own groups, and may not even set those that
        // it has.
        return Ok(());
    }
    let groups: Vec<Gid> = context.groups.iter().copied().map(Gid::from_raw).collect();
    if nix::unistd::getgroups().map_err(failed)? != groups {
        nix::unistd::setgroups(&groups).map_err(failed)?;
    }
    let gid = Gid::from_raw(context.gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(failed)
}

fn become_user(uid: u32) -> Result<(), Failure> {
    let user = Uid::from_raw(uid);
    nix::unistd::setresuid(user, user, user)
        .map_err(|error| Failure::new(Step::ChangeUser, uid, error))
}

/// Input from nowhere; output to where errors go already, the log.
fn connect_standard_streams(null: &OwnedFd) -> Result<(), Failure> {
    let failed = |error| Failure::new(Step::ConnectStandardStreams, "", error);
    nix::unistd::dup2_stdin(null).map_err(failed)?;
    nix::unistd::dup2_stdout(io::stderr()).map_err(failed)
}

/// Returns only on failure. The standard library clears the signal mask and gives `SIGPIPE`, which
/// its own start-up ignores, its default back; all other signals the parent has reset.
fn execute(spec: &LaunchSpec) -> Failure {
    let program = spec.program.as_os_str();
    let mut command = Command::new(program);
    command.args(&spec.arguments).env_clear();
    command.envs(spec.context.environment.iter().map(|(name, value)| (name, value)));
    command.arg0(spec.argument_zero.as_ref().map_or(program, OsText::as_os_str));
    if !spec.socket_names.is_empty() {
        // sd_listen_fds(3): they are for the process of this number only, not for what it starts.
        command.env("LISTEN_PID", std::process::id().to_string());
        command.env("LISTEN_FDS", spec.socket_names.len().to_string());
        command.env("LISTEN_FDNAMES", spec.socket_names.join(":"));
    }
    let error = command.exec();
    Failure::new(Step::Execute, program.display(), error)
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// `SD_LISTEN_FDS_START`: the number of the first passed socket.
pub(super) const FIRST_PASSED: RawFd = 3;
