//! Every step of everything that the agent does: it fails, or the agent is killed right before or right after it.
//!
//! For each operation the steps are written down once, as they pass the agent's door (`agent::daemon::Step`); each of them is
//! then made to go wrong in three ways, under load. Nobody may notice, and in the end the operation is either done or undone.
//! The matrix is made of the steps that were seen, so that a new kind of step without a row fails the last test.

mod cell;
mod operation;

use std::collections::BTreeSet;

use agent::daemon::Step;
use anyhow::{Result, ensure};

use self::cell::{Cell, Fault, Place};
use self::operation::Operation;

/// All ways in which all steps of an operation can go wrong.
async fn every_step_may_go_wrong(operation: Operation) -> Result<()> {
    let places = cell::places(operation).await?;
    ensure!(!places.is_empty(), "{operation:?} has no step");
    let mut broken = Vec::new();
    let mut missed = 0;
    for place in places {
        for fault in Fault::ALL {
            let cell = Cell { operation, place, fault };
            match cell.run().await {
                Ok(cell::Met::Yes) => {}
                // How often a step comes is not the same each time; the first one always does.
                Ok(cell::Met::No) if place.pass > 0 => missed += 1,
                Ok(cell::Met::No) => broken.push(format!("{cell}: it did not come to that")),
                Err(error) => broken.push(format!("{cell}: {error:#}")),
            }
        }
    }
    println!("{operation:?}: {missed} later passes did not come again");
    ensure!(broken.is_empty(), "{} cells:\n{}", broken.len(), broken.join("\n"));
    Ok(())
}

macro_rules! rows {
    ($($test:ident: $operation:ident,)+) => {
        $(
            #[tokio::test]
            #[ignore = "minutes of work each, and not every cell passes yet"]
            async fn $test() -> Result<()> {
                every_step_may_go_wrong(Operation::$operation).await
            }
        )+
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
}

#[tokio::test]
async fn every_kind_of_step_has_a_row() -> Result<()> {
    let mut seen = BTreeSet::new();
    for operation in Operation::ALL {
        seen.extend(cell::places(operation).await?.into_iter().map(|Place { step, .. }| step));
    }
    let all: BTreeSet<Step> = Step::ALL.iter().copied().collect();
    let missing: Vec<_> = all.difference(&seen).map(ToString::to_string).collect();
    ensure!(missing.is_empty(), "no operation passes {}", missing.join(", "));
    Ok(())
}
