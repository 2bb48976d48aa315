//! Following a rollout up to the awaited point, and ending as it ended.

use std::time::Duration;

use agent_api::{
    Begun, ExitCode, Problem, RolloutView,
    client::{Client, ClientError},
};
use agent_rollout::Status;
use tokio::time::{Instant, sleep};

use super::{Context, arguments::Wait, conclusion::conclude, progress::Progress};

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

#[cfg(test)]
mod tests {
    use agent_api::client::stub::{Stub, answer, stream};

    use super::*;
    use crate::cli::samples;

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
