//! Creating groups, and how they stand.

mod removal;
mod seek;

use crate::state::tests::*;

#[test]
fn a_group_needs_a_free_name_and_options_that_make_sense() {
    let mut world = World::with(2, options());
    world.publish(0, 1);
    let mut create = |name: &str, options: GroupOptions, starts: &[u64], topic| {
        let starts: Vec<_> = starts.iter().copied().map(Offset).collect();
        world.run(Command::CreateGroup { topic: TopicId(topic), name, options: &options, starts: &starts }).err()
    };
    assert_eq!(create("kitchen", options(), &[0, 0], 0), Some(Rejection::Exists));
    assert_eq!(create("a", options(), &[0, 0], 1), Some(Rejection::UnknownTopic));
    let invalid = |rejection| assert!(matches!(rejection, Some(Rejection::Invalid(_))), "{rejection:?}");
    invalid(create("a", options(), &[0], 0));
    invalid(create("a", options(), &[0, 1], 0));
    invalid(create("a", GroupOptions { visibility_timeout_ms: 0, ..options() }, &[0, 0], 0));
    invalid(create("a", GroupOptions { max_outstanding: 0, ..options() }, &[0, 0], 0));
    let backoff = BackoffOptions { first_ms: u64::MAX, ..options().backoff };
    invalid(create("a", GroupOptions { backoff, ..options() }, &[0, 0], 0));
    assert_eq!(create("a", options(), &[1, 0], 0), None);
}

#[test]
fn every_group_gets_every_message_from_its_start_on() {
    let mut world = World::with(2, options());
    world.publish(0, 3);
    world.publish(1, 1);
    let starts = [Offset(2), Offset(1)];
    let late = Command::CreateGroup { topic: TopicId(0), name: "late", options: &options(), starts: &starts };
    world.run(late).unwrap();
    world.publish(1, 1);
    assert_eq!(places(&world.lease(GroupId(1), 9)), [(0, 2), (1, 1)]);
    assert_eq!(world.lease(KITCHEN, 9).len(), 5);
    assert_eq!(world.counts(GroupId(1)).lag, 2);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
}

#[test]
fn a_partition_is_settled_up_to_the_slowest_group() {
    let mut world = World::with(1, options());
    let slow = world.group("slow", &options());
    world.publish(0, 5);
    let fast: Vec<_> = world.lease(KITCHEN, 5).iter().map(|lent| lent.held).collect();
    world.ack(KITCHEN, &fast);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(0));
    let lent: Vec<_> = world.lease(slow, 5).iter().map(|lent| lent.held).collect();
    world.ack(slow, &[lent[0], lent[1], lent[3]]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(2));
    world.ack(slow, &[lent[2]]);
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(4));
    world.run(Command::CreateTopic { name: "nobody", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    let partition = world.state.topic(TopicId(1)).unwrap().first;
    world.publish(partition.0, 3);
    assert_eq!(world.state.settled_before(partition), Offset(0), "a topic without groups keeps everything");
}

#[test]
fn a_topic_that_keeps_all_is_never_settled() {
    let mut world = World::with(1, options());
    let kept = TopicOptions { retention: Retention::Forever, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "audit", partitions: 2, options: kept }).unwrap();
    let topic = world.state.topic_by_name("audit").unwrap();
    let partition = world.state.topic(topic).unwrap().first;
    let start = [Offset(0); 2];
    world.run(Command::CreateGroup { topic, name: "w", options: &options(), starts: &start }).unwrap();
    let group = world.state.group_by_name(topic, "w").unwrap();
    for partition in [0, partition.0] {
        world.publish(partition, 2);
    }
    for group in [KITCHEN, group] {
        let held: Vec<_> = world.lease(group, 9).iter().map(|lent| lent.held).collect();
        world.ack(group, &held);
    }
    assert_eq!(world.state.settled_before(PartitionId(0)), Offset(2));
    assert_eq!(world.state.settled_before(partition), Offset(0), "kept for ever");
    world.run(Command::RemoveGroup { group }).unwrap();
    assert_eq!(world.state.settled_before(partition), Offset(0));
    let retry = world.state.partitions_end().0 - 2;
    assert_eq!(world.state.settled_before(PartitionId(retry)), Offset(u64::MAX), "what the group had is its own");
    world.run(Command::RemoveTopic { topic }).unwrap();
    assert_eq!(world.state.settled_before(partition), Offset(u64::MAX), "nobody can ask for it any more");
}

#[test]
fn counts_say_how_a_group_stands() {
    let mut world = World::with(2, options());
    world.publish(0, 5);
    world.publish(1, 1);
    let lent = world.lease(KITCHEN, 4);
    world.nack(KITCHEN, lent[0].held, Some(50), "").unwrap();
    world.nack(KITCHEN, lent[1].held, Some(0), "").unwrap();
    let counts = world.counts(KITCHEN);
    assert_eq!((counts.ready, counts.leased, counts.waiting, counts.lag), (3, 2, 1, 6));
    let of = |world: &World| {
        let (state, inputs) = (world.state.snapshot(), world.inputs());
        state.counts((KITCHEN, world.state.group(KITCHEN).unwrap()), &inputs).collect::<Vec<_>>()
    };
    let all = of(&world);
    let partitions: Vec<_> = all.iter().map(|(partition, _)| partition.0).collect();
    assert_eq!(partitions, [0, 1, 2], "the dead letters are no part of the subscription");
    let (zero, one) = (all[0].1, all[1].1);
    assert_eq!((zero.ready_since, one.ready_since), (Some(WallMs(world.wall)), None), "since the nack");
    assert_eq!((zero.first_ready, one.first_ready), (Some(Offset(4)), Some(Offset(0))));
    assert_eq!(zero.first_unsettled, Some(Offset(0)));
    assert_eq!((zero.lag, one.lag), (5, 1));
    world.advance(TIMEOUT_MS);
    let counts = world.counts(KITCHEN);
    assert_eq!((counts.ready, counts.leased, counts.waiting), (6, 0, 0));
}
