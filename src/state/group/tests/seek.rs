//! Groups that go on from elsewhere.

use crate::state::tests::*;

fn offsets(of: &[u64]) -> Vec<Offset> {
    of.iter().copied().map(Offset).collect()
}

fn seek_from(world: &mut World, group: GroupId, from: &[u64], starts: &[u64]) -> Result<Vec<Record>, Rejection> {
    let sought = world.run(Command::Seek { group, from: &offsets(from), starts: &offsets(starts) });
    sought.map(|(_, records)| records)
}

fn seek(world: &mut World, starts: &[u64]) {
    let records = seek_from(world, KITCHEN, starts, starts).unwrap();
    assert_eq!(records.len(), 1);
    let before = world.state.take_removed();
    assert_eq!(before.len(), 1, "what it had in progress is freed outside the lock");
    assert!(before[0].partitions.is_empty());
}

/// In each situation that a message can be in.
#[test]
fn what_is_in_progress_is_let_go_and_comes_again_as_if_for_the_first_time() {
    let mut world = situations();
    let stale = Token { epoch: Epoch(1), lsn: Lsn(32) };
    let held = Held { partition: PartitionId(0), offset: Offset(0), token: stale };
    assert!(world.state.lease_end(KITCHEN, held).is_ok());
    seek(&mut world, &[0]);
    assert_eq!(world.state.lease_end(KITCHEN, held), Err(Rejection::LeaseLost));
    assert_eq!(world.counts(KITCHEN), Totals { ready: 5, lag: 5, ..Totals::default() });
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
    assert!(lent.iter().all(|lent| lent.attempt == 1));
    assert_eq!(world.ack(KITCHEN, &[held]), [0], "the token of another lease");
    assert_eq!(world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>()), [0u32; 0]);
    seek(&mut world, &[3]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 3), (0, 4)], "also what was settled");
    seek(&mut world, &[5]);
    assert_eq!(world.counts(KITCHEN), Totals::default());
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(5));
}

#[test]
fn a_group_seeks_to_places_that_are_there() {
    let mut world = World::with(2, options());
    world.publish(0, 3);
    let mut refused = |from: &[u64], starts: &[u64]| {
        assert!(matches!(seek_from(&mut world, KITCHEN, from, starts), Err(Rejection::Invalid(_))));
        world.refuses(Record::GroupSought { group: KITCHEN, from: offsets(from), starts: offsets(starts) });
    };
    refused(&[0], &[0]);
    refused(&[0; 3], &[0; 3]);
    refused(&[0, 0], &[4, 0]);
    refused(&[0, 0], &[0, 1]);
    refused(&[2, 0], &[1, 0]);
    refused(&[0], &[0, 0]);
    assert_eq!(seek_from(&mut world, GroupId(9), &[0, 0], &[0, 0]), Err(Rejection::UnknownGroup));
    let (from, starts) = (offsets(&[0, 0]), offsets(&[0, 0]));
    world.refuses(Record::GroupSought { group: GroupId(9), from, starts });
    assert!(seek_from(&mut world, KITCHEN, &[3, 0], &[3, 0]).is_ok());
}

/// A start is behind a gap. What the group had not settled before it is there, and would never come again.
#[test]
fn what_is_unsettled_before_a_gap_stays_with_a_new_account() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        let max_in_flight_per_key = if ordering == Ordering::Partition { 3 } else { 1 };
        let mut world = World::with(1, GroupOptions { ordering, max_in_flight_per_key, max_attempts: 2, ..options() });
        world.key = |_, offset| KeyHash(1 + offset.0 % 3);
        world.publish(0, 8);
        // Three keys: asked for a fourth message, a group in order of keys looks at all.
        let mut lent = world.lease(KITCHEN, if ordering == Ordering::Key { 4 } else { 3 });
        lent.sort_unstable_by_key(Lent::at);
        assert_eq!(places(&lent), [(0, 0), (0, 1), (0, 2)]);
        world.nack(KITCHEN, lent[0].held, Some(5_000), "failed").unwrap();
        world.nack(KITCHEN, lent[1].held, Some(5_000), "failed").unwrap();
        // Offset 0 is before the place that was asked for.
        seek_from(&mut world, KITCHEN, &[1], &[6]).unwrap();
        let mut seen = Vec::new();
        for _ in 0..9 {
            let lent = world.lease(KITCHEN, 9);
            assert!(lent.iter().all(|lent| lent.attempt == 1));
            seen.extend(places(&lent));
            world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>());
        }
        seen.sort_unstable();
        // Nor is what the group had not come to: it goes on there.
        assert_eq!(seen, (1..8).map(|offset| (0, offset)).collect::<Vec<_>>(), "{ordering:?}");
        assert_eq!(world.counts(KITCHEN), Totals::default());
    }
}

