//! The histories that matter, one by one. The simulator has the others.

mod leaving;
mod readiness;
mod restart;

use std::time::Duration;

use agent_terms::{GenerationNumber, Release, Signal};

use super::{simulator::attached, *};

const SECOND: Duration = Duration::from_secs(1);

fn drain(policy: DrainPolicy) -> DrainPlan {
    DrainPlan {
        policy,
        signal: Signal::TERM,
        queue_timeout: SECOND,
        timeout: 60 * SECOND,
        stop_timeout: 10 * SECOND,
        keep_old: Duration::ZERO,
    }
}

fn plan(policy: DrainPolicy) -> Plan {
    Plan {
        release: None,
        ready: Readiness::Listen,
        ready_timeout: 30 * SECOND,
        settle: Duration::ZERO,
        drain: drain(policy),
    }
}

const PATIENT: DrainPolicy = DrainPolicy::Patient { idle: None };

fn launched() -> Origin {
    Origin::Launched {
        program: None,
        command: vec!["server".into()],
        cgroup: "/c".into(),
        log: "/l".into(),
    }
}

/// Listeners that hold the port so, of which nothing else matters.
pub(super) const fn held(hold: PortHold) -> Listening {
    Listening { hold, listeners: Vec::new() }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn number(number: u32) -> GenerationNumber {
    GenerationNumber(number)
}

fn targets(primary: u32, standbys: &[u32]) -> Effect {
    Effect::Steer(Targets {
        primary: number(primary),
        standbys: standbys.iter().copied().map(number).collect(),
    })
}

/// Applies an event that must be accepted.
fn apply(service: &mut Service, event: Event, now: Timestamp) -> Vec<Effect> {
    service.apply(event, now).expect("accepted")
}

fn upgraded(policy: DrainPolicy) -> Service {
    let mut service = attached();
    assert_eq!(
        apply(&mut service, Event::Upgrade(plan(policy), launched()), at(0)),
        [Effect::Launch(number(2))]
    );
    assert_eq!(
        apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(1)),
        [targets(2, &[1])]
    );
    service
}

fn outcome(service: &Service, id: u64) -> Option<&Outcome> {
    match &service.rollout(RolloutId(id))?.status {
        Status::Ended(outcome) => Some(outcome),
        Status::MakingReady | Status::Settling | Status::Draining => None,
    }
}

/// Looks at the empty queues of a generation that is clearing.
fn clear(service: &mut Service, one: u32, now: Timestamp) -> Vec<Effect> {
    apply(service, Event::Queues(number(one), Queues::Empty), now)
}

fn count(service: &mut Service, one: u32, open: u64, now: Timestamp) -> Vec<Effect> {
    apply(service, Event::Flows(number(one), Flows { open, queued: 0, idle: SECOND }), now)
}

fn last_look(service: &mut Service, one: u32, open: u64, now: Timestamp) -> Vec<Effect> {
    let flows = Flows { open, queued: 0, idle: SECOND };
    apply(service, Event::LastLook(number(one), Queues::Empty, flows), now)
}

fn phase(service: &Service, one: u32) -> &Phase {
    &service.generation(number(one)).expect("it lives").phase
}

/// As [`upgraded`], with generation 1 kept for some seconds after the switch at second 1.
fn upgraded_keeping(policy: DrainPolicy, seconds: u64) -> Service {
    let mut service = attached();
    let mut plan = plan(policy);
    plan.drain.keep_old = Duration::from_secs(seconds);
    apply(&mut service, Event::Upgrade(plan, launched()), at(0));
    apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(1));
    service
}

#[test]
fn an_upgrade_switches_then_drains_then_signals_then_forgets() {
    let mut service = upgraded(PATIENT);
    let one = number(1);
    assert_eq!(clear(&mut service, 1, at(1)), []);
    assert!(matches!(phase(&service, 1), Phase::Draining { .. }));
    assert_eq!(count(&mut service, 1, 3, at(2)), []);
    assert_eq!(count(&mut service, 1, 0, at(3)), [targets(2, &[])], "steering first");
    assert_eq!(last_look(&mut service, 1, 0, at(3)), [Effect::Signal(one, Signal::TERM)]);
    assert_eq!(apply(&mut service, Event::Exited(one), at(4)), [Effect::Forget(one)]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed));
}

