//! The bytes of a state.

use super::*;
use crate::record::wire::DecodeError;
use crate::record::{Hold, TopicOptions};
use proptest::prelude::*;

fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().encode(&mut bytes);
    bytes
}

#[test]
fn golden_snapshot() {
    // version, epoch, next topic, group, partition, then none of topics, groups, exclusive, jumps, cursors, schedules, windows,
    // producers, ages, keys
    assert_eq!(bytes(&State::new()), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut world = World::with(1, options());
    world.publish(0, 3);
    let lent = world.lease(KITCHEN, 2);
    world.nack(KITCHEN, lent[1].held, Some(0), "no").unwrap();
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 1, 3,                                  // version, epoch, next topic, group, partition
        1, 0, 6, b'o', b'r', b'd', b'e', b'r', b's', 0, 1, 0, 3, // topics: gap, name, first, count, options, end
        1, 0, 7, b'k', b'i', b't', b'c', b'h', b'e', b'n', // groups: gap, name
        0, 5, 1, 2, 0xe8, 0x07,                         // topic, options: five, timeout
        3, 1, 100, 4, 2, 0x90, 0x4e,                    // first, max
        5, 1, 0, 6, 2, 0xe8, 0x07,                      // jitter, outstanding
        1, 0, 0, 1, 7, 32, 0, 0, 0,                     // retry, two ends, turns, position and source, rank, texts dropped, dropped
        0, 0, 0,                                        // dead letters
        1, 0,                                           // cursors
        1, 0, 2,                                        // messages: of one cursor, of the first cursor, two messages
        0x00, 0, 1, 0xf0, 0x2e, 32, 0,                  // leased: gap, attempts, until, LSN, rank
        0x22, 0, 1, 1,                                  // ready, with a history: gap, attempts, turn
        1, 0, 0x80, 0x94, 0xeb, 0xdc, 0x03, 2, b'n', b'o', 1, // one failure: cause, time, text, turn
        0, 0, 0, 0, 0, 0,                               // exclusive, jumps, cursors, schedules, windows, producers
        0, 0,                                              // ages, keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    // What a newer version wrote is no damage: its version, an option of the topic, one of the group.
    let newer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = expected.to_vec();
        change(&mut bytes);
        match State::decode(&bytes) {
            Err(DecodeError::Newer(newer)) => newer.to_string(),
            other => panic!("{:?}", other.map(drop)),
        }
    };
    let (topic, group) = (16, 29);
    assert_eq!((expected[topic], expected[group]), (0, 5));
    let insert =
        |bytes: &mut Vec<u8>, at: usize, count, more: &[u8]| drop(bytes.splice(at..=at, [&[count], more].concat()));
    assert_eq!(newer(&|bytes| bytes[0] = 2), "state version 2");
    assert_eq!(newer(&|bytes| insert(bytes, topic, 1, &[11, 0])), "topic option 11");
    assert_eq!(newer(&|bytes| insert(bytes, group, 6, &[100, 3, 1, 1, 1])), "group option 100");
}

/// Keys stand with the messages that have one, and what is parked says since which turn.
#[test]
fn golden_snapshot_of_a_group_in_order() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "o", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    world.group("k", &GroupOptions { ordering: Ordering::Key, max_outstanding: 1, ..GroupOptions::LEFT_OUT });
    world.key = |_, offset| KeyHash(if [1, 2].contains(&offset.0) { 0 } else { 0x0706_0504_0302_0100 });
    world.parked_max = ParkedMax { of_group: 9, of_key: 1 };
    world.publish(0, 5);
    world.lease(KITCHEN, 4);
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 1, 3,                                  // version, epoch, next topic, group, partition
        1, 0, 1, b'o', 0, 1, 0, 5,                      // topics: gap, name, first, count, options, end
        1, 0, 1, b'k', 0, 2, 6, 1, 1, 9, 1, 1,          // groups: gap, name, topic, options: outstanding, ordering
        1, 0, 0, 4, 7, 48, 0, 0, 0,                     // retry, two ends, turns, position and source, rank, texts dropped, dropped
        0, 0, 0,                                        // dead letters
        0, 0,                                           // cursors
        1, 0, 3,                                        // messages: of one cursor, of the first cursor, three messages
        0x80, 0x08, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 0xb8, 0x91, 2, 48, 0, // leased: gap, attempts, key, until, LSN, rank
        3, 0, 0, 2,                                     // parked, without a key: gap, attempts, turn
        7, 0, 0,                                        // the same, in the turn after that
        1, 0, 1, 2, 3, 4, 5, 6, 7, 0, 3, 2,             // only counted: key, cursor, first, count
        0, 0, 0, 0, 0, 0,                               // exclusive, jumps, cursors, windows, producers, schedules
        0, 0,                                              // ages, keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    // A parked message that had an attempt, and keys in a group that goes by partitions.
    let wrong = |at: usize, byte: u8| State::decode(&[&expected[..at], &[byte], &expected[at + 1..]].concat()).is_err();
    let (attempts, ordering) = (61, 24);
    assert_eq!((expected[attempts - 2], expected[attempts], expected[ordering]), (3, 0, 1));
    assert!(wrong(attempts, 1) && wrong(ordering, 2));
}

