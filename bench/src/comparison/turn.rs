//! One contender in one round: clients of every class come and stay while it is upgraded again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_load::{
    Class, FailureKind, Incident, KeepAlive, Load, Observation, Plan, Report, Running, Source,
};
use anyhow::{Context as _, Result, ensure};

use super::arena::{Arena, Verb};
use super::contender::Contender;
use super::results::{Act, Switch, Turn};
use super::steady;
use crate::measure::cores::Cores;
use crate::usage;
use tests::stage::{LIMIT, until_answers};
use tests::wait;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Upgrades in a turn; one undo comes after them.
    pub upgrades: u32,
    /// From the start of one to the start of the next.
    pub interval: Duration,
    /// New connections per second, unless the contender takes less.
    pub rate: u32,
}

/// Whether the speed of a contender is compared with that of its server alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    Compared,
    LeftOut,
}

/// A switch as it was made, before anybody knows what the clients saw.
#[derive(Debug)]
struct Made {
    act: Act,
    begun: Instant,
    took: Duration,
    from: u32,
    to: u32,
    cpu: Option<Duration>,
}

/// Lets one contender have its turn.
///
/// # Errors
///
/// If it does not start, a switch fails, or the clients themselves do.
pub(super) fn take(
    contender: &Contender,
    rules: &Rules,
    round: u32,
    cores: &Cores,
    speed: Speed,
) -> Result<Turn> {
    let arena = Arena::open(contender, Verb::Start, cores)?;
    let steady = match speed {
        Speed::Compared => steady::compare(contender, &arena, cores, round)?,
        Speed::LeftOut => None,
    };
    let running = cores.on_clients(|| Ok(Load::start(plan(contender, &arena, rules)?)?))?;
    until_answers(&running, 1, WARM)?;
    wait::sleep(rules.interval / 2);
    let mut made = Vec::new();
    for to in 2..=rules.upgrades + 1 {
        made.push(switch(contender, &arena, &running, rules, (Act::Upgrade, to - 1, to))?);
    }
    let (last, before) = (rules.upgrades + 1, rules.upgrades);
    made.push(switch(contender, &arena, &running, rules, (Act::Undo, last, before))?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let report = runtime.block_on(running.stop());
    let local = report.summary.failures_of(FailureKind::Local);
    ensure!(local == 0, "the clients themselves failed:\n{}", report.summary);
    let mut turn = count(contender, round, &report);
    turn.switches = made.iter().map(|made| look(made, rules, &report)).collect();
    turn.steady = steady;
    Ok(turn)
}

fn plan(contender: &Contender, arena: &Arena, rules: &Rules) -> Result<Plan> {
    let mut plan = match contender.protocol.as_str() {
        "redis" => Plan::redis(Arena::address()),
        _ => Plan::http(Arena::address()),
    };
    // One source has too few ports for the rate.
    plan = plan.namespace(arena.stage.namespace.descriptor()).source(Source::Spread);
    for class in &contender.clients {
        plan = match class.as_str() {
            "one-shot" => {
                plan.one_shot(contender.rate.map_or(rules.rate, |most| most.min(rules.rate)))
            }
            "keep-alive" => plan.keep_alive(KEPT, THINK),
            "stream" => plan.stream(STREAMS),
            "upload" => plan.upload(UPLOADS),
            other => anyhow::bail!("there is no class of clients `{other}`"),
        };
    }
    // Otherwise all would be with the first version for ever, and no later one had any to lose.
    plan.keep_alive = plan.keep_alive.map(|kept| KeepAlive { requests: Some(REQUESTS), ..kept });
    Ok(plan)
}

fn switch(
    contender: &Contender,
    arena: &Arena,
    running: &Running,
    rules: &Rules,
    (act, from, to): (Act, u32, u32),
) -> Result<Made> {
    let before = cpu(contender, arena)?;
    let seen = running.snapshot().class(Class::OneShot).generations.get(&to).copied();
    let begun = Instant::now();
    let verb = match act {
        Act::Upgrade => Verb::Upgrade,
        Act::Undo => Verb::Undo,
    };
    let took = arena.act(verb, to)?;
    if contender.upgrades {
        wait::until("an answer of the wanted version", LIMIT, || {
            let now = running.snapshot().class(Class::OneShot).generations.get(&to).copied();
            Ok((now > seen).then_some(()))
        })
        .with_context(|| format!("{verb:?} {to}: {}", running.snapshot()))?;
    }
    wait::sleep((begun + rules.interval).saturating_duration_since(Instant::now()));
    let used = cpu(contender, arena)?;
    let cpu = used.zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Made { act, begun, took, from, to, cpu })
}