#[test]
fn a_state_of_an_earlier_version_is_read() {
    let mut value = serde_json::to_value(upgraded(PATIENT)).unwrap();
    for generation in value["generations"].as_array_mut().unwrap() {
        let generation = generation.as_object_mut().unwrap();
        for field in ["flows", "deaf", "stuck"] {
            assert!(generation.remove(field).is_some());
        }
    }
    let clearing = value["generations"][0]["phase"].as_object_mut().unwrap();
    assert_eq!(clearing.insert("name".into(), "settling".into()), Some("clearing".into()));
    assert!(clearing.remove("keep_until").is_some());
    assert!(clearing["drain"].as_object_mut().unwrap().remove("keep_old").is_some());
    for field in ["waited", "settled"] {
        assert!(value["rollouts"][0].as_object_mut().unwrap().remove(field).is_some());
    }
    assert!(serde_json::from_value::<Service>(value).is_ok());
    let died = serde_json::from_str::<Outcome>(r#"{"outcome":"old_died"}"#).unwrap();
    assert_eq!(died, Outcome::OldDied { flows: 0 });
}

#[test]
fn a_generation_is_cleared_when_its_queues_are_empty_or_their_time_is_up() {
    let mut service = upgraded(PATIENT);
    for queues in [Queues::Waiting(1), Queues::Waiting(3), Queues::Waiting(2)] {
        apply(&mut service, Event::Queues(number(1), queues), at(1));
        assert!(matches!(service.generation(number(1)).unwrap().phase, Phase::Clearing { .. }));
    }
    apply(&mut service, Event::Tick, at(2));
    assert!(
        matches!(service.generation(number(1)).unwrap().phase, Phase::Draining { .. }),
        "queue timeout"
    );
    assert_eq!(service.rollout(RolloutId(1)).unwrap().waited, 3, "the most that were seen");
}

#[test]
fn a_candidate_that_never_listens_is_stopped_and_the_old_one_keeps_serving() {
    let mut service = attached();
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(0));
    assert_eq!(apply(&mut service, Event::Tick, at(29)), []);
    let effects = apply(&mut service, Event::Tick, at(30));
    assert_eq!(effects, [Effect::Signal(number(2), Signal::TERM)], "nobody was steered to it");
    assert!(
        matches!(outcome(&service, 1), Some(Outcome::NotReady { reason }) if reason.contains("30s"))
    );
    assert_eq!(apply(&mut service, Event::Tick, at(40)), [], "it was not told yet");
    apply(&mut service, Event::Told(number(2)), at(41));
    assert_eq!(apply(&mut service, Event::Tick, at(50)), [], "its time begins with the signal");
    assert_eq!(apply(&mut service, Event::Tick, at(51)), [Effect::Kill(number(2))]);
}

#[test]
fn a_found_candidate_that_fails_is_left_alone() {
    let mut service = attached();
    assert_eq!(apply(&mut service, Event::Upgrade(plan(PATIENT), Origin::Found), at(0)), []);
    let failed = Event::Failed(number(2), "not a server".into());
    assert_eq!(apply(&mut service, failed, at(1)), [Effect::Forget(number(2))]);
}

#[test]
fn a_second_upgrade_is_refused_only_while_the_first_is_made_ready() {
    let mut service = attached();
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(0));
    let again = Event::Upgrade(plan(PATIENT), launched());
    let before = service.clone();
    assert_eq!(
        service.apply(again.clone(), at(1)),
        Err(Refusal::RolloutUnderWay(number(2), RolloutId(1)))
    );
    assert_eq!(service, before);
    apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(1));
    assert_eq!(apply(&mut service, again, at(2)), [Effect::Launch(number(3))]);
    let effects = apply(&mut service, Event::Covers(number(3), held(PortHold::Shared)), at(3));
    assert_eq!(
        effects,
        [targets(3, &[2, 1])],
        "both replaced generations drain, the younger is the first to fall back to"
    );
}

#[test]
fn undo_goes_back_while_the_old_one_drains_and_not_after() {
    let mut service = upgraded(PATIENT);
    assert_eq!(apply(&mut service, Event::Undo(drain(PATIENT)), at(2)), [targets(1, &[2])]);
    assert!(matches!(outcome(&service, 1), Some(Outcome::RolledBack { .. })));
    assert_eq!(service.rollout(RolloutId(2)).unwrap().kind, Kind::Undo);
    let mut fresh = attached();
    assert_eq!(fresh.apply(Event::Undo(drain(PATIENT)), at(0)), Err(Refusal::NothingToUndo));
}

