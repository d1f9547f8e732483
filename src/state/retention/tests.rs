//! A snapshot and the state agree on what must stay.
//!
//! Never here: files.

use super::drop::levelled;
use super::*;
use crate::ids::{GroupId, MonoMs};
use crate::record::{GroupOptions, KeyHash, Ordering, Record, Retention, TopicOptions, WhenFull};
use crate::state::tests::{World, options};
use crate::state::{Command, Decision, Rejection, State, UniqueKey, WhilePending};

/// Whether an offset lies within one of some stretches, which are in order and apart.
fn holds(stretches: &[OffsetRange], offset: Offset) -> bool {
    let at = stretches.partition_point(|(_, end)| *end <= offset);
    stretches.get(at).is_some_and(|(first, _)| *first <= offset)
}

/// A snapshot says of each message what the state says.
pub(in crate::state) fn agrees(state: &State) {
    let wanted = LiveMessages::of(state.snapshot());
    for (partition, end) in state.partitions() {
        assert_eq!(wanted.held_from(partition), state.held_from(partition));
        let stretches = wanted.stretches(partition, Offset(0), end);
        assert!(stretches.is_sorted_by(|a, b| a.0 < a.1 && a.1 < b.0 && b.0 < b.1), "{stretches:?}");
        for offset in (0..end.0).map(Offset) {
            let is_settled = state.is_settled(partition, offset, offset.saturating_add(1));
            assert_eq!(holds(&stretches, offset), !is_settled, "{partition} {offset} of {stretches:?}");
            let of_one = wanted.stretches(partition, offset, offset.saturating_add(1));
            assert_eq!(of_one.is_empty(), is_settled, "{partition} {offset}");
        }
    }
    assert_eq!(wanted.stretches(state.partitions_end(), Offset(0), Offset(9)), []);
}

#[test]
fn stretches_are_joined_where_they_touch() {
    let of = |pairs: &[(u64, u64)]| pairs.iter().map(|(first, end)| (Offset(*first), Offset(*end))).collect::<Vec<_>>();
    assert_eq!(merged(of(&[(7, 9), (0, 2), (2, 4), (8, 8), (3, 5)])), of(&[(0, 5), (7, 9)]));
    let stretches = of(&[(2, 4), (6, 7)]);
    let held: Vec<u64> = (0..9).filter(|offset| holds(&stretches, Offset(*offset))).collect();
    assert_eq!(held, [2, 3, 6]);
}

/// However messages come, a topic never has more marks than it may, and keeps what is younger than its time.
#[test]
fn marks_of_a_topic_stay_few() {
    for (age, between) in [(1_600, 150), (1_600, 1), (1_000, 93), (1_007, 30), (3_200, 301)] {
        let mut world = World::new();
        let retention = Retention::Age(std::time::Duration::from_millis(age));
        let options = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
        world.run(Command::CreateTopic { name: "t", partitions: 1, options }).unwrap();
        let mut published = Vec::new();
        for step in 0..600u64 {
            world.publish(0, 1);
            published.push(world.mono);
            // Rarely at first, and then all the time.
            world.advance(if step < 12 { between } else { 1 + step % 7 });
            match world.run(Command::MarkRetention { topic: TopicId(0) }) {
                Ok(_) | Err(Rejection::Stale) => {}
                Err(other) => panic!("{other:?}"),
            }
            let kept = world.state.kept_from(TopicId(0), 0).0 as usize;
            let young = |at: &u64| MonoMs(*at).0 + age > world.mono;
            assert!(published.iter().position(young).is_none_or(|first| kept <= first), "step {step} of {age}");
        }
        assert!(world.state.kept_from(TopicId(0), 0) > Offset(0), "{age}");
    }
}

fn ring(max_messages: u64, partitions: u32) -> World {
    let mut world = World::new();
    let bound = TopicOptions { max_messages, when_full: WhenFull::DropOldest, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "t", partitions, options: bound }).unwrap();
    let starts = vec![Offset(0); partitions as usize];
    for name in ["a", "b"] {
        let options = GroupOptions { max_outstanding: 8, ..options() };
        world.run(Command::CreateGroup { topic: TopicId(0), name, options: &options, starts: &starts }).unwrap();
    }
    world
}

fn nexts(world: &World, group: u64) -> Vec<u64> {
    let group = world.state.group(GroupId(group)).unwrap();
    group.topic_nexts().map(|(_, next)| next.0).collect()
}

/// A full topic drops of each group what is too much, from where the group is furthest behind, and counts it.
#[test]
fn the_oldest_are_dropped_of_each_group() {
    let mut world = ring(6, 2);
    world.publish(0, 4);
    world.publish(1, 2);
    world.run_lease(GroupId(0), 2, false);
    world.run(Command::publish(&[(PartitionId(0), 1)])).unwrap();
    assert_eq!((nexts(&world, 0), nexts(&world, 1)), (vec![2, 1], vec![1, 0]));
    let dropped = |world: &World, group| world.state.group(GroupId(group)).unwrap().dropped();
    assert_eq!((dropped(&world, 0), dropped(&world, 1)), (1, 1));
    // What was leased takes room.
    world.run(Command::publish(&[(PartitionId(1), 4)])).unwrap();
    assert_eq!((nexts(&world, 0), dropped(&world, 0)), (vec![5, 2], 5));
    let full = world.run(Command::publish(&[(PartitionId(1), 5)])).err();
    assert_eq!(full, Some(Rejection::TopicFull { topic: TopicId(0), count: 5 }));
    let more = world.run(Command::publish(&[(PartitionId(1), 7)])).err();
    assert_eq!(more, Some(Rejection::TopicFull { topic: TopicId(0), count: 7 }));
    assert_eq!((nexts(&world, 0), dropped(&world, 1)), (vec![5, 2], 5), "nothing was changed");
    let mut bytes = Vec::new();
    world.state.snapshot().encode(&mut bytes);
    let read = State::decode(&bytes).unwrap();
    assert_eq!(read.group(GroupId(1)).unwrap().dropped(), 5);
}

