//! Ids and producers: what is a repeat, and for how long.

use crate::limits::{DEDUP_IDS_MAX, PRODUCERS_MAX};
use crate::record::TopicOptions;
use crate::state::tests::*;

const TOPIC: TopicOptions = TopicOptions { dedup_ids: 3, dedup_window_ms: 1_000, ..TopicOptions::LEFT_OUT };

fn world() -> World {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "orders", partitions: 2, options: TOPIC }).unwrap();
    world
}

/// Publishes one message under an id. Where it was published before, its offset is that of the first.
fn publish(world: &mut World, id: u128, body: u64) -> Result<Option<u64>, Rejection> {
    let ids = &[DedupId { part: 0, id, body }];
    match world.run(Command::Publish { runs: &[(PartitionId(0), 1)], ids, delays: &[], uniques: &[], sequence: None }) {
        Ok(_) => Ok(None),
        Err(Rejection::Repeated(repeats)) => Ok(Some(repeats[0].id.offset.0)),
        Err(other) => Err(other),
    }
}

#[test]
fn g20_an_id_is_accepted_once_within_its_window() {
    let mut world = world();
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
    assert_eq!(publish(&mut world, 8, 1), Ok(None));
    assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)));
    let first = MessageId { topic: TopicId(0), partition: 0, offset: Offset(0), epoch: world.state.epoch() };
    let conflict = Rejection::DedupConflict { part: 0, first: Box::new(first) };
    assert_eq!(publish(&mut world, 7, 2), Err(conflict), "other bytes");
    world.advance(1_000);
    assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)), "at its very end");
    world.advance(1);
    assert_eq!(publish(&mut world, 7, 2), Ok(None), "a millisecond later");
    assert_eq!(publish(&mut world, 7, 2), Ok(Some(2)));
}

#[test]
fn g20_the_oldest_id_leaves_where_there_are_too_many() {
    let mut world = world();
    for id in 0..4 {
        assert_eq!(publish(&mut world, id, 0), Ok(None));
    }
    assert_eq!(publish(&mut world, 1, 0), Ok(Some(1)));
    assert_eq!(publish(&mut world, 0, 0), Ok(None), "three are remembered");
    assert_eq!(publish(&mut world, 1, 0), Ok(None));
}

#[test]
fn g20_a_jump_of_the_clock_does_not_count() {
    for jump in [1_000_000i64, -500_000_000] {
        let mut world = world();
        assert_eq!(publish(&mut world, 7, 1), Ok(None));
        (world.wall, world.jump) = (world.wall.wrapping_add_signed(jump), jump);
        assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)), "before it is noted");
        world.run(Command::NoteClockJump).unwrap();
        world.jump = 0;
        assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)), "and after");
        world.advance(1_001);
        assert_eq!(publish(&mut world, 7, 1), Ok(None));
    }
}

#[test]
fn g20_ids_live_on_in_the_next_process_and_the_old_leave_then() {
    let mut world = world();
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
    world.advance(600);
    assert_eq!(publish(&mut world, 8, 1), Ok(None));
    world.open(false);
    assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)));
    world.advance(500);
    world.open(true);
    assert_eq!((publish(&mut world, 7, 1), publish(&mut world, 8, 1)), (Ok(None), Ok(Some(1))));
}

#[test]
fn clocks_that_are_behind_forget_nothing_early() {
    let mut world = world();
    world.slack_ms = 10;
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
    world.advance(1_010);
    assert_eq!(publish(&mut world, 7, 1), Ok(Some(0)));
    world.advance(1);
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
}

