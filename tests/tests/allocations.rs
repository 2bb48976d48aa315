//! How often the load generator asks for memory for one request: each time costs it, and makes its latencies uneven.
//!
//! The whole process is counted, so that this file has one test only. What a start and an end take is in a short run as in
//! a long one, and falls out of the difference.

use std::alloc::System;
use std::time::Duration;

use agent_load::{Observations, Plan};
use anyhow::{Result, ensure};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::servers::{Nginx, Server as _};
use tests::stage::Stage;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PORT: u16 = 8080;
const RATE: u32 = 1_000;
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_millis(2_500);

/// The most for one request on a kept connection; measured: 0.00.
const PER_KEPT_REQUEST: f64 = 0.5;
/// The most for one request on a new connection; measured: 2.97.
const PER_NEW_CONNECTION: f64 = 3.9;

/// Allocations, with those that only grew, and answers of one run.
async fn run(stage: &Stage, plan: Plan, duration: Duration) -> Result<(f64, f64)> {
    let counted = || {
        let stats = ALLOCATOR.stats();
        stats.allocations + stats.reallocations
    };
    let before = counted();
    let running = stage.load(plan)?;
    tokio::time::sleep(duration).await;
    let summary = running.stop().await.summary;
    let count = counted() - before;
    ensure!(summary.failures() == 0, "{summary}");
    Ok((count as f64, summary.answers() as f64))
}

async fn per_request(stage: &Stage, plan: Plan) -> Result<f64> {
    let plan = Plan { observations: Observations::Discard, ..plan };
    // The first one fills what is kept for good.
    run(stage, plan.clone(), SHORT).await?;
    let (few, short) = run(stage, plan.clone(), SHORT).await?;
    let (many, long) = run(stage, plan, LONG).await?;
    ensure!(long - short > f64::from(RATE), "only {short} and {long} answers");
    Ok((many - few) / (long - short))
}

#[tokio::test]
async fn the_load_generator_allocates_no_more_for_a_request_than_it_did() -> Result<()> {
    let server = Nginx::new(PORT)?;
    let stage = Stage::new()?;
    let _server = stage.start(&server, 1)?;
    let plan =
        Plan { one_shot: None, keep_alive: None, stream: None, upload: None, ..server.plan() };
    let kept = per_request(&stage, plan.clone().keep_alive_at(16, RATE)).await?;
    let new = per_request(&stage, plan.one_shot(RATE)).await?;
    eprintln!("allocations: {kept:.2} for a kept request, {new:.2} for a new connection");
    ensure!(
        kept <= PER_KEPT_REQUEST && new <= PER_NEW_CONNECTION,
        "allocations grew over the limits in tests/tests/allocations.rs: {kept:.2} for a request on a kept connection (at \
         most {PER_KEPT_REQUEST}), {new:.2} for one on a new connection (at most {PER_NEW_CONNECTION})"
    );
    Ok(())
}
