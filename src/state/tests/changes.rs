//! Creating, publishing, opening, clocks; and the records that do not follow.

use super::*;
use crate::limits::{FRAME_PARTS_MAX, NAME_LEN_MAX, TOPIC_PARTITIONS_MAX};
use crate::record::Copied;

#[test]
fn nothing_comes_before_the_first_process() {
    let mut world = World::new();
    world.state = State::new();
    assert!(matches!(world.run(Command::NoteClockJump), Err(Rejection::Invalid(_))));
    world.refuses(Record::ClockJumped { wall: WallMs(1) });
    assert!(matches!(world.run(Command::Open { epoch: Epoch(0), clean: true }), Err(Rejection::Invalid(_))));
    world.run(Command::Open { epoch: Epoch(3), clean: true }).unwrap();
    assert!(matches!(world.run(Command::Open { epoch: Epoch(3), clean: true }), Err(Rejection::Invalid(_))));
    world.refuses(Record::Opened { epoch: Epoch(3), clean: true, wall: WallMs(1) });
}

#[test]
fn partitions_are_numbered_in_order_of_creation() {
    let mut world = World::with(2, options());
    world.run(Command::CreateTopic { name: "second", partitions: 1 }).unwrap();
    let roles: Vec<_> = (0..6).map(|id| world.state.partition_role(PartitionId(id))).collect();
    let expected = [
        Some(Role::Topic { topic: TopicId(0), index: 0 }),
        Some(Role::Topic { topic: TopicId(0), index: 1 }),
        Some(Role::Retry { group: KITCHEN }),
        Some(Role::Dead { group: KITCHEN }),
        Some(Role::Topic { topic: TopicId(1), index: 0 }),
        None,
    ];
    assert_eq!(roles, expected);
    assert_eq!(world.state.partitions_end(), PartitionId(5));
    assert_eq!(world.state.topic_by_name("second"), Some(TopicId(1)));
    assert_eq!(world.state.topics().map(|(_, topic)| &*topic.name).collect::<Vec<_>>(), ["orders", "second"]);
    assert_eq!(world.state.groups_of(TopicId(0)).map(|(id, _)| id).collect::<Vec<_>>(), [KITCHEN]);
}

#[test]
fn a_topic_needs_a_free_name_and_partitions() {
    let mut world = World::with(1, options());
    let mut create = |name: &str, partitions| world.run(Command::CreateTopic { name, partitions }).err();
    assert_eq!(create("orders", 1), Some(Rejection::Exists));
    assert!(matches!(create("", 1), Some(Rejection::Invalid(_))));
    assert!(matches!(create(&"x".repeat(NAME_LEN_MAX + 1), 1), Some(Rejection::Invalid(_))));
    assert!(matches!(create("a", 0), Some(Rejection::Invalid(_))));
    assert!(matches!(create("a", TOPIC_PARTITIONS_MAX + 1), Some(Rejection::Invalid(_))));
    assert_eq!(create(&"x".repeat(NAME_LEN_MAX), TOPIC_PARTITIONS_MAX), None);
}

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
fn a_batch_is_published_whole_or_not() {
    let mut world = World::with(3, options());
    let before = world.state.hash();
    let p = PartitionId;
    let runs = |world: &mut World, runs: &[_]| world.run(Command::Publish { runs }).map(|(_, records)| records.len());
    assert_eq!(runs(&mut world, &[(p(0), 1), (p(9), 1)]), Err(Rejection::UnknownPartition));
    assert_eq!(runs(&mut world, &[(p(0), 1), (p(3), 1)]), Err(Rejection::UnknownPartition), "hidden");
    assert!(matches!(runs(&mut world, &[(p(0), 1), (p(1), 0)]), Err(Rejection::Invalid(_))));
    assert!(matches!(runs(&mut world, &[(p(1), 1), (p(0), 1), (p(1), 1)]), Err(Rejection::Invalid(_))));
    let half = FRAME_PARTS_MAX as u32 / 2;
    assert!(matches!(runs(&mut world, &[(p(0), half), (p(1), half + 1)]), Err(Rejection::LimitReached(_))));
    assert_eq!(world.state.hash(), before);
    assert_eq!(runs(&mut world, &[(p(2), half), (p(0), half)]), Ok(2));
    assert_eq!(world.state.partition_end(p(2)), Offset(u64::from(half)));
}

