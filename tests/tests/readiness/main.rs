//! A new generation gets new connections when it accepts, not when it listens; and they go back by themselves if it fails
//! soon after. Whatever a broken version does, its old one's clients do not notice.

mod alone;
mod candidate;
mod settling;

use agent_api::{EventKind, GenerationState, History, RolloutView, ServiceView};
use agent_load::{Plan, Running};
use agent_rollout::Outcome;
use anyhow::{Context as _, Result};
use tests::agent::{Output, Pending, upgrade};
use tests::servers::{Script, Server, Started};
use tests::stage::{self, Stage};

const PORT: u16 = 8080;

/// A good version that serves under load, and another one that is to take its place.
struct Scene {
    stage: Stage,
    first: Started,
    /// Its directory is where the next version runs too.
    _good: Script,
    next: Script,
    running: Running,
}

impl Scene {
    /// `next` says in what the next version differs from the good one.
    fn new(next: &[&str]) -> Result<Self> {
        let good = Script::new(PORT)?;
        let (stage, first) = Stage::attached(&good)?;
        let one_shot = Plan { keep_alive: None, stream: None, upload: None, ..good.plan() };
        let running = stage.load(one_shot.one_shot(100))?;
        stage::until_answers(&running, 1, 10)?;
        Ok(Self { stage, first, _good: good, next: Script::with(PORT, next)?, running })
    }

    fn begin(&self, options: &[&str]) -> Result<Pending> {
        let words = upgrade(PORT, options, &self.next.command(2)?);
        self.stage.agent.start(&mut self.stage.agent.command(&words))
    }

    fn upgrade(&self, options: &[&str]) -> Result<Output> {
        self.begin(options)?.finish()
    }

    fn until_second_is(&self, state: GenerationState) -> Result<()> {
        self.stage
            .until("a state of generation 2", PORT, |service| {
                stage::generations(service).get(&2).is_some_and(|it| it.state == state)
            })
            .map(drop)
    }

    fn until_first_has_no_flows(&self) -> Result<()> {
        let flows = |service: &ServiceView| {
            stage::generations(service).get(&1).is_some_and(|it| it.open_flows == 0)
        };
        self.stage.until("generation 1 to have drained", PORT, flows).map(drop)
    }

    /// The last rollout, as the history has it.
    fn last_rollout(&self) -> Result<RolloutView> {
        let history = ["history", "--port", "8080", "-o", "json"];
        let history = self.stage.agent.run(&history)?.success()?;
        let mut history: History = serde_json::from_str(&history.stdout)?;
        history.rollouts.pop().context("there was a rollout")
    }

    /// Whether an event of this kind is told.
    fn was_told(&self, kind: EventKind) -> Result<bool> {
        let events = self.stage.agent.run(&["events", "-o", "json"])?.success()?;
        let events: agent_api::Events = serde_json::from_str(&events.stdout)?;
        Ok(events.events.iter().any(|event| event.kind == kind))
    }

    /// Generation 1 serves alone, nobody was failed, and history and status say that the rollout failed.
    async fn ends_as_before(mut self) -> Result<()> {
        let service = self.stage.until_steady(PORT)?;
        assert_eq!(service.generations[0].number.0, 1);
        let last = self.last_rollout()?;
        assert_eq!(service.setback.map(|it| it.status), Some(last.status));
        assert!(self.first.lives()?);
        stage::nobody_noticed(self.running).await;
        Ok(())
    }

    /// Generation 2 serves alone, and nobody was failed.
    async fn ends_replaced(self) -> Result<()> {
        stage::until_answers(&self.running, 2, 10)?;
        let service = self.stage.until_steady(PORT)?;
        assert_eq!((service.generations[0].number.0, service.setback), (2, None));
        stage::nobody_noticed(self.running).await;
        Ok(())
    }
}

fn outcome(output: &Output) -> Result<Outcome> {
    let view: RolloutView = serde_json::from_str(&output.stdout)?;
    view.outcome().cloned().with_context(|| format!("it has not ended: {view:?}"))
}