#[test]
fn what_is_taken_leaves_the_rest_even() {
    let taken = |all: &[u64], count| {
        let taken = levelled(all, count);
        taken.map(|taken| all.iter().zip(taken.into_iter().chain(std::iter::repeat(0))).map(|(a, b)| a - b).collect())
    };
    assert_eq!(taken(&[6, 5], 5), Some(vec![3, 3]));
    assert_eq!(taken(&[9, 2, 2], 4), Some(vec![5, 2, 2]));
    assert_eq!(taken(&[9, 2, 2], 9), Some(vec![1, 1, 2]));
    assert_eq!(taken(&[9, 2, 2], 13), Some(vec![0, 0, 0]));
    assert_eq!((taken(&[9, 2, 2], 14), taken(&[], 1)), (None, None));
    assert_eq!((taken(&[], 0), taken(&[4], 0)), (Some(vec![]), Some(vec![4])));
}

/// A message that every group dropped has its unique key no longer.
#[test]
fn what_is_dropped_lets_go_of_its_key() {
    let mut world = ring(2, 1);
    let unique = |key| [UniqueKey { part: 0, key, message_key: KeyHash::NONE, while_pending: WhilePending::Reject }];
    let publish = |world: &mut World, key: u128| {
        let uniques = unique(key);
        let runs = [(PartitionId(0), 1)];
        world.run(Command::Publish { runs: &runs, ids: &[], delays: &[], uniques: &uniques, sequence: None }).map(drop)
    };
    publish(&mut world, 7).unwrap();
    publish(&mut world, 8).unwrap();
    assert!(publish(&mut world, 7).is_err());
    publish(&mut world, 9).unwrap();
    publish(&mut world, 7).unwrap();
}

/// Behind messages of a key that are only counted none goes: a group would take it for one of these.
#[test]
fn nothing_is_dropped_behind_what_is_only_counted() {
    let mut world = World::new();
    let bound = TopicOptions { max_messages: 6, when_full: WhenFull::DropOldest, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "t", partitions: 1, options: bound }).unwrap();
    let ordered = GroupOptions { ordering: Ordering::Key, ..options() };
    world.run(Command::CreateGroup { topic: TopicId(0), name: "a", options: &ordered, starts: &[Offset(0)] }).unwrap();
    world.publish(0, 4);
    let partition = PartitionId(0);
    let looked = |first, count, counted: &[u32]| Record::Considered {
        group: GroupId(0),
        partition,
        first: Offset(first),
        keys: vec![KeyHash(7); count],
        counted: counted.to_vec(),
    };
    world.state.apply(&looked(0, 2, &[1]), Lsn(world.lsn)).unwrap();
    let full = world.run(Command::publish(&[(partition, 3)])).err();
    assert_eq!(full, Some(Rejection::TopicFull { topic: TopicId(0), count: 3 }));
    world.refuses(Record::Dropped { group: GroupId(0), partition, first: Offset(2), count: 1 });
    world.run(Command::publish(&[(partition, 2)])).unwrap();
}

/// What a retention does not keep goes, but for what was leased.
#[test]
fn old_messages_are_dropped() {
    let mut world = World::new();
    let retention = Retention::Count(3);
    let options_of = TopicOptions { retention, drops_unsettled: true, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "t", partitions: 2, options: options_of }).unwrap();
    let starts = [Offset(0); 2];
    world.run(Command::CreateGroup { topic: TopicId(0), name: "a", options: &options(), starts: &starts }).unwrap();
    world.publish(0, 3);
    assert_eq!(world.state.dropping(), []);
    assert_eq!(world.run(Command::DropOld { topic: TopicId(0) }).unwrap().0, Decision::Nothing);
    world.run_lease(GroupId(0), 1, false);
    world.publish(0, 2);
    world.publish(1, 4);
    assert_eq!(world.state.dropping(), [TopicId(0)]);
    world.run(Command::DropOld { topic: TopicId(0) }).unwrap();
    assert_eq!(nexts(&world, 0), [2, 1]);
    assert!(!world.state.is_settled(PartitionId(0), Offset(0), Offset(1)), "it is leased");
    assert!(world.state.is_settled(PartitionId(0), Offset(1), Offset(2)));
    assert_eq!(world.state.group(GroupId(0)).unwrap().dropped(), 2);
    assert_eq!(world.state.dropping(), []);
    world.refuses(Record::Dropped { group: GroupId(0), partition: PartitionId(0), first: Offset(3), count: 1 });
    world.refuses(Record::Dropped { group: GroupId(0), partition: PartitionId(0), first: Offset(2), count: 4 });
    world.refuses(Record::Dropped { group: GroupId(0), partition: PartitionId(0), first: Offset(2), count: 0 });
    world.refuses(Record::Dropped { group: GroupId(0), partition: PartitionId(2), first: Offset(0), count: 1 });
    world.refuses(Record::Dropped { group: GroupId(1), partition: PartitionId(0), first: Offset(2), count: 1 });
    let plain = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "kept", partitions: 1, options: plain }).unwrap();
    assert!(world.run(Command::DropOld { topic: TopicId(1) }).is_err());
    assert_eq!(world.run(Command::DropOld { topic: TopicId(2) }).err(), Some(Rejection::UnknownTopic));
}
