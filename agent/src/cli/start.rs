//! Starting the agent in the background.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use agent_api::{Problem, ProblemKind};
use nix::sys::wait::WaitStatus;
use rustix::fs::OFlags;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Take},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    Context,
    arguments::{GlobalOptions, LogFormat},
    daemon as command,
};
use crate::{
    daemon::{
        Above, Other, preflight, private_directory,
        repair::{self, Leftovers},
        unwritten,
    },
    host::{
        capabilities, ended::Ended, objects, open_files, seccomp::Launches, tasks::TooFewTasks,
    },
    places::Places,
    sys::aside::aside,
};

/// How long the agent may take to say how its start went: longer than it has patience with one that it replaces, and than an
/// emulated machine takes to verify the programs.
const START: Duration = Duration::from_secs(90);
/// How long one that ends may take, after its last answer.
const END: Duration = Duration::from_secs(5);
/// Longer than any problem.
const LONGEST_LINE: u64 = 64 << 10;

/// As [`agent`], for who has no runtime.
pub(super) fn in_background(context: &Context, other: Other) -> Result<(), Problem> {
    objects::runtime()?.block_on(agent(context, other, Stay::Always)).map(drop)
}

/// An agent that runs, and what was made for it.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    made: Vec<PathBuf>,
    /// By its end the agent knows that we are gone.
    _out: BufReader<Take<ChildStdout>>,
}

/// How long an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// Until the last service is detached.
    Always,
    /// The same, if we attach one.
    ForAttach,
}

impl Started {
    /// It was refused the only thing that it was started for. Then it ends, and nobody needs what was made for it; another one that
    /// has found work with it meanwhile keeps it.
    pub(super) async fn in_vain(mut self) {
        if let Ok(Ok(status)) = timeout(END, self.child.wait()).await
            && status.success()
        {
            take_back(&self.made);
        }
    }
}

/// Starts it, and returns when it listens.
pub(super) async fn agent(context: &Context, other: Other, stay: Stay) -> Result<Started, Problem> {
    privileged()?;
    let places = &context.places;
    preflight_aside(places).map_err(Problem::before_the_start)?;
    // Of this process, too: starting one takes some.
    open_files::allow_all()?;
    // What is there when one is killed in its start was made by it, if nothing was there before.
    let is_alone = matches!(repair::examine(places), Ok(Leftovers::Fine(_)));
    let files = [places.above_file(), places.log_file()];
    let made: Vec<_> = files.iter().flat_map(|file| missing(file)).collect();
    let refused = |problem: Problem| {
        take_back(&made);
        problem.before_the_start()
    };
    let log = prepare(places).map_err(refused)?;
    // Not by name: the same binary, even if another was installed over it meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("agent")
        .args(arguments(context, other, stay))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            refused(Problem::new(ProblemKind::Failed, "cannot start the agent").because(&error))
        })?;
    let out = child.stdout.take().expect("it was asked to be piped");
    let mut out = BufReader::new(out.take(LONGEST_LINE));
    let line = timeout(START, first_line(&mut out)).await;
    match line {
        Err(_late) => {
            let cause = format!("it did not say within {} s that it listens", START.as_secs());
            Err(not_started(&context.places, &cause))
        }
        Ok(Err(error)) => Err(not_started(&context.places, &error.to_string())),
        Ok(Ok(line)) if line == command::READY => Ok(Started { child, made, _out: out }),
        Ok(Ok(line)) => match serde_json::from_str(&line) {
            Ok(problem) => Err(refused(problem)),
            Err(_) => Err(match ended(&mut child).await {
                Some(ended) => {
                    let problem = untimely(places, ended);
                    if is_alone {
                        take_back_all(places);
                    }
                    // Of a panic the log has more than fits a line.
                    problem.map_or_else(|| not_started(places, "it panicked"), refused)
                }
                None => not_started(places, "it ended before it said that it listens"),
            }),
        },
    }
}

/// What keeps an agent from running here, in place of what the system said of its socket.
pub(super) fn obstacle(context: &Context) -> Option<Problem> {
    privileged().is_ok().then(|| preflight_aside(&context.places).err())?
}

/// What has to be made for this path, the last of it first.
fn missing(path: &Path) -> Vec<PathBuf> {
    path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect()
}

