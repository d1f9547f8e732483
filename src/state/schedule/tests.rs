//! The rules of messages for later.

use crate::limits::{DURATION_MS_MAX, SCHEDULED_MAX};
use crate::record::DueTime;
use crate::state::tests::*;

const HIDDEN: PartitionId = PartitionId(2);

fn world() -> World {
    let mut world = World::new();
    let options = TopicOptions::LEFT_OUT;
    world.run(Command::CreateTopic { name: "orders", partitions: 2, options }).unwrap();
    world.run(Command::CreateSchedule { topic: TopicId(0) }).unwrap();
    assert_eq!(world.state.schedule_of(TopicId(0)), Some(HIDDEN));
    world
}

fn schedule(world: &mut World, later: Later) -> Result<(Decision, Vec<Record>), Rejection> {
    let delays = &[Delay { part: 0, to: PartitionId(1), later }];
    world.run(Command::Publish { runs: &[(HIDDEN, 1)], ids: &[], delays, uniques: &[], sequence: None })
}

fn due(world: &World) -> Vec<u64> {
    let inputs = world.inputs();
    let due = world.state.due(world.state.store_time(inputs.steady), inputs.wall, 100);
    due.into_iter().map(|(partition, offset)| if partition == HIDDEN { offset.0 } else { u64::MAX }).collect()
}

fn move_due(world: &mut World, offset: u64) -> Result<Vec<Record>, Rejection> {
    let published = Publication::Here { epoch: world.state.epoch(), time: WallMs(9) };
    let (partition, offset) = (HIDDEN, Offset(offset));
    world.run(Command::MoveDue { at: (partition, offset), published }).map(|(_, records)| records)
}

#[test]
fn g21_a_message_comes_when_it_is_due_and_not_before() {
    let mut world = world();
    schedule(&mut world, Later::In(500)).unwrap();
    assert_eq!((due(&world), move_due(&mut world, 0)), (vec![], Err(Rejection::Stale)));
    world.advance(499);
    assert_eq!((due(&world), move_due(&mut world, 0)), (vec![], Err(Rejection::Stale)));
    world.advance(1);
    assert_eq!(due(&world), [0]);
    let records = move_due(&mut world, 0).unwrap();
    let [Record::ScheduleEnded { copy: Some(copy), .. }] = &records[..] else { panic!("{records:?}") };
    assert_eq!((copy.partition, copy.offset), (PartitionId(1), Offset(0)));
    let origin = copy.provenance.origin;
    assert_eq!((origin.id.partition, origin.id.offset, origin.time), (u64::MAX - 1, Offset(0), WallMs(9)));
    assert_eq!((due(&world), move_due(&mut world, 0)), (vec![], Err(Rejection::Stale)), "once");
    assert_eq!(world.state.published().collect::<Vec<_>>(), [(TopicId(0), 1)], "it counts where it is read");
}

#[test]
fn g21_by_a_clock_that_is_behind_it_is_not_early() {
    let mut world = world();
    world.slack_ms = 10;
    schedule(&mut world, Later::In(500)).unwrap();
    world.advance(509);
    assert_eq!(due(&world), []);
    world.advance(1);
    assert_eq!(due(&world), [0]);
}

#[test]
fn g21_a_jump_counts_for_times_of_day_alone() {
    for jump in [1_000_000i64, -500_000_000] {
        let mut world = world();
        schedule(&mut world, Later::In(500)).unwrap();
        schedule(&mut world, Later::At(WallMs(WALL + 500))).unwrap();
        (world.wall, world.jump) = (world.wall.wrapping_add_signed(jump), jump);
        let by_wall = if jump > 0 { vec![1] } else { vec![] };
        assert_eq!(due(&world), by_wall, "before it is noted");
        world.run(Command::NoteClockJump).unwrap();
        world.jump = 0;
        assert_eq!(due(&world), by_wall, "and after");
        world.advance(500);
        let mut due = due(&world);
        due.sort_unstable();
        assert_eq!(due, [&[0], &by_wall[..]].concat());
    }
}