#[test]
fn g16_no_jump_of_the_clock_holds_a_message_back_beyond_its_own_delay() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[0].held, Some(5_000), "").unwrap();
    world.nack(KITCHEN, lent[1].held, Some(1_000), "").unwrap();
    world.wall -= WALL / 2;
    let due = |world: &World| world.state.next_deadline(KITCHEN, &world.inputs()).wall;
    assert_eq!(due(&world), Some(WallMs(WALL + 1_000)));
    world.run(Command::NoteClockJump).unwrap();
    assert_eq!(due(&world), Some(WallMs(world.wall + 1_000)));
    world.advance(1_000);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 1)]);
    world.wall -= 1_000_000;
    world.open(true);
    world.advance(4_999);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 1)], "its lease was ended by the close");
    world.advance(1);
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0)]);
}

#[test]
fn g16_a_jump_forward_makes_a_message_early_but_never_expires_a_lease() {
    let mut world = World::with(1, options());
    world.publish(0, 2);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[0].held, Some(5_000), "").unwrap();
    world.wall += 10 * WALL;
    world.run(Command::NoteClockJump).unwrap();
    assert_eq!(places(&world.lease(KITCHEN, 9)), [(0, 0)]);
    assert_eq!(world.ack(KITCHEN, &[lent[1].held]), []);
}

#[test]
fn a_monotonic_clock_at_its_end_is_refused() {
    let mut world = World::with(1, options());
    world.publish(0, 1);
    world.mono = u64::MAX - 5;
    assert!(matches!(
        world.run(Command::Lease { group: KITCHEN, max: 1, pass_exhausted: false }),
        Err(Rejection::Invalid(_))
    ));
}

/// A world with one message in each situation: 0 leased, 1 leased and ended, 2 waiting, 3 ready, 4 new.
fn situations() -> World {
    let mut world = World::with(1, GroupOptions { max_attempts: 2, ..options() });
    world.publish(0, 5);
    world.lease(KITCHEN, 1);
    world.lease(KITCHEN, 1);
    let (waiting, ready) = (world.lease_one(KITCHEN), world.lease_one(KITCHEN));
    world.nack(KITCHEN, waiting.held, Some(9_000), "").unwrap();
    world.nack(KITCHEN, ready.held, Some(0), "").unwrap();
    let held = Held { partition: PartitionId(0), offset: Offset(0), token: Token { epoch: Epoch(1), lsn: Lsn(32) } };
    world.run(Command::Extend { group: KITCHEN, held, for_ms: 50_000 }).unwrap();
    world.advance(2 * TIMEOUT_MS);
    world
}

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
fn what_only_a_holder_does_is_refused_without_a_lease() {
    let mut world = situations();
    let (group, partition) = (KITCHEN, PartitionId(0));
    let failure = Failure { cause: Cause::Nacked, time: WallMs(5), text: "".into() };
    for offset in [2, 3, 4, 5].map(Offset) {
        let due = WallMs(7);
        world.refuses(Record::Acked { group, partition, first: offset, count: 1 });
        let failure = failure.clone();
        world.refuses(Record::Nacked { group, partition, offset, due, delay_ms: 2, failure });
        world.refuses(Record::Extended { group, partition, offset, until: MonoMs(u64::MAX) });
        world.refuses(Record::Released { group, partition, offset });
        world.refuses(Record::Unreadable { group, partition, offset, due, delay_ms: 2 });
        world.refuses(Record::PutOff { group, partition, offset, due, delay_ms: 2 });
        world.refuses(Record::DeadLettered { group, partition, offset, copy: copy(2, 0) });
    }
    let first = Offset(0);
    world.refuses(Record::Acked { group, partition, first, count: 3 }); // the third is not leased
    world.refuses(Record::Acked { group, partition, first, count: 0 });
    world.refuses(Record::Acked { group, partition, first: Offset(u64::MAX), count: 2 });
    world.refuses(Record::Extended { group, partition, offset: first, until: MonoMs(5) });
    world.refuses(Record::PutOff { group, partition, offset: first, due: WallMs(7), delay_ms: 2 });
    world.refuses(Record::Unreadable { group, partition, offset: first, due: WallMs(7), delay_ms: 0 });
    let nacked = |due, failure| Record::Nacked { group, partition, offset: first, due, delay_ms: 2, failure };
    world.refuses(nacked(WallMs(8), failure.clone()));
    world.refuses(nacked(WallMs(7), Failure { cause: Cause::Expired, ..failure.clone() }));
    world.refuses(nacked(WallMs(7), Failure { text: "x".repeat(121).into(), ..failure.clone() }));
    world.state.apply(&nacked(WallMs(7), failure), Lsn(world.lsn)).unwrap();
    world.state.apply(&Record::Acked { group, partition, first: Offset(1), count: 1 }, Lsn(world.lsn)).unwrap();
}

