//! Unique keys: which message has one, for how long, and what becomes of those that were replaced.

use crate::limits::UNIQUE_KEYS_MAX;
use crate::state::tests::*;
use WhilePending::{Reject, Replace, ReturnExisting};

const HIDDEN: PartitionId = PartitionId(4);

fn world() -> World {
    World::with(2, options())
}

/// Publishes a message under a key to a partition. Where nothing is published, the place of the pending one.
fn publish_to(
    world: &mut World,
    partition: u64,
    key: u128,
    while_pending: WhilePending,
) -> Result<Option<u64>, Rejection> {
    let uniques = &[UniqueKey { part: 0, key, while_pending }];
    let runs = &[(PartitionId(partition), 1)];
    match world.run(Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None }) {
        Ok(_) => Ok(None),
        Err(Rejection::Repeated(repeats)) => Ok(Some(repeats[0].id.offset.0)),
        Err(other) => Err(other),
    }
}

fn publish(world: &mut World, key: u128, while_pending: WhilePending) -> Result<Option<u64>, Rejection> {
    publish_to(world, 0, key, while_pending)
}

fn pending(world: &World, offset: u64) -> Rejection {
    let (partition, offset, epoch) = (0, Offset(offset), world.state.epoch());
    Rejection::KeyPending { pending: Box::new(MessageId { topic: TopicId(0), partition, offset, epoch }) }
}

/// Publishes one for later under a key.
fn schedule(world: &mut World, key: u128, while_pending: WhilePending) -> Result<(Decision, Vec<Record>), Rejection> {
    if world.state.schedule_of(TopicId(0)).is_none() {
        world.run(Command::CreateSchedule { topic: TopicId(0) }).unwrap();
    }
    let delays = &[Delay { part: 0, to: PartitionId(1), later: Later::In(500) }];
    let uniques = &[UniqueKey { part: 0, key, while_pending }];
    world.run(Command::Publish { runs: &[(HIDDEN, 1)], ids: &[], delays, uniques, sequence: None })
}

#[test]
fn g20_one_message_of_a_key_is_pending() {
    let mut world = world();
    assert_eq!(publish(&mut world, 7, Reject), Ok(None));
    assert_eq!(publish(&mut world, 8, Reject), Ok(None), "another key");
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 0)));
    assert_eq!(publish_to(&mut world, 1, 7, ReturnExisting), Ok(Some(0)), "also in another partition");
    let lent = world.lease(GroupId(0), 1)[0];
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 0)), "while a consumer works on it");
    world.ack(GroupId(0), &[lent.held]);
    assert_eq!(publish(&mut world, 7, ReturnExisting), Ok(None), "once it is settled");
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 2)));
}

#[test]
fn g20_a_retry_keeps_the_key_and_a_dead_letter_lets_it_go() {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
    publish(&mut world, 7, Reject).unwrap();
    let lent = world.lease(GroupId(0), 1)[0];
    world.nack(GroupId(0), lent.held, Some(100), "").unwrap();
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 0)), "it waits for its retry");
    world.advance(100);
    let lent = world.lease(GroupId(0), 1)[0];
    assert_eq!(lent.attempt, 2);
    world.nack(GroupId(0), lent.held, None, "").unwrap();
    assert_eq!(publish(&mut world, 7, Reject), Ok(None), "it is a dead letter");
}

#[test]
fn g20_a_key_is_pending_until_the_last_group_has_settled_it() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "orders", partitions: 2, options: TopicOptions::LEFT_OUT }).unwrap();
    publish(&mut world, 7, Reject).unwrap();
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 0)), "while there is no group");
    let (one, other) = (world.group("one", &options()), world.group("other", &options()));
    let lent = world.lease(one, 1)[0];
    world.ack(one, &[lent.held]);
    assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 0)), "the other has it still");
    world.run(Command::RemoveGroup { group: other }).unwrap();
    assert_eq!(publish(&mut world, 7, Reject), Ok(None), "it goes with that group");
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert_eq!(world.state.uniques.pending.len(), 0);
}

#[test]
fn g20_the_first_group_begins_behind_a_message_and_its_key_is_free() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "orders", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    publish(&mut world, 7, Reject).unwrap();
    let starts = &[Offset(1)];
    world.run(Command::CreateGroup { topic: TopicId(0), name: "late", options: &options(), starts }).unwrap();
    assert_eq!(publish(&mut world, 7, Reject), Ok(None));
}

