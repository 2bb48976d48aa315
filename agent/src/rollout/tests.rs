//! The rollout against random histories, and the histories that matter one by one.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::service::{GenerationNumber, ServiceId};

const SECOND: Duration = Duration::from_secs(1);

fn drain(policy: DrainPolicy) -> DrainPlan {
    DrainPlan {
        policy,
        signal: 15,
        queue_timeout: SECOND,
        timeout: 60 * SECOND,
        stop_timeout: 10 * SECOND,
    }
}

fn plan(policy: DrainPolicy) -> Plan {
    Plan { ready_timeout: 30 * SECOND, drain: drain(policy) }
}

const PATIENT: DrainPolicy = DrainPolicy::Patient { idle: None };

fn launched() -> Origin {
    Origin::Launched { command: vec!["server".into()], cgroup: "/c".into(), log: "/l".into() }
}

fn attached() -> Service {
    let first = Generation {
        number: GenerationNumber(1),
        phase: Phase::Primary,
        origin: Origin::Found,
        hold: PortHold::Shared,
        since: Timestamp(0),
        processes: Vec::new(),
        listeners: Vec::new(),
    };
    Service::attached(ServiceId(1), "web".parse().unwrap(), Vec::new(), first)
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
        apply(&mut service, Event::Ready(number(2), PortHold::Shared), at(1)),
        [targets(2, &[1])]
    );
    service
}

fn outcome(service: &Service, id: u64) -> Option<&Outcome> {
    match &service.rollout(RolloutId(id))?.status {
        Status::Ended(outcome) => Some(outcome),
        Status::MakingReady | Status::Draining => None,
    }
}

#[test]
fn an_upgrade_switches_then_drains_then_signals_then_forgets() {
    let mut service = upgraded(PATIENT);
    let one = number(1);
    assert_eq!(apply(&mut service, Event::Queues(one, Queues::Empty), at(1)), []);
    assert_eq!(apply(&mut service, Event::Queues(one, Queues::Empty), at(1)), []);
    assert!(matches!(service.generation(one).unwrap().phase, Phase::Draining { .. }));
    let busy = Flows { open: 3, idle: 100 * SECOND };
    assert_eq!(apply(&mut service, Event::Flows(one, busy), at(2)), []);
    let empty = Flows { open: 0, idle: SECOND };
    assert_eq!(
        apply(&mut service, Event::Flows(one, empty), at(3)),
        [targets(2, &[]), Effect::Signal(one, 15)]
    );
    assert_eq!(apply(&mut service, Event::Exited(one), at(4)), [Effect::Forget(one)]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed));
}

#[test]
fn one_empty_look_between_two_full_ones_does_not_settle() {
    let mut service = upgraded(PATIENT);
    for queues in [Queues::Empty, Queues::Waiting, Queues::Empty, Queues::Waiting] {
        apply(&mut service, Event::Queues(number(1), queues), at(1));
        assert!(matches!(service.generation(number(1)).unwrap().phase, Phase::Settling { .. }));
    }
    apply(&mut service, Event::Tick, at(2));
    assert!(
        matches!(service.generation(number(1)).unwrap().phase, Phase::Draining { .. }),
        "queue timeout"
    );
}

#[test]
fn a_candidate_that_never_listens_is_stopped_and_the_old_one_keeps_serving() {
    let mut service = attached();
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(0));
    assert_eq!(apply(&mut service, Event::Tick, at(29)), []);
    let effects = apply(&mut service, Event::Tick, at(30));
    assert_eq!(effects, [targets(1, &[]), Effect::Signal(number(2), 15)]);
    assert!(
        matches!(outcome(&service, 1), Some(Outcome::NotReady { reason }) if reason.contains("30s"))
    );
    assert_eq!(apply(&mut service, Event::Tick, at(40)), [Effect::Kill(number(2))]);
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
    apply(&mut service, Event::Ready(number(2), PortHold::Shared), at(1));
    assert_eq!(apply(&mut service, again, at(2)), [Effect::Launch(number(3))]);
    let effects = apply(&mut service, Event::Ready(number(3), PortHold::Shared), at(3));
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
    let effects = apply(&mut service, Event::Ready(number(2), PortHold::Shared), at(3));
    assert_eq!(effects, [targets(2, &[]), Effect::Forget(number(1))]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed), "nobody is left to drain");
}

#[test]
fn a_drain_deadline_counts_what_was_left() {
    let mut service = upgraded(PATIENT);
    apply(&mut service, Event::Tick, at(2));
    assert_eq!(apply(&mut service, Event::Tick, at(62)), []);
    let flows = Flows { open: 2, idle: SECOND };
    assert_eq!(apply(&mut service, Event::Flows(number(1), flows), at(62)).len(), 2);
    apply(&mut service, Event::Exited(number(1)), at(63));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 2 }));
}

#[test]
fn a_graceful_drain_signals_at_once_and_kills_at_its_deadline() {
    let mut service = upgraded(DrainPolicy::Graceful);
    apply(&mut service, Event::Queues(number(1), Queues::Empty), at(1));
    let effects = apply(&mut service, Event::Queues(number(1), Queues::Empty), at(1));
    assert_eq!(effects, [targets(2, &[]), Effect::Signal(number(1), 15)]);
    apply(&mut service, Event::Flows(number(1), Flows { open: 1, idle: SECOND }), at(5));
    assert_eq!(apply(&mut service, Event::Tick, at(61)), [Effect::Kill(number(1))]);
    apply(&mut service, Event::Exited(number(1)), at(62));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 1 }));
}

