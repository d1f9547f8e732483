//! The rules of order, on a world in which the key of a message follows from its place.

use crate::state::tests::*;

/// As in the tests below: messages of one partition by turns of two keys, redriven ones of the first.
fn two_keys(partition: PartitionId, offset: Offset) -> KeyHash {
    KeyHash(if partition.0 < 2 { 1 + offset.0 % 2 } else { 1 })
}

fn by_key(max_in_flight_per_key: u32) -> GroupOptions {
    GroupOptions { ordering: Ordering::Key, max_in_flight_per_key, ..options() }
}

fn world(partitions: u32, options: GroupOptions) -> World {
    let mut world = World::with(partitions, options);
    world.key = two_keys;
    world
}

/// How many are parked of which the group knows that they wait.
fn parked(world: &World) -> u64 {
    world.counts(KITCHEN).parked
}

#[test]
fn the_next_of_a_key_waits_until_the_one_before_it_is_settled() {
    let mut world = world(1, by_key(1));
    world.publish(0, 6);
    let first = world.lease(KITCHEN, 9);
    assert_eq!(places(&first), [(0, 0), (0, 1)], "one of each key");
    assert_eq!((parked(&world), world.lease(KITCHEN, 9)), (4, vec![]));
    assert_eq!(world.ack(KITCHEN, &[first[1].held]), [0; 0]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 3)]);
    assert_eq!(world.ack(KITCHEN, &[first[0].held]), [0; 0]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 2)]);
}

#[test]
fn a_head_blocks_its_key_however_its_lease_ends() {
    for how in 0..6 {
        let mut world = world(1, by_key(1));
        world.publish(0, 3);
        let head = world.lease(KITCHEN, 9)[0];
        match how {
            0 => drop(world.nack(KITCHEN, head.held, Some(5_000), "").unwrap()),
            1 => world.advance(TIMEOUT_MS),
            2 => world.open(false),
            3 => world.open(true),
            4 => world.release(KITCHEN, head.held).unwrap(),
            _ => drop(world.run(Command::Unreadable { group: KITCHEN, held: head.held }).unwrap()),
        }
        assert!(world.lease(KITCHEN, 9).iter().all(|lent| lent.at() != (0, 2)), "{how}");
        world.advance(20_000);
        let again = world.lease(KITCHEN, 9);
        let again = again.iter().find(|lent| lent.at() == (0, 0)).unwrap();
        world.ack(KITCHEN, &[again.held]);
        assert!(places(&world.lease(KITCHEN, 9)).contains(&(0, 2)), "{how}");
    }
}

#[test]
fn a_head_that_becomes_a_dead_letter_frees_its_key() {
    let mut world = world(1, GroupOptions { max_attempts: 1, ..by_key(1) });
    world.publish(0, 6);
    let lent = world.lease(KITCHEN, 9);
    world.nack(KITCHEN, lent[0].held, None, "").unwrap();
    let reject = Command::Reject { group: KITCHEN, held: lent[1].held, text: "", moving: HERE };
    world.run(reject).unwrap();
    let next = world.lease(KITCHEN, 9);
    assert_eq!(places(&next), [(0, 2), (0, 3)]);
    world.advance(TIMEOUT_MS);
    let (decision, _) = world.try_lease(KITCHEN, 9);
    assert_eq!(decision, Decision::Exhausted { partition: PartitionId(0), offset: Offset(2) });
    world.give_up(KITCHEN, (0, 2)).unwrap();
    world.give_up(KITCHEN, (0, 3)).unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 4), (0, 5)]);
}

/// A redriven message comes before those of its key that wait, though it is looked at last.
#[test]
fn a_redriven_message_comes_first() {
    let mut world = world(2, by_key(1));
    world.publish(0, 5);
    let lent = world.lease(KITCHEN, 9);
    world.run(Command::Reject { group: KITCHEN, held: lent[0].held, text: "", moving: HERE }).unwrap();
    let next = world.lease(KITCHEN, 1);
    assert_eq!(places(&next), [(0, 2)]);
    let provenance =
        Provenance { origin: origin_of(0), attempts: 1, history: vec![], earlier: FailureCounts::default() };
    let redrive = Command::Redrive { group: KITCHEN, dead_letter: Offset(0), to: None, provenance: &provenance };
    world.run(redrive).unwrap();
    assert_eq!(world.lease(KITCHEN, 9), [], "it waits for the one that is out");
    world.ack(KITCHEN, &[next[0].held]);
    let redriven = world.lease(KITCHEN, 9);
    assert_eq!(places(&redriven), [(2, 0)]);
    world.ack(KITCHEN, &[redriven[0].held]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 4)]);
}

#[test]
fn a_key_is_blocked_over_all_partitions() {
    let mut world = world(2, by_key(1));
    world.publish(0, 1);
    world.publish(1, 1);
    let head = world.lease(KITCHEN, 9);
    assert_eq!(head.len(), 1);
    world.ack(KITCHEN, &[head[0].held]);
    assert_ne!(places(&world.lease(KITCHEN, 9)), places(&head));
}

