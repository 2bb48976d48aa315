//! Following a rollout up to the awaited point, and ending as it ended.

use std::time::Duration;

use agent_api::{
    Begun, ExitCode, Problem, RolloutView, Serving,
    client::{Client, ClientError},
};
use agent_rollout::{Kind, Outcome, Status, UNDONE};
use agent_terms::GenerationNumber;
use tokio::time::{Instant, sleep};

use super::{
    Context,
    arguments::Wait,
    output::{Answer, Console, Look},
    progress::Progress,
    serving, words,
};

/// How long an agent that went away may take to come back.
pub(super) const AWAY: Duration = Duration::from_secs(30);
/// How often it is looked for: nothing tells of a socket that is not there yet.
const LOOK: Duration = Duration::from_millis(250);

/// Follows a rollout that has begun, shows how it goes and what became of it.
pub(super) async fn to_the_end(
    context: &Context,
    begun: Begun,
    until: Wait,
) -> Result<ExitCode, Problem> {
    let Begun { changed, rollout, warnings } = begun;
    let mut progress = Progress::on(&context.console);
    let followed = tokio::select! {
        reached = watch(&context.client, rollout, until, &mut progress) => Some(reached),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(progress);
    match followed {
        Some(reached) => {
            conclude(&context.console, &Begun { changed, rollout: reached?, warnings })
        }
        None => {
            context.console.note("the rollout goes on; `agent status` shows it");
            Ok(ExitCode::Interrupted)
        }
    }
}

/// Returns what the rollout is when it has reached the point, across restarts of the agent.
async fn watch(
    client: &Client,
    begun: RolloutView,
    until: Wait,
    progress: &mut Progress,
) -> Result<RolloutView, ClientError> {
    let mut last = Seen { view: begun, at: Instant::now() };
    progress.show(&last.view);
    while !has_reached(&last.view, until) {
        let broken = observe(client, &mut last, until, progress).await;
        match broken {
            Ok(()) => {}
            Err(error) if error.may_pass() && last.at.elapsed() < AWAY => {}
            Err(error) => return Err(error.after_all()),
        }
        if !has_reached(&last.view, until) {
            if last.at.elapsed() >= AWAY {
                return Err(ClientError::Silent);
            }
            progress.say("the agent is away, waiting for it to come back");
            sleep(LOOK).await;
        }
    }
    Ok(last.view)
}

/// What was seen last.
struct Seen {
    view: RolloutView,
    at: Instant,
}

/// Reads one stream until it ends or the point is reached.
async fn observe(
    client: &Client,
    last: &mut Seen,
    until: Wait,
    progress: &mut Progress,
) -> Result<(), ClientError> {
    let mut stream = client.progress(&last.view.service, last.view.id).await?;
    let connected = Connected { last };
    while !has_reached(&connected.last.view, until) {
        let Some(view) = stream.next().await? else { break };
        progress.show(&view);
        connected.last.view = view;
    }
    Ok(())
}

/// While this lives, the agent is there: the time that it may be away begins when this ends, however it ends.
struct Connected<'seen> {
    last: &'seen mut Seen,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.last.at = Instant::now();
    }
}

/// Whether a rollout is where it was waited for, or will never be there.
fn has_reached(view: &RolloutView, until: Wait) -> bool {
    match (&view.status, until) {
        (Status::Ended(_), _) => true,
        (Status::MakingReady, _)
        | (Status::Settling, Wait::Settled | Wait::Drained)
        | (Status::Draining, Wait::Drained) => false,
        // A generation that is ready gets the new connections at once.
        (Status::Settling | Status::Draining, Wait::Ready | Wait::Switched)
        | (Status::Draining, Wait::Settled) => true,
    }
}

