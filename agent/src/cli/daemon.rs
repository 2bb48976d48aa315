//! `agent daemon`, and what an agent in the background tells the one who started it.

use std::io::{self, Write as _};

use agent_api::{ExitCode, Problem, ProblemKind};

use super::{Context, arguments::DaemonArguments, start};
use crate::{
    daemon::{self, Options, Other},
    doctor,
    host::seccomp::Filtered,
};

/// The first line of an agent in the background, when it answers. When it cannot, it is the JSON of a [`Problem`].
pub(super) const READY: &str = "ready";

/// Runs the agent until it is told to end.
pub(super) fn run(context: &Context, arguments: &DaemonArguments) -> Result<ExitCode, Problem> {
    let DaemonArguments { replace, background, exit_when_detached, for_attach, ref launcher } =
        *arguments;
    let other = if replace { Other::Replace } else { Other::Respect };
    if background {
        start::in_background(context, other)?;
        return Ok(ExitCode::Done);
    }
    let launcher = launcher.clone();
    let options = Options {
        places: context.places.clone(),
        exit_when_detached,
        for_attach,
        other,
        prove: doctor::prove,
        launcher,
    };
    if exit_when_detached { in_background(&options) } else { serve(&options, || ()) }?;
    Ok(ExitCode::Done)
}

fn in_background(options: &Options) -> Result<(), Problem> {
    let mut told = false;
    let alone = leave_the_caller().and_then(|()| bear_the_name());
    let served = alone.and_then(|()| {
        serve(options, || {
            tell(READY);
            told = true;
        })
    });
    if let (Err(problem), false) = (&served, told) {
        tell(&serde_json::to_string(problem).unwrap_or_default());
    }
    served
}

fn serve(options: &Options, ready: impl FnOnce()) -> Result<(), Problem> {
    let mut is_ready = false;
    let served = daemon::run(options, || {
        ready();
        is_ready = true;
    });
    served.map_err(|problem| if is_ready { problem } else { problem.before_the_start() })
}

/// Writes the line. Whoever started the agent may have gone; it serves all the same.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Out of the caller's session, so that its terminal's signals end only the caller, and off its directory.
fn leave_the_caller() -> Result<(), Problem> {
    // Nothing but a filter refuses these to a process that was just born.
    let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
        Problem::new(ProblemKind::Preflight, what).because(error).fix(Filtered::FIX).on_one_line()
    };
    nix::unistd::setsid().map_err(|error| failed("begin a session (`setsid`)", &error))?;
    std::env::set_current_dir("/").map_err(|error| failed("go to `/` (`chdir`)", &error))
}

/// In `ps` and `top`, where the kernel would show what was executed: `exe`, of `/proc/self/exe`.
fn bear_the_name() -> Result<(), Problem> {
    rustix::thread::set_name(c"agent").map_err(|error| Problem::caused(ProblemKind::Failed, &error))
}
