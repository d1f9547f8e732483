//! Which messages are leased, and when.

mod exclusive;
mod flow;

use crate::state::lease::query::Deadline;
use crate::state::tests::*;
use std::collections::BTreeSet;

#[test]
fn a_lease_that_could_not_be_granted_is_refused() {
    let mut world = situations();
    let until = MonoMs(world.mono + TIMEOUT_MS);
    let time = WallMs(world.wall);
    let leased = |first, count, attempt, exclusive| {
        let time = if attempt == 1 { WallMs(0) } else { time };
        let (group, partition) = (KITCHEN, PartitionId(0));
        Record::Leased { group, partition, first: Offset(first), count, attempt, until, time, exclusive }
    };
    world.refuses(leased(0, 1, 2, false)); // live
    world.refuses(leased(1, 1, 1, false)); // another attempt
    world.refuses(leased(1, 1, 3, false));
    world.refuses(leased(1, 1, 2, true)); // no need to be exclusive
    world.refuses(leased(2, 1, 2, false)); // not due
    world.refuses(leased(3, 2, 2, false)); // runs into the new ones
    world.refuses(leased(4, 2, 1, false)); // beyond the end
    world.refuses(leased(4, 0, 1, false));
    world.refuses(leased(4, 1, 2, false));
    world.refuses(leased(4, 1, 1, true));
    world.refuses(leased(5, 1, 1, false));
    world.refuses(leased(u64::MAX, 2, 1, false));
    for (group, partition, until) in [(1, 0, until), (0, 2, until), (0, 9, until), (0, 0, MonoMs(5))] {
        let (group, partition, time) = (GroupId(group), PartitionId(partition), WallMs(0));
        let (first, count, attempt, exclusive) = (Offset(4), 1, 1, false);
        world.refuses(Record::Leased { group, partition, first, count, attempt, until, time, exclusive });
    }
    let (group, partition, first) = (KITCHEN, PartitionId(0), Offset(4));
    world.refuses(Record::Leased { group, partition, first, count: 1, attempt: 1, until, time, exclusive: false });
    for fine in [leased(1, 1, 2, false), leased(3, 1, 2, false), leased(4, 1, 1, false)] {
        world.state.apply(&fine, Lsn(world.lsn)).unwrap();
    }
}

#[test]
fn first_deliveries_go_out_in_offset_order() {
    let mut world = World::with(1, options());
    world.publish(0, 3);
    let first = world.lease_one(KITCHEN);
    world.nack(KITCHEN, first.held, Some(5_000), "").unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 1)]);
    world.publish(0, 1);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 2), (0, 3)]);
    assert_eq!(world.lease(KITCHEN, 9), []);
}

#[test]
fn partitions_take_turns() {
    let mut world = World::with(3, options());
    (0..3).for_each(|partition| world.publish(partition, 10));
    let order: Vec<_> = (0..7).map(|_| world.lease_one(KITCHEN).at()).collect();
    assert_eq!(order, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]);
    // A batch goes through a partition before the next one, and the next batch begins after it.
    assert_eq!(
        world.lease(KITCHEN, 10).iter().map(|lent| lent.at().0).collect::<Vec<_>>(),
        [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    );
    assert_eq!(world.lease_one(KITCHEN).at(), (0, 3));
}

#[test]
fn a_batch_is_one_record_for_each_run() {
    let mut world = World::with(2, options());
    (0..2).for_each(|partition| world.publish(partition, 100));
    let (_, records) = world
        .run(Command::Lease {
            group: KITCHEN,
            max: 150,
            pass_exhausted: false,
            new_last: None,
            keys: None,
            looked_at: 0,
        })
        .unwrap();
    assert_eq!(records.len(), 2);
    world.advance(TIMEOUT_MS);
    let (_, records) = world
        .run(Command::Lease {
            group: KITCHEN,
            max: 160,
            pass_exhausted: false,
            new_last: None,
            keys: None,
            looked_at: 0,
        })
        .unwrap();
    assert!(matches!(records[0], Record::Leased { count: 100, attempt: 2, time: WallMs(1_000_001_000), .. }));
    assert!(matches!(records[1], Record::Leased { count: 50, attempt: 2, .. }));
    assert!(matches!(records[2], Record::Leased { count: 10, attempt: 1, time: WallMs(0), .. }));
    assert_eq!(records.len(), 3);
}

#[test]
fn nothing_is_leased_to_nobody_and_nothing_from_nowhere() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    assert_eq!(world.try_lease(KITCHEN, 0), (Decision::Nothing, vec![]));
    assert_eq!(
        world.run(Command::Lease {
            group: GroupId(1),
            max: 1,
            pass_exhausted: false,
            new_last: None,
            keys: None,
            looked_at: 0
        }),
        Err(Rejection::UnknownGroup)
    );
}

#[test]
fn g4_what_is_not_visible_is_not_leased() {
    let mut world = World::with(2, options());
    world.publish(0, 3);
    world.publish(1, 3);
    world.visible = Some(ends(&[2]));
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0), (0, 1)]);
    assert_eq!(world.counts(KITCHEN).ready, 0);
    assert_eq!(world.lease(KITCHEN, 9), []);
    world.visible = Some(ends(&[3, 9]));
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(1, 0), (1, 1), (1, 2), (0, 2)]);
}

