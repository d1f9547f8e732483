//! The rules of filters, on a world in which it follows from the place of a message whether it passes.

use crate::limits::{FILTERED_RUN, VERDICTS_MAX};
use crate::state::tests::*;
use std::sync::Arc;

fn filter() -> Option<Arc<Filter>> {
    Filter::parse("type exists").ok().map(Arc::new)
}

fn filtered(options: GroupOptions) -> GroupOptions {
    GroupOptions { filter: filter(), ..options }
}

/// Every third message passes, of those of the topic.
fn world(partitions: u32, options: GroupOptions) -> World {
    let mut world = World::with(partitions, filtered(options));
    world.passes = |_, offset| offset.0 % 3 == 2;
    world
}

fn settle(world: &mut World, ahead: Option<u64>) -> (Decision, Vec<Record>) {
    let (ahead, parked_max) = (ahead.map(PartitionId), world.parked_max);
    world.run(Command::SettleFiltered { group: KITCHEN, ahead, parked_max }).unwrap()
}

/// Looks ahead as far as it goes.
fn look_ahead(world: &mut World, partition: u64) {
    loop {
        match settle(world, Some(partition)).0 {
            Decision::VerdictsNeeded { partition, first, count } => {
                world.read_verdicts(KITCHEN, partition, first, count);
            }
            Decision::Filtered { .. } => {}
            decision => return assert_eq!(decision, Decision::Nothing),
        }
    }
}

#[test]
fn only_what_passes_is_leased_and_the_rest_is_settled_with_it() {
    let mut world = world(1, options());
    world.publish(0, 8);
    let lent = world.lease(KITCHEN, 1);
    assert_eq!(places(&lent), [(0, 2)]);
    let before = world.log.len();
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 5)]);
    let records: Vec<_> = world.log[before..].iter().map(|(record, _)| record.clone()).collect();
    let (group, partition, first) = (KITCHEN, PartitionId(0), Offset(3));
    assert_eq!(records[0], Record::Filtered { group, partition, first, count: 2 });
    assert_eq!(records.len(), 2);
    // The last two are known not to pass, and not settled yet: nobody but the state takes them for unsettled.
    assert_eq!(world.lease(KITCHEN, 9), []);
    assert_eq!(world.counts(KITCHEN), Totals { leased: 2, lag: 2, ..Totals::default() });
    assert_eq!(world.state.next_of(KITCHEN, PartitionId(0)), Some(Offset(6)));
    assert_eq!(settle(&mut world, None).0, Decision::Done);
    assert_eq!(world.state.next_of(KITCHEN, PartitionId(0)), Some(Offset(8)));
    assert_eq!(settle(&mut world, None), (Decision::Nothing, vec![]));
    world.ack(KITCHEN, &[lent[0].held]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(5));
}

#[test]
fn long_runs_are_settled_without_a_lease() {
    let mut world = world(1, options());
    world.passes = |_, _| false;
    world.publish(0, FILTERED_RUN + 7);
    assert_eq!(world.lease(KITCHEN, 1), []);
    let settled = world.state.settled_before(PartitionId(0));
    assert!((FILTERED_RUN.into()..=u64::from(FILTERED_RUN) + 2).contains(&settled.0), "{settled}");
    assert_eq!(world.counts(KITCHEN), Totals::default());
}

#[test]
fn a_message_that_passed_is_not_asked_for_again() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        let mut world = world(1, GroupOptions { ordering, max_attempts: 2, ..options() });
        world.key = |_, _| KeyHash(1);
        world.publish(0, 6);
        let lent = world.lease_one(KITCHEN);
        world.passes = |_, _| false;
        world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
        let again = world.lease_one(KITCHEN);
        assert_eq!((again.at(), again.attempt), ((0, 2), 2), "{ordering}");
        world.nack(KITCHEN, again.held, None, "").unwrap();
        let provenance =
            Provenance { origin: origin_of(2), attempts: 2, history: vec![], earlier: FailureCounts::default() };
        let redrive = Command::Redrive { group: KITCHEN, dead_letter: Offset(0), to: None, provenance: &provenance };
        world.run(redrive).unwrap();
        assert_eq!(places(&world.lease(KITCHEN, 1)), [(1, 0)], "{ordering}");
    }
}

#[test]
fn filtered_messages_take_no_place_in_any_order() {
    let mut by_key = world(2, GroupOptions { ordering: Ordering::Key, ..options() });
    by_key.key = |_, offset| KeyHash(1 + offset.0 % 2);
    by_key.publish(0, 9);
    by_key.publish(1, 3);
    let lent = by_key.lease(KITCHEN, 9);
    // 2 and 8 have one key, and so has the third of the other partition.
    assert_eq!(places(&lent), [(0, 2), (0, 5)]);
    assert_eq!(by_key.counts(KITCHEN), Totals { leased: 2, parked: 2, lag: 4, ..Totals::default() });
    by_key.ack(KITCHEN, &[lent[0].held]);
    assert_eq!(by_key.lease(KITCHEN, 9).len(), 1);

    let ordering = Ordering::Partition;
    let mut by_partition = world(1, GroupOptions { ordering, max_in_flight_per_key: 2, ..options() });
    by_partition.publish(0, 12);
    let lent = by_partition.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 2), (0, 5)]);
    assert_eq!(by_partition.lease(KITCHEN, 9), []);
    by_partition.ack(KITCHEN, &[lent[1].held]);
    assert_eq!(places(&by_partition.lease(KITCHEN, 9)), [(0, 8)]);
}