#[test]
fn what_is_due_comes_in_the_order_of_its_time() {
    let mut world = world();
    for ms in [30, 10, 20] {
        schedule(&mut world, Later::In(ms)).unwrap();
    }
    world.advance(30);
    assert_eq!(due(&world), [1, 2, 0]);
}

/// Of both clocks, and of two topics: one that has many does not come before another that was due earlier.
#[test]
fn what_is_due_by_both_clocks_comes_in_one_order() {
    let mut world = world();
    let options = TopicOptions::LEFT_OUT;
    world.run(Command::CreateTopic { name: "mails", partitions: 1, options }).unwrap();
    world.run(Command::CreateSchedule { topic: TopicId(1) }).unwrap();
    for ms in [40, 30] {
        schedule(&mut world, Later::In(ms)).unwrap();
    }
    schedule(&mut world, Later::At(WallMs(WALL + 35))).unwrap();
    let delays = &[Delay { part: 0, to: PartitionId(3), later: Later::In(33) }];
    world
        .run(Command::Publish { runs: &[(PartitionId(4), 1)], ids: &[], delays, uniques: &[], sequence: None })
        .unwrap();
    world.advance(50);
    assert_eq!(due(&world), [1, u64::MAX, 2, 0]);
    let inputs = world.inputs();
    assert_eq!(world.state.due(world.state.store_time(inputs.steady), inputs.wall, 2).len(), 2);
}

/// A crash gives the place of a message that was lost to another one: the id of the first does not take that back.
#[test]
fn an_id_of_another_epoch_names_nothing() {
    let mut world = world();
    schedule(&mut world, Later::In(100)).unwrap();
    let epoch = world.state.epoch();
    world.open(false);
    let change = |world: &mut World, epoch| {
        let (at, later) = ((HIDDEN, Offset(0)), Some(Later::In(7)));
        world.run(Command::Reschedule { at, epoch: Some(epoch), later }).map(drop)
    };
    assert_eq!(change(&mut world, Epoch(epoch.0 + 1)), Err(Rejection::NotScheduled));
    assert_eq!(change(&mut world, epoch), Ok(()));
    assert_eq!(change(&mut world, epoch), Ok(()), "as often as wanted");
}

#[test]
fn a_message_is_cancelled_or_rescheduled_until_it_is_due() {
    let mut world = world();
    for ms in [100, 100, 100] {
        schedule(&mut world, Later::In(ms)).unwrap();
    }
    let change = |world: &mut World, offset, later| {
        world.run(Command::Reschedule { at: (HIDDEN, Offset(offset)), epoch: None, later }).map(drop)
    };
    change(&mut world, 0, None).unwrap();
    change(&mut world, 1, Some(Later::In(300))).unwrap();
    assert_eq!(change(&mut world, 0, None), Err(Rejection::NotScheduled));
    assert_eq!(change(&mut world, 3, Some(Later::In(1))), Err(Rejection::NotScheduled));
    world.advance(100);
    assert_eq!(due(&world), [2]);
    move_due(&mut world, 2).unwrap();
    assert_eq!(change(&mut world, 2, None), Err(Rejection::NotScheduled), "too late");
    world.advance(200);
    assert_eq!(due(&world), [1]);
}