/// The partition of notes has an end of its own, behind those that are counted.
#[test]
fn golden_snapshot_of_a_topic_of_streams() {
    let mut world = World::new();
    let options = TopicOptions { streams: true, snapshots_kept: 3, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "o", partitions: 2, options }).unwrap();
    let stream = crate::record::StreamId { partition: PartitionId(1), key: 7 };
    let (expected, fact) = (crate::ids::Expected::Any, Some(StreamFact { head: StreamHead::default(), as_of: Lsn(0) }));
    world.run(Command::Append { stream, count: 2, expected, ids: &[], fact }).unwrap();
    world.run(Command::SaveSnapshot { stream, version: 1, fact: None }).unwrap();
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 0, 3,                      // version, epoch, next topic, group, partition
        1, 0, 1, b'o', 0, 2,                // topics: gap, name, first, count
        2, 4, 1, 1, 5, 1, 3,                // options: two, streams, snapshots kept
        0, 2, 1,                            // three ends
        0, 0, 0, 0, 0, 0, 0,                // groups, exclusive, jumps, cursors, schedules, windows, producers
        0, 0,                                              // ages, keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert_eq!(world.state.partitions().count(), 0);
}

#[test]
fn golden_snapshot_of_cursors_and_ids() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "t", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    let ids = &[DedupId { part: 1, id: u128::MAX - 1, body: 7 }];
    let sequence = Some(Sequence { topic: TopicId(0), producer: "p", number: 0 });
    world.run(Command::Publish { runs: &[(PartitionId(0), 2)], ids, delays: &[], uniques: &[], sequence }).unwrap();
    let hold = Some(Hold { topic: TopicId(0), from: Lsn(16) });
    world.run(Command::SetCursor { name: "d", expected: None, value: b"", hold: None }).unwrap();
    world.run(Command::SetCursor { name: "c", expected: None, value: b"5", hold }).unwrap();
    world.jump = -3;
    world.run(Command::NoteClockJump).unwrap();
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 0, 1,                                  // version, epoch, next topic, group, partition
        1, 0, 1, b't', 0, 1, 0, 2,                      // topics: gap, name, first, count, options, end
        0, 0, 5,                                        // groups, exclusive, jumps
        2, 1, b'c', 1, b'5', 1, 0, 16, 1, b'd', 0, 0,   // cursors: name, value, topic and LSN that it holds
        0,                                              // schedules
        1, 0, 1, 0, 1,                                  // windows: gap, ids: partition, offset
        0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, // id
        7, 0, 0, 0, 0, 0, 0, 0,                         // body
        1, 16, 0x80, 0x94, 0xeb, 0xdc, 0x03,            // epoch, LSN, time
        1, 0, 1, 1, b'p', 0,                            // producers: gap, count: name, number
        0, 0,                                              // ages, keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
}

#[test]
fn golden_snapshot_of_scheduled_messages() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "t", partitions: 2, options: TopicOptions::LEFT_OUT }).unwrap();
    world.run(Command::CreateSchedule { topic: TopicId(0) }).unwrap();
    let delays = &[
        Delay { part: 0, to: PartitionId(1), later: Later::In(5) },
        Delay { part: 1, to: PartitionId(0), later: Later::In(0) },
        Delay { part: 2, to: PartitionId(0), later: Later::At(WallMs(300)) },
    ];
    let ids = &[DedupId { part: 2, id: 1, body: 7 }];
    world.run(Command::Publish { runs: &[(PartitionId(2), 3)], ids, delays, uniques: &[], sequence: None }).unwrap();
    world.run(Command::Reschedule { at: (PartitionId(2), Offset(1)), epoch: None, later: None }).unwrap();
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 0, 3,                                  // version, epoch, next topic, group, partition
        1, 0, 1, b't', 0, 2, 0, 0, 0,                   // topics: gap, name, first, count, options, two ends
        0, 0, 0, 0,                                     // groups, exclusive, jumps, cursors
        1, 0, 2, 3, 2,                                  // schedules: gap, partition, end, count
        0, 1, 0, 0x85, 0x94, 0xeb, 0xdc, 0x03, 1,       // gap, to which partition, by store time, when, epoch
        1, 0, 1, 0xac, 0x02, 1,                         // the same, by the wall clock
        1, 0, 1, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // windows: gap, ids: partition, offset, id
        7, 0, 0, 0, 0, 0, 0, 0,                         // body
        1, 24, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0,         // epoch, LSN, time, producers
        0, 0,                                              // ages, keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert!(!world.state.has_scheduled() && world.state.partitions().count() == 0);
}