#[test]
fn what_was_written_down_is_read_back() {
    let service = upgraded(DrainPolicy::Patient { idle: Some(SECOND) });
    let text = serde_json::to_string(&service).unwrap();
    assert_eq!(serde_json::from_str::<Service>(&text).unwrap(), service);
}

#[derive(Clone, Debug)]
enum Step {
    Upgrade(DrainPolicy),
    Undo,
    Ready(u32),
    Failed(u32),
    Exited(u32),
    Queues(u32, Queues),
    Flows(u32, u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let policy = prop_oneof![
        Just(PATIENT),
        Just(DrainPolicy::Graceful),
        Just(DrainPolicy::Patient { idle: Some(SECOND) })
    ];
    let one = 1..8_u32;
    let queues = prop_oneof![Just(Queues::Empty), Just(Queues::Waiting)];
    let step = prop_oneof![
        3 => policy.prop_map(Step::Upgrade),
        1 => Just(Step::Undo),
        3 => one.clone().prop_map(Step::Ready),
        1 => one.clone().prop_map(Step::Failed),
        1 => one.clone().prop_map(Step::Exited),
        4 => (one.clone(), queues).prop_map(|(one, queues)| Step::Queues(one, queues)),
        2 => (one, 0..3_u64).prop_map(|(one, open)| Step::Flows(one, open)),
        2 => (0..40_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

/// What really lives, kept apart from the service's own opinion.
struct World {
    service: Service,
    now: Timestamp,
    alive: BTreeSet<GenerationNumber>,
    steered: Targets,
}

impl World {
    fn new() -> Self {
        let steered = Targets { primary: number(1), standbys: Vec::new() };
        Self { service: attached(), now: at(0), alive: BTreeSet::from([number(1)]), steered }
    }

    fn take(&mut self, step: &Step) {
        let event = match *step {
            Step::Upgrade(policy) => Event::Upgrade(plan(policy), launched()),
            Step::Undo => Event::Undo(drain(PATIENT)),
            Step::Ready(one) if self.alive.contains(&number(one)) => {
                Event::Ready(number(one), PortHold::Shared)
            }
            Step::Failed(one) => Event::Failed(number(one), "test".into()),
            Step::Exited(one) => {
                self.alive.remove(&number(one));
                Event::Exited(number(one))
            }
            Step::Queues(one, queues) => Event::Queues(number(one), queues),
            Step::Flows(one, open) => Event::Flows(number(one), Flows { open, idle: SECOND }),
            Step::Wait(seconds) => {
                self.now = self.now.after(Duration::from_secs(seconds));
                Event::Tick
            }
            Step::Ready(_) => return,
        };
        self.feed(event);
    }

    fn feed(&mut self, event: Event) {
        let before = self.service.clone();
        match self.service.apply(event, self.now) {
            Ok(effects) => effects.iter().for_each(|effect| self.execute(effect)),
            Err(_) => assert_eq!(self.service, before, "a refusal changes nothing"),
        }
    }

    fn execute(&mut self, effect: &Effect) {
        match effect {
            Effect::Launch(one) => {
                assert!(self.alive.insert(*one), "generation {one} launched twice");
            }
            Effect::Steer(targets) => self.steered = targets.clone(),
            Effect::Signal(one, _) | Effect::Kill(one) => {
                let steered = &self.steered;
                assert!(
                    steered.primary != *one && !steered.standbys.contains(one),
                    "{one} ends while steered to"
                );
            }
            Effect::Forget(one) => {
                assert!(self.steered.primary != *one, "{one} forgotten while steered to");
            }
        }
    }

    fn check(&self) {
        let primaries = self
            .service
            .generations
            .iter()
            .filter(|it| matches!(it.phase, Phase::Primary | Phase::Dead));
        assert_eq!(primaries.count(), 1, "exactly one generation is (or was last) the primary");
        let serving = |one: &GenerationNumber| {
            self.service.generation(*one).is_some_and(Generation::can_serve)
        };
        if self.alive.iter().any(serving) {
            assert!(
                self.alive.contains(&self.steered.primary),
                "a live generation is steered to if one can serve"
            );
        }
        assert_eq!(
            self.service.targets().as_ref(),
            Some(&self.steered),
            "the kernel has what the service wants"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn steering_never_leads_to_a_generation_that_was_told_to_end(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check();
        }
    }

    #[test]
    fn every_rollout_ends(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        for round in 0..200 {
            world.take(&Step::Wait(20));
            let numbers: Vec<_> = world.service.generations.iter().map(|it| (it.number, it.phase.clone())).collect();
            for (number, phase) in numbers {
                match phase {
                    Phase::Draining { .. } | Phase::Finishing { .. } => world.take(&Step::Flows(number.0, 1)),
                    Phase::Stopping { killed: true, .. } => world.take(&Step::Exited(number.0)),
                    _ => {}
                }
            }
            if world.service.rollouts.iter().all(Rollout::is_ended) {
                return Ok(());
            }
            prop_assert!(round < 199, "{:#?}", world.service);
        }
    }
}
