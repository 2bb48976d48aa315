//! What a new generation has to show before it gets new connections, and after.

use super::*;

fn careful() -> Plan {
    Plan { ready: Readiness::Accept, settle: 3 * SECOND, ..plan(PATIENT) }
}

/// Generation 2 listens.
fn probed() -> Service {
    let mut service = attached();
    apply(&mut service, Event::Upgrade(careful(), launched()), at(0));
    let covers = Event::Covers(number(2), held(PortHold::Moved));
    assert_eq!(apply(&mut service, covers, at(1)), [Effect::Probe(number(2))]);
    service
}

/// Generation 2 has accepted, and has new connections from second 2 to 5 to prove itself.
fn settling() -> Service {
    let mut service = probed();
    let accepted = Event::Accepted(number(2));
    assert_eq!(apply(&mut service, accepted, at(2)), [targets(2, &[1])]);
    assert_eq!(service.rollout(RolloutId(1)).unwrap().status, Status::Settling);
    service
}

/// Generation 1 has nothing left.
fn drained(service: &mut Service, now: Timestamp) {
    assert_eq!(clear(service, 1, now), []);
    assert_eq!(count(service, 1, 0, now), []);
    assert!(matches!(phase(service, 1), Phase::Standby { .. }));
}

fn rolled_back(reason: &str) -> Outcome {
    Outcome::RolledBack { reason: reason.to_owned() }
}

#[test]
fn one_that_listens_gets_nothing_before_it_has_accepted() {
    let mut service = probed();
    assert_eq!(service.targets().unwrap().primary, number(1));
    apply(&mut service, Event::Tick, at(30));
    let reason = "it listens, but has accepted nothing within 30s".to_owned();
    assert_eq!(outcome(&service, 1), Some(&Outcome::NotReady { reason }));
}

#[test]
fn a_listener_that_closes_again_is_not_yet() {
    let mut service = probed();
    assert_eq!(
        apply(&mut service, Event::Lacks(number(2), "it does not listen".into()), at(2)),
        []
    );
    let covers = Event::Covers(number(2), held(PortHold::Shared));
    assert_eq!(apply(&mut service, covers, at(3)), [Effect::Probe(number(2))]);
    apply(&mut service, Event::Lacks(number(2), "it does not listen".into()), at(4));
    apply(&mut service, Event::Tick, at(30));
    let reason = "it did not listen on every endpoint within 30s: it does not listen".to_owned();
    assert_eq!(outcome(&service, 1), Some(&Outcome::NotReady { reason }));
}

#[test]
fn where_nobody_serves_one_that_listens_is_better_than_nobody() {
    let mut service = probed();
    assert_eq!(
        apply(&mut service, Event::Exited(number(1)), at(2)),
        [targets(1, &[2])],
        "connections wait for it"
    );
    let mut useless = service.clone();
    assert_eq!(
        apply(&mut useless, Event::Tick, at(30)),
        [targets(1, &[]), Effect::Signal(number(2), Signal::TERM)],
        "that it listened is no success"
    );
    assert!(matches!(outcome(&useless, 1), Some(Outcome::NotReady { .. })));
    let effects = apply(&mut service, Event::Accepted(number(2)), at(3));
    assert_eq!(effects, [targets(2, &[]), Effect::Forget(number(1))]);
    assert_eq!(service.rollout(RolloutId(1)).unwrap().status, Status::Settling);
    let mut stuck = service.clone();
    assert_eq!(apply(&mut stuck, Event::Stuck(number(2)), at(4)), []);
    assert!(matches!(outcome(&stuck, 1), Some(Outcome::NotReady { .. })), "nor is this");
    apply(&mut service, Event::Tick, at(6));
    assert_eq!(outcome(&service, 1), Some(&Outcome::OldDied { flows: 0 }));
}

#[test]
fn who_comes_back_is_fallen_back_to_while_the_new_one_proves_itself() {
    let mut service = settling();
    apply(&mut service, Event::Exited(number(1)), at(2));
    let effects = apply(&mut service, Event::Restarted(held(PortHold::Shared), Vec::new()), at(2));
    assert_eq!(effects, [targets(2, &[3])]);
    let mut died = service.clone();
    let effects = apply(&mut died, Event::Exited(number(2)), at(3));
    assert_eq!(effects, [targets(3, &[]), Effect::Forget(number(2))]);
    assert!(matches!(outcome(&died, 1), Some(Outcome::RolledBack { .. })));
    apply(&mut service, Event::Tick, at(60));
    assert!(!service.settles());
    assert!(!service.generation(number(3)).unwrap().can_take_over() || service.is_served());
}

#[test]
fn after_a_restart_of_the_agent_it_has_to_prove_itself_anew() {
    let mut service = settling();
    let seen = Seen {
        steering: service.targets(),
        mapped: [number(1), number(2)].into(),
        ..Seen::default()
    };
    assert_eq!(service.resume(&seen, at(100)), []);
    apply(&mut service, Event::Tick, at(100));
    assert_eq!(service.settling(), Some(number(2)));
    let effects = apply(&mut service, Event::Stuck(number(2)), at(101));
    assert_eq!(effects, [targets(1, &[2])]);
}

#[test]
fn the_old_one_is_told_nothing_until_the_new_one_has_settled() {
    let mut service = settling();
    drained(&mut service, at(2));
    assert_eq!(apply(&mut service, Event::Tick, at(4)), []);
    assert_eq!(outcome(&service, 1), None);
    assert_eq!(service.next_deadline(), Some(at(5)));
    apply(&mut service, Event::Tick, at(5));
    assert_eq!(service.rollout(RolloutId(1)).unwrap().status, Status::Draining);
    assert_eq!(count(&mut service, 1, 0, at(5)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 0, at(5)), [Effect::Signal(number(1), Signal::TERM)]);
}

