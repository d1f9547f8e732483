//! One test for each bug that another level found: see docs/internals/bugs.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{Fault, PowerOutcome, SimClock, SimDisk};
use millpond::{Backoff, Durability, Start, Store};
use std::sync::Arc;
use std::time::Duration;

const WALL: u64 = 1_800_000_000_000;

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Store {
    let handle = Arc::new(disk.attach().unwrap());
    Store::options().durability(Durability::Os).open_on(handle, Arc::clone(clock) as _).unwrap()
}

/// A jump of the wall clock between opening and the first beat of the jobs had nothing to be measured against, and a
/// retry waited for as long as the clock had gone back (G16).
#[test]
fn a_clock_jump_before_the_first_beat_is_noticed() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").backoff(Backoff::fixed(Duration::from_secs(1))).open().unwrap();
    topic.publish("m").unwrap();
    group.receive(Duration::ZERO).unwrap().unwrap().nack("no").unwrap();
    clock.set_wall(WallMs(WALL - 86_400_000));
    store.tick().unwrap();
    clock.advance(1_000);
    let again = group.receive(Duration::ZERO).unwrap().expect("its own delay is over");
    assert_eq!(again.attempt(), 2);
}

/// Handles that outlive a close kept the directory locked, so that it could not be opened again.
#[test]
fn a_closed_store_lets_go_of_its_directory_whatever_handles_are_left() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    store.close().unwrap();
    let again = Store::open(directory.path().join("s")).unwrap();
    assert!(again.topic("t").open().is_ok());
    assert!(topic.publish("m").is_err());
}

/// Files that a dead process left behind were never removed.
#[test]
fn what_a_dead_process_left_is_removed() {
    let (disk, clock) = (SimDisk::new(2), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    store.topic("t").open().unwrap().publish("m").unwrap();
    store.tick().unwrap();
    let standby =
        disk.files().into_iter().filter(|file| file.name.ends_with(".seg")).max_by_key(|file| file.name.clone());
    disk.crash_process();
    drop(store);

    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    topic.publish("n").unwrap();
    store.sync().unwrap();
    store.tick().unwrap();
    let standby = standby.unwrap().name;
    assert!(disk.files().iter().all(|file| file.name != standby), "{standby} holds nothing and is still there");
    assert_eq!(topic.group("g").open().unwrap().receive_batch(9, Duration::ZERO).unwrap().len(), 2);
}

/// A process that had appended nothing did not record a jump, and a retry waited for as long as the clock had gone back (G16).
#[test]
fn a_clock_jump_before_the_first_append_is_noticed() {
    let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").backoff(Backoff::fixed(Duration::from_secs(1))).open().unwrap();
    topic.publish("m").unwrap();
    group.receive(Duration::ZERO).unwrap().unwrap().nack("no").unwrap();
    store.close().unwrap();

    let store = open(&disk, &clock);
    let group = store.topic("t").open().unwrap().group("g").open().unwrap();
    clock.set_wall(WallMs(WALL - 86_400_000));
    store.tick().unwrap();
    clock.advance(1_000);
    assert!(group.receive(Duration::ZERO).unwrap().is_some(), "its own delay is over");
}

/// It was taken for a contradiction of the state, and stopped the store for everybody (G9).
#[test]
fn a_second_extension_of_an_exclusive_lease_does_not_stop_the_store() {
    let (disk, clock) = (SimDisk::new(4), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").max_attempts(2).open().unwrap();
    topic.publish("m").unwrap();
    let held = group.receive(Duration::ZERO).unwrap().unwrap();
    disk.crash_process();
    drop((held, group, topic, store));

    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    let exclusive = topic.group("g").open().unwrap().receive(Duration::ZERO).unwrap().unwrap();
    exclusive.extend(Duration::from_secs(60)).unwrap();
    exclusive.extend(Duration::from_secs(90)).unwrap();
    topic.publish("the store goes on").unwrap();
    exclusive.ack().unwrap();
}

/// Where a group began with messages of unlinked segments, each of them was reported as damage (G5).
#[test]
fn a_group_begins_at_the_first_message_that_there_is() {
    let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::new(WallMs(WALL))));
    let handle = Arc::new(disk.attach().unwrap());
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    let store = options.open_on(handle, Arc::clone(&clock) as _).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    for _ in 0..60 {
        topic.publish_batch((0..20).map(|_| vec![7; 500])).unwrap();
        assert!(group.receive_batch(100, Duration::ZERO).unwrap().ack().unwrap().is_empty());
        store.tick().unwrap();
    }
    topic.publish("last").unwrap();
    for start in [Start::Earliest, Start::Offset(3)] {
        let late = topic.group(format!("{start:?}")).start(start).open().unwrap();
        let batch = late.receive_batch(2_000, Duration::ZERO).unwrap();
        assert!(batch.unreadable().is_empty(), "{:?}", batch.unreadable());
        assert!(batch.len() < 1_000, "some are unlinked");
        assert_eq!(batch.iter().last().unwrap().payload(), b"last");
    }
}