#[test]
fn golden_snapshot_of_a_topic_that_keeps_messages_for_a_time() {
    let mut world = World::new();
    let retention = Retention::Age(std::time::Duration::from_millis(3_200));
    let options = TopicOptions { retention, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "t", partitions: 2, options }).unwrap();
    world.publish(0, 3);
    let mark = |world: &mut World| world.run(Command::MarkRetention { topic: TopicId(0) });
    mark(&mut world).unwrap();
    assert_eq!(mark(&mut world).err(), Some(Rejection::Stale), "nothing came since");
    world.publish(1, 2);
    assert_eq!(mark(&mut world).err(), Some(Rejection::Stale), "a sixteenth of the time has not passed");
    world.advance(200);
    mark(&mut world).unwrap();
    assert_eq!(world.state.kept_from(TopicId(0), 0), Offset(0));
    world.advance(2_999);
    assert_eq!(mark(&mut world).err(), Some(Rejection::Stale));
    world.advance(1);
    mark(&mut world).unwrap();
    assert_eq!([0, 1].map(|index| world.state.kept_from(TopicId(0), index)), [Offset(3), Offset(0)]);
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 0, 2,                                  // version, epoch, next topic, group, partition
        1, 0, 1, b't', 0, 2, 2, 1, 1, 2, 6, 2, 0x80, 0x19, 3, 2, // topics: gap, name, first, count, options, two ends
        0, 0, 0, 0, 0, 0, 0,                            // groups, exclusive, jumps, cursors, schedules, windows, producers
        1, 0, 3, 0, 1,                                  // ages: gap, kept from, count of marks
        0xc8, 0x95, 0xeb, 0xdc, 0x03, 3, 2,             // time, ends
        0,                                              // keys
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert_eq!(mark(&mut world).err(), Some(Rejection::UnknownTopic));
}

