//! G9: only a death alone makes a dead letter.

use crate::state::lease::Prospect;
use crate::state::tests::*;

fn limited(max_attempts: u32) -> GroupOptions {
    GroupOptions { max_attempts, ..options() }
}

/// Ends the process while it works on what it has leased, and lets what was out be ready again.
fn crash(world: &mut World) {
    world.open(false);
    world.advance(options().backoff.max_ms);
}

#[test]
fn five_deaths_make_a_dead_letter_and_the_last_is_alone() {
    let mut world = World::with(1, limited(5));
    world.publish(0, 1);
    for attempt in 1..=5 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.exclusive), (attempt, attempt == 5));
        crash(&mut world);
    }
    assert!(matches!(world.try_lease(KITCHEN, 1).0, Decision::Exhausted { .. }));
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Crashed; 5]);
}

#[test]
fn whoever_dies_beside_others_on_the_last_attempt_gets_one_more_alone() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 10);
    assert_eq!(world.lease(KITCHEN, 10).len(), 10);
    crash(&mut world);
    for offset in 0..10 {
        let lent = world.lease(KITCHEN, 10);
        assert_eq!((places(&lent), lent[0].attempt, lent[0].exclusive), (vec![(0, offset)], 2, true));
        if offset == 6 {
            crash(&mut world);
            let (decision, _) = world.try_lease(KITCHEN, 10);
            assert_eq!(decision, Decision::Exhausted { partition: PartitionId(0), offset: Offset(6) });
            world.give_up(KITCHEN, (0, 6)).unwrap();
        } else {
            world.ack(KITCHEN, &[lent[0].held]);
        }
    }
    assert_eq!(world.counts(KITCHEN), Totals { dead: 1, ..Totals::default() });
}

#[test]
fn a_clean_close_is_no_crash() {
    let mut world = World::with(1, GroupOptions { max_closes: 0, ..limited(3) });
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    for attempt in 2..=3 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.exclusive), (attempt, false));
        world.open(true);
        world.advance(options().backoff.max_ms);
    }
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(
        causes(&provenance(&records).history),
        [FailureCause::Crashed, FailureCause::Closed, FailureCause::Closed]
    );
}

#[test]
fn an_uncharged_close_leaves_an_exclusive_claim() {
    for max_attempts in [1, 2] {
        let mut world = World::with(1, limited(max_attempts));
        world.publish(0, 1);
        world.lease_one(KITCHEN);
        crash(&mut world);
        for _ in 0..3 {
            let lent = world.lease_one(KITCHEN);
            assert_eq!((lent.attempt, lent.exclusive), (2, true));
            world.open(true);
        }
    }
}

#[test]
fn an_attempt_that_ends_otherwise_clears_the_crash() {
    let ends: [fn(&mut World, Held); 3] = [
        |world, held| drop(world.nack(KITCHEN, held, Some(0), "").unwrap()),
        |world, _| world.advance(TIMEOUT_MS + options().backoff.max_ms),
        |world, _| {
            world.open(true);
            world.advance(options().backoff.max_ms);
        },
    ];
    for end in ends {
        let mut world = World::with(1, GroupOptions { max_closes: 0, ..limited(3) });
        world.publish(0, 1);
        world.lease_one(KITCHEN);
        crash(&mut world);
        let lent = world.lease_one(KITCHEN);
        assert!(!lent.exclusive);
        end(&mut world, lent.held);
        let lent = world.lease_one(KITCHEN);
        assert_eq!(
            (lent.attempt, lent.exclusive),
            (3, false),
            "the last attempt, with no crash on the account any more"
        );
    }
    // What is given back unused was no attempt.
    let mut world = World::with(1, limited(2));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    let lent = world.lease_one(KITCHEN);
    assert!(lent.exclusive);
    world.release(KITCHEN, lent.held).unwrap();
    assert!(world.lease_one(KITCHEN).exclusive);
}

