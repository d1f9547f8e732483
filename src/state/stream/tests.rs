//! Streams by what is known of them beside the index, and by facts of it.

use super::*;
use crate::ids::{TopicId, WallMs};
use crate::record::TopicOptions;
use crate::state::Command;
use crate::state::tests::World;

const NEW: Option<StreamFact> = Some(StreamFact { head: StreamHead { first: 0, next: 0 }, as_of: Lsn(0) });

fn world() -> (World, StreamId) {
    let mut world = World::new();
    let options = TopicOptions { streams: true, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "orders", partitions: 1, options }).unwrap();
    world.streams = StreamTails::default();
    (world, StreamId { partition: PartitionId(0), key: 7 })
}

fn append(stream: StreamId, expected: Expected, fact: Option<StreamFact>) -> Command<'static> {
    Command::Append { stream, count: 2, expected, ids: &[], fact }
}

#[test]
fn a_decision_needs_a_fact_that_nothing_has_made_stale() {
    let (mut world, stream) = world();
    let unknown = Err(Rejection::StreamUnknown(stream));
    assert_eq!(world.run(append(stream, Expected::Any, None)), unknown);
    world.run(append(stream, Expected::NoStream, NEW)).unwrap();
    world.run(append(stream, Expected::Version(1), None)).unwrap();
    let wrong = Err(Rejection::WrongVersion { stream, actual: Some(3) });
    assert_eq!(world.run(append(stream, Expected::Version(1), NEW)), wrong, "what is known counts, and not the fact");
    // The index has followed, and what it knows is forgotten.
    let end = Lsn(world.lsn);
    assert_eq!(world.streams.first(Lsn(end.0 - 1), 9).len(), 1, "of what is not below, nothing");
    assert_eq!(world.streams.first(end, 1).len(), 1, "no more than is wanted");
    assert!(world.streams.forget(end, 1) && !world.streams.forget(end, 9));
    assert_eq!((world.streams.len(), world.streams.floor()), (0, end));
    assert_eq!(world.streams.head(stream), Some(StreamHead { first: 0, next: 4 }), "heads stay");
    world.streams = StreamTails::new(end);
    assert_eq!(world.run(append(stream, Expected::Any, NEW)), unknown, "older than what was forgotten");
    let fact = Some(StreamFact { head: StreamHead { first: 1, next: 4 }, as_of: end });
    let (_, records) = world.run(append(stream, Expected::Version(3), fact)).unwrap();
    assert!(matches!(records[..], [Record::Appended { version: 4, first: 1, .. }]), "{records:?}");
}

fn note(world: &World, offset: u64) -> StreamNote {
    StreamNote { partition: PartitionId(1), offset: Offset(offset), time: WallMs(world.wall) }
}

/// A snapshot is of an event that is there.
#[test]
fn a_snapshot_is_never_newer_than_its_stream() {
    let (mut world, stream) = world();
    let save = |version| Command::SaveSnapshot { stream, version, fact: NEW };
    let refused = |actual| Err(Rejection::NoSuchVersion { stream, actual });
    assert_eq!(world.run(save(0)), refused(None));
    world.run(append(stream, Expected::NoStream, NEW)).unwrap();
    assert_eq!(world.run(save(2)), refused(Some(1)));
    assert_eq!(world.run(save(u64::MAX)), refused(Some(1)));
    let saved = |world: &World, offset, version, first| Record::SnapshotSaved {
        stream,
        note: note(world, offset),
        version,
        first,
        next: 2,
    };
    assert_eq!(world.run(save(1)).unwrap().1, [saved(&world, 0, 1, 0)]);
    world.run(Command::TruncateStream { stream, first: 1, fact: None }).unwrap();
    assert_eq!(world.run(save(0)), refused(Some(1)));
    assert_eq!(world.run(save(1)).unwrap().1, [saved(&world, 2, 1, 1)]);
    for (version, first, next) in [(2, 1, 2), (0, 1, 2)] {
        let wrong = Record::SnapshotSaved { stream, note: note(&world, 3), version, first, next };
        assert!(world.state.apply(&wrong, Lsn(world.lsn)).is_err());
    }
    for at in [note(&world, 2), StreamNote { partition: PartitionId(0), ..note(&world, 3) }] {
        let wrong = Record::SnapshotSaved { stream, note: at, version: 1, first: 1, next: 2 };
        assert!(world.state.apply(&wrong, Lsn(world.lsn)).is_err());
    }
}

