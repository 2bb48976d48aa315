//! `agent load`: load on any server, and an honest account of what became of it.
//!
//! `plan` says what the options mean, `verdict` whether a run was a success, `answer` how it is told.
//!
//! # What limits it
//!
//! The kernel: on loopback the client's core does the work of both ends for the packets that the client sends. One thread on
//! one core of a Xeon at 2.5 GHz, nginx on the other one and little else on the machine, made 22,100 to 23,400 new connections per
//! second, each with 43 to 45 µs of processor time, of which 5 to 7 µs are outside the kernel, and 85,000 requests per second
//! on kept connections. In the same run the smallest loop that does the same (socket, bind, connect, send, receive, close),
//! one connection after the other, made 15,500 to 15,800 with 38 to 40 µs each, because it waits for each answer; 64 at a time
//! without an event loop made 31,800 to 32,800 with 27 µs. That is the limit: 1.4 times what this does. The difference is an event
//! loop, which has to know which of many connections is ready, and caches that go cold between the steps of one of them.

mod answer;
mod plan;
mod verdict;

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

pub use self::answer::LoadAnswer;
pub use self::verdict::{Overload, Verdict};
use agent_api::{ExitCode, Problem, ProblemKind};
use agent_load::{Load, Running};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Context, arguments::LoadArguments};

/// Runs the load to its end, or until it is interrupted, and tells what became of it.
pub(super) async fn run(context: &Context, arguments: &LoadArguments) -> Result<ExitCode, Problem> {
    let plan = plan::plan(arguments)?;
    let target = plan.target;
    take_descriptors(context);
    let running =
        Load::start(plan).map_err(|error| Problem::caused(ProblemKind::Failed, &error))?;
    let begun = Instant::now();
    let live = Live::on(context);
    let interrupted = tokio::select! {
        () = tokio::time::sleep(arguments.duration) => false,
        _ = tokio::signal::ctrl_c() => true,
        never = live.follow(&running, begun) => match never {},
    };
    let lasted = begun.elapsed();
    live.say("waiting for the requests that are under way");
    let report = running.stop().await;
    live.clear();
    let answer =
        LoadAnswer::new(target, arguments.exchange.protocol, lasted, interrupted, report.summary);
    context.console.answer(&answer)?;
    Ok(match answer.verdict {
        Verdict::Passed => ExitCode::Done,
        Verdict::Failed | Verdict::Overloaded | Verdict::Unanswered => ExitCode::Failed,
    })
}

/// Takes all that the hard limit of open files allows: each connection under way is one.
fn take_descriptors(context: &Context) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        context.console.warn(&format!("cannot raise the limit of open files: {error}"));
    }
}

/// How the run goes, on a terminal only.
#[derive(Debug)]
struct Live(Option<ProgressBar>);

impl Live {
    fn on(context: &Context) -> Self {
        if !context.console.tells_to_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self(Some(ProgressBar::new_spinner().with_style(style)))
    }

    /// Tells the counts every second.
    async fn follow(&self, running: &Running, begun: Instant) -> Infallible {
        let mut before = 0;
        let mut ticks = tokio::time::interval(SECOND);
        loop {
            ticks.tick().await;
            if self.0.is_some() {
                let now = running.snapshot();
                self.say(&answer::moment(&now, begun.elapsed(), now.answers() - before));
                before = now.answers();
            }
        }
    }

    fn say(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