#[test]
fn crashes_among_others_end_in_the_letters_too() {
    let mut world = World::with(1, limited(2));
    let other = world.group("other", &GroupOptions { visibility_timeout_ms: 1_000_000, ..limited(0) });
    world.publish(0, 1);
    for attempt in 1..=4 {
        // Somebody always has a lease, so the message is never alone.
        world.lease_one(other);
        let mut lent = world.try_lease(KITCHEN, 1).1;
        if lent.is_empty() {
            world.advance(HOLD_UP_MS);
            lent = world.try_lease(KITCHEN, 1).1;
        }
        assert_eq!((lent[0].attempt, lent[0].exclusive), (attempt, false));
        crash(&mut world);
    }
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Crashed; 4]);
}

/// A message of the kitchen that needs an exclusive lease, and another group with a live one.
fn awaiting() -> (World, GroupId, Lent) {
    let mut world = World::with(1, limited(2));
    let other = world.group("other", &limited(2));
    world.publish(0, 3);
    world.lease_one(KITCHEN);
    crash(&mut world);
    let held_up_by = world.lease_one(other);
    (world, other, held_up_by)
}

#[test]
fn an_exclusive_lease_is_awaited_while_others_are_live_and_holds_up_the_store() {
    let (mut world, other, held_up_by) = awaiting();
    world.advance(100);
    let (decision, records) = world
        .run(Command::Lease { group: KITCHEN, max: 9, pass_exhausted: false, new_last: None, keys: None, looked_at: 0 })
        .unwrap();
    let until = MonoMs(world.mono + HOLD_UP_MS);
    assert_eq!(decision, Decision::Done);
    assert!(matches!(records[..], [Record::ExclusivePending { since, .. }] if since.0 == world.mono));
    assert!(world.is_held_up());
    assert_eq!(world.lease(KITCHEN, 9), []);
    assert_eq!(world.lease(other, 9), []);
    for group in [KITCHEN, other] {
        let soonest = world.state.next_deadline(group, &world.inputs()).mono;
        assert_eq!(soonest, Some(until), "the wait ends before the other lease does");
    }
    world.hold_up = 2 * TIMEOUT_MS;
    let soonest = world.state.next_deadline(KITCHEN, &world.inputs()).mono;
    assert_eq!(soonest, Some(held_up_by.until), "the other lease ends before the wait does");
    world.hold_up = HOLD_UP_MS;
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 5 * TIMEOUT_MS }).unwrap();
    world.ack(other, &[held_up_by.held]);
    assert_eq!(world.lease(other, 9), [], "only the one that waits");
    let lent = world.lease(KITCHEN, 9);
    assert!(lent.len() == 1 && lent[0].exclusive && lent[0].attempt == 2);
    assert_eq!(world.state.next_deadline(other, &world.inputs()).mono, Some(until), "the wait counts too");
    assert_eq!((world.lease(KITCHEN, 9), world.lease(other, 9)), (vec![], vec![]));
    world.ack(KITCHEN, &[lent[0].held]);
    assert!(!world.is_held_up());
    assert_eq!((world.lease(KITCHEN, 9).len(), world.lease(other, 9).len()), (2, 2));
}

#[test]
fn a_wait_in_vain_ends_and_the_message_goes_among_others() {
    let (mut world, other, held_up_by) = awaiting();
    let extend = Command::Extend { group: other, held: held_up_by.held, for_ms: 100 * TIMEOUT_MS };
    world.run(extend).unwrap();
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Done, vec![]));
    world.advance(HOLD_UP_MS - 1);
    assert_eq!((world.lease(KITCHEN, 1), world.lease(other, 1)), (vec![], vec![]));
    world.advance(1);
    assert!(!world.is_held_up());
    assert_eq!(world.lease(other, 1).len(), 1);
    let lent = world.lease_one(KITCHEN);
    assert_eq!((lent.at(), lent.attempt, lent.exclusive), ((0, 0), 2, false));
    // It was not alone, so a crash is not held against it alone.
    crash(&mut world);
    let lent = world.lease_one(KITCHEN);
    assert_eq!((lent.at(), lent.attempt, lent.exclusive), ((0, 0), 3, true));
}