#[test]
fn redriven_messages_and_dead_letters_stay_as_they_are() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        let mut world = World::with(1, GroupOptions { ordering, ..options() });
        world.key = |_, _| KeyHash(1);
        world.publish(0, 3);
        for _ in 0..3 {
            let held = world.lease_one(KITCHEN).held;
            world.run(Command::Reject { group: KITCHEN, held, text: "bad", moving: HERE }).unwrap();
        }
        let provenance =
            Provenance { origin: origin_of(0), attempts: 1, history: vec![], earlier: FailureCounts::default() };
        for dead_letter in [0, 1].map(Offset) {
            let redrive = Command::Redrive { group: KITCHEN, dead_letter, to: None, provenance: &provenance };
            world.run(redrive).unwrap();
        }
        let redriven = world.lease_one(KITCHEN);
        seek(&mut world, &[1]);
        assert_eq!(world.state.dead_letters(KITCHEN, Offset(0), 9), [Offset(2)]);
        assert_eq!(world.state.lease_end(KITCHEN, redriven.held), Ok(redriven.until));
        let mut seen = Vec::new();
        world.ack(KITCHEN, &[redriven.held]);
        for _ in 0..3 {
            let lent = world.lease(KITCHEN, 1);
            seen.extend(places(&lent));
            world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>());
        }
        seen.sort_unstable();
        let retry = world.state.group(KITCHEN).unwrap().retry.0;
        assert_eq!(seen, [(0, 1), (0, 2), (retry, 1)], "{ordering:?}");
    }
}

#[test]
fn nobody_waits_for_a_message_that_was_let_go() {
    for is_granted in [false, true] {
        let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
        let other = world.group("other", &options());
        world.publish(0, 2);
        world.lease_one(KITCHEN);
        world.open(false);
        let live = world.lease_one(other);
        // The last attempt after a crash goes alone.
        assert_eq!(world.try_lease(KITCHEN, 1).1, []);
        if is_granted {
            world.ack(other, &[live.held]);
            assert!(world.lease_one(KITCHEN).exclusive);
        }
        assert!(world.is_held_up());
        seek(&mut world, &[0]);
        assert!(!world.is_held_up());
        assert_eq!(world.lease(other, 9).len(), 1);
    }
}

#[test]
fn limits_count_what_is_in_progress_after_a_seek() {
    let limits = GroupOptions { max_in_flight: 3, max_outstanding: 4, ..options() };
    let mut world = World::with(1, limits);
    world.publish(0, 9);
    assert_eq!(world.lease(KITCHEN, 9).len(), 3);
    seek(&mut world, &[1]);
    let again = world.lease(KITCHEN, 9);
    assert_eq!(places(&again), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(world.lease(KITCHEN, 9), []);
    let changes = GroupChanges { paused: Some(true), ..GroupChanges::default() };
    world.run(Command::AlterGroup { group: KITCHEN, changes: &changes }).unwrap();
    seek(&mut world, &[0]);
    assert_eq!(world.lease(KITCHEN, 9), [], "it is paused");
}

/// What was read ahead for the filter is of other messages now.
#[test]
fn a_filter_is_asked_again_after_a_seek() {
    for (start, expected) in [(0, vec![2, 5, 8]), (1, vec![2, 5, 8]), (3, vec![5, 8]), (7, vec![8])] {
        let filter = Filter::parse("type exists").ok().map(std::sync::Arc::new);
        let mut world = World::with(1, GroupOptions { filter, ..options() });
        world.passes = |_, offset| offset.0 % 3 == 2;
        world.publish(0, 9);
        assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 2)]);
        seek(&mut world, &[start]);
        let expected: Vec<_> = expected.into_iter().map(|offset| (0, offset)).collect();
        assert_eq!(places(&world.lease(KITCHEN, 9)), expected);
    }
}

#[test]
fn numbers_of_a_seek_are_of_the_moment_before() {
    let mut world = situations();
    let group = world.state.group(KITCHEN).unwrap();
    let progress = GroupData::clone(group).progress(&offsets(&[1]), &offsets(&[3]));
    assert_eq!(progress, GroupProgress { passed: 4, unsettled: 4, leased: 2, kept: 2 });
    assert_eq!(world.state.published_in(TopicId(0)), 5);
    seek_from(&mut world, KITCHEN, &[1], &[3]).unwrap();
    let removed = world.state.take_removed();
    assert_eq!(removed[0].group().unwrap().progress(&offsets(&[1]), &offsets(&[3])), progress);
    assert_eq!(world.counts(KITCHEN).lag, 4);
}