#[test]
fn a_primary_that_dies_is_replaced_by_the_one_that_drains() {
    let mut service = upgraded(PATIENT);
    let effects = apply(&mut service, Event::Exited(number(2)), at(2));
    assert_eq!(effects, [targets(1, &[]), Effect::Forget(number(2))]);
    assert!(matches!(outcome(&service, 1), Some(Outcome::RolledBack { .. })));
    assert_eq!(apply(&mut service, Event::Exited(number(1)), at(3)), []);
    assert_eq!(service.primary().unwrap().phase, Phase::Dead);
}

#[test]
fn a_dead_primary_is_forgotten_when_the_next_generation_takes_over() {
    let mut service = attached();
    apply(&mut service, Event::Exited(number(1)), at(1));
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(2));
    let effects = apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(3));
    assert_eq!(effects, [targets(2, &[]), Effect::Forget(number(1))]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed), "nobody is left to drain");
}

#[test]
fn a_drain_deadline_counts_what_was_left() {
    let mut service = upgraded(PATIENT);
    apply(&mut service, Event::Tick, at(2));
    assert_eq!(apply(&mut service, Event::Tick, at(62)), []);
    assert_eq!(count(&mut service, 1, 2, at(62)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 2, at(62)), [Effect::Signal(number(1), Signal::TERM)]);
    apply(&mut service, Event::Exited(number(1)), at(63));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 2 }));
}

#[test]
fn a_graceful_drain_signals_at_once_and_kills_at_its_deadline() {
    let mut service = upgraded(DrainPolicy::Graceful);
    assert_eq!(clear(&mut service, 1, at(1)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 4, at(1)), [Effect::Signal(number(1), Signal::TERM)]);
    count(&mut service, 1, 1, at(5));
    assert_eq!(apply(&mut service, Event::Tick, at(61)), [Effect::Kill(number(1))]);
    apply(&mut service, Event::Exited(number(1)), at(62));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 1 }));
}

#[test]
fn one_that_is_killed_and_does_not_end_is_not_waited_for() {
    let mut service = upgraded(DrainPolicy::Graceful);
    clear(&mut service, 1, at(1));
    last_look(&mut service, 1, 0, at(1));
    assert_eq!(apply(&mut service, Event::Tick, at(61)), [Effect::Kill(number(1))]);
    assert_eq!(service.next_deadline(), Some(at(71)));
    apply(&mut service, Event::Tick, at(70));
    assert_eq!(outcome(&service, 1), None);
    assert_eq!(service.outliving(at(70)).count(), 0);
    apply(&mut service, Event::Tick, at(71));
    assert_eq!(service.outliving(at(71)).collect::<Vec<_>>(), [number(1)]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Outlived { flows_left: 0 }));
    assert_eq!(service.next_deadline(), None, "nothing else comes by time");
    assert_eq!(apply(&mut service, Event::Exited(number(1)), at(500)), [Effect::Forget(number(1))]);
}

#[test]
fn a_release_that_cannot_serve_any_more_is_brought_anew() {
    let release: Release = "v2".parse().unwrap();
    let mut service = attached();
    let plan = Plan { release: Some(release.clone()), ..plan(PATIENT) };
    apply(&mut service, Event::Upgrade(plan, launched()), at(0));
    assert_eq!(service.newest_of(&release), Some(number(2)), "it is being made ready");
    apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(1));
    assert_eq!(service.newest_of(&release), Some(number(2)), "it serves");
    assert_eq!(service.newest_of(&"v1".parse().unwrap()), None);
    for spoil in [|it: &mut Generation| it.deaf = true, |it: &mut Generation| it.stuck = true] {
        let mut service = service.clone();
        spoil(service.generation_mut(number(2)).unwrap());
        assert_eq!(service.newest_of(&release), None);
    }
}

#[test]
fn what_was_written_down_is_read_back() {
    let service = upgraded(DrainPolicy::Patient { idle: Some(SECOND) });
    let text = serde_json::to_string(&service).unwrap();
    assert_eq!(serde_json::from_str::<Service>(&text).unwrap(), service);
}

/// Where the state of one that is stopping was in two places, and when it was told in a third.
#[test]
fn a_stopping_generation_of_an_earlier_version_is_read() {
    let read = |killed: bool| {
        let drain = r#""patience":{"secs":1,"nanos":0},"signal":15,"flows_left":0"#;
        let text = format!(r#"{{"name":"stopping","kill_at":7,"killed":{killed},{drain}}}"#);
        serde_json::from_str::<Phase>(&text).map(|phase| match phase {
            Phase::Stopping { stop, .. } => stop,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(read(true).unwrap(), Stop::Killed { at: Timestamp(7) });
    assert_eq!(read(false).unwrap(), Stop::Signalled { kill_at: Timestamp(7) }, "not twice");
}