#[test]
fn what_is_scheduled_outlives_its_process_and_holds_its_segment() {
    let mut world = world();
    for ms in [100, 50] {
        schedule(&mut world, Later::In(ms)).unwrap();
    }
    assert_eq!(world.state.settled_before(HIDDEN), Offset(0));
    world.open(false);
    world.advance(50);
    assert_eq!(due(&world), [1]);
    move_due(&mut world, 1).unwrap();
    assert!(world.state.is_settled(HIDDEN, Offset(1), Offset(2)));
    assert!(!world.state.is_settled(HIDDEN, Offset(0), Offset(2)));
    world.advance(50);
    move_due(&mut world, 0).unwrap();
    assert!(world.state.is_settled(HIDDEN, Offset(0), Offset(2)));
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut world = world();
    assert_eq!(world.run(Command::CreateSchedule { topic: TopicId(0) }).err(), Some(Rejection::Exists));
    assert_eq!(world.run(Command::CreateSchedule { topic: TopicId(7) }).err(), Some(Rejection::UnknownTopic));
    assert!(matches!(schedule(&mut world, Later::In(DURATION_MS_MAX + 1)), Err(Rejection::Invalid(_))));
    for later in [Later::In(DURATION_MS_MAX), Later::At(WallMs(WALL + DURATION_MS_MAX)), Later::At(WallMs(0))] {
        schedule(&mut world, later).unwrap();
    }
    let mut publish = |runs: &[(PartitionId, u32)], delays: &[Delay]| {
        world.run(Command::Publish { runs, ids: &[], delays, uniques: &[], sequence: None }).err()
    };
    let delay = |part, to| Delay { part, to: PartitionId(to), later: Later::In(1) };
    assert!(matches!(publish(&[(HIDDEN, 1)], &[]), Some(Rejection::Invalid(_))), "without a time");
    assert!(matches!(publish(&[(HIDDEN, 2)], &[delay(1, 0)]), Some(Rejection::Invalid(_))), "one without a time");
    assert_eq!(publish(&[(HIDDEN, 1)], &[delay(0, 2)]), Some(Rejection::UnknownPartition), "to nobody");
    assert_eq!(publish(&[(PartitionId(0), 1)], &[delay(0, 1)]), Some(Rejection::UnknownPartition), "for now");
    assert!(matches!(publish(&[(HIDDEN, 1)], &[delay(0, 1), delay(1, 1)]), Some(Rejection::Invalid(_))), "no message");
    assert_eq!(publish(&[(PartitionId(0), 2), (HIDDEN, 2)], &[delay(2, 0), delay(3, 1)]), None);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let mut world = world();
    schedule(&mut world, Later::In(100)).unwrap();
    let due = DueTime::Store(world.state.store_time(WallMs(world.wall)));
    let scheduled = |offset, to, again| {
        let (partition, offset, to) = (HIDDEN, Offset(offset), PartitionId(to));
        Record::Scheduled { partition, offset, to, due, again }
    };
    world.refuses(scheduled(1, 0, false));
    world.refuses(scheduled(0, 0, false));
    world.refuses(scheduled(1, 0, true));
    world.refuses(scheduled(0, 2, true));
    let ended = |offset, copy| Record::ScheduleEnded { partition: HIDDEN, offset: Offset(offset), copy };
    world.refuses(ended(1, None));
    let id = MessageId { topic: TopicId(0), partition: 0, epoch: Epoch(1), offset: Offset(0) };
    let provenance = Provenance {
        origin: Origin { id, time: WallMs(0), redrives: 0 },
        attempts: 0,
        history: Vec::new(),
        earlier: FailureCounts::default(),
    };
    let copy = |partition, offset| {
        let provenance = provenance.clone();
        let (partition, offset, time) = (PartitionId(partition), Offset(offset), WallMs(0));
        Some(Box::new(Copied { partition, offset, time, provenance }))
    };
    world.refuses(ended(0, copy(0, 0)));
    world.refuses(ended(0, copy(1, 1)));
    for (topic, partition) in [(0, 3), (1, 3)] {
        world.refuses(Record::ScheduleCreated { topic: TopicId(topic), partition: PartitionId(partition) });
    }
}

#[test]
fn what_is_scheduled_has_a_bound() {
    let mut world = world();
    let count = 1 << 16;
    let delays: Vec<Delay> =
        (0..count).map(|part| Delay { part, to: PartitionId(0), later: Later::In(u64::from(part)) }).collect();
    let publish = |state: &State, inputs: &Inputs<'_>, delays: &[Delay]| {
        let (mut records, runs) = (Vec::new(), &[(HIDDEN, delays.len() as u32)]);
        state
            .decide(&Command::Publish { runs, ids: &[], delays, uniques: &[], sequence: None }, inputs, &mut records)
            .map(|_| records)
    };
    for _ in 0..SCHEDULED_MAX / u64::from(count) {
        let records = publish(&world.state, &world.inputs(), &delays).unwrap();
        records.iter().for_each(|record| world.state.apply(record, Lsn(8)).unwrap());
    }
    let more = publish(&world.state, &world.inputs(), &delays[..1]);
    assert_eq!(more, Err(Rejection::LimitReached("scheduled messages")));
    assert!(world.state.check().is_empty());
}
