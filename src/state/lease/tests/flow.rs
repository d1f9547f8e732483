//! Groups that are paused or full.

use crate::state::tests::*;

#[test]
fn a_paused_group_is_leased_nothing_and_settles() {
    let mut world = World::with(1, options());
    world.publish(0, 3);
    let lent = world.lease_one(KITCHEN);
    let pause = |world: &mut World, paused| {
        let changes = GroupChanges { paused: Some(paused), ..GroupChanges::default() };
        world.run(Command::AlterGroup { group: KITCHEN, changes: &changes }).unwrap().1.len()
    };
    assert_eq!((pause(&mut world, true), pause(&mut world, true)), (1, 0), "again it changes nothing");
    world.open(true);
    world.advance(TIMEOUT_MS);
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Nothing, vec![]));
    assert_eq!(world.state.next_deadline(KITCHEN, &world.inputs()).mono, None, "nobody wakes for it");
    assert_eq!((pause(&mut world, false), world.lease(KITCHEN, 9).len()), (1, 3));
    assert_eq!(world.ack(KITCHEN, &[lent.held]), [0], "its process is over");
}

#[test]
fn leases_have_their_places_until_their_messages_have_others() {
    let mut world = World::with(1, GroupOptions { max_in_flight: 2, ..options() });
    world.publish(0, 5);
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(lent.len(), 2);
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Nothing, vec![]));
    // A message that waits for a retry takes no place.
    world.nack(KITCHEN, lent[0].held, Some(10_000), "").unwrap();
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 2));
    world.advance(TIMEOUT_MS);
    // Both leases ended: their messages take their places, and no other one does.
    let again: Vec<_> = world.lease(KITCHEN, 9).iter().map(|lent| lent.at().1).collect();
    assert_eq!(again, [1, 2]);
    world.advance(TIMEOUT_MS + 1);
    assert_eq!(world.counts(KITCHEN).leased, 0);
    assert_eq!(world.try_lease(KITCHEN, 9), (Decision::Nothing, vec![]), "their messages wait for their backoff");
    world.advance(options().backoff.max_ms);
    assert_eq!(world.lease(KITCHEN, 9).len(), 2);
}

#[test]
fn nobody_waits_for_a_suspect_of_a_full_group() {
    let mut world = World::with(1, GroupOptions { max_attempts: 3, max_in_flight: 1, ..options() });
    world.publish(0, 1);
    let lent = world.lease_one(KITCHEN);
    world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
    world.lease_one(KITCHEN);
    world.open(false);
    world.publish(0, 1);
    let other = world.lease_one(KITCHEN);
    assert_eq!(other.at(), (0, 1), "the suspect waits for its backoff");
    world.advance(200);
    assert_eq!(world.try_lease(KITCHEN, 1), (Decision::Nothing, vec![]));
    assert!(!world.is_held_up());
    world.ack(KITCHEN, &[other.held]);
    assert!(world.lease_one(KITCHEN).exclusive);
}

#[test]
fn a_rate_is_whole_or_none() {
    let rate = |count, per_ms, burst| GroupOptions { rate: RateOptions { count, per_ms, burst }, ..options() };
    for (asked, fits) in [
        (rate(1, 1, 1), true),
        (rate(0, 0, 0), true),
        (rate(0, 1, 1), false),
        (rate(1, 0, 1), false),
        (rate(1, 1, 0), false),
        (rate(1, u64::MAX, 1), false),
        (GroupOptions { max_in_flight: (1 << 20) + 1, ..options() }, false),
    ] {
        let mut world = World::with(1, options());
        let create = Command::CreateGroup { topic: TopicId(0), name: "other", options: &asked, starts: &[Offset(0)] };
        assert_eq!(world.run(create).is_ok(), fits, "{asked:?}");
    }
}