/// Shows what became of it, and says how to end.
fn conclude(console: &Console, answer: &Begun) -> Result<ExitCode, Problem> {
    let view = &answer.rollout;
    let code = exit_code(view);
    if code == ExitCode::Done || !console.is_for_people() {
        console.answer(answer)?;
    }
    if let Some(Outcome::OldDied { flows: 0 }) = view.outcome() {
        console.warn(&format!("generation {} died before it was told to end", view.from));
    }
    if code != ExitCode::Done {
        console.problem(&failure(view));
    }
    if matches!(view.outcome(), Some(Outcome::NotReady { .. } | Outcome::RolledBack { .. })) {
        for line in &view.output {
            console.note(&format!("  | {}", words::line(line)));
        }
    }
    Ok(code)
}

fn exit_code(view: &RolloutView) -> ExitCode {
    match view.outcome() {
        None | Some(Outcome::Completed | Outcome::OldDied { flows: 0 }) => ExitCode::Done,
        Some(
            Outcome::DeadlinePassed { .. } | Outcome::OldDied { .. } | Outcome::Outlived { .. },
        ) => ExitCode::FlowsCut,
        Some(Outcome::NewDied) => ExitCode::Failed,
        Some(Outcome::NotReady { .. }) => ExitCode::NotReady,
        Some(Outcome::RolledBack { .. }) => ExitCode::RolledBack,
    }
}

/// What went wrong, as a problem; its kind is of no consequence, the outcome says how to end.
fn failure(view: &RolloutView) -> Problem {
    use agent_api::ProblemKind::NotReady;
    let RolloutView { from, to, .. } = view;
    let message = summary(view);
    match view.outcome() {
        Some(Outcome::NotReady { reason } | Outcome::RolledBack { reason }) if reason == UNDONE => {
            Problem { causes: vec![reason.clone()], ..Problem::new(NotReady, message) }
        }
        Some(Outcome::NotReady { reason } | Outcome::RolledBack { reason }) => {
            let log = log(view, *to);
            let fix = if view.output.iter().any(|line| tells_of_a_lack_of_processes(line)) {
                format!(
                    "generation {to} could start no process or thread (EAGAIN), see below: raise RLIMIT_NPROC with `--limit nproc=…`"
                )
            } else if view.output.is_empty() {
                format!("see `agent events`, and {log}")
            } else {
                format!("see the last output of generation {to}, below, or all of it: {log}")
            };
            Problem { causes: vec![reason.clone()], ..Problem::new(NotReady, message) }.fix(fix)
        }
        Some(Outcome::DeadlinePassed { .. }) => Problem::new(NotReady, message)
            .fix(format!("{}; next time give a longer `--drain-timeout`", who(view, *to))),
        Some(Outcome::OldDied { .. }) => Problem::new(NotReady, message).fix(format!(
            "{}; see `agent events`, and the log of generation {from}",
            who(view, *to)
        )),
        Some(Outcome::Outlived { .. }) => Problem::new(NotReady, message).fix(format!(
            "{}; `agent events` says what may keep it: end that, and generation {from} goes by itself",
            who(view, *to)
        )),
        Some(Outcome::NewDied) => Problem::new(NotReady, message).fix(match &view.serving {
            None | Some(Serving::Nobody) => {
                format!("upgrade again: nobody serves; see {}", log(view, *to))
            }
            Some(_) => format!("{}; see {}", who(view, *to), log(view, *to)),
        }),
        None | Some(Outcome::Completed) => Problem::new(NotReady, message),
    }
}

/// Where a generation's output is.
fn log(view: &RolloutView, number: GenerationNumber) -> String {
    match &view.log {
        Some(path) => format!("`{}`", path.display()),
        None => format!("the log of generation {number}"),
    }
}

/// As the C library, Python and Go have it, and those that a library words for them.
fn tells_of_a_lack_of_processes(line: &str) -> bool {
    ["Resource temporarily unavailable", "EAGAIN", "errno=11", "[Errno 11]"]
        .iter()
        .any(|words| line.contains(words))
}