/// Messages of a key that are only counted are found again among those that do not pass.
#[test]
fn what_is_counted_is_recalled_among_those_that_do_not_pass() {
    let mut world = world(1, GroupOptions { ordering: Ordering::Key, ..options() });
    world.key = |_, _| KeyHash(1);
    world.parked_max = ParkedMax { of_group: 0, of_key: 0 };
    world.publish(0, 15);
    let mut seen = Vec::new();
    loop {
        let lent = world.lease(KITCHEN, 9);
        let Some(one) = lent.first() else { break };
        assert_eq!(lent.len(), 1);
        seen.push(one.at().1);
        world.ack(KITCHEN, &[one.held]);
    }
    assert_eq!((seen, world.counts(KITCHEN)), (vec![2, 5, 8, 11, 14], Totals::default()));
}

/// A group that nobody receives from is made to look: what it does not want is settled around what it wants, in any order.
#[test]
fn looking_ahead_settles_what_is_behind_a_message_that_passes() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        let mut world = world(1, GroupOptions { ordering, ..options() });
        world.key = |_, offset| KeyHash(1 + offset.0 % 2);
        world.publish(0, 9);
        let out = world.lease(KITCHEN, 1);
        assert_eq!(places(&out), [(0, 2)]);
        look_ahead(&mut world, 0);
        let partition = PartitionId(0);
        assert_eq!(world.state.next_of(KITCHEN, partition), Some(Offset(9)));
        assert!(world.state.is_settled(partition, Offset(3), Offset(5)), "{ordering}");
        assert!(world.state.is_settled(partition, Offset(6), Offset(8)), "{ordering}");
        assert!(!world.state.is_settled(partition, Offset(5), Offset(6)), "{ordering}");
        assert_eq!(world.counts(KITCHEN).lag, 3);
        // They are delivered as if nobody had looked, and come before those that are published later.
        world.publish(0, 3);
        world.open(true);
        let mut seen = Vec::new();
        loop {
            world.advance(20_000);
            let lent = world.lease(KITCHEN, 1);
            let Some(one) = lent.first() else { break };
            assert_eq!(lent.len(), 1);
            seen.push(one.at().1);
            world.ack(KITCHEN, &[one.held]);
        }
        assert_eq!((seen, world.counts(KITCHEN)), (vec![2, 5, 8, 11], Totals::default()), "{ordering}");
    }
}

#[test]
fn looking_ahead_ends_where_as_much_is_parked_as_may_be() {
    let mut world = world(1, options());
    world.parked_max = ParkedMax { of_group: 2, of_key: 1 };
    world.publish(0, 12);
    look_ahead(&mut world, 0);
    // The third that passes is the next message.
    assert_eq!(world.state.next_of(KITCHEN, PartitionId(0)), Some(Offset(8)));
    // So the last three were never looked at.
    assert_eq!(world.counts(KITCHEN), Totals { ready: 6, lag: 6, ..Totals::default() });
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 2), (0, 5), (0, 8), (0, 11)]);
}

#[test]
fn another_filter_looks_at_what_the_group_has_not_looked_at() {
    for other in ["other exists", ""] {
        let mut world = world(1, options());
        world.publish(0, 9);
        assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 2)]);
        look_ahead(&mut world, 0);
        world.publish(0, 9);
        assert_eq!(world.lease(KITCHEN, 1).len(), 1);
        world.passes = |_, _| true;
        let other = Filter::parse(other).ok().map(Arc::new);
        let changes = GroupChanges { filter: Some(other), ..GroupChanges::default() };
        world.run(Command::AlterGroup { group: KITCHEN, changes: &changes }).unwrap();
        let seen: Vec<_> = places(&world.lease(KITCHEN, 99)).into_iter().map(|(_, offset)| offset).collect();
        assert_eq!(seen, [8].into_iter().chain(9..18).collect::<Vec<_>>());
    }
    let mut world = world(1, GroupOptions { ordering: Ordering::Key, ..options() });
    let changes = GroupChanges { filter: Some(None), ..GroupChanges::default() };
    assert!(world.run(Command::AlterGroup { group: KITCHEN, changes: &changes }).is_err());
    world.refuses(Record::GroupAltered {
        group: KITCHEN,
        options: GroupOptions { ordering: Ordering::Key, ..options() },
    });
}

/// Whatever fails, and however much of one partition does not pass: what passes comes.
#[test]
fn a_partition_without_matches_keeps_no_other_waiting() {
    let mut world = world(2, options());
    world.passes = |partition, offset| partition.0 == 1 && offset.0 == 4;
    world.publish(0, 40_000);
    world.publish(1, 5);
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(1, 4)]);
    let next = world.state.next_of(KITCHEN, PartitionId(0)).unwrap();
    assert!(next.0 <= 2 * u64::from(FILTERED_RUN), "{next}");
}