#[test]
fn a_batch_takes_of_a_key_as_many_as_may_be_in_flight() {
    let mut world = world(1, by_key(2));
    world.publish(0, 8);
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 0), (0, 2), (0, 1), (0, 3)]);
    world.ack(KITCHEN, &[lent[1].held]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 4)]);
    // In one record, where they stand next to each other.
    world.key = |_, _| KeyHash(7);
    world.publish(0, 5);
    world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>());
    world.lease(KITCHEN, 3);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 8), (0, 9)]);
}

#[test]
fn messages_without_a_key_wait_for_nobody() {
    let mut world = World::with(1, by_key(1));
    world.publish(0, 300);
    assert_eq!(world.lease(KITCHEN, 280).len(), 280);
    assert_eq!((world.lease(KITCHEN, 280).len(), parked(&world)), (20, 0));
}

#[test]
fn a_partition_has_few_in_flight() {
    let options = GroupOptions { ordering: Ordering::Partition, max_in_flight_per_key: 2, ..options() };
    let mut world = World::with(2, options);
    world.publish(0, 5);
    world.publish(1, 1);
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(world.counts(KITCHEN), Totals { leased: 3, parked: 3, lag: 6, ..Totals::default() });
    world.nack(KITCHEN, lent[0].held, Some(0), "").unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0)]);
    world.ack(KITCHEN, &[lent[1].held]);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 2)]);
}

/// What is parked is bounded, whatever waits: the rest is counted, and recalled in order when its key is free.
#[test]
fn beyond_a_limit_messages_are_only_counted() {
    let mut world = World::with(1, by_key(1));
    world.key = |_, offset| KeyHash(if offset.0 == 90 { 2 } else { 1 });
    world.parked_max = ParkedMax { of_group: 1_000, of_key: 5 };
    world.publish(0, 100);
    let head = world.lease(KITCHEN, 1);
    assert_eq!(places(&world.lease(KITCHEN, 1)), [(0, 90)], "another key, behind all that wait");
    let group = world.state.group(KITCHEN).unwrap();
    assert_eq!((group.parked, group.counted.len()), (5, 1));
    assert_eq!(world.counts(KITCHEN), Totals { leased: 2, ready: 7, parked: 91, lag: 100, ..Totals::default() });
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
    world.ack(KITCHEN, &[head[0].held]);
    for offset in (1..100).filter(|offset| *offset != 90) {
        let lent = world.lease(KITCHEN, 9);
        assert_eq!(places(&lent), [(0, offset)]);
        assert!(world.state.group(KITCHEN).unwrap().parked <= 5);
        assert_eq!(world.state.settled_before(PartitionId(0)), Offset(offset.min(90)));
        world.ack(KITCHEN, &[lent[0].held]);
        // Also while nothing of the key is parked: what is counted is not settled.
        assert!(world.state.settled_before(PartitionId(0)) <= Offset((offset + 1).min(90)));
        let lag = 99 - offset + u64::from(offset > 90);
        assert_eq!(world.counts(KITCHEN).lag, lag, "{offset}");
    }
    assert_eq!(world.lease(KITCHEN, 9), []);
}

/// While messages of a key are counted only, later ones are too, also once fewer are parked than may be.
#[test]
fn nothing_overtakes_what_is_counted() {
    let mut world = World::with(1, by_key(1));
    world.key = |_, _| KeyHash(1);
    world.parked_max = ParkedMax { of_group: 1_000, of_key: 2 };
    world.publish(0, 5);
    let mut out = world.lease(KITCHEN, 9);
    for offset in 1..7 {
        world.ack(KITCHEN, &[out[0].held]);
        if offset < 3 {
            world.publish(0, 1);
        }
        out = world.lease(KITCHEN, 9);
        assert_eq!(places(&out), [(0, offset)]);
        assert_eq!(world.lease(KITCHEN, 9), [], "it is alone");
    }
}

/// Free keys whose lines have run out are served together, so that a partition is read again once and not once for each.
#[test]
fn many_keys_are_recalled_in_one_pass() {
    let mut world = World::with(1, GroupOptions { max_outstanding: 1 << 16, ..by_key(1) });
    world.key = |_, offset| KeyHash(1 + offset.0 % 1_000);
    world.parked_max = ParkedMax { of_group: 0, of_key: 0 };
    world.publish(0, 5_000);
    let mut seen = world.lease(KITCHEN, 1_001);
    assert_eq!((seen.len(), world.state.group(KITCHEN).unwrap().counted.len()), (1_000, 1_000));
    let before = world.log.len();
    for round in 1..5 {
        let held: Vec<Held> = seen.iter().map(|lent| lent.held).collect();
        world.ack(KITCHEN, &held);
        seen = world.lease(KITCHEN, 1_001);
        assert_eq!(seen.len(), 1_000, "in round {round}");
        assert!(seen.iter().all(|lent| lent.at().1 / 1_000 == round), "in order");
    }
    let looks = world.log[before..].iter().filter(|(record, _)| matches!(record, Record::Recalled { .. })).count();
    // Each look of this world is at three messages; the stretch from the last one of a key to its next is looked at again.
    assert!(looks <= 2 * 5_000 / 3 + 100, "{looks} looks at 4,000 messages");
    world.ack(KITCHEN, &seen.iter().map(|lent| lent.held).collect::<Vec<_>>());
    assert_eq!((world.lease(KITCHEN, 9), world.counts(KITCHEN)), (vec![], Totals::default()));
}