/// In a process of its own, which a filter may kill. There is one thread: the runtime has no other before it is asked for one.
fn preflight_aside(places: &Places) -> Result<(), Problem> {
    let told = aside(|mut out| {
        if let Err(problem) = preflight(places, Launches::Ours) {
            let line = serde_json::to_string(&problem).unwrap_or_default();
            out.write_all(line.as_bytes()).expect("our other half reads");
        }
    });
    match told {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let message = "not even a process can be started to look whether an agent can run here";
            let problem = Problem::new(ProblemKind::Preflight, message).because(&error);
            Err(problem.on_one_line().fix(TooFewTasks::FIX))
        }
        // Not even that is possible here, which is said when the agent cannot be started.
        Err(_) => Ok(()),
        Ok(told) => match (told.status, serde_json::from_slice(&told.bytes)) {
            (_, Ok(problem)) => Err(problem),
            (WaitStatus::Signaled(_, signal, _), Err(_)) => {
                let ended = Ended::by(signal as i32);
                let message = format!("what looked whether an agent can run here {ended}");
                Err(Problem::new(ProblemKind::Preflight, message).fix(ended.fix()))
            }
            (_, Err(_)) => Ok(()),
        },
    }
}

/// The signal that ended an agent which had no time to say why.
async fn ended(child: &mut Child) -> Option<Ended> {
    let status = timeout(END, child.wait()).await.ok()?.ok()?;
    status.signal().map(Ended::by)
}

/// The log goes with all else, so what it has of it is told. Nothing of a panic, which ends with the same signal as a lack of memory.
fn untimely(places: &Places, ended: Ended) -> Option<Problem> {
    let log = fs::read_to_string(places.log_file()).unwrap_or_default();
    let why = match ended {
        Ended::GaveUp => {
            let asked = log.lines().rfind(|line| line.starts_with("memory allocation"))?;
            format!(": {asked}")
        }
        Ended::Filtered | Ended::Killed | Ended::Signal(_) => String::new(),
    };
    let message = format!("the agent, as it started, {ended}{why}");
    Some(Problem::new(ProblemKind::Preflight, message).fix(ended.fix()))
}

/// One that was killed has taken nothing back. What it had begun, nobody needs.
fn take_back_all(places: &Places) {
    if let Err(problem) = repair::take_back(places) {
        tracing::warn!(%problem, "something is left of the agent that did not start: `agent doctor --repair` removes it");
    }
}

/// Who was refused has been told why, and finds nothing that was not there before. What cannot be removed has something of
/// somebody else in it.
fn take_back(made: &[PathBuf]) {
    for path in made {
        let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        if let Err(error) = removed {
            tracing::debug!(%error, path = %path.display(), "left where it is");
        }
    }
}

fn privileged() -> Result<(), Problem> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let message =
        format!("no agent is running, and starting one needs root with {}", capabilities::names());
    Err(Problem::new(ProblemKind::Preflight, message).fix("run it as root, for example with sudo"))
}

/// Makes the runtime directory, with a note of what that takes, and opens the log in it.
fn prepare(places: &Places) -> Result<File, Problem> {
    let mut above = Above::read(places);
    above.expect(&places.runtime_dir);
    private_directory(&places.runtime_dir)?;
    if let Err(error) = above.write() {
        tracing::debug!(%error, "the directories above the agent's own stay");
    }
    let path = places.log_file();
    let open = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path);
    open.map_err(|error| {
        unwritten(format!("cannot open the agent's log `{}`", path.display()), &path, &error)
    })
}

/// What the agent is started with: what this command was, where it matters to an agent.
fn arguments(context: &Context, other: Other, stay: Stay) -> Vec<std::ffi::OsString> {
    let Places { runtime_dir, pin_dir, cgroup } = &context.places;
    let GlobalOptions { verbose, log_format, .. } = &context.options;
    let mut arguments = vec![
        "daemon".into(),
        "--exit-when-detached".into(),
        "--runtime-dir".into(),
        runtime_dir.into(),
        "--pin-dir".into(),
        pin_dir.into(),
    ];
    match stay {
        Stay::Always => {}
        Stay::ForAttach => arguments.push("--for-attach".into()),
    }
    match other {
        Other::Respect => {}
        Other::Replace => arguments.push("--replace".into()),
    }
    if let Some(cgroup) = cgroup {
        arguments.extend(["--cgroup".into(), cgroup.into()]);
    }
    if let Some(config) = &context.options.config {
        arguments.extend(["--config".into(), config.into()]);
    }
    let log_format = match log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    arguments.extend(["--log-format".into(), log_format.into()]);
    arguments.extend((0..*verbose).map(|_| "--verbose".into()));
    arguments
}

async fn first_line(out: &mut BufReader<Take<ChildStdout>>) -> io::Result<String> {
    let mut line = String::new();
    out.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

fn not_started(places: &Places, cause: &str) -> Problem {
    let path = places.log_file();
    let mut causes = vec![cause.to_owned()];
    let log = fs::read_to_string(&path).unwrap_or_default();
    causes.extend(log.lines().last().map(|line| format!("it logged last: {line}")));
    Problem { causes, ..Problem::new(ProblemKind::Failed, "the agent did not start") }
        .fix(format!("see its log `{}`", path.display()))
}
