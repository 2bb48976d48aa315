//! Every step of everything that the agent does: it fails, or the agent is killed right before or right after it.
//!
//! For each operation the steps are written down once, as they pass the agent's door (`agent::daemon::Step`); each of them is
//! then made to go wrong in three ways, under load. Nobody may notice, and in the end the operation is either done or undone.
//! The matrix is made of the steps that were seen, so that a new kind of step without a row fails the last test.
//!
//! The first time that an operation takes a kind of step is always tested, the later ones only when asked for:
//! `cargo test -p tests --test faults later_passes -- --ignored --nocapture`. One cell by itself, or some of them, are
//! chosen by a part of the name that is printed: `AGENT_TEST_CELL='Undo: kill-after steer, pass 0'`.

mod cell;
mod operation;
mod row;

use std::collections::BTreeSet;

use agent::daemon::Step;
use anyhow::{Result, ensure};

use self::cell::Place;
use self::operation::Operation;
use self::row::Passes;

macro_rules! rows {
    ($($test:ident: $operation:ident,)+) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                row::every_step_may_go_wrong(Operation::$operation, Passes::First)
            }
        )+

        mod later_passes {
            use super::*;

            $(
                #[test]
                #[ignore = "as long again; run when steps or their order change"]
                fn $test() -> Result<()> {
                    row::every_step_may_go_wrong(Operation::$operation, Passes::Later)
                }
            )+
        }
    };
}

rows! {
    any_step_of_a_start_may_go_wrong: Start,
    any_step_of_building_anew_may_go_wrong: Rebuild,
    any_step_of_an_attach_may_go_wrong: Attach,
    any_step_of_an_upgrade_may_go_wrong: Upgrade,
    any_step_of_an_undo_may_go_wrong: Undo,
    any_step_of_a_drain_may_go_wrong: Drain,
    any_step_of_a_drain_with_a_kill_may_go_wrong: Kill,
    any_step_after_a_death_may_go_wrong: Death,
    any_step_of_a_detach_may_go_wrong: Detach,
    any_step_of_detaching_a_found_server_may_go_wrong: DetachFound,
}

#[test]
fn every_kind_of_step_has_a_row() -> Result<()> {
    let mut seen = BTreeSet::new();
    for operation in Operation::ALL {
        seen.extend(row::places(operation)?.into_iter().map(|Place { step, .. }| step));
    }
    let all: BTreeSet<Step> = Step::ALL.iter().copied().collect();
    let missing: Vec<_> = all.difference(&seen).map(ToString::to_string).collect();
    ensure!(missing.is_empty(), "no operation passes {}", missing.join(", "));
    Ok(())
}
