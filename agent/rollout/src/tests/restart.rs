//! A server that somebody else has started anew.

use super::*;

const RESTARTED: Event = Event::Restarted(held(PortHold::Shared), Vec::new());

#[test]
fn where_nobody_serves_who_was_started_anew_is_the_next_generation() {
    let mut service = attached();
    apply(&mut service, Event::Exited(number(1)), at(1));
    assert!(!service.is_served());
    let effects = apply(&mut service, RESTARTED, at(2));
    assert_eq!(effects, [targets(2, &[]), Effect::Forget(number(1))]);
    assert_eq!(phase(&service, 2), &Phase::Primary);
    let rollout = service.rollout(RolloutId(1)).unwrap();
    assert_eq!((rollout.kind, rollout.from, rollout.to), (Kind::Restart, number(1), number(2)));
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed), "nobody is left to drain");
}

#[test]
fn a_deaf_primary_that_lives_drains() {
    let mut service = attached();
    apply(&mut service, Event::Deaf(number(1)), at(1));
    assert_eq!(apply(&mut service, RESTARTED, at(2)), [targets(2, &[1])], "the kernel skips it");
    assert_eq!(clear(&mut service, 1, at(2)), []);
    assert_eq!(count(&mut service, 1, 1, at(3)), []);
    assert_eq!(count(&mut service, 1, 0, at(4)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 0, at(4)), [Effect::Signal(number(1), Signal::TERM)]);
    apply(&mut service, Event::Exited(number(1)), at(5));
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed));
}

#[test]
fn while_somebody_serves_nothing_changes() {
    let mut taken_back = upgraded(PATIENT);
    apply(&mut taken_back, Event::Deaf(number(2)), at(2));
    for mut service in [attached(), upgraded(PATIENT), taken_back] {
        let before = service.clone();
        assert_eq!(apply(&mut service, RESTARTED, at(3)), []);
        assert_eq!(service, before);
    }
}

#[test]
fn who_was_started_anew_serves_until_the_candidate_is_ready() {
    let mut service = attached();
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(1));
    apply(&mut service, Event::Exited(number(1)), at(2));
    let effects = apply(&mut service, RESTARTED, at(3));
    assert_eq!(effects, [targets(3, &[]), Effect::Forget(number(1))]);
    let mut without = service.clone();
    apply(&mut without, Event::Failed(number(2), "it exited".into()), at(4));
    assert_eq!(without.targets(), service.targets(), "it goes on");
    let covers = Event::Covers(number(2), held(PortHold::Shared));
    assert_eq!(apply(&mut service, covers, at(4)), [targets(2, &[3])]);
    let upgrade = service.rollout(RolloutId(1)).unwrap();
    assert_eq!((upgrade.from, upgrade.to), (number(3), number(2)));
    assert_eq!(outcome(&service, 2), Some(&Outcome::Completed));
}

#[test]
fn a_candidate_that_is_given_up_leaves_the_place_free() {
    let mut service = attached();
    apply(&mut service, Event::Exited(number(1)), at(1));
    apply(&mut service, Event::Upgrade(plan(PATIENT), launched()), at(2));
    apply(&mut service, Event::Failed(number(2), "it exited".into()), at(3));
    let effects = apply(&mut service, RESTARTED, at(4));
    assert_eq!(effects, [targets(3, &[]), Effect::Forget(number(1))]);
}

#[test]
fn after_a_crash_on_the_way_the_number_is_not_given_again() {
    let mut service = attached();
    apply(&mut service, Event::Exited(number(1)), at(1));
    let kernel = service.targets();
    let mapped = [number(1), number(2)].into();
    let seen = Seen { steering: kernel, mapped, ..Seen::default() };
    assert_eq!(service.resume(&seen, at(0)), [Effect::Forget(number(2))]);
    let effects = apply(&mut service, RESTARTED, at(2));
    assert_eq!(effects, [targets(3, &[]), Effect::Forget(number(1))]);
    assert_eq!(
        service.resume(&Seen { mapped: [number(1), number(3)].into(), ..seen }, at(0)),
        [targets(3, &[]), Effect::Forget(number(1))]
    );
}

#[test]
fn a_number_that_no_agent_gave_is_forgotten_and_has_no_successor() {
    let mut service = attached();
    let mapped = [number(1), number(u32::MAX)].into();
    let seen = Seen { steering: service.targets(), mapped, ..Seen::default() };
    assert_eq!(service.resume(&seen, at(0)), [Effect::Forget(number(u32::MAX))]);
    assert_eq!(service.next_number(), number(2));
}

#[test]
fn what_came_back_is_told_to_end_and_never_served() {
    let mut service = upgraded(PATIENT);
    apply(&mut service, Event::Exited(number(1)), at(1));
    let serving = service.targets();
    assert_eq!(
        apply(&mut service, Event::CameBack, at(2)),
        [Effect::Signal(number(3), Signal::TERM)]
    );
    assert_eq!(service.targets(), serving);
    assert_eq!(service.clone().apply(Event::Undo(plan(PATIENT).drain), at(2)), {
        Err(Refusal::NothingToUndo)
    });
    apply(&mut service, Event::Told(number(3)), at(2));
    assert_eq!(apply(&mut service, Event::Tick, at(100_000)), [Effect::Kill(number(3))]);
    assert_eq!(
        apply(&mut service, Event::Exited(number(3)), at(100_001)),
        [Effect::Forget(number(3))]
    );
    assert_eq!(service.targets(), serving);
}

#[test]
fn where_nobody_serves_what_came_back_is_not_told_to_end() {
    let mut service = attached();
    apply(&mut service, Event::Exited(number(1)), at(1));
    let before = service.clone();
    assert_eq!(apply(&mut service, Event::CameBack, at(2)), []);
    assert_eq!(service, before);
}