/// A clock may be read up to `slack_ms` late: what is to last a while lasts that much longer.
#[test]
fn deadlines_are_counted_from_the_latest_time_it_may_be() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    world.slack_ms = 3;
    let lent = world.lease_one(KITCHEN);
    assert_eq!(lent.until, MonoMs(world.mono + 3 + TIMEOUT_MS));
    let records = world.nack(KITCHEN, lent.held, Some(50), "").unwrap();
    let due = records.iter().find_map(|record| if let Record::Nacked { due, .. } = record { Some(*due) } else { None });
    assert_eq!(due, Some(WallMs(world.wall + 3 + 50)));
}

#[test]
fn g23_what_fails_at_once_for_ever_keeps_nothing_from_being_delivered() {
    for max_attempts in [0, 1_000] {
        let mut world = World::with(2, GroupOptions { max_attempts, ..options() });
        world.publish(0, 10);
        world.publish(1, 10);
        let mut seen = BTreeSet::new();
        // The bad message comes back at most after each other one.
        for _ in 0..2 * 20 {
            let lent = world.lease_one(KITCHEN);
            if lent.at() == (0, 0) {
                world.nack(KITCHEN, lent.held, Some(0), "no").unwrap();
            } else {
                world.ack(KITCHEN, &[lent.held]);
            }
            seen.insert(lent.at());
        }
        assert_eq!(seen.len(), 20);
        // In batches too, where all the room could go to what failed before.
        world.publish(0, 10);
        for _ in 0..4 {
            let lent = world.lease(KITCHEN, 5);
            for lent in lent {
                seen.insert(lent.at());
                world.nack(KITCHEN, lent.held, Some(0), "no").unwrap();
            }
        }
        assert_eq!(seen.len(), 30);
    }
}

#[test]
fn what_is_ready_goes_by_age_not_by_offset() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    world.nack(KITCHEN, lent[0].held, Some(0), "").unwrap();
    let order: Vec<_> = (0..2).map(|_| world.lease_one(KITCHEN).at().1).collect();
    assert_eq!(order, [1, 0]);
}

#[test]
fn an_extended_lease_lasts_longer_and_never_shorter() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    let extend = |for_ms| Command::Extend { group: KITCHEN, held: lent[0].held, for_ms };
    assert_eq!(world.run(extend(TIMEOUT_MS)), Ok((Decision::Done, vec![])));
    assert_eq!(world.run(extend(0)), Ok((Decision::Done, vec![])));
    assert_eq!(world.run(extend(3 * TIMEOUT_MS)).unwrap().1.len(), 1);
    world.advance(TIMEOUT_MS);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 1)]);
    world.advance(2 * TIMEOUT_MS - 1);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 1)]);
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 2)), [(0, 0)]);
}

#[test]
fn a_lease_that_ended_may_go_on_if_nobody_took_the_message() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    let lent = world.lease_one(KITCHEN);
    world.advance(5 * TIMEOUT_MS);
    world.run(Command::Extend { group: KITCHEN, held: lent.held, for_ms: 10 }).unwrap();
    assert_eq!(world.lease(KITCHEN, 1), []);
    assert_eq!(world.ack(KITCHEN, &[lent.held]), []);
}

#[test]
fn g15_at_its_cap_a_group_leases_no_new_message_but_retries() {
    let mut world = World::with(1, GroupOptions { max_outstanding: 3, ..options() });
    world.publish(0, 10);
    let lent = world.lease(KITCHEN, 10);
    assert_eq!(lent.len(), 3);
    assert!(world.counts(KITCHEN).at_cap);
    assert_eq!(world.lease(KITCHEN, 10), []);
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 10)), [(0, 1)]);
    world.ack(KITCHEN, &[lent[0].held]);
    assert_eq!(places(&world.lease(KITCHEN, 10)), [(0, 3)]);
}

#[test]
fn the_next_deadline_is_ahead_and_the_first() {
    let mut world = World::with(1, options());
    let deadline = |world: &World| world.state.next_deadline(KITCHEN, &world.inputs());
    assert_eq!(deadline(&world), Deadline::default());
    world.publish(0, 3);
    let lent = world.lease(KITCHEN, 2);
    world.advance(10);
    world.lease(KITCHEN, 1);
    assert_eq!(deadline(&world).mono, Some(lent[0].until));
    world.run(Command::Extend { group: KITCHEN, held: lent[0].held, for_ms: 5_000 }).unwrap();
    world.nack(KITCHEN, lent[1].held, Some(700), "").unwrap();
    assert_eq!(
        deadline(&world),
        Deadline { mono: Some(lent[0].until.saturating_add(10)), wall: Some(WallMs(world.wall + 700)) }
    );
    world.advance(1_000);
    assert_eq!(deadline(&world), Deadline { mono: Some(MonoMs(5_010 + 5_000)), wall: None });
    assert_eq!(world.state.next_deadline(GroupId(7), &world.inputs()), Deadline::default());
}
