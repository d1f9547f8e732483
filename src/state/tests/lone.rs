//! G9: only a death alone makes a dead letter.

use super::*;

fn limited(max_attempts: u32) -> GroupOptions {
    GroupOptions { max_attempts, ..options() }
}

/// Ends the process while it works on what it has leased.
fn crash(world: &mut World) {
    world.open(false);
    world.advance(10);
}

#[test]
fn five_deaths_make_a_dead_letter_and_the_last_is_alone() {
    let mut world = World::with(1, limited(5));
    world.publish(0, 1);
    for attempt in 1..=5 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.lone), (attempt, attempt == 5));
        crash(&mut world);
    }
    assert!(matches!(world.try_lease(KITCHEN, 1).0, Decision::Exhausted { .. }));
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [Cause::Crashed; 5]);
}

#[test]
fn whoever_dies_beside_others_on_the_last_attempt_gets_one_more_alone() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 10);
    assert_eq!(world.lease(KITCHEN, 10).len(), 10);
    crash(&mut world);
    for offset in 0..10 {
        let lent = world.lease(KITCHEN, 10);
        assert_eq!((places(&lent), lent[0].attempt, lent[0].lone), (vec![(0, offset)], 2, true));
        if offset == 6 {
            crash(&mut world);
            let (decision, _) = world.try_lease(KITCHEN, 10);
            assert_eq!(decision, Decision::Exhausted { partition: PartitionId(0), offset: Offset(6) });
            world.give_up(KITCHEN, (0, 6)).unwrap();
        } else {
            world.ack(KITCHEN, &[lent[0].held]);
        }
    }
    assert_eq!(world.counts(KITCHEN), GroupCounts { dead: 1, ..GroupCounts::default() });
}

#[test]
fn a_clean_close_is_no_crash() {
    let mut world = World::with(1, limited(2));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    world.open(true);
    let lent = world.lease_one(KITCHEN);
    assert_eq!((lent.attempt, lent.lone), (2, false));
    world.open(true);
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [Cause::Closed; 2]);
}

#[test]
fn a_crash_stays_on_the_account() {
    let mut world = World::with(1, limited(3));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    let lent = world.lease_one(KITCHEN);
    assert!(!lent.lone);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    assert!(world.lease_one(KITCHEN).lone, "the last attempt, with a crash on the account");
}

/// A message of the kitchen that needs a lone lease, and another group with a live one.
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
fn a_lone_lease_is_awaited_while_others_are_live_and_holds_up_the_store() {
    let (mut world, other, held_up_by) = awaiting();
    world.advance(100);
    let (decision, records) = world.run(Command::Lease { group: KITCHEN, max: 9 }).unwrap();
    let (until, passed) = (MonoMs(world.mono + TIMEOUT_MS), MonoMs(world.mono + 2 * TIMEOUT_MS));
    assert_eq!(decision, Decision::Done);
    assert!(
        matches!(records[..], [Record::LoneAwaited { until: to, passed_over_until, .. }] if (to, passed_over_until) == (until, passed))
    );
    assert!(world.state.groups_depend());
    assert_eq!(world.lease(KITCHEN, 9), []);
    assert_eq!(world.lease(other, 9), []);
    let soonest = world.state.next_deadline(KITCHEN, &world.inputs()).mono;
    assert_eq!(soonest, Some(held_up_by.until), "the other lease ends before the wait does");
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 5 * TIMEOUT_MS }).unwrap();
    for group in [KITCHEN, other] {
        let soonest = world.state.next_deadline(group, &world.inputs()).mono;
        assert_eq!(soonest, Some(until), "the wait ends before the other lease does");
    }
    world.ack(other, &[held_up_by.held]);
    assert_eq!(world.lease(other, 9), [], "only the one that waits");
    let lent = world.lease(KITCHEN, 9);
    assert!(lent.len() == 1 && lent[0].lone && lent[0].attempt == 2);
    assert_eq!(world.state.next_deadline(other, &world.inputs()).mono, Some(lent[0].until));
    assert_eq!((world.lease(KITCHEN, 9), world.lease(other, 9)), (vec![], vec![]));
    world.ack(KITCHEN, &[lent[0].held]);
    assert!(!world.state.groups_depend());
    assert_eq!((world.lease(KITCHEN, 9).len(), world.lease(other, 9).len()), (2, 2));
}

#[test]
fn a_wait_in_vain_ends_and_the_message_is_passed_over_for_as_long() {
    let (mut world, other, held_up_by) = awaiting();
    let extend = Command::Extend { group: other, held: held_up_by.held, for_ms: 100 * TIMEOUT_MS };
    world.run(extend).unwrap();
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Done, vec![]));
    world.advance(TIMEOUT_MS - 1);
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 1)]);
    world.advance(TIMEOUT_MS - 1);
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 2)]);
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(1);
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Done, vec![]), "awaited again");
    assert_eq!(world.lease(other, 9), []);
}

