//! Starting the agent in the background.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::{fs::OFlags, process::Signal};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{
    Context,
    arguments::{GlobalOptions, LogFormat},
    daemon as command,
};
use crate::{
    api::{Problem, ProblemKind},
    daemon::{Other, private_directory},
    host::{capabilities, open_files, proc_mount, seccomp::Filtered},
    places::Places,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    runtime.block_on(agent(context, other)).map(drop)
}

/// An agent that runs, and what was made for it.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    made: Vec<PathBuf>,
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
pub(super) async fn agent(context: &Context, other: Other) -> Result<Started, Problem> {
    privileged()?;
    // What is started is found in there.
    proc_mount::examine()?;
    open_files::allow_all()?;
    let places = &context.places;
    let made = missing(&places.log_file());
    let refused = |problem: Problem| {
        take_back(&made);
        problem.before_the_start()
    };
    let log = prepare(places).map_err(refused)?;
    // Not by name: the same binary, even if another was installed over it meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("agent")
        .args(arguments(context, other))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            refused(Problem::new(ProblemKind::Failed, "cannot start the agent").because(&error))
        })?;
    let out = child.stdout.take().expect("it was asked to be piped");
    let line = timeout(START, first_line(out)).await;
    match line {
        Err(_late) => {
            let cause = format!("it did not say within {} s that it listens", START.as_secs());
            Err(not_started(&context.places, &cause))
        }
        Ok(Err(error)) => Err(not_started(&context.places, &error.to_string())),
        Ok(Ok(line)) if line == command::READY => Ok(Started { child, made }),
        Ok(Ok(line)) => match serde_json::from_str(&line) {
            Ok(problem) => Err(refused(problem)),
            Err(_) if is_ended_by_filter(&mut child).await => Err(refused(killed_by_filter())),
            Err(_) => Err(not_started(&context.places, "it ended before it said that it listens")),
        },
    }
}

/// What has to be made for this path, the last of it first.
fn missing(path: &Path) -> Vec<PathBuf> {
    path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect()
}

/// Whether the agent was killed because it made a system call: filters that answer with an error leave it the time to say so.
async fn is_ended_by_filter(child: &mut Child) -> bool {
    let ended = timeout(START, child.wait()).await;
    matches!(ended, Ok(Ok(status)) if status.signal() == Some(Signal::SYS.as_raw()))
}

fn killed_by_filter() -> Problem {
    let message = "a filter of system calls (seccomp) killed the agent when it started";
    Problem::new(ProblemKind::Preflight, message).fix(Filtered::FIX)
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

/// Makes the runtime directory and opens the log in it.
fn prepare(places: &Places) -> Result<File, Problem> {
    private_directory(&places.runtime_dir)?;
    let path = places.log_file();
    let open = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path);
    open.map_err(|error| {
        let message = format!("cannot open the agent's log `{}`", path.display());
        Problem::new(ProblemKind::Failed, message).because(&error)
    })
}

/// What the agent is started with: what this command was, where it matters to an agent.
fn arguments(context: &Context, other: Other) -> Vec<std::ffi::OsString> {
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

async fn first_line(out: ChildStdout) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(out.take(LONGEST_LINE)).read_line(&mut line).await?;
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
