//! `agent history`.

use std::time::Duration;

use agent_api::{ExitCode, History, Problem, RolloutView};
use agent_rollout::{Kind, Outcome, Status};
use agent_terms::Moment;

use super::{
    Context,
    arguments::HistoryArguments,
    output::{Answer, Look, Paint},
    table::{Side, Table},
    words,
};

/// Shows the rollouts of a service, or of all.
pub(super) async fn run(
    context: &Context,
    arguments: &HistoryArguments,
) -> Result<ExitCode, Problem> {
    let history = context.client.history(arguments.service.selected().as_ref()).await?;
    context.console.answer(&history)?;
    Ok(ExitCode::Done)
}

impl Answer for History {
    fn text(&self, look: Look) -> String {
        let mut table = Table::new(&[
            ("SERVICE", Side::Left),
            ("ID", Side::Right),
            ("KIND", Side::Left),
            ("FROM", Side::Right),
            ("TO", Side::Right),
            ("BEGAN", Side::Left),
            ("SWITCHED", Side::Left),
            ("WAITED", Side::Right),
            ("ENDED", Side::Left),
            ("RELEASE", Side::Left),
            ("OUTCOME", Side::Left),
        ]);
        let after = |span: Option<Duration>| {
            span.map_or_else(|| "-".to_owned(), |span| format!("+{}", words::span(span)))
        };
        for rollout in &self.rollouts {
            let cells = [
                rollout.service.to_string(),
                rollout.id.to_string(),
                kind(rollout).to_owned(),
                rollout.from.to_string(),
                rollout.to.to_string(),
                Moment::written(rollout.began),
                after(rollout.switched_after),
                rollout.waited.to_string(),
                after(rollout.ended_after),
                rollout.release.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                outcome(rollout),
            ];
            table.row(cells, paint(rollout));
        }
        table.render(look.colour)
    }

    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        self.rollouts.iter().map(serde_json::to_value).collect()
    }
}

const fn kind(rollout: &RolloutView) -> &'static str {
    match rollout.kind {
        Kind::Upgrade => "upgrade",
        Kind::Undo => "undo",
        Kind::Restart => "restart",
    }
}

fn outcome(rollout: &RolloutView) -> String {
    match &rollout.status {
        Status::MakingReady => "(making ready)".to_owned(),
        Status::Settling => "(settling)".to_owned(),
        Status::Draining => "(draining)".to_owned(),
        Status::Ended(Outcome::Completed) => "completed".to_owned(),
        Status::Ended(Outcome::DeadlinePassed { flows_left }) => {
            format!("deadline passed, {} left", words::count(*flows_left, "flow", "flows"))
        }
        Status::Ended(Outcome::OldDied { flows }) => {
            format!("old generation died with {}", words::count(*flows, "flow", "flows"))
        }
        Status::Ended(Outcome::Outlived { .. }) => "old generation killed, not gone".to_owned(),
        Status::Ended(Outcome::NewDied) => "new generation died".to_owned(),
        Status::Ended(Outcome::NotReady { reason }) => format!("not ready: {reason}"),
        Status::Ended(Outcome::RolledBack { reason }) => format!("rolled back: {reason}"),
    }
}

const fn paint(rollout: &RolloutView) -> Option<Paint> {
    match rollout.outcome() {
        None => Some(Paint::Leaving),
        Some(Outcome::Completed) => None,
        Some(
            Outcome::DeadlinePassed { .. } | Outcome::OldDied { .. } | Outcome::Outlived { .. },
        ) => Some(Paint::Warning),
        Some(Outcome::NotReady { .. } | Outcome::RolledBack { .. } | Outcome::NewDied) => {
            Some(Paint::Error)
        }
    }
}
