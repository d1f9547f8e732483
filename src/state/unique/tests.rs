//! Unique keys: which message has one, for how long, and what becomes of those that were replaced.

use crate::limits::UNIQUE_KEYS_MAX;
use crate::record::{Hold, Retention};
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
    let place = (PartitionId(partition), world.state.partition_end(PartitionId(partition)));
    let uniques = &[UniqueKey { part: 0, key, message_key: (world.key)(place.0, place.1), while_pending }];
    let runs = &[(place.0, 1)];
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
    let uniques = &[UniqueKey { part: 0, key, message_key: KeyHash::NONE, while_pending }];
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

/// Newer ones next to each other are acked together, and never beyond the lease that they were part of.
#[test]
fn g20_replaced_messages_are_acked_in_runs() {
    let mut world = World::with(2, options());
    for key in [1, 2, 3, 4, 1, 2, 4] {
        publish(&mut world, key, Replace).unwrap();
    }
    publish_to(&mut world, 1, 3, Replace).unwrap();
    let (decision, records, _) = world.run_lease(GroupId(0), 20, false);
    assert_eq!(decision, Decision::Done);
    let (group, partition) = (GroupId(0), PartitionId(0));
    let acked: Vec<_> = records.iter().filter(|record| matches!(record, Record::Acked { .. })).collect();
    assert_eq!(acked, [&Record::Acked { group, partition, first: Offset(0), count: 4 }]);
    assert_eq!(world.state.uniques.replaced, 0);
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

/// What was tried and replaced is settled at once: it has no lease, no retry, no dead letter, and nobody waits for it.
#[test]
fn g20_what_was_tried_and_is_replaced_is_settled_at_once() {
    for ordering in [Ordering::None, Ordering::Key, Ordering::Partition] {
        for how in 0..5 {
            let max_attempts = if how == 4 { 2 } else { 1 + u32::from(how < 3) };
            let mut world = World::with(1, GroupOptions { ordering, max_attempts, max_outstanding: 1, ..options() });
            world.key = |_, _| KeyHash(5);
            publish(&mut world, 7, Reject).unwrap();
            let held = world.lease(GroupId(0), 1)[0].held;
            match how {
                0 => drop(world.nack(GroupId(0), held, Some(500), "").unwrap()),
                1 => world.release(GroupId(0), held).unwrap(),
                // Over: retried, or used up.
                2 | 3 => world.advance(TIMEOUT_MS),
                // It is the last attempt after a crash, which is to be alone.
                _ => world.open(false),
            }
            assert_eq!(publish(&mut world, 7, Replace), Ok(None), "{ordering:?} {how}");
            let extended = world.run(Command::Extend { group: GroupId(0), held, for_ms: 9_000 });
            assert_eq!(extended.err(), Some(Rejection::LeaseLost), "{ordering:?} {how}");
            assert_eq!(world.ack(GroupId(0), &[held]), [0], "{ordering:?} {how}");
            assert_eq!(world.state.check(), [], "{ordering:?} {how}");
            let newer = world.lease(GroupId(0), 9);
            assert_eq!(places(&newer), [(0, 1)], "{ordering:?} {how}");
            assert_eq!(newer[0].attempt, 1);
            world.ack(GroupId(0), &[newer[0].held]);
            assert_eq!(world.counts(GroupId(0)), Totals::default(), "{ordering:?} {how}");
            assert_eq!(world.state.uniques.pending.len(), 0);
        }
    }
}

/// The groups that have tried it are done with it; the others pass it over.
#[test]
fn g20_each_group_is_done_with_what_is_replaced() {
    let mut world = world();
    let other = world.group("other", &options());
    publish(&mut world, 7, Reject).unwrap();
    let held = world.lease(GroupId(0), 1)[0].held;
    world.nack(GroupId(0), held, Some(100), "").unwrap();
    publish(&mut world, 7, Replace).unwrap();
    assert_eq!((world.counts(GroupId(0)).lag, world.counts(other).lag), (1, 2));
    assert_eq!((world.state.uniques.pending.len(), world.state.uniques.replaced), (2, 1));
    for group in [GroupId(0), other] {
        let lent = world.lease(group, 9);
        assert_eq!(places(&lent), [(0, 1)]);
        world.ack(group, &[lent[0].held]);
    }
    assert_eq!(world.state.uniques.pending.len(), 0);
}

/// A message that waits for the others of its key keeps no unique key of another one.
#[test]
fn g20_a_key_is_free_whatever_is_only_counted() {
    let mut world = World::with(1, GroupOptions { ordering: Ordering::Key, ..options() });
    world.key = |_, offset| KeyHash(if offset.0 == 9 { 2 } else { 1 });
    world.parked_max = ParkedMax { of_group: 1_000, of_key: 2 };
    for key in 0..10 {
        publish(&mut world, key, Reject).unwrap();
    }
    let head = world.lease(GroupId(0), 1)[0];
    let other = world.lease(GroupId(0), 1)[0];
    assert_eq!((head.at(), other.at()), ((0, 0), (0, 9)), "behind all that wait");
    world.ack(GroupId(0), &[other.held]);
    assert_eq!(publish(&mut world, 9, Reject), Ok(None), "it is settled");
    for key in 0..9 {
        assert_eq!(publish(&mut world, key, Reject), Err(pending(&world, key as u64)), "it waits for its key");
    }
    let mut held = head.held;
    for offset in 1..11 {
        world.ack(GroupId(0), &[held]);
        let next = world.lease(GroupId(0), 1)[0];
        assert_eq!(next.at(), (0, if offset < 9 { offset } else { 10 }));
        held = next.held;
        if offset > 8 {
            break;
        }
    }
    world.ack(GroupId(0), &[held]);
    assert_eq!((world.state.uniques.pending.len(), world.state.check()), (0, vec![]));
}

/// What a topic without groups keeps no longer keeps no key.
#[test]
fn g20_a_key_goes_with_what_a_topic_keeps_no_longer() {
    let age = Retention::Age(std::time::Duration::from_millis(100));
    for retention in [Retention::UntilSettled, Retention::Forever, Retention::Count(1), age] {
        let mut world = World::new();
        let options = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
        world.run(Command::CreateTopic { name: "t", partitions: 1, options }).unwrap();
        let uniques = &[0, 1].map(|part| UniqueKey {
            part,
            key: 7 + u128::from(part),
            message_key: KeyHash::NONE,
            while_pending: Reject,
        });
        let runs = &[(PartitionId(0), 2)];
        world.run(Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None }).unwrap();
        let keys = |world: &World| world.state.uniques.owners.len();
        assert_eq!(keys(&world), if retention == Retention::Count(1) { 1 } else { 2 }, "{retention:?}");
        let mark = |world: &mut World| _ = world.run(Command::MarkRetention { topic: TopicId(0) });
        mark(&mut world);
        world.advance(100);
        mark(&mut world);
        let left = match retention {
            Retention::UntilSettled | Retention::Forever => 2,
            Retention::Count(_) => 1,
            Retention::Age(_) => 0,
        };
        assert_eq!(keys(&world), left, "{retention:?}");
        // Behind what was published so far stands a cursor.
        let hold = Some(Hold { topic: TopicId(0), from: Lsn(world.lsn) });
        world.run(Command::SetCursor { name: "c", expected: None, value: b"", hold }).unwrap();
        let left = match retention {
            Retention::UntilSettled | Retention::Age(_) => 0,
            Retention::Forever => 2,
            Retention::Count(_) => 1,
        };
        assert_eq!((keys(&world), world.state.check()), (left, vec![]), "{retention:?}");
        assert_eq!(publish(&mut world, 9, Reject), Ok(None));
        assert_eq!(publish(&mut world, 9, Reject), Err(pending(&world, 2)), "the cursor has not passed it");
        world.run(Command::RemoveCursor { name: "c" }).unwrap();
        assert_eq!(world.state.check(), [], "{retention:?}");
    }
}