#[test]
fn a_truncated_stream_goes_on_with_its_versions() {
    let (mut world, stream) = world();
    let truncate = |first| Command::TruncateStream { stream, first, fact: NEW };
    assert_eq!(world.run(truncate(9)).unwrap(), (Decision::Nothing, vec![]), "nothing is there");
    world.run(append(stream, Expected::NoStream, NEW)).unwrap();
    assert_eq!(
        world.run(truncate(1)).unwrap().1,
        [Record::StreamTruncated { stream, note: note(&world, 0), first: 1, next: 2 }]
    );
    assert_eq!(world.run(truncate(1)).unwrap().0, Decision::Nothing);
    assert_eq!(
        world.run(truncate(u64::MAX)).unwrap().1,
        [Record::StreamTruncated { stream, note: note(&world, 1), first: 2, next: 2 }]
    );
    let wrong = Err(Rejection::WrongVersion { stream, actual: None });
    assert_eq!(world.run(append(stream, Expected::Version(1), None)), wrong);
    let (_, records) = world.run(append(stream, Expected::NoStream, None)).unwrap();
    assert!(matches!(records[..], [Record::Appended { version: 2, first: 2, .. }]), "{records:?}");
}

#[test]
fn versions_have_an_end_and_topics_a_kind() {
    let (mut world, stream) = world();
    let fact = |next| Some(StreamFact { head: StreamHead { first: 0, next }, as_of: Lsn(0) });
    let full = Err(Rejection::LimitReached("events in a stream"));
    assert_eq!(world.run(append(stream, Expected::Any, fact(VERSION_MAX))), full);
    world.run(append(stream, Expected::Version(VERSION_MAX - 2), fact(VERSION_MAX - 1))).unwrap();
    assert_eq!(world.run(append(stream, Expected::Any, None)), full);
    world.run(Command::CreateTopic { name: "plain", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    let plain = StreamId { partition: PartitionId(2), key: 7 };
    assert!(matches!(world.run(append(plain, Expected::Any, NEW)), Err(Rejection::Invalid(_))));
    let appended =
        Record::Appended { stream: plain, base: Offset(0), count: 1, time: Default::default(), version: 0, first: 0 };
    assert!(world.state.apply(&appended, Lsn(world.lsn)).is_err());
    world.run(Command::RemoveTopic { topic: TopicId(0) }).unwrap();
    assert_eq!(world.run(append(stream, Expected::Any, None)), Err(Rejection::UnknownPartition));
}

/// Memory is bounded, also where no index follows.
#[test]
fn appends_are_refused_where_the_index_stays_behind() {
    let (mut world, stream) = world();
    let appended =
        |n| Record::Appended { stream, base: Offset(n), count: 1, time: Default::default(), version: n, first: 0 };
    (0..2 * TOUCHES_MAX as u64).for_each(|n| world.streams.follow(&appended(n), Lsn(n + 1)));
    let full = Rejection::LimitReached(INDEX_BEHIND);
    assert_eq!(world.run(append(stream, Expected::Any, NEW)), Err(full));
    world.streams.forget(Lsn(1), 9);
    world.run(append(stream, Expected::Any, NEW)).unwrap();
}

/// However many streams are touched, memory is bounded, and what is remembered is right.
#[test]
fn heads_are_forgotten_and_never_wrong() {
    let mut tails = StreamTails::default();
    let stream = |n: u64| StreamId { partition: PartitionId(0), key: u128::from(n) };
    let count = 300_000;
    for n in 0..count {
        let record = Record::Appended {
            stream: stream(n % 200_000),
            base: Offset(n),
            count: 1,
            time: Default::default(),
            version: n / 200_000,
            first: 0,
        };
        tails.follow(&record, Lsn(8 * (n + 1)));
        tails.forget(Lsn(8 * (n + 1)), 9);
    }
    let known = (0..200_000).filter_map(|n| tails.head(stream(n)).map(|head| (n, head.next)));
    let known: Vec<_> = known.collect();
    assert!((100_000..=262_144).contains(&known.len()), "{}", known.len());
    assert!(known.iter().all(|(n, next)| *next == 1 + u64::from(*n < 100_000)));
}
