//! All cells of one operation, some of them at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime;
use tokio::sync::Semaphore;

use crate::cell::{self, Cell, Fault, Met, Place};
use crate::operation::Operation;

/// Of a step that an operation takes many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    First,
    Later,
}

/// All ways in which the steps of an operation can go wrong.
pub(crate) fn every_step_may_go_wrong(operation: Operation, passes: Passes) -> Result<()> {
    let begun = Instant::now();
    let only = std::env::var("AGENT_TEST_CELL").unwrap_or_default();
    let places = places(operation)?;
    ensure!(!places.is_empty(), "{operation:?} has no step");
    let places = places.into_iter().filter(|place| (place.pass == 0) == (passes == Passes::First));
    let cells = places.flat_map(|place| Fault::ALL.map(|fault| Cell { operation, place, fault }));
    let cells: Vec<_> = cells.filter(|cell| cell.to_string().contains(&only)).collect();
    let broken = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _worker in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(how) = outcome(cell)
                        && let Ok(mut broken) = broken.lock()
                    {
                        broken.push(how);
                    }
                }
            });
        }
    });
    println!("{operation:?}: {} cells in {:.1?}", cells.len(), begun.elapsed());
    let broken = broken.into_inner()?;
    ensure!(broken.is_empty(), "{} cells:\n{}", broken.len(), broken.join("\n"));
    Ok(())
}

/// The places that an operation comes to when all goes well.
pub(crate) fn places(operation: Operation) -> Result<Vec<Place>> {
    in_turn(cell::places(operation))
}

/// What is wrong with a cell.
fn outcome(cell: &Cell) -> Option<String> {
    let begun = Instant::now();
    let outcome = in_turn(cell.run());
    let how = match &outcome {
        Ok(Met::Yes) => "as it should",
        Ok(Met::No) => "did not come to that",
        Err(_) => "BROKEN",
    };
    println!("{cell}: {how} ({:.1?})", begun.elapsed());
    match outcome {
        // How often a step comes is not the same each time; the first one always does.
        Ok(Met::No) if cell.place.pass == 0 => Some(format!("{cell}: it did not come to that")),
        Ok(Met::Yes | Met::No) => None,
        Err(error) => Some(format!("{cell}: {error:#}")),
    }
}

/// Each has a namespace of its own; what they share is the machine.
fn in_turn<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _turn = TURNS.acquire().await.context("nobody closes it")?;
        work.await
    })
}

/// A cell waits for processes most of the time.
const AT_A_TIME: usize = 4;
static TURNS: Semaphore = Semaphore::const_new(AT_A_TIME);
