//! How a generation leaves, dies, or comes back.

use std::collections::BTreeSet;

use super::*;

#[test]
fn what_the_kernel_gave_to_a_standby_is_found_by_the_last_look() {
    let mut service = upgraded(PATIENT);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    let waiting =
        Event::LastLook(number(1), Queues::Waiting(2), Flows { open: 0, queued: 0, idle: SECOND });
    assert_eq!(apply(&mut service, waiting, at(2)), []);
    assert_eq!(last_look(&mut service, 1, 2, at(2)), [targets(2, &[1])], "it drains on");
    assert!(matches!(phase(&service, 1), Phase::Draining { .. }));
    assert_eq!(service.rollout(RolloutId(1)).unwrap().waited, 2);
}

/// As where clients have begun to connect and never go on: what they left is in the queues for a minute.
#[test]
fn the_time_for_queues_is_spent_once_before_a_signal() {
    const WAIT: Flows = Flows { open: 0, queued: 0, idle: SECOND };
    let signals = [Effect::Signal(number(1), Signal::TERM)];
    let last = |waiting| Event::LastLook(number(1), Queues::Waiting(waiting), WAIT);
    let mut service = upgraded(PATIENT);
    assert_eq!(apply(&mut service, Event::Tick, at(2)), [], "its time is up");
    assert_eq!(count(&mut service, 1, 0, at(2)), [targets(2, &[])]);
    assert_eq!(apply(&mut service, last(1), at(2)), signals, "and is up");

    // What was not needed at first is there at last.
    let mut service = upgraded(PATIENT);
    clear(&mut service, 1, Timestamp(1400));
    count(&mut service, 1, 0, at(9));
    assert_eq!(apply(&mut service, last(1), Timestamp(9599)), []);
    assert_eq!(apply(&mut service, last(1), Timestamp(9600)), signals);

    // A second turn has its own.
    let mut service = upgraded(PATIENT);
    apply(&mut service, Event::Tick, at(2));
    apply(&mut service, Event::Undo(drain(PATIENT)), at(3));
    apply(&mut service, Event::Undo(drain(PATIENT)), at(4));
    assert!(matches!(phase(&service, 1), Phase::Clearing { until, .. } if *until == at(5)));
}

#[test]
fn a_primary_that_dies_before_the_last_look_is_replaced_by_the_parting_one() {
    let mut service = upgraded(PATIENT);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    let effects = apply(&mut service, Event::Exited(number(2)), at(2));
    assert_eq!(effects, [targets(1, &[]), Effect::Forget(number(2))]);
    assert_eq!(last_look(&mut service, 1, 0, at(2)), []);
}

#[test]
fn a_generation_is_kept_as_standby_after_its_drain() {
    let mut service = upgraded_keeping(PATIENT, 60);
    clear(&mut service, 1, at(1));
    assert_eq!(count(&mut service, 1, 0, at(2)), [], "steering still falls back to it");
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed));
    assert_eq!(service.next_deadline(), Some(at(61)));
    assert_eq!(apply(&mut service, Event::Tick, at(60)), []);
    assert!(matches!(phase(&service, 1), Phase::Standby { .. }));

    apply(&mut service, Event::Tick, at(61));
    assert_eq!(count(&mut service, 1, 1, at(62)), [], "it got a flow by a fallback");
    assert_eq!(count(&mut service, 1, 0, at(63)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 0, at(63)), [Effect::Signal(number(1), Signal::TERM)]);
}

#[test]
fn undo_goes_back_to_a_standby() {
    let mut service = upgraded_keeping(PATIENT, 60);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    assert_eq!(apply(&mut service, Event::Undo(drain(PATIENT)), at(30)), [targets(1, &[2])]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::Completed), "what has ended stays ended");
}

#[test]
fn a_graceful_standby_is_told_when_its_time_is_over() {
    let mut service = upgraded_keeping(DrainPolicy::Graceful, 30);
    assert_eq!(clear(&mut service, 1, at(1)), []);
    assert_eq!(count(&mut service, 1, 2, at(2)), []);
    assert_eq!(service.next_deadline(), Some(at(31)));
    assert_eq!(apply(&mut service, Event::Tick, at(31)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 2, at(31)), [Effect::Signal(number(1), Signal::TERM)]);
    assert!(matches!(phase(&service, 1), Phase::Finishing { .. }));
}

#[test]
fn the_drain_deadline_ends_flows_although_the_generation_was_to_be_kept() {
    let mut service = upgraded_keeping(PATIENT, 3600);
    clear(&mut service, 1, at(1));
    assert_eq!(count(&mut service, 1, 2, at(61)), [targets(2, &[])]);
    assert_eq!(last_look(&mut service, 1, 2, at(61)), [Effect::Signal(number(1), Signal::TERM)]);
    apply(&mut service, Event::Exited(number(1)), at(62));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 2 }));
}