/// The newer one, or a cursor in its frame, is why the older one is not kept any more.
#[test]
fn g20_what_goes_in_the_frame_of_the_newer_one_is_replaced() {
    for retention in [Retention::UntilSettled, Retention::Count(1)] {
        let mut world = World::new();
        let options = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
        world.run(Command::CreateTopic { name: "t", partitions: 1, options }).unwrap();
        publish(&mut world, 7, Reject).unwrap();
        let uniques = &[UniqueKey { part: 0, key: 7, message_key: KeyHash::NONE, while_pending: Replace }];
        let runs = &[(PartitionId(0), 1)];
        let newer = Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None };
        let hold = Some(Hold { topic: TopicId(0), from: Lsn(world.lsn) });
        let moved = Command::SetCursor { name: "c", expected: None, value: b"", hold };
        world.run(Command::Transaction { steps: &[moved, newer], parts: 1, settled_len: 0 }).unwrap();
        assert_eq!(publish(&mut world, 7, Reject), Err(pending(&world, 1)), "{retention:?}");
        assert_eq!((world.state.uniques.pending.len(), world.state.check()), (1, vec![]), "{retention:?}");
    }
}

#[test]
fn g20_what_a_transaction_settles_is_not_replaced_in_it() {
    let mut world = world();
    publish(&mut world, 7, Reject).unwrap();
    let held = world.lease(GroupId(0), 1)[0].held;
    // Over, and still the consumer's until another one has the message.
    world.advance(TIMEOUT_MS);
    let uniques = &[UniqueKey { part: 0, key: 7, message_key: KeyHash::NONE, while_pending: Replace }];
    let runs = &[(PartitionId(0), 1)];
    let publish = Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None };
    let ack = Command::Ack { group: GroupId(0), held: &[held.into()] };
    for steps in [[ack, publish], [publish, ack]] {
        let refused = world.run(Command::Transaction { steps: &steps, parts: 1, settled_len: 0 });
        assert_eq!(refused.err(), Some(pending(&world, 0)));
    }
    world.run(publish).unwrap();
    assert_eq!(world.ack(GroupId(0), &[held]), [0]);
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
            .map(|part| UniqueKey {
                part,
                key: u128::from(nth * count + part),
                message_key: KeyHash::NONE,
                while_pending: Reject,
            })
            .collect();
        let runs = &[(PartitionId(0), count)];
        let publish = Command::Publish { runs, ids: &[], delays: &[], uniques: &uniques, sequence: None };
        let mut records = Vec::new();
        world.state.decide(&publish, &world.inputs(), &mut records).unwrap();
        records.iter().for_each(|record| world.state.apply(record, Lsn(8)).unwrap());
    }
    assert_eq!(publish(&mut world, u128::MAX, Reject), Err(super::FULL));
    assert_eq!(publish(&mut world, 7, ReturnExisting), Ok(Some(7)));
    let twice =
        &[0, 1].map(|part| UniqueKey { part, key: 7, message_key: KeyHash::NONE, while_pending: ReturnExisting });
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
    let message_key = KeyHash::NONE;
    let taken = |(partition, offset), key, replaced| Record::KeyTaken { partition, offset, key, message_key, replaced };
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
