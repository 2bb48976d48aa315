//! `agent daemon`, and what an agent in the background tells the one who started it.

use std::io::{self, Write};

use tokio::sync::oneshot;

use super::{Context, arguments::DaemonArguments};
use crate::{
    api::{Problem, ProblemKind},
    exit::ExitCode,
    places::Places,
};

/// The first line of an agent in the background, when it listens. When it cannot, it is the JSON of a [`Problem`].
pub(super) const READY: &str = "ready";

/// Runs the agent until it is told to end.
pub(super) fn run(context: &Context, arguments: &DaemonArguments) -> Result<ExitCode, Problem> {
    let DaemonArguments { exit_when_detached } = arguments;
    if *exit_when_detached { in_background(context) } else { in_foreground(context) }
}

fn in_foreground(context: &Context) -> Result<ExitCode, Problem> {
    let (ready, _nobody_asks) = oneshot::channel();
    runtime()?.block_on(serve(context.places.clone(), false, ready))?;
    Ok(ExitCode::Done)
}

fn in_background(context: &Context) -> Result<ExitCode, Problem> {
    match serve_apart(context.places.clone()) {
        Ok(()) => Ok(ExitCode::Done),
        Err(NotServed { problem, told: Told::Nothing }) => {
            tell(&serde_json::to_string(&problem).unwrap_or_default());
            Err(problem)
        }
        Err(NotServed { problem, told: Told::Ready }) => Err(problem),
    }
}

/// Why an agent in the background ended.
struct NotServed {
    problem: Problem,
    told: Told,
}

/// What the one who started it has been told.
enum Told {
    Nothing,
    Ready,
}

impl From<Problem> for NotServed {
    fn from(problem: Problem) -> Self {
        Self { problem, told: Told::Nothing }
    }
}

fn serve_apart(places: Places) -> Result<(), NotServed> {
    leave_the_caller()?;
    runtime()?.block_on(serve_and_tell(places))
}

async fn serve_and_tell(places: Places) -> Result<(), NotServed> {
    let (ready, mut listens) = oneshot::channel();
    let mut serving = std::pin::pin!(serve(places, true, ready));
    tokio::select! {
        // An agent that ended at once has not listened, or nobody waits for it any more.
        ended = &mut serving => return ended.map_err(NotServed::from),
        Ok(()) = &mut listens => tell(READY),
    }
    serving.await.map_err(|problem| NotServed { problem, told: Told::Ready })
}

/// Writes the line. Whoever started the agent may have gone; it serves all the same.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Out of the caller's session, so that its terminal's signals end only the caller, and off its directory.
fn leave_the_caller() -> Result<(), Problem> {
    let failed =
        |error: &(dyn std::error::Error + 'static)| Problem::caused(ProblemKind::Failed, error);
    nix::unistd::setsid().map_err(|error| failed(&error))?;
    std::env::set_current_dir("/").map_err(|error| failed(&error))?;
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Problem::caused(ProblemKind::Failed, &error))
}

/// The agent itself; sends when it listens.
async fn serve(
    _places: Places,
    _exit_when_detached: bool,
    _ready: oneshot::Sender<()>,
) -> Result<(), Problem> {
    Err(Problem::new(ProblemKind::Failed, "the daemon is not built in yet"))
}
