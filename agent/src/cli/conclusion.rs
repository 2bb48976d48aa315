//! How a rollout ended: in one sentence, by an exit code, and with what to do about it.

use agent_api::{Begun, ExitCode, Problem, RolloutView, Serving};
use agent_rollout::{Kind, Outcome, Status, UNDONE};
use agent_terms::GenerationNumber;

use super::{
    output::{Answer, Console, Look},
    serving, words,
};

/// Shows what became of it, and says how to end.
pub(super) fn conclude(console: &Console, answer: &Begun) -> Result<ExitCode, Problem> {
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
        Status::Ended(outcome) => ended(view, done, outcome),
    }
}

fn ended(view: &RolloutView, done: &str, outcome: &Outcome) -> String {
    let RolloutView { service, from, to, .. } = view;
    match outcome {
        Outcome::Completed => {
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
        Outcome::OldDied { flows: 0 } => {
            format!("{service} {done}: {}, generation {from} died", who(view, *to))
        }
        Outcome::OldDied { flows } => format!(
            "{service} {done}, but generation {from} died while it drained, and {} with it",
            words::count(*flows, "flow", "flows"),
        ),
        Outcome::Outlived { .. } => {
            format!("{service} {done}, but generation {from} was killed and has not ended")
        }
        Outcome::NewDied => format!(
            "{service} {done}, but generation {to} died, when generation {from} could not take over any more"
        ),
        Outcome::DeadlinePassed { flows_left } => format!(
            "{service} {done}, but {} of generation {from} ended by force when the time to drain was up",
            words::count(*flows_left, "flow", "flows"),
        ),
        Outcome::NotReady { .. } => {
            let on = match view.serving {
                None | Some(Serving::Generation { .. }) => " on",
                Some(Serving::Strangers { .. } | Serving::Nobody) => "",
            };
            let who = who(view, *from);
            format!("{service} not {done}: generation {to} did not become ready, {who}{on}")
        }
        Outcome::RolledBack { .. } => match view.serving {
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
}