#[test]
fn g20_what_is_replaced_is_passed_over() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        let mut world = World::with(1, GroupOptions { ordering, ..options() });
        world.key = |_, _| KeyHash(5);
        publish(&mut world, 7, Reject).unwrap();
        publish(&mut world, 8, Reject).unwrap();
        assert_eq!(publish(&mut world, 7, Replace), Ok(None));
        assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 2)), "the newer one has the key");
        let mut got = Vec::new();
        for _ in 0..8 {
            for lent in world.lease(GroupId(0), 10) {
                got.push(lent.held.offset.0);
                world.ack(GroupId(0), &[lent.held]);
            }
        }
        assert_eq!(got, [1, 2], "{ordering:?}");
        assert_eq!((world.state.uniques.pending.len(), world.state.uniques.replaced), (0, 0));
        let group = world.state.group(GroupId(0)).unwrap();
        assert!(group.is_settled(0, Offset(0), Offset(3)), "nothing of it is left");
    }
}

#[test]
fn g20_what_a_consumer_works_on_is_not_replaced() {
    let mut world = World::with(1, options());
    publish(&mut world, 7, Reject).unwrap();
    let lent = world.lease(GroupId(0), 1)[0];
    assert_eq!(publish(&mut world, 7, Replace), Err(pending(&world, 0)));
    world.nack(GroupId(0), lent.held, Some(100), "").unwrap();
    assert_eq!(publish(&mut world, 7, Replace), Ok(None), "it waits for its retry");
    world.advance(100);
    let offsets: Vec<_> = world.lease(GroupId(0), 10).iter().map(|lent| lent.held.offset.0).collect();
    assert_eq!(offsets, [1]);
    // A lease that is over is nobody's work.
    world.advance(TIMEOUT_MS);
    assert_eq!(publish(&mut world, 7, Replace), Ok(None));
}

#[test]
fn g20_a_message_for_later_has_its_key_and_takes_it_along() {
    let mut world = world();
    schedule(&mut world, 7, Reject).unwrap();
    let found = publish(&mut world, 7, Reject).unwrap_err();
    assert!(matches!(&found, Rejection::KeyPending { pending } if pending.partition == u64::MAX - 1), "{found:?}");
    // Replaced, it is cancelled.
    let (_, records) = schedule(&mut world, 7, Replace).unwrap();
    assert!(records.iter().any(|record| matches!(record, Record::ScheduleEnded { copy: None, .. })), "{records:?}");
    assert_eq!(world.state.scheduled_from(TopicId(0), Offset(0), 9).len(), 1);
    world.advance(500);
    let published = Publication::Here { epoch: world.state.epoch(), time: WallMs(9) };
    world.run(Command::MoveDue { at: (HIDDEN, Offset(1)), published }).unwrap();
    assert_eq!(publish_to(&mut world, 1, 7, ReturnExisting), Ok(Some(0)), "where it is now");
    schedule(&mut world, 9, Reject).unwrap();
    world.run(Command::Reschedule { at: (HIDDEN, Offset(2)), epoch: None, later: None }).unwrap();
    assert_eq!(publish(&mut world, 9, Reject), Ok(None), "what is cancelled has no key");
}

#[test]
fn g20_keys_have_a_bound_and_a_frame_has_each_once() {
    let mut world = world();
    let count = UNIQUE_KEYS_MAX as u32 / 32;
    for nth in 0..32 {
        let uniques: Vec<_> = (0..count)
            .map(|part| UniqueKey { part, key: u128::from(nth * count + part), while_pending: Reject })
            .collect();
        let runs = &[(PartitionId(0), count)];
        let publish = Command::Publish { runs, ids: &[], delays: &[], uniques: &uniques, sequence: None };
        let mut records = Vec::new();
        world.state.decide(&publish, &world.inputs(), &mut records).unwrap();
        records.iter().for_each(|record| world.state.apply(record, Lsn(8)).unwrap());
    }
    assert_eq!(publish(&mut world, u128::MAX, Reject), Err(super::FULL));
    assert_eq!(publish(&mut world, 7, ReturnExisting), Ok(Some(7)));
    let twice = &[0, 1].map(|part| UniqueKey { part, key: 7, while_pending: ReturnExisting });
    let runs = &[(PartitionId(0), 2)];
    let command = Command::Publish { runs, ids: &[], delays: &[], uniques: twice, sequence: None };
    assert!(matches!(world.run(command), Err(Rejection::Invalid(_))));
}

#[test]
fn records_of_keys_follow_from_the_state_or_change_nothing() {
    let mut world = world();
    publish(&mut world, 7, Reject).unwrap();
    world.publish(0, 1);
    let place = |offset| (PartitionId(0), Offset(offset));
    let taken = |(partition, offset), key, replaced| Record::KeyTaken { partition, offset, key, replaced };
    for (record, why) in [
        (taken(place(1), 7, None), "another message has the key"),
        (taken(place(1), 8, Some(place(0))), "that message has another key"),
        (taken(place(0), 8, None), "a message has one key"),
        (taken(place(2), 8, None), "there is no such message"),
        (taken((PartitionId(2), Offset(0)), 8, None), "no partition of a topic"),
    ] {
        let before = world.state.hash();
        world.state.apply(&record, Lsn(99)).expect_err(why);
        assert_eq!(world.state.hash(), before, "{why}");
    }
}
