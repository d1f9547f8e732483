//! The rules of order, on a world in which the key of a message follows from its place.

use crate::limits::PARKED_MAX;
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
    let provenance = Provenance { origin: origin_of(0), attempts: 1, history: vec![] };
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

/// What is parked is bounded; redriven messages have room beyond that.
#[test]
fn as_many_are_parked_as_may_be() {
    let mut world = World::with(1, GroupOptions { max_attempts: 1, ..by_key(1) });
    world.key = |_, _| KeyHash(1);
    world.publish(0, PARKED_MAX);
    world.publish(0, 10);
    let inputs = world.inputs();
    let mut state = world.state.clone();
    let keys = vec![KeyHash(1); 65_536 + 10];
    let run = KeyRun { partition: PartitionId(0), first: Offset(0), keys: &keys };
    let (mut looked_at, mut records) = (0, Vec::new());
    loop {
        records.clear();
        // More are asked for than are ready.
        let lease = Command::Lease { group: KITCHEN, max: 9, pass_exhausted: false, new_last: None, keys: Some(run) };
        if state.decide(&lease, &inputs, &mut records).unwrap() != Decision::Considered {
            break;
        }
        let Record::Considered { keys, .. } = &records[0] else { panic!("{records:?}") };
        looked_at += keys.len() as u32;
        state.apply(&records[0], Lsn(8)).unwrap();
    }
    assert_eq!((looked_at, state.check()), (PARKED_MAX, vec![]));
    assert!(state.snapshot().is_at_cap(state.group(KITCHEN).unwrap()));
    assert!(matches!(records[..], [Record::Leased { count: 1, .. }]), "{records:?}");
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
    world.refuses(Record::Considered { group: other, partition, first: Offset(0), keys: vec![KeyHash(1)] });
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