/// Where a rollout stands, in one sentence.
pub(super) fn summary(view: &RolloutView) -> String {
    let RolloutView { service, kind, from, to, .. } = view;
    let done = match kind {
        Kind::Upgrade => "upgraded",
        Kind::Undo => "put back",
        Kind::Restart => "started anew by somebody else",
    };
    match &view.status {
        Status::MakingReady => {
            let yet = match view.listens {
                true => "listens, and has not accepted yet",
                false if view.obstacle.is_some() => "is not ready yet",
                false => "does not listen yet",
            };
            let why = view.obstacle.as_deref().map(words::line);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("{service} is being {done}: generation {to} {yet}{why}")
        }
        Status::Settling => {
            let left = view.settles_in.map(words::span);
            let left = left.map(|left| format!(" for {left} more")).unwrap_or_default();
            let back = match view.can_go_back {
                true => format!("; generation {from} is there to go back to"),
                false => String::new(),
            };
            format!(
                "{service} {done}: generation {to} takes all new connections, and has to prove itself{left}{back}"
            )
        }
        Status::Draining => format!(
            "{service} {done}: generation {to} takes all new connections, generation {from} drains"
        ),
        Status::Ended(Outcome::Completed) => {
            let took = view.ended_after.map(words::span);
            let took = took.map(|took| format!(" after {took}")).unwrap_or_default();
            let left = match view.standby_for {
                Some(span) => format!(
                    "has drained{took}, and is kept to fall back to for {}",
                    words::span(span)
                ),
                None => format!("finished and is gone{took}"),
            };
            format!("{service} {done}: {}, generation {from} {left}", who(view, *to))
        }
        Status::Ended(Outcome::OldDied { flows: 0 }) => {
            format!("{service} {done}: {}, generation {from} died", who(view, *to))
        }
        Status::Ended(Outcome::OldDied { flows }) => format!(
            "{service} {done}, but generation {from} died while it drained, and {} with it",
            words::count(*flows, "flow", "flows"),
        ),
        Status::Ended(Outcome::Outlived { .. }) => {
            format!("{service} {done}, but generation {from} was killed and has not ended")
        }
        Status::Ended(Outcome::NewDied) => format!(
            "{service} {done}, but generation {to} died, when generation {from} could not take over any more"
        ),
        Status::Ended(Outcome::DeadlinePassed { flows_left }) => format!(
            "{service} {done}, but {} of generation {from} ended by force when the time to drain was up",
            words::count(*flows_left, "flow", "flows"),
        ),
        Status::Ended(Outcome::NotReady { .. }) => {
            let on = match view.serving {
                None | Some(Serving::Generation { .. }) => " on",
                Some(Serving::Strangers { .. } | Serving::Nobody) => "",
            };
            let who = who(view, *from);
            format!("{service} not {done}: generation {to} did not become ready, {who}{on}")
        }
        Status::Ended(Outcome::RolledBack { .. }) => match view.serving {
            Some(Serving::Strangers { .. } | Serving::Nobody) => {
                let who = who(view, *from);
                format!("{service} rolled back from generation {to} to {from}, but now {who}")
            }
            Some(Serving::Generation { number }) if number != *from => format!(
                "{service} rolled back from generation {to} to {from}; now generation {number} takes all new connections"
            ),
            None | Some(Serving::Generation { .. }) => format!(
                "{service} rolled back: generation {from} takes all new connections again, not generation {to}"
            ),
        },
    }
}

/// Who serves now: the one that should, unless it has died or was replaced since.
fn who(view: &RolloutView, expected: GenerationNumber) -> String {
    let clause = serving::clause(view.serving.as_ref(), expected);
    match view.serving {
        Some(Serving::Generation { number }) if number > expected => {
            format!("generation {expected} was replaced since, {clause}")
        }
        _ => clause,
    }
}

impl Answer for Begun {
    fn text(&self, _look: Look) -> String {
        format!("{}\n", summary(&self.rollout))
    }
}