#[test]
fn an_exclusive_lease_holds_others_up_for_a_while_only() {
    let (mut world, other, held_up_by) = awaiting();
    world.ack(other, &[held_up_by.held]);
    let exclusive = world.lease_one(KITCHEN);
    assert!(exclusive.exclusive);
    world.advance(HOLD_UP_MS - 1);
    assert_eq!(world.lease(other, 1), []);
    world.advance(1);
    assert_eq!(world.lease(other, 1).len(), 1);
    // Now it is a lease among others: it may be extended after its end, and a crash is not an exclusive one.
    world.advance(TIMEOUT_MS);
    world.run(Command::Extend { group: KITCHEN, held: exclusive.held, for_ms: TIMEOUT_MS }).unwrap();
    crash(&mut world);
    assert!(world.lease_one(KITCHEN).exclusive, "one more alone");
}

#[test]
fn where_nothing_may_be_held_up_any_more_nothing_is() {
    let (mut world, other, _) = awaiting();
    world.hold_up = 0;
    let lent = world.lease_one(KITCHEN);
    assert_eq!((lent.at(), lent.exclusive), ((0, 0), false));
    assert_eq!(world.lease(other, 1).len(), 1);
}

#[test]
fn while_it_is_awaited_an_idle_store_grants_it_at_once() {
    let (mut world, other, held_up_by) = awaiting();
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 100 * TIMEOUT_MS }).unwrap();
    let goes_alone = |world: &World| world.state.goes_alone(MonoMs(world.mono), HoldUp(HOLD_UP_MS));
    assert_eq!(goes_alone(&world), None);
    world.try_lease(KITCHEN, 9);
    assert_eq!(goes_alone(&world), Some((KITCHEN, MonoMs(world.mono + 100 * TIMEOUT_MS))));
    world.ack(other, &[held_up_by.held]);
    assert_eq!(goes_alone(&world), Some((KITCHEN, MonoMs(world.mono))));
    assert!(world.lease_one(KITCHEN).exclusive);
}

#[test]
fn an_expired_lease_holds_nothing_up() {
    let (mut world, _, _) = awaiting();
    world.advance(TIMEOUT_MS);
    assert!(world.lease_one(KITCHEN).exclusive);
}

#[test]
fn no_expired_lease_comes_back_beside_an_exclusive_one() {
    let (mut world, other, zombie) = awaiting();
    world.advance(TIMEOUT_MS);
    let exclusive = world.lease_one(KITCHEN);
    let extend = |group, held| Command::Extend { group, held, for_ms: 5 * TIMEOUT_MS };
    assert_eq!(world.run(extend(other, zombie.held)), Err(Rejection::LeaseLost));
    assert_eq!(world.ack(other, &[zombie.held]), [], "it may still settle");
    world.advance(TIMEOUT_MS);
    assert_eq!(world.lease(other, 1).len(), 1);
    assert_eq!(world.run(extend(KITCHEN, exclusive.held)), Err(Rejection::LeaseLost), "nor an expired exclusive one");
}

#[test]
fn an_exclusive_lease_is_extended_like_any_other_and_holds_others_up_no_longer() {
    let (mut world, other, _) = awaiting();
    world.advance(TIMEOUT_MS);
    let exclusive = world.lease_one(KITCHEN);
    let extend = |for_ms| Command::Extend { group: KITCHEN, held: exclusive.held, for_ms };
    world.run(extend(2 * TIMEOUT_MS)).unwrap();
    world.run(extend(3 * TIMEOUT_MS)).unwrap();
    world.advance(HOLD_UP_MS - 1);
    assert_eq!(world.lease(other, 1), []);
    world.advance(1);
    assert_eq!(world.lease(other, 1).len(), 1);
    world.run(extend(4 * TIMEOUT_MS)).unwrap();
}