#[test]
fn while_it_is_passed_over_an_idle_store_still_grants_it() {
    let (mut world, other, held_up_by) = awaiting();
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 100 * TIMEOUT_MS }).unwrap();
    world.try_lease(KITCHEN, 9);
    world.advance(TIMEOUT_MS);
    world.ack(other, &[held_up_by.held]);
    assert!(world.lease_one(KITCHEN).lone);
}

#[test]
fn an_expired_lease_holds_nothing_up() {
    let (mut world, _, _) = awaiting();
    world.advance(TIMEOUT_MS);
    assert!(world.lease_one(KITCHEN).lone);
}

#[test]
fn no_expired_lease_comes_back_beside_a_lone_one() {
    let (mut world, other, zombie) = awaiting();
    world.advance(TIMEOUT_MS);
    let lone = world.lease_one(KITCHEN);
    let extend = |group, held| Command::Extend { group, held, for_ms: 5 * TIMEOUT_MS };
    assert_eq!(world.run(extend(other, zombie.held)), Err(Rejection::LeaseLost));
    assert_eq!(world.ack(other, &[zombie.held]), [], "it may still settle");
    world.advance(TIMEOUT_MS);
    assert_eq!(world.lease(other, 1).len(), 1);
    assert_eq!(world.run(extend(KITCHEN, lone.held)), Err(Rejection::LeaseLost), "nor an expired lone one");
}

#[test]
fn a_lone_lease_is_extended_once() {
    let (mut world, other, _) = awaiting();
    world.advance(TIMEOUT_MS);
    let lone = world.lease_one(KITCHEN);
    let extend = |for_ms| Command::Extend { group: KITCHEN, held: lone.held, for_ms };
    world.advance(500);
    world.run(extend(TIMEOUT_MS)).unwrap();
    assert_eq!(world.run(extend(2 * TIMEOUT_MS)), Err(Rejection::ExtendedBefore));
    world.advance(TIMEOUT_MS - 1);
    assert_eq!(world.lease(other, 1), [], "out until the extended end");
    world.advance(1);
    assert_eq!(world.lease(other, 1).len(), 1);
}

#[test]
fn a_lone_lease_given_back_unused_is_granted_again() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    for _ in 0..3 {
        let lent = world.lease_one(KITCHEN);
        assert_eq!((lent.attempt, lent.lone), (2, true));
        world.run(Command::Release { group: KITCHEN, held: lent.held }).unwrap();
    }
    let lent = world.lease_one(KITCHEN);
    world.run(Command::Unreadable { group: KITCHEN, held: lent.held }).unwrap();
    assert_eq!(world.lease(KITCHEN, 1), []);
    world.advance(options().backoff.max_ms);
    assert!(world.lease_one(KITCHEN).lone);
}

#[test]
fn a_lone_attempt_that_expires_or_fails_was_the_last() {
    let mut world = World::with(1, limited(1));
    world.publish(0, 2);
    world.lease(KITCHEN, 2);
    crash(&mut world);
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 0));
    world.advance(TIMEOUT_MS);
    let records = world.give_up(KITCHEN, (0, 0)).unwrap();
    assert_eq!(causes(&provenance(&records).history), [Cause::Crashed, Cause::Expired]);
    let lent = world.lease_one(KITCHEN);
    let records = world.nack(KITCHEN, lent.held, None, "").unwrap();
    assert_eq!(causes(&provenance(&records).history), [Cause::Crashed, Cause::Nacked]);
}

#[test]
fn who_waits_is_freed_when_the_message_is_settled_by_its_old_holder() {
    let mut world = World::with(1, limited(3));
    let other = world.group("other", &limited(3));
    world.publish(0, 4);
    world.lease(KITCHEN, 2);
    crash(&mut world);
    let zombies: Vec<_> = world.lease(KITCHEN, 2).iter().map(|lent| lent.held).collect();
    world.advance(TIMEOUT_MS);
    world.lease_one(other);
    let (_, records) = world.run(Command::Lease { group: KITCHEN, max: 1 }).unwrap();
    assert!(matches!(records[..], [Record::LoneAwaited { offset: Offset(0), .. }]));
    assert_eq!(world.lease(other, 1), []);
    let mut second = world.clone();
    assert_eq!(world.ack(KITCHEN, &zombies), []);
    assert_eq!((world.lease(other, 1).len(), world.lease(KITCHEN, 1).len()), (1, 1));
    // The other one is not the one that is waited for, so that changes nothing.
    assert_eq!(second.ack(KITCHEN, &zombies[1..]), []);
    assert_eq!(second.lease(other, 1), []);
}