fn copy(partition: u64, offset: u64) -> Box<Copied> {
    let provenance = Provenance { origin: origin_of(0), attempts: 1, history: vec![] };
    Box::new(Copied { partition: PartitionId(partition), offset: Offset(offset), time: WallMs(1), provenance })
}

#[test]
fn a_move_puts_its_copy_where_it_belongs_or_is_refused() {
    let mut world = situations();
    let (group, partition, retry, dead) = (KITCHEN, PartitionId(0), 1, 2);
    let dead_lettered = |offset, copy| Record::DeadLettered { group, partition, offset: Offset(offset), copy };
    let redriven = |dead_letter, copy| Record::Redriven { group, dead_letter: Offset(dead_letter), copy };
    let mut long = copy(dead, 0);
    let failure = Failure { cause: Cause::Crashed, time: WallMs(1), text: Box::default() };
    long.provenance.history = vec![failure; 9];
    let mut sent = copy(dead, 0);
    sent.provenance.origin.redrives = 17;
    // Not at the end; among what belongs to others; with too much.
    for copy in [copy(dead, 1), copy(retry, 0), copy(0, 5), copy(9, 0), long, sent] {
        world.refuses(dead_lettered(0, copy));
    }
    // Could have another attempt, or does not exist.
    world.refuses(dead_lettered(3, copy(dead, 0)));
    world.refuses(dead_lettered(9, copy(dead, 0)));
    world.refuses(redriven(0, copy(retry, 0)));
    world.state.apply(&dead_lettered(0, copy(dead, 0)), Lsn(world.lsn)).unwrap();
    assert_eq!(world.state.partition_end(PartitionId(dead)), Offset(1));
    world.refuses(dead_lettered(0, copy(dead, 1)));
    for copy in [copy(retry, 1), copy(dead, 1), copy(0, 4), copy(9, 0)] {
        world.refuses(redriven(0, copy));
    }
    world.refuses(redriven(1, copy(retry, 0)));
    world.state.apply(&redriven(0, copy(retry, 0)), Lsn(world.lsn)).unwrap();
    assert_eq!(world.state.partition_end(PartitionId(retry)), Offset(1));
    world.refuses(redriven(0, copy(retry, 1)));
    world.refuses(Record::Discarded { group, dead_letter: Offset(0) });
    assert_eq!(world.state.check(), []);
}

#[test]
fn what_does_not_come_next_is_refused() {
    let mut world = situations();
    let published = |partition, base, count| {
        let (partition, base) = (PartitionId(partition), Offset(base));
        Record::Published { partition, base, count, time: WallMs(1) }
    };
    for record in [published(0, 4, 1), published(0, 6, 1), published(0, 5, 0), published(1, 0, 1), published(9, 0, 1)] {
        world.refuses(record);
    }
    let topic = |topic, first, name: &str| {
        let (topic, first, name) = (TopicId(topic), PartitionId(first), name.to_owned());
        Record::TopicCreated { topic, name, first, count: 1 }
    };
    for record in [topic(0, 3, "a"), topic(1, 2, "a"), topic(1, 3, "orders"), topic(1, 3, "")] {
        world.refuses(record);
    }
    let group = |group, retry, name: &str, starts: usize| Record::GroupCreated {
        group: GroupId(group),
        topic: TopicId(0),
        name: name.to_owned(),
        options: options(),
        retry: PartitionId(retry),
        starts: vec![Offset(0); starts],
    };
    for record in [group(0, 3, "a", 1), group(1, 4, "a", 1), group(1, 3, "kitchen", 1), group(1, 3, "a", 2)] {
        world.refuses(record);
    }
    let (partition, since) = (PartitionId(0), MonoMs(8_000));
    for offset in [3, 9] {
        world.refuses(Record::ExclusivePending { group: KITCHEN, partition, offset: Offset(offset), since });
    }
}