#[test]
fn neither_a_graceful_drain_nor_its_deadline_ends_the_old_one_earlier() {
    for policy in [DrainPolicy::Graceful, PATIENT] {
        let mut service = attached();
        let drain = DrainPlan { timeout: SECOND, ..drain(policy) };
        let plan = Plan { ready: Readiness::Listen, drain, ..careful() };
        apply(&mut service, Event::Upgrade(plan, launched()), at(1));
        apply(&mut service, Event::Covers(number(2), held(PortHold::Shared)), at(2));
        assert_eq!(clear(&mut service, 1, at(2)), []);
        assert_eq!(count(&mut service, 1, 1, at(4)), []);
        apply(&mut service, Event::Tick, at(5));
        count(&mut service, 1, 1, at(5));
        assert!(matches!(phase(&service, 1), Phase::Parting { .. }), "{policy:?}");
    }
}

#[test]
fn one_that_dies_while_it_settles_is_taken_back() {
    let mut service = settling();
    drained(&mut service, at(2));
    let effects = apply(&mut service, Event::Exited(number(2)), at(3));
    assert_eq!(effects, [targets(1, &[]), Effect::Forget(number(2))]);
    assert_eq!(outcome(&service, 1), Some(&rolled_back("generation 2 died")));
}

#[test]
fn one_that_accepts_nothing_while_it_settles_is_taken_back_and_ends_at_once() {
    let mut service = settling();
    drained(&mut service, at(2));
    assert_eq!(apply(&mut service, Event::Stuck(number(2)), at(3)), [targets(1, &[2])]);
    assert_eq!(
        outcome(&service, 1),
        Some(&rolled_back("generation 2 accepted no more connections"))
    );
    apply(&mut service, Event::Tick, at(3));
    let queued = Flows { open: 5, queued: 5, idle: SECOND };
    if let Some(it) = service.generation_mut(number(2)) {
        it.hold = PortHold::Shared;
    }
    assert_eq!(apply(&mut service, Event::Flows(number(2), queued), at(3)), [targets(1, &[])]);
    let look = Event::LastLook(number(2), Queues::Waiting(5), queued);
    assert_eq!(apply(&mut service, look, at(3)), [Effect::Signal(number(2), Signal::TERM)]);
}

#[test]
fn one_that_has_settled_may_be_busy() {
    let mut service = settling();
    drained(&mut service, at(2));
    apply(&mut service, Event::Tick, at(5));
    assert_eq!(apply(&mut service, Event::Stuck(number(2)), at(6)), []);
    assert_eq!(service.primary().unwrap().number, number(2));
}

#[test]
fn undo_need_not_settle() {
    let mut service = settling();
    drained(&mut service, at(2));
    assert_eq!(apply(&mut service, Event::Undo(drain(PATIENT)), at(3)), [targets(1, &[2])]);
    assert_eq!(outcome(&service, 1), Some(&rolled_back(UNDONE)));
    assert_eq!(service.rollout(RolloutId(2)).unwrap().status, Status::Draining);
}

#[test]
fn what_was_said_of_a_completed_rollout_is_corrected() {
    let mut service = upgraded_keeping(PATIENT, 60);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed));
    apply(&mut service, Event::Exited(number(2)), at(30));
    assert_eq!(outcome(&service, 1), Some(&rolled_back("generation 2 died")));
}

#[test]
fn an_old_one_that_dies_does_not_spare_the_new_one_to_prove_itself() {
    let mut service = settling();
    apply(&mut service, Event::Exited(number(1)), at(3));
    assert_eq!(outcome(&service, 1), None);
    apply(&mut service, Event::Exited(number(2)), at(4));
    assert_eq!(outcome(&service, 1), Some(&Outcome::NewDied));
}

#[test]
fn the_next_upgrade_does_not_wait_until_the_last_one_has_settled() {
    let mut service = settling();
    drained(&mut service, at(2));
    apply(&mut service, Event::Upgrade(careful(), launched()), at(3));
    apply(&mut service, Event::Covers(number(3), held(PortHold::Shared)), at(3));
    assert_eq!(apply(&mut service, Event::Accepted(number(3)), at(4)), [targets(3, &[2, 1])]);
    for rollout in [1, 2] {
        assert_eq!(service.rollout(RolloutId(rollout)).unwrap().status, Status::Settling);
    }
    apply(&mut service, Event::Tick, at(6));
    assert!(matches!(phase(&service, 1), Phase::Standby { .. }), "nobody has proved itself yet");
    apply(&mut service, Event::Tick, at(7));
    assert!(!matches!(phase(&service, 1), Phase::Standby { .. }), "generation 3 has");
    assert_ne!(service.rollout(RolloutId(1)).unwrap().status, Status::Settling);
}

#[test]
fn one_that_was_replaced_too_early_has_to_prove_itself_when_it_serves_again() {
    let mut service = settling();
    drained(&mut service, at(2));
    apply(&mut service, Event::Upgrade(careful(), launched()), at(3));
    apply(&mut service, Event::Covers(number(3), held(PortHold::Shared)), at(3));
    apply(&mut service, Event::Accepted(number(3)), at(4));
    let effects = apply(&mut service, Event::Exited(number(3)), at(6));
    assert!(effects.contains(&targets(2, &[1])), "{effects:?}");
    assert_eq!(service.rollout(RolloutId(1)).unwrap().settled, Some(at(9)));
    let effects = apply(&mut service, Event::Stuck(number(2)), at(8));
    assert_eq!(effects, [targets(1, &[2])]);
    let reason = "generation 2 accepted no more connections".to_owned();
    assert_eq!(outcome(&service, 1), Some(&Outcome::RolledBack { reason }));
}