#[cfg(test)]
mod tests {
    use agent_api::client::stub::{Stub, answer, stream};

    use super::*;
    use crate::cli::samples;

    #[test]
    fn each_outcome_has_its_exit_code_and_its_words() {
        let lines: Vec<String> = samples::rollouts()
            .iter()
            .map(|view| format!("{}: {}", exit_code(view) as u8, summary(view)))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_failure_says_why_and_where_to_look() {
        let failed =
            samples::rollouts().into_iter().filter(|view| exit_code(view) != ExitCode::Done);
        let texts = failed.map(|view| crate::cli::report::text(&failure(&view), false));
        insta::assert_snapshot!(texts.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn nobody_is_said_to_serve_who_is_gone() {
        for view in samples::rollouts() {
            let view = RolloutView { serving: Some(Serving::Nobody), ..view };
            let said = format!("{} {:?}", summary(&view), failure(&view).fix);
            let claims = ["serves on", "takes all new connections again", "generation 2 serves"];
            assert!(!claims.iter().any(|claim| said.contains(claim)), "{said}");
        }
    }

    fn events(views: &[RolloutView]) -> String {
        let events = views.iter().map(|view| serde_json::to_string(view).unwrap());
        stream(&events.map(|event| format!("data: {event}\n\n")).collect::<String>())
    }

    #[tokio::test]
    async fn a_rollout_is_followed_across_a_restart_of_the_agent() {
        let [ready, _, draining, completed, ..] = &samples::rollouts()[..] else {
            panic!("too few")
        };
        let same = |view: &RolloutView| RolloutView { id: ready.id, ..view.clone() };
        let (draining, completed) = (same(draining), same(completed));
        let agent = Stub::with(vec![
            events(&[ready.clone(), draining.clone()]),
            String::new(),
            events(&[draining.clone(), completed.clone()]),
        ]);
        let mut progress = Progress::Lines { last: String::new() };
        let end = watch(&agent.client, ready.clone(), Wait::Drained, &mut progress).await.unwrap();
        assert_eq!(end, completed);
        assert_eq!(agent.asked().len(), 3);
        assert_eq!(agent.asked()[2], "GET /v1/services/web/rollouts/1/progress HTTP/1.1");
    }

    #[tokio::test]
    async fn no_more_is_read_than_was_waited_for() {
        let [ready, _, draining, completed, ..] = &samples::rollouts()[..] else {
            panic!("too few")
        };
        let agent = Stub::with(vec![events(&[ready.clone(), draining.clone(), completed.clone()])]);
        let mut progress = Progress::Lines { last: String::new() };
        let end = watch(&agent.client, ready.clone(), Wait::Switched, &mut progress).await.unwrap();
        assert_eq!(end.status, Status::Draining);
    }

    #[tokio::test]
    async fn a_rollout_that_the_agent_does_not_know_is_not_waited_for() {
        let [ready, ..] = &samples::rollouts()[..] else { panic!("too few") };
        let problem = Problem::new(agent_api::ProblemKind::NotFound, "no such rollout");
        let agent = Stub::with(vec![answer(404, &serde_json::to_string(&problem).unwrap())]);
        let mut progress = Progress::Lines { last: String::new() };
        let error = watch(&agent.client, ready.clone(), Wait::Switched, &mut progress).await;
        assert_eq!(Problem::from(error.unwrap_err()), problem);
    }

    #[test]
    fn an_ended_rollout_is_waited_for_no_longer() {
        for view in samples::rollouts() {
            let ended = view.outcome().is_some();
            assert_eq!(has_reached(&view, Wait::Drained), ended);
            let settled = ended || view.status == Status::Draining;
            let switched = settled || view.status == Status::Settling;
            assert_eq!(has_reached(&view, Wait::Settled), settled);
            assert_eq!(has_reached(&view, Wait::Switched), switched);
            assert_eq!(has_reached(&view, Wait::Ready), switched);
        }
    }
}
