//! Topics and groups that are removed, and groups that go on with other options.

use crate::state::tests::*;

fn remove(world: &mut World, group: GroupId) -> Result<(), Rejection> {
    world.run(Command::RemoveGroup { group }).map(drop)
}

#[test]
fn nothing_is_left_of_a_removed_group_and_its_number_never_comes_back() {
    let mut world = World::with(1, options());
    let other = world.group("other", &options());
    world.publish(0, 5);
    let held = world.lease_one(other).held;
    world.lease(KITCHEN, 5);
    let of = world.state.group(other).unwrap();
    let (retry, dead) = (of.retry, of.dead());
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
    remove(&mut world, other).unwrap();
    assert_eq!(world.state.take_removed().len(), 1);
    assert_eq!(remove(&mut world, other), Err(Rejection::UnknownGroup));
    assert_eq!(world.run(Command::Ack { group: other, held: &[held.into()] }), Err(Rejection::UnknownGroup));
    assert_eq!(
        world.run(Command::Lease {
            group: other,
            max: 1,
            pass_exhausted: false,
            new_last: None,
            keys: None,
            looked_at: 0
        }),
        Err(Rejection::UnknownGroup)
    );
    assert!(world.state.group(other).is_none() && world.state.group_by_name(TopicId(0), "other").is_none());
    for partition in [retry, dead] {
        assert_eq!(world.state.partition_role(partition), None);
        assert_eq!(world.state.settled_before(partition), Offset(u64::MAX), "nobody wants it");
    }
    // Another one of this name is another group, also after a restart.
    world.state = State::decode(&bytes(&world.state)).unwrap();
    let again = world.group("other", &options());
    assert_eq!((again, world.state.group(again).unwrap().retry), (GroupId(2), dead.saturating_add(1)));
    assert_eq!(world.lease(again, 9).len(), 5, "it begins at the beginning");
    assert_eq!(
        world.run(Command::Ack { group: again, held: &[held.into()] }).unwrap().0,
        Decision::Settled { lost: vec![0] }
    );
}

#[test]
fn a_removed_topic_takes_its_groups_along() {
    let mut world = World::with(3, options());
    let other = world.group("other", &options());
    world.publish(1, 2);
    world.lease(other, 2);
    world.run(Command::CreateTopic { name: "bills", partitions: 2, options: TopicOptions::LEFT_OUT }).unwrap();
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert_eq!(world.run(Command::RemoveTopic { topic: TopicId(0) }), Err(Rejection::UnknownTopic));
    assert!(world.state.group(KITCHEN).is_none() && world.state.group(other).is_none());
    let partitions: Vec<_> = world.state.partitions().map(|(partition, _)| partition.0).collect();
    assert_eq!(partitions, [7, 8], "those of the other topic");
    let runs = [(PartitionId(1), 1)];
    assert_eq!(world.run(Command::publish(&runs)), Err(Rejection::UnknownPartition));
    world.run(Command::CreateTopic { name: "orders", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    assert_eq!(world.state.topic_by_name("orders"), Some(TopicId(2)));
    assert_eq!(world.state.settled_before(PartitionId(1)), Offset(u64::MAX));
    assert_eq!(world.state.settled_before(PartitionId(99)), Offset(0), "it may come yet");
}

/// A removed group holds up no other.
#[test]
fn a_removed_group_ends_its_exclusive_lease() {
    for awaited in [true, false] {
        let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
        let other = world.group("other", &options());
        world.publish(0, 3);
        world.lease_one(KITCHEN);
        world.open(false);
        if awaited {
            world.lease_one(other);
        }
        world.try_lease(KITCHEN, 1);
        assert!(world.is_held_up());
        remove(&mut world, KITCHEN).unwrap();
        assert!(!world.is_held_up());
        assert_eq!(world.lease(other, 9).len(), if awaited { 2 } else { 3 });
    }
}

#[test]
fn a_group_that_is_altered_goes_on_with_what_it_has() {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, max_outstanding: 4, ..options() });
    world.publish(0, 9);
    let lent = world.lease(KITCHEN, 4);
    let less = GroupChanges {
        max_attempts: Some(1),
        max_outstanding: Some(2),
        visibility_timeout_ms: Some(7),
        ..GroupChanges::default()
    };
    world.run(Command::AlterGroup { group: KITCHEN, changes: &less }).unwrap();
    // There are more than the new limit allows: no new ones, until enough are settled.
    assert_eq!(world.lease(KITCHEN, 9), []);
    assert_eq!(world.ack(KITCHEN, &[lent[0].held, lent[1].held]), Vec::<u32>::new());
    assert_eq!(world.lease(KITCHEN, 9), []);
    assert_eq!(world.ack(KITCHEN, &[lent[2].held]), Vec::<u32>::new());
    let [new] = world.lease(KITCHEN, 9)[..] else { panic!("one place is free") };
    assert_eq!(new.until, MonoMs(world.mono + 7), "the new timeout");
    // Leased under the old limit, it has another attempt; leased under the new one, it has none.
    let records = world.nack(KITCHEN, lent[3].held, Some(0), "").unwrap();
    assert!(matches!(records[..], [Record::Nacked { .. }]));
    let records = world.nack(KITCHEN, new.held, Some(0), "").unwrap();
    assert!(matches!(records[..], [Record::DeadLettered { .. }]));
    let again = State::decode(&bytes(&world.state)).unwrap();
    assert_eq!(again.hash(), world.state.hash());
    let (decision, records) = world.run(Command::AlterGroup { group: KITCHEN, changes: &less }).unwrap();
    assert_eq!((decision, records.len()), (Decision::Done, 0), "nothing changes");
    let none = GroupChanges { max_outstanding: Some(0), ..GroupChanges::default() };
    assert!(matches!(world.run(Command::AlterGroup { group: KITCHEN, changes: &none }), Err(Rejection::Invalid(_))));
    let unknown = Command::AlterGroup { group: GroupId(9), changes: &less };
    assert_eq!(world.run(unknown), Err(Rejection::UnknownGroup));
}

/// G-numbers go up, memory does not.
#[test]
fn a_store_of_short_lived_groups_stays_flat() {
    let mut world = World::with(2, options());
    let len = |world: &World| bytes(&world.state).len();
    let mut first = 0;
    for round in 0..20_000u64 {
        world.log.clear();
        let group = world.group("short-lived", &options());
        assert_eq!(group, GroupId(round + 1));
        world.publish(0, 1);
        world.lease_one(group);
        remove(&mut world, group).unwrap();
        drop(world.state.take_removed());
        if round == 100 {
            first = len(&world);
        }
    }
    assert!(len(&world) <= first + 10, "{} bytes after {first}", len(&world));
    assert_eq!(world.state.partitions().count(), 4);
}

fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().encode(&mut bytes);
    bytes
}