#[test]
fn a_batch_says_which_of_its_messages_were_accepted() {
    let mut world = world();
    let runs = &[(PartitionId(0), 2), (PartitionId(1), 2)];
    let id = |part, id| DedupId { part, id, body: 0 };
    assert_eq!(publish(&mut world, 5, 0), Ok(None));
    let before = world.state.hash();
    let mut run =
        |ids: &[DedupId]| world.run(Command::Publish { runs, ids, delays: &[], uniques: &[], sequence: None });
    let Err(Rejection::Repeated(repeats)) = run(&[id(1, 6), id(3, 5)]) else { panic!("one is a repeat") };
    assert_eq!(repeats.iter().map(|repeat| (repeat.part, repeat.id.offset.0)).collect::<Vec<_>>(), [(3, 0)]);
    assert!(matches!(run(&[id(0, 9), id(2, 9)]), Err(Rejection::Invalid(_))), "one id for two");
    assert!(matches!(run(&[id(4, 9)]), Err(Rejection::Invalid(_))), "no such message");
    let (_, records) = run(&[id(0, 9), id(2, 10)]).unwrap();
    let places: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Accepted { partition, offset, id, .. } => Some((partition.0, offset.0, *id)),
            _ => None,
        })
        .collect();
    assert_eq!(places, [(0, 1, 9), (1, 0, 10)]);
    assert_ne!(world.state.hash(), before);
}

#[test]
fn a_log_that_accepts_an_id_twice_is_refused() {
    let mut world = world();
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
    let time = world.state.store_time(WallMs(world.wall));
    let again = |id, offset| Record::Accepted { partition: PartitionId(0), offset: Offset(offset), id, body: 1, time };
    world.refuses(again(7, 0));
    world.refuses(again(8, 1));
    let hidden = Record::Accepted { partition: PartitionId(9), offset: Offset(0), id: 8, body: 1, time };
    world.refuses(hidden);
}

#[test]
fn ids_of_all_topics_have_a_bound_and_go_with_their_topic() {
    let mut world = world();
    let options = TopicOptions { dedup_ids: DEDUP_IDS_MAX, ..TOPIC };
    world.run(Command::CreateTopic { name: "many", partitions: 1, options }).unwrap();
    assert_eq!(publish(&mut world, 7, 1), Ok(None));
    let ids = &[DedupId { part: 0, id: 1, body: 1 }];
    let many = Command::Publish { runs: &[(PartitionId(2), 1)], ids, delays: &[], uniques: &[], sequence: None };
    assert!(matches!(world.run(many).err(), Some(Rejection::LimitReached(_))));
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    world.run(many).unwrap();
}

#[test]
fn a_producer_numbers_without_gaps() {
    let mut world = world();
    let mut publish = |number| {
        let sequence = Some(Sequence { topic: TopicId(0), producer: "importer", number });
        world
            .run(Command::Publish { runs: &[(PartitionId(0), 1)], ids: &[], delays: &[], uniques: &[], sequence })
            .err()
    };
    assert_eq!(publish(1), Some(Rejection::SequenceGap { expected: 0 }));
    assert_eq!((publish(0), publish(1), publish(2)), (None, None, None));
    assert_eq!((publish(2), publish(0)), (Some(Rejection::SequenceRepeated), Some(Rejection::SequenceRepeated)));
    assert_eq!(publish(4), Some(Rejection::SequenceGap { expected: 3 }));
    assert_eq!(publish(u64::MAX), Some(Rejection::SequenceGap { expected: 3 }));
    let record = |producer: &str, sequence| {
        let producer = producer.to_owned();
        Record::Sequenced { topic: TopicId(0), producer, sequence }
    };
    world.refuses(record("importer", 2));
    world.refuses(record("importer", 4));
    world.refuses(record("", 0));
    for n in 1..PRODUCERS_MAX {
        world.state.apply(&record(&n.to_string(), 0), Lsn(8)).unwrap();
    }
    let sequence = Some(Sequence { topic: TopicId(0), producer: "one more", number: 0 });
    let more = world
        .run(Command::Publish { runs: &[(PartitionId(0), 1)], ids: &[], delays: &[], uniques: &[], sequence })
        .err();
    assert_eq!(more, Some(Rejection::LimitReached("producers")));
}