/// A recovery copies what nothing proves to be durable, and a slot makes the copy count. Where it died before that slot was
/// durable, the next process took the copy for part of the log, said that all of it was durable, and a power cut took the slot
/// back and the copy with it (G1).
#[test]
fn what_a_dead_recovery_copied_is_durable_once_it_is_served() {
    let clock = Arc::new(SimClock::new(WallMs(WALL)));
    let left = SimDisk::new(6);
    let store = open(&left, &clock);
    store.topic("t").open().unwrap().publish("m").unwrap();
    left.crash_process();
    drop(store);
    let probe = left.snapshot();
    drop(open(&probe, &clock));
    for request in left.requests()..probe.requests() {
        let disk = left.snapshot();
        disk.fail_at(request, Fault::CrashAfter);
        let handle = Arc::new(disk.attach().unwrap());
        assert!(Store::options().open_on(handle, Arc::clone(&clock) as _).is_err(), "request {request}");
        disk.crash_process();
        let served = open(&disk, &clock).report().end;
        disk.crash_power(PowerOutcome::LoseAll);
        let found = open(&disk, &clock);
        assert!(found.report().end >= served, "{} of {served} is left, request {request}", found.report().end);
        let group = found.topic("t").open().unwrap().group("g").open().unwrap();
        assert!(group.receive(Duration::ZERO).unwrap().is_some(), "request {request}");
    }
}

/// The last checkpoint but one kept whatever had come to be dead since it, for as long as nothing more was appended.
#[test]
fn at_rest_nothing_dead_is_kept() {
    let (disk, clock) = (SimDisk::new(9), Arc::new(SimClock::new(WallMs(WALL))));
    let handle = Arc::new(disk.attach().unwrap());
    let options = Store::options().durability(Durability::Os).segment_bytes_max(1 << 20);
    let store = options.open_on(handle, Arc::clone(&clock) as _).unwrap();
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").open().unwrap();
    for _ in 0..40 {
        topic.publish(vec![7; 200 << 10]).unwrap();
        store.sync().unwrap();
    }
    store.tick().unwrap();
    assert!(store.stats().unwrap().log.segments > 7);
    while let Some(delivery) = group.receive(Duration::ZERO).unwrap() {
        delivery.ack().unwrap();
    }
    for _ in 0..8 {
        clock.advance(600);
        store.tick().unwrap();
    }
    let left = store.stats().unwrap().log.segments;
    assert!(left <= 2, "{left} segments, with nothing in them");
    let files: Vec<_> = disk.files().into_iter().filter(|file| file.name.ends_with(".seg")).collect();
    assert!(files.len() <= 3, "{files:?}");
}

/// Once its topic was removed, the origin of a message that had been redriven to another topic named a topic that never was.
#[test]
fn an_origin_outlives_its_topic() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    let (from, to) = (store.topic("from").open().unwrap(), store.topic("to").open().unwrap());
    let (group, other) = (from.group("g").open().unwrap(), to.group("g").open().unwrap());
    let id = from.publish("m").unwrap().id();
    group.receive(Duration::ZERO).unwrap().unwrap().reject("").unwrap();
    let letter = group.dead_letters().unwrap().next().unwrap().unwrap();
    assert_eq!(letter.origin(), id);
    letter.redrive_to(&to).unwrap();
    store.remove_topic("from").unwrap();
    let delivery = other.receive(Duration::ZERO).unwrap().unwrap();
    assert_eq!((delivery.origin(), delivery.id().topic.get()), (id, 1));
    // Also through its next move.
    delivery.reject("").unwrap();
    assert_eq!(other.dead_letters().unwrap().next().unwrap().unwrap().origin(), id);
}

/// A checkpoint that no slot had named, of a log that ended with a mark which the next open left away, came to count once a newer one was
/// named: if that was damaged, the store did not open.
#[test]
fn a_checkpoint_that_was_never_named_does_not_count_later() {
    let begin = || {
        let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::new(WallMs(WALL))));
        let store = open(&disk, &clock);
        let topic = store.topic("t").open().unwrap();
        topic.group("g").open().unwrap();
        topic.publish("one").unwrap();
        store.checkpoint().unwrap();
        topic.publish("two").unwrap();
        store.sync().unwrap();
        (disk, clock, store)
    };
    let end = |clock: &SimClock, store: &Store| {
        clock.advance(60_000);
        // The first may leave a mark.
        store.tick().and_then(|()| store.tick()).and_then(|()| store.checkpoint())
    };
    let requests = {
        let (disk, clock, store) = begin();
        let before = disk.requests();
        end(&clock, &store).unwrap();
        disk.requests() - before
    };
    assert!(requests > 10, "{requests}");
    let mut unnamed = 0;
    for nth in 0..requests {
        let (disk, clock, store) = begin();
        disk.fail_at(disk.requests() + nth, Fault::Io);
        drop((end(&clock, &store), store));
        disk.clear_faults();
        let names = || disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(".ckp"));
        unnamed += u64::from(names().count() > 1);

        let store = open(&disk, &clock);
        store.topic("t").open().unwrap().publish("three").unwrap();
        store.checkpoint().unwrap();
        disk.crash_process();
        drop(store);
        let observer = Store::options().open_read_only_on(Arc::new(disk.reader()), Arc::clone(&clock) as _).unwrap();
        let report = observer.verify(|_| ()).unwrap();
        assert!(report.findings.is_empty() && report.checkpoint_replayed, "request {nth}: {report:?}");
        let newest = names().max().unwrap();
        let mut bytes = disk.read_file(&newest).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        disk.write_file(&newest, &bytes);
        let group = open(&disk, &clock).topic("t").open().unwrap().group("g").open().unwrap();
        let messages = group.receive_batch(9, Duration::ZERO).unwrap();
        assert_eq!(messages.len(), 3, "request {nth}");
    }
    assert!(unnamed > 2, "{unnamed}");
}