#[test]
fn who_waits_is_freed_by_an_ack_of_a_run_that_the_message_is_within() {
    let mut world = World::with(1, limited(4));
    let other = world.group("other", &limited(4));
    world.publish(0, 3);
    world.lease(KITCHEN, 2);
    crash(&mut world);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    world.nack(KITCHEN, lent[0].held, Some(0), "").unwrap();
    let second = world.lease_one(KITCHEN);
    world.advance(1);
    let first = world.lease_one(KITCHEN);
    assert_eq!(places(&[first, second]), [(0, 0), (0, 1)]);
    world.advance(TIMEOUT_MS);
    world.lease_one(other);
    let (_, records) = world.run(Command::Lease { group: KITCHEN, max: 1 }).unwrap();
    assert!(matches!(records[..], [Record::LoneAwaited { offset: Offset(1), .. }]));
    let (_, records) = world.run(Command::Ack { group: KITCHEN, held: &runs_of(&[first.held, second.held]) }).unwrap();
    assert!(matches!(records[..], [Record::Acked { first: Offset(0), count: 2, .. }]));
    assert!(!world.state.groups_depend());
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 2)]);
}

fn leased(offset: u64, count: u32, attempt: u32, lone: bool, mono: u64, wall: u64) -> Record {
    Record::Leased {
        group: KITCHEN,
        partition: PartitionId(0),
        first: Offset(offset),
        count,
        attempt,
        until: MonoMs(mono + TIMEOUT_MS),
        time: WallMs(wall),
        lone,
    }
}

#[test]
fn a_lone_lease_or_a_wait_that_could_not_be_is_refused() {
    let (mut world, other, held_up_by) = awaiting();
    let lone = |world: &World| leased(0, 1, 2, true, world.mono, world.wall);
    let awaited = |offset, mono: u64| Record::LoneAwaited {
        group: KITCHEN,
        partition: PartitionId(0),
        offset: Offset(offset),
        until: MonoMs(mono + TIMEOUT_MS),
        passed_over_until: MonoMs(mono + 2 * TIMEOUT_MS),
    };
    let now = world.mono;
    world.refuses(lone(&world)); // another lease is live
    world.refuses(awaited(1, now)); // never leased
    world.run(Command::Extend { group: other, held: held_up_by.held, for_ms: 9 * TIMEOUT_MS }).unwrap();
    assert_eq!(world.try_lease(KITCHEN, 1), (Decision::Done, vec![]));
    world.refuses(awaited(0, now)); // awaited already
    world.refuses(awaited(0, now + TIMEOUT_MS)); // passed over
    world.refuses(lone(&world));
    world.refuses(leased(1, 1, 1, false, now, 0)); // while one is awaited
    world.advance(3 * TIMEOUT_MS);
    let now = world.mono;
    world.ack(other, &[held_up_by.held]);
    world.refuses(awaited(0, now)); // could be granted
    let lent = world.lease_one(KITCHEN);
    assert!(lent.lone);
    world.refuses(awaited(0, now)); // leased
    world.refuses(leased(1, 1, 1, false, now, 0)); // while one is out
    world.run(Command::Extend { group: KITCHEN, held: lent.held, for_ms: 2 * TIMEOUT_MS }).unwrap();
    let (group, partition, offset) = (KITCHEN, PartitionId(0), Offset(0));
    world.refuses(Record::Extended { group, partition, offset, until: MonoMs(now + 3 * TIMEOUT_MS) });
}

#[test]
fn a_failed_attempt_ends_the_claim_to_one_more_alone() {
    let mut world = World::with(1, limited(3));
    world.publish(0, 1);
    world.lease_one(KITCHEN);
    crash(&mut world);
    let grace = |world: &World| world.state.group(KITCHEN).unwrap().slot(0, Offset(0)).unwrap().grace;
    assert!(grace(&world));
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    assert!(!grace(&world));
}

#[test]
fn a_wait_survives_a_clock_that_goes_back() {
    let (mut world, other, held_up_by) = awaiting();
    // The message waits for the wall clock rather than being ready at once.
    let mut world2 = world.clone();
    world2.ack(other, &[held_up_by.held]);
    let lone = world2.lease_one(KITCHEN);
    world2.run(Command::Unreadable { group: KITCHEN, held: lone.held }).unwrap();
    world2.advance(options().backoff.max_ms);
    world2.lease_one(other);
    assert_eq!(world2.try_lease(KITCHEN, 1), (Decision::Done, vec![]));
    world2.wall -= 1_000_000;
    assert_eq!(world2.lease(KITCHEN, 1), [], "not due any more");
    world2.run(Command::NoteClockJump).unwrap();
    world2.advance(options().backoff.max_ms);
    assert!(world2.lease_one(KITCHEN).lone);
    // A new process waits for nothing.
    world.try_lease(KITCHEN, 1);
    world.open(true);
    assert!(!world.state.groups_depend());
}