#[test]
fn an_exclusive_lease_given_back_unused_is_granted_again() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    for _ in 0..3 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.exclusive), (2, true));
        world.release(KITCHEN, lent.held).unwrap();
    }
    let lent = world.lease_one(KITCHEN);
    world.run(Command::Unreadable { group: KITCHEN, held: lent.held }).unwrap();
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(options().backoff.max_ms);
    assert!(world.lease_one(KITCHEN).exclusive);
}

#[test]
fn an_exclusive_attempt_that_expires_or_fails_was_the_last() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 2);
    world.lease(KITCHEN, 2);
    crash(&mut world);
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 0));
    world.advance(TIMEOUT_MS);
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Crashed, FailureCause::Expired]);
    let lent = world.lease_one(KITCHEN);
    let records = world.nack(KITCHEN, lent.held, None, "").unwrap();
    assert_eq!(causes(&provenance(&records).history), [FailureCause::Crashed, FailureCause::Nacked]);
}

fn leased(offset: u64, count: u32, attempt: u32, exclusive: bool, mono: u64, wall: u64) -> Record {
    Record::Leased {
        group: KITCHEN,
        partition: PartitionId(0),
        first: Offset(offset),
        count,
        attempt,
        until: MonoMs(mono + TIMEOUT_MS),
        time: WallMs(wall),
        exclusive,
    }
}

#[test]
fn an_exclusive_lease_or_a_wait_that_could_not_be_is_refused() {
    let (mut world, other, held_up_by) = awaiting();
    let exclusive = |world: &World| leased(0, 1, 2, true, world.mono, world.wall);
    let awaited = |offset, since: u64| Record::ExclusivePending {
        group: KITCHEN,
        partition: PartitionId(0),
        offset: Offset(offset),
        since: MonoMs(since),
    };
    let now = world.mono;
    world.refuses(exclusive(&world)); // another lease is live
    world.refuses(awaited(1, now)); // never leased
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 9 * TIMEOUT_MS }).unwrap();
    assert_eq!(world.try_lease(KITCHEN, 1), (Decision::Done, vec![]));
    world.refuses(exclusive(&world));
    let now = world.mono;
    world.ack(other, &[held_up_by.held]);
    world.refuses(awaited(0, now)); // could be granted
    let lent = world.lease_one(KITCHEN);
    assert!(lent.exclusive);
    world.refuses(awaited(0, now)); // leased
    world.refuses(leased(1, 2, 2, true, now, world.wall)); // new, and more than one
}

#[test]
fn a_failed_attempt_ends_the_claim_to_one_more_alone() {
    let mut world = World::with(1, limited(3));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    let prospect = |world: &World| world.state.group(KITCHEN).unwrap().entry(0, Offset(0)).unwrap().prospect;
    assert_eq!(prospect(&world), Prospect::Grace);
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    assert_eq!(prospect(&world), Prospect::None);
}

#[test]
fn a_wait_survives_a_clock_that_goes_back() {
    let (mut world, other, held_up_by) = awaiting();
    // The message waits for the wall clock rather than being ready at once.
    let mut world2 = world.clone();
    world2.ack(other, &[held_up_by.held]);
    let exclusive = world2.lease_one(KITCHEN);
    world2.run(Command::Unreadable { group: KITCHEN, held: exclusive.held }).unwrap();
    world2.advance(options().backoff.max_ms);
    world2.lease_one(other);
    assert_eq!(world2.try_lease(KITCHEN, 1), (Decision::Done, vec![]));
    world2.wall -= 1_000_000;
    assert_eq!(world2.lease(KITCHEN, 1), [], "not due any more");
    world2.run(Command::NoteClockJump).unwrap();
    world2.advance(options().backoff.max_ms);
    assert!(world2.lease_one(KITCHEN).exclusive);
    // A new process waits for nothing.
    world.try_lease(KITCHEN, 1);
    world.open(true);
    assert!(!world.is_held_up());
}