#[test]
fn a_deaf_primary_is_replaced_and_drains() {
    let mut service = upgraded(PATIENT);
    let effects = apply(&mut service, Event::Deaf(number(2)), at(2));
    assert_eq!(effects, [targets(1, &[2])]);
    let reason = "generation 2 closed its listener".to_owned();
    assert_eq!(outcome(&service, 1), Some(&Outcome::RolledBack { reason }));
    clear(&mut service, 2, at(3));
    assert_eq!(count(&mut service, 2, 0, at(4)), [targets(1, &[])]);
    assert_eq!(last_look(&mut service, 2, 0, at(4)), [Effect::Signal(number(2), Signal::TERM)]);
}

#[test]
fn nobody_falls_back_to_a_deaf_generation() {
    let mut service = upgraded(PATIENT);
    assert_eq!(apply(&mut service, Event::Deaf(number(1)), at(2)), []);
    let refused = service.apply(Event::Undo(drain(PATIENT)), at(2));
    assert_eq!(refused, Err(Refusal::NothingToUndo));
    assert_eq!(apply(&mut service, Event::Deaf(number(2)), at(3)), [], "nobody can take over");
    assert_eq!(service.primary().unwrap().number, number(2));
}

#[test]
fn an_old_generation_that_dies_takes_its_flows_with_it() {
    let mut service = upgraded(PATIENT);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 7, at(2));
    let effects = apply(&mut service, Event::Exited(number(1)), at(3));
    assert_eq!(effects, [targets(2, &[]), Effect::Forget(number(1))]);
    assert_eq!(outcome(&service, 1), Some(&Outcome::OldDied { flows: 7 }));
}

#[test]
fn a_new_generation_that_dies_when_the_old_one_was_told_to_end_fails_the_rollout() {
    let mut service = upgraded(PATIENT);
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    last_look(&mut service, 1, 0, at(2));
    assert_eq!(apply(&mut service, Event::Exited(number(2)), at(3)), []);
    assert_eq!(outcome(&service, 1), Some(&Outcome::NewDied));
    assert_eq!(service.primary().unwrap().phase, Phase::Dead);
}

/// What the world shows of a service for which all was done.
fn all_done(service: &Service) -> Seen {
    let numbers: BTreeSet<_> = service.generations.iter().map(|it| it.number).collect();
    Seen {
        steering: service.targets(),
        listening: numbers.clone(),
        alive: numbers.clone(),
        mapped: numbers,
    }
}

#[test]
fn after_a_restart_only_what_was_not_done_is_done() {
    let mut service = upgraded(PATIENT);
    let before = service.targets();
    clear(&mut service, 1, at(1));
    count(&mut service, 1, 0, at(2));
    let seen = Seen { steering: before, ..all_done(&service) };
    assert_eq!(service.resume(&seen, at(0)), [targets(2, &[])]);
    assert_eq!(service.resume(&all_done(&service), at(0)), []);

    last_look(&mut service, 1, 0, at(2));
    let signal = Effect::Signal(number(1), Signal::TERM);
    assert_eq!(service.resume(&all_done(&service), at(0)), [signal]);
    let closed = Seen { listening: [number(2)].into(), ..all_done(&service) };
    assert_eq!(service.resume(&closed, at(0)), [], "it closed its listener when it was told");
    apply(&mut service, Event::Told(number(1)), at(2));
    assert_eq!(service.resume(&all_done(&service), at(0)), []);

    apply(&mut service, Event::Tick, at(12));
    assert_eq!(service.resume(&all_done(&service), at(0)), [Effect::Kill(number(1))]);
    let mapped = all_done(&service).mapped;
    apply(&mut service, Event::Exited(number(1)), at(13));
    let seen = Seen { mapped, ..all_done(&service) };
    assert_eq!(service.resume(&seen, at(0)), [Effect::Forget(number(1))]);
}

#[test]
fn connections_that_wait_are_migrated_and_not_counted_as_cut() {
    let mut service = upgraded(PATIENT);
    apply(&mut service, Event::Tick, at(2));
    let flows = Flows { open: 23, queued: 20, idle: SECOND };
    assert_eq!(apply(&mut service, Event::Flows(number(1), flows), at(62)), [targets(2, &[])]);
    let look = Event::LastLook(number(1), Queues::Waiting(20), flows);
    assert_eq!(apply(&mut service, look, at(62)), [Effect::Signal(number(1), Signal::TERM)]);
    apply(&mut service, Event::Exited(number(1)), at(601));
    assert_eq!(outcome(&service, 1), Some(&Outcome::DeadlinePassed { flows_left: 3 }));
}
