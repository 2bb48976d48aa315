//! How a rollout goes, while it is waited for.

use std::time::Duration;

use agent_api::RolloutView;
use agent_rollout::{Outcome, Status};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    output::{self, Console},
    words,
};

/// Shows each change on the standard error: in one line that moves on a terminal, else in a line of its own.
#[derive(Debug)]
pub(super) enum Progress {
    Moving(ProgressBar),
    Lines { last: String },
}

impl Progress {
    /// What suits where the story is told.
    pub(super) fn on(console: &Console) -> Self {
        if !console.tells_to_terminal() {
            return Self::Lines { last: String::new() };
        }
        let style = ProgressStyle::with_template("{spinner} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self::Moving(bar)
    }

    /// Shows where the rollout stands.
    pub(super) fn show(&mut self, view: &RolloutView) {
        match self {
            Self::Moving(bar) => bar.set_message(moving(view)),
            // Times change always: a line that says them would be a line per event.
            Self::Lines { .. } => self.say(&standing(view)),
        }
    }

    /// Says something else.
    pub(super) fn say(&mut self, text: &str) {
        match self {
            Self::Moving(bar) => bar.set_message(text.to_owned()),
            Self::Lines { last } if last == text => {}
            Self::Lines { last } => {
                output::tell(text);
                text.clone_into(last);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match self {
            Self::Moving(bar) => bar.finish_and_clear(),
            Self::Lines { .. } => {}
        }
    }
}

/// With all that moves.
fn moving(view: &RolloutView) -> String {
    let mut text = standing(view);
    if let Some(left) = view.settles_in {
        text.push_str(&format!(" for {}", words::span(left)));
    }
    if view.status == Status::Draining {
        if let Some(idle) = view.idle {
            text.push_str(&format!(", idle {}", words::span(idle)));
        }
        if let Some(deadline) = view.deadline_in {
            text.push_str(&format!(", ends by force in {}", words::span(deadline)));
        }
    }
    text
}

/// Without times.
fn standing(view: &RolloutView) -> String {
    let RolloutView { from, to, flows_left, .. } = view;
    let doing = match &view.status {
        Status::MakingReady => {
            let until = if view.listens { "it accepts" } else { "it listens" };
            // What to do about it is said if it does not pass by itself.
            let why = view.obstacle.as_deref().and_then(|why| why.split(": ").next());
            let why = why.map(words::line).map(|why| format!(" ({why})")).unwrap_or_default();
            format!("waiting until {until}{why}")
        }
        Status::Settling if view.can_go_back => {
            format!("takes all new connections, generation {from} is there to go back to")
        }
        Status::Settling => "takes all new connections, and has to prove itself".to_owned(),
        Status::Draining => match flows_left {
            Some(flows) => {
                format!(
                    "draining generation {from}: {} left",
                    words::count(*flows, "flow", "flows")
                )
            }
            None => format!("draining generation {from}"),
        },
        Status::Ended(Outcome::Completed) => format!("generation {from} has drained"),
        Status::Ended(Outcome::DeadlinePassed { .. }) => {
            format!("the time to drain generation {from} was up")
        }
        Status::Ended(Outcome::OldDied { .. }) => format!("generation {from} died"),
        Status::Ended(Outcome::Outlived { .. }) => {
            format!("generation {from} was killed and has not ended")
        }
        Status::Ended(Outcome::NewDied) => "died".to_owned(),
        Status::Ended(Outcome::NotReady { .. }) => "did not become ready".to_owned(),
        Status::Ended(Outcome::RolledBack { .. }) => {
            format!("rolled back to generation {from}")
        }
    };
    format!("generation {to} · {doing}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn each_step_is_told() {
        let lines: Vec<String> = samples::rollouts().iter().map(moving).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_line_is_told_once_however_often_its_times_change() {
        let mut draining = samples::rollouts().remove(2);
        let before = standing(&draining);
        draining.idle = Some(Duration::from_secs(99));
        draining.deadline_in = Some(Duration::from_secs(1));
        assert_eq!(standing(&draining), before);
    }
}