/// What cannot be read any more when it is recalled is delivered without its key, or told of; nothing waits for it for ever.
#[test]
fn a_counted_message_that_is_lost_blocks_nobody() {
    let mut world = World::with(1, by_key(1));
    world.key = |_, _| KeyHash(1);
    world.parked_max = ParkedMax { of_group: 0, of_key: 0 };
    world.publish(0, 4);
    let head = world.lease(KITCHEN, 9);
    world.key = |_, offset| if offset.0 == 2 { KeyHash::LOST } else { KeyHash(1) };
    world.ack(KITCHEN, &[head[0].held]);
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 1), (0, 2)]);
    world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>());
    let lent = world.lease(KITCHEN, 9);
    assert_eq!(places(&lent), [(0, 3)]);
    world.ack(KITCHEN, &[lent[0].held]);
    assert_eq!((world.lease(KITCHEN, 9), world.counts(KITCHEN)), (vec![], Totals::default()));
}

/// As many are counted as can still be there: what was lost is not looked for behind the last message.
#[test]
fn what_is_lost_of_counted_messages_is_not_counted_on() {
    let mut world = World::with(1, by_key(1));
    world.key = |_, _| KeyHash(1);
    world.parked_max = ParkedMax { of_group: 0, of_key: 0 };
    world.publish(0, 5);
    let head = world.lease(KITCHEN, 9);
    world.key = |_, offset| if offset.0 == 2 { KeyHash::LOST } else { KeyHash(1) };
    world.ack(KITCHEN, &[head[0].held]);
    let mut seen = Vec::new();
    loop {
        let lent = world.lease(KITCHEN, 9);
        if lent.is_empty() {
            break;
        }
        seen.extend(places(&lent));
        world.ack(KITCHEN, &lent.iter().map(|lent| lent.held).collect::<Vec<_>>());
    }
    seen.sort_unstable();
    assert_eq!((seen, world.counts(KITCHEN)), (vec![(0, 1), (0, 2), (0, 3), (0, 4)], Totals::default()));
}

#[test]
fn what_cannot_follow_is_refused() {
    let mut world = world(1, by_key(1));
    world.publish(0, 4);
    let (group, partition) = (KITCHEN, PartitionId(0));
    let considered = |first, keys: &[u64]| Record::Considered {
        group,
        partition,
        first: Offset(first),
        keys: keys.iter().copied().map(KeyHash).collect(),
        counted: vec![],
    };
    let leased = |first, count| Record::Leased {
        group,
        partition,
        first: Offset(first),
        count,
        attempt: 1,
        until: MonoMs(world.mono + TIMEOUT_MS),
        time: WallMs(0),
        exclusive: false,
    };
    let leases = [leased(0, 1), leased(0, 2), leased(2, 1)];
    for record in [considered(1, &[1]), considered(0, &[]), considered(0, &[1; 5]), leases[0].clone()] {
        world.refuses(record);
    }
    let lent = world.lease(KITCHEN, 1);
    assert_eq!(places(&lent), [(0, 0)]);
    // The group has looked at three, as the reading goes here.
    for record in [leases[1].clone(), leases[2].clone(), considered(0, &[1])] {
        world.refuses(record);
    }
    let altered = GroupOptions { max_in_flight_per_key: 2, ..by_key(1) };
    world.refuses(Record::GroupAltered { group, options: altered });
    let other = world.group("other", &options());
    world.refuses(Record::Considered {
        group: other,
        partition,
        first: Offset(0),
        keys: vec![KeyHash(1)],
        counted: vec![],
    });
    // Nothing was counted, so nothing is recalled; and what has no key is not counted.
    let counted = |number| Record::Considered {
        group,
        partition,
        first: Offset(3),
        keys: vec![KeyHash::NONE],
        counted: vec![number],
    };
    for record in
        [Record::Recalled { group, partition, first: Offset(0), keys: vec![KeyHash(1)] }, counted(0), counted(1)]
    {
        world.refuses(record);
    }
}

#[test]
fn contradictory_options_are_refused() {
    for options in [
        GroupOptions { max_in_flight_per_key: 0, ..by_key(1) },
        by_key(65_537),
        GroupOptions { max_in_flight_per_key: 2, ..options() },
    ] {
        let mut world = World::with(1, by_key(65_536));
        let create = Command::CreateGroup { topic: TopicId(0), name: "g", options: &options, starts: &[Offset(0)] };
        assert!(matches!(world.run(create), Err(Rejection::Invalid(_))), "{options:?}");
    }
}