/// One that was replaced stands beside the one that has its key.
#[test]
fn golden_snapshot_of_unique_keys() {
    let mut world = World::new();
    world.run(Command::CreateTopic { name: "t", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    for key in [7, u128::MAX, 7] {
        let uniques = &[UniqueKey { part: 0, key, message_key: KeyHash(9), while_pending: WhilePending::Replace }];
        let runs = &[(PartitionId(0), 1)];
        world.run(Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None }).unwrap();
    }
    #[rustfmt::skip]
    let expected = [
        1, 1, 1, 0, 1,                                  // version, epoch, next topic, group, partition
        1, 0, 1, b't', 0, 1, 0, 3,                      // topics: gap, name, first, count, options, end
        0, 0, 0, 0, 0, 0, 0,                            // groups, exclusive, jumps, cursors, schedules, windows, producers
        0, 3,                                           // ages, count of keys
        0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // partition, offset, unique key
        9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 16,               // key, replaced, epoch, LSN
        0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 32,
        0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 48,
    ];
    assert_eq!(bytes(&world.state), expected);
    assert_eq!(bytes(&State::decode(&expected).unwrap()), expected);
    // Two messages that have one key, and one that nobody waits for any more.
    let wrong = |at: usize, byte: u8| State::decode(&[&expected[..at], &[byte], &expected[at + 1..]].concat()).is_err();
    let (replaced, end) = (48, 12);
    assert_eq!((expected[replaced], expected[end]), (1, 3));
    assert!(wrong(replaced, 0) && wrong(end, 2));
}

#[test]
fn a_large_batch_takes_three_bytes_a_message() {
    let mut world = World::with(1, GroupOptions { max_outstanding: 1 << 16, ..options() });
    let before = bytes(&world.state).len();
    world.publish(0, 1 << 16);
    world.lease(KITCHEN, 1 << 16);
    assert!(bytes(&world.state).len() < before + 3 * (1 << 16) + 64);
    world.open(false);
    let state = State::decode(&bytes(&world.state)).unwrap();
    assert_eq!(state.check(), []);
    assert_eq!(state.hash(), world.state.hash());
}

/// A state with something of everything.
pub(super) fn rich() -> World {
    let mut world = World::with(2, GroupOptions { max_attempts: 2, ..options() });
    let other = world.group("other", &options());
    world.publish(0, 40);
    world.publish(1, 20);
    world.lease(KITCHEN, 4);
    world.open(false);
    for lent in world.lease(other, 12) {
        match lent.at().1 % 4 {
            0 => drop(world.nack(other, lent.held, Some(10 + lent.at().1), "late")),
            1 => drop(world.nack(other, lent.held, Some(0), "cold")),
            2 => drop(world.run(Command::Reject { group: other, held: lent.held, text: "", moving: HERE })),
            _ => drop(world.run(Command::Extend { group: other, held: lent.held, for_ms: 3_000 })),
        }
    }
    let provenance =
        Provenance { origin: origin_of(2), attempts: 1, history: vec![], earlier: FailureCounts::default() };
    let ids = &[DedupId { part: 0, id: 3, body: 1 }, DedupId { part: 1, id: 2, body: 1 }];
    let sequence = Some(Sequence { topic: TopicId(0), producer: "p", number: 0 });
    world.run(Command::Publish { runs: &[(PartitionId(1), 2)], ids, delays: &[], uniques: &[], sequence }).unwrap();
    for key in [6, 7, 7] {
        let uniques = &[UniqueKey { part: 0, key, message_key: KeyHash(9), while_pending: WhilePending::Replace }];
        let runs = &[(PartitionId(1), 1)];
        world.run(Command::Publish { runs, ids: &[], delays: &[], uniques, sequence: None }).unwrap();
    }
    let hold = Some(Hold { topic: TopicId(0), from: Lsn(16) });
    world.run(Command::SetCursor { name: "c", expected: None, value: b"5", hold }).unwrap();
    world.run(Command::SetCursor { name: "d", expected: None, value: b"", hold: None }).unwrap();
    world.run(Command::Redrive { group: other, dead_letter: Offset(1), to: None, provenance: &provenance }).unwrap();
    assert_eq!(world.try_lease(KITCHEN, 4), (Decision::Done, vec![]), "an exclusive lease is awaited");
    world
}

#[test]
fn every_truncation_is_refused() {
    let bytes = bytes(&rich().state);
    for len in 0..bytes.len() {
        assert!(State::decode(&bytes[..len]).is_err(), "{len}");
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert!(State::decode(&longer).is_err());
    assert!(State::decode(&bytes).is_ok());
}

#[test]
fn every_changed_byte_is_refused_or_gives_another_sound_state() {
    let original = bytes(&rich().state);
    let mut accepted = 0;
    for at in 0..original.len() {
        for bit in 0..8 {
            let mut changed = original.clone();
            changed[at] ^= 1 << bit;
            let Ok(state) = State::decode(&changed) else { continue };
            accepted += 1;
            assert_eq!(state.check(), [], "byte {at} bit {bit}");
            assert_eq!(bytes(&state), changed, "byte {at} bit {bit}: two forms of one state");
        }
    }
    assert!(accepted > 0);
}

#[test]
fn counts_beyond_the_bytes_make_nothing() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for prefix in [&[1, 0, 0, 0, 0][..], &[1, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0]] {
        assert!(State::decode(&[prefix, &huge, &[0; 20]].concat()).is_err());
    }
}

properties! {
    #[test]
    fn any_bytes_are_refused_or_give_a_sound_state(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 0usize..3,
    ) {
        static ORIGINAL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut bytes = ORIGINAL.get_or_init(|| bytes(&rich().state)).clone();
        for (at, byte) in edits {
            match cut {
                0 => bytes.insert(at.index(bytes.len()), byte),
                1 => drop(bytes.remove(at.index(bytes.len()))),
                _ => *at.get_mut(&mut bytes) = byte,
            }
        }
        if let Ok(mut state) = State::decode(&bytes) {
            prop_assert_eq!(state.check(), []);
            prop_assert_eq!(super::snapshots::bytes(&state), bytes);
            // Whatever it is, it can be worked with.
            let inputs = Inputs { mono: MonoMs(u64::MAX >> 1), wall: WallMs(u64::MAX), steady: WallMs(u64::MAX), slack_ms: 0, hold_up: HoldUp(400), visible: Visible::All, streams: &StreamTails::default(), verdicts: &KnownVerdicts::default() };
            for group in [KITCHEN, GroupId(1)] {
                let mut records = Vec::new();
                let _ = state.decide(&Command::Lease { group, max: 100, pass_exhausted: false, new_last: None, keys: None, looked_at: 0 }, &inputs, &mut records);
                for record in &records {
                    prop_assert_eq!(state.apply(record, Lsn(1 << 40)), Ok(()));
                }
            }
            state.apply(&Record::Opened { epoch: Epoch(u64::MAX), clean: false, wall: WallMs(0) }, Lsn(0)).ok();
            prop_assert_eq!(state.check(), []);
        }
    }
}