#[test]
fn messages_that_fail_for_ever_do_not_keep_a_filter_from_looking() {
    let mut world = world(1, GroupOptions { max_attempts: 0, ..options() });
    world.passes = |_, offset| offset.0 == 0 || offset.0 == 9_000;
    world.publish(0, 9_001);
    let mut rounds = 0;
    loop {
        let lent = world.lease_one(KITCHEN);
        if lent.at() == (0, 9_000) {
            break;
        }
        world.nack(KITCHEN, lent.held, Some(0), "").unwrap();
        rounds += 1;
        assert!(rounds < 10);
    }
}

#[test]
fn what_cannot_follow_is_refused() {
    let mut world = world(2, options());
    let other = world.group("all", &options());
    world.publish(0, 4);
    let filtered = |group, partition, first, count| Record::Filtered {
        group,
        partition: PartitionId(partition),
        first: Offset(first),
        count,
    };
    let retry = world.state.group(KITCHEN).unwrap().retry.0;
    for record in [
        filtered(other, 0, 0, 1),
        filtered(KITCHEN, 0, 1, 1),
        filtered(KITCHEN, 0, 0, 0),
        filtered(KITCHEN, 0, 0, 5),
        filtered(KITCHEN, retry, 0, 1),
        filtered(KITCHEN, 9, 0, 1),
        filtered(GroupId(9), 0, 0, 1),
    ] {
        world.refuses(record);
    }
    let considered = |group, key, counted: &[u32]| Record::Considered {
        group,
        partition: PartitionId(0),
        first: Offset(0),
        keys: vec![KeyHash(key)],
        counted: counted.to_vec(),
    };
    world.refuses(considered(other, 0, &[]));
    world.refuses(considered(KITCHEN, 7, &[]));
    world.refuses(considered(KITCHEN, 0, &[0]));
}

/// Those that cannot be read pass and have no key: they wait for nobody, nor for each other, however many are parked.
#[test]
fn messages_that_cannot_be_read_are_not_only_counted() {
    let mut world = World::with(1, GroupOptions { ordering: Ordering::Key, ..filtered(options()) });
    world.publish(0, 3);
    let group = world.state.group(KITCHEN).unwrap();
    let filter = filter().unwrap();
    let read = [KeyHash(7), KeyHash::LOST, KeyHash::LOST].map(FilterVerdict::Passes);
    world.verdicts.add((KITCHEN, group, PartitionId(0)), (&filter, Offset(0)), read);
    let parked_max = ParkedMax { of_group: 1, of_key: 1 };
    let ahead = Some(PartitionId(0));
    let (_, records) = world.run(Command::SettleFiltered { group: KITCHEN, ahead, parked_max }).unwrap();
    let [Record::Considered { keys, counted, .. }] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&keys[..], &counted[..]), (&[KeyHash(7), KeyHash::NONE, KeyHash::NONE][..], &[][..]));
}

/// Verdicts of all groups together are bounded, and those of the group that reads are there.
#[test]
fn what_is_known_is_bounded() {
    let mut world = World::with(2, filtered(options()));
    (0..4).for_each(|_| world.publish(0, 50_000));
    world.publish(1, 100);
    let group = world.state.group(KITCHEN).unwrap();
    let filter = filter().unwrap();
    let mut known = KnownVerdicts::default();
    let add = |known: &mut KnownVerdicts, partition, first, count: u64| {
        let read = (0..count).map(|_| FilterVerdict::Passes(KeyHash::NONE));
        known.add((KITCHEN, group, PartitionId(partition)), (&filter, Offset(first)), read);
    };
    add(&mut known, 1, 0, 100);
    add(&mut known, 0, 0, VERDICTS_MAX as u64);
    assert!(known.run(KITCHEN, group, 1).is_none());
    assert_eq!(known.run(KITCHEN, group, 0).unwrap().passing(), VERDICTS_MAX as u64);
    // What was read twice counts once; a gap is left.
    let mut known = KnownVerdicts::default();
    known.add(
        (KITCHEN, group, PartitionId(0)),
        (&filter, Offset(0)),
        [FilterVerdict::Filtered(5), FilterVerdict::Passes(KeyHash::NONE)],
    );
    known.add(
        (KITCHEN, group, PartitionId(0)),
        (&filter, Offset(3)),
        [FilterVerdict::Filtered(2), FilterVerdict::Passes(KeyHash::NONE), FilterVerdict::Filtered(2)],
    );
    add(&mut known, 0, 9, 1);
    let run = known.run(KITCHEN, group, 0).unwrap();
    assert_eq!((run.filtered_first(), run.passing(), run.filtered(), run.end()), (5, 1, 7, Offset(8)));
    known.settle((KITCHEN, PartitionId(0)), Offset(2));
    assert!(known.run(KITCHEN, group, 0).is_none(), "another message is the next");
    known.settle((KITCHEN, PartitionId(0)), Offset(8));
    assert!(known.is_empty());
}
