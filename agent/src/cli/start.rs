//! Starting the agent in the background.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStdout, Command},
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
    host::{capabilities, open_files},
    places::Places,
};

/// How long the agent may take to say how its start went: longer than it has patience with one that it replaces, and than an
/// emulated machine takes to verify the programs.
const START: Duration = Duration::from_secs(90);
/// Longer than any problem.
const LONGEST_LINE: u64 = 64 << 10;

/// As [`agent`], for who has no runtime.
pub(super) fn in_background(context: &Context, other: Other) -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    runtime.block_on(agent(context, other))
}

/// Starts it, and returns when it listens.
pub(super) async fn agent(context: &Context, other: Other) -> Result<(), Problem> {
    privileged()?;
    open_files::allow_all();
    let places = &context.places;
    let made =
        [places.log_file(), places.runtime_dir.clone()].map(|it| (!it.exists()).then_some(it));
    let log = prepare(places).map_err(Problem::before_the_start)?;
    // Not by name: the same binary, even if another was installed over it meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("agent")
        .args(arguments(context, other))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            take_back(made.iter().flatten());
            let problem = Problem::new(ProblemKind::Failed, "cannot start the agent");
            problem.because(&error).before_the_start()
        })?;
    let out = child.stdout.take().expect("it was asked to be piped");
    let line = timeout(START, first_line(out)).await;
    match line {
        Err(_late) => {
            let cause = format!("it did not say within {} s that it listens", START.as_secs());
            Err(not_started(&context.places, &cause))
        }
        Ok(Err(error)) => Err(not_started(&context.places, &error.to_string())),
        Ok(Ok(line)) if line == command::READY => Ok(()),
        Ok(Ok(line)) => match serde_json::from_str(&line) {
            Ok(problem) => {
                take_back(made.iter().flatten());
                Err(problem)
            }
            Err(_) => Err(not_started(&context.places, "it ended before it said that it listens")),
        },
    }
}

/// Who was refused has been told why, and finds nothing that was not there before. What cannot be removed has something of
/// somebody else in it.
fn take_back<'a>(made: impl IntoIterator<Item = &'a PathBuf>) {
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