/// What the agent has used of a processor so far.
fn cpu(contender: &Contender, arena: &Arena) -> Result<Option<Duration>> {
    if !contender.agent {
        return Ok(None);
    }
    let agent = arena.stage.agent.daemon().context("the agent does not run any more")?;
    usage::used(agent.pid()).map(Some)
}

/// What the clients saw of a switch.
fn look(made: &Made, rules: &Rules, report: &Report) -> Switch {
    let Made { act, begun, took, from, to, cpu } = *made;
    let end = begun + rules.interval.max(took);
    let new = |seen: &&Observation| seen.class == Class::OneShot;
    let within = |seen: &&Observation| seen.started >= begun && seen.started < end;
    let started = |version| {
        let of = move |seen: &&Observation| seen.generation == Some(version);
        report.observations.iter().filter(new).filter(within).filter(of).map(|seen| seen.started)
    };
    let (first, last) = (started(to).min(), started(from).max());
    let at = first.unwrap_or(begun);
    let near =
        |seen: &&Observation| seen.started.max(at).duration_since(seen.started.min(at)) <= NEAR;
    let connect = |seen: &Observation| seen.connected.duration_since(seen.started).as_micros();
    let near = report.observations.iter().filter(new).filter(near).map(connect);
    let after = |instant: Instant| milliseconds(instant.duration_since(begun));
    Switch {
        act,
        command_ms: milliseconds(took),
        first_new_ms: first.map(after),
        last_old_ms: last.map(after),
        connect_us: counted(near),
        agent_cpu_ms: cpu.map(milliseconds),
    }
}

/// How often there is each number.
fn counted(numbers: impl Iterator<Item = u128>) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for number in numbers {
        *counts.entry(u64::try_from(number).unwrap_or(u64::MAX)).or_default() += 1;
    }
    counts
}

/// Whose failure each one was.
fn count(contender: &Contender, round: u32, report: &Report) -> Turn {
    let classes = &report.summary.classes;
    let each = |class: &Class| serde_name(class);
    let mut turn = Turn {
        contender: contender.name.clone(),
        round,
        connections: classes.iter().map(|(class, seen)| (each(class), seen.connections)).collect(),
        failed: BTreeMap::new(),
        broken: BTreeMap::new(),
        announced: classes.values().map(|seen| seen.closed).sum(),
        slow: 0,
        late: classes.values().map(|seen| seen.late).sum(),
        switches: Vec::new(),
        steady: None,
    };
    for incident in &report.incidents {
        let kind = serde_name(&incident.kind);
        let counter = if incident.kind == FailureKind::Slow {
            &mut turn.slow
        } else if was_new(incident) {
            turn.failed.entry(each(&incident.class)).or_default().entry(kind).or_default()
        } else {
            turn.broken.entry(each(&incident.class)).or_default().entry(kind).or_default()
        };
        *counter += 1;
    }
    turn
}

/// Whether nobody had served the connection yet. One that was cut in the accept queue is there for the client, but not for
/// the server.
fn was_new(incident: &Incident) -> bool {
    let unanswered = matches!(
        incident.kind,
        FailureKind::ResetBeforeFirstByte | FailureKind::EofBeforeFirstByte
    );
    match incident.class {
        Class::OneShot => true,
        Class::KeepAlive => incident.generation.is_none(),
        Class::Stream => incident.client.is_none() || unanswered,
        Class::Upload => incident.client.is_none(),
    }
}

/// The name that a value without fields has in the results.
fn serde_name(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Kept connections at a time, the pause between two requests on them, and after how many the client begins another one.
pub(super) const KEPT: u32 = 16;
const THINK: Duration = Duration::from_millis(20);
const REQUESTS: u32 = 80;
pub(super) const STREAMS: u32 = 2;
pub(super) const UPLOADS: u32 = 2;
/// Answers before the first switch.
const WARM: u64 = 50;
/// What counts as close to a switch.
const NEAR: Duration = Duration::from_millis(100);
