//! What happens when the disk fails, when files are not ours, and when there is nothing left to keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::ids::WallMs;
use millpond::simulation::{Fault, Op, SimClock, SimDisk};
use millpond::{Backoff, Durability, Error, ErrorKind, Message, Store, Topic};
use std::sync::Arc;
use std::time::Duration;

fn open_at(disk: &SimDisk, level: Durability) -> Result<Store, Error> {
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let handle = Arc::new(disk.attach().unwrap());
    Store::options().durability(level).segment_bytes_max(64 << 10).open_on(handle, clock)
}

fn numbers(store: &Store) -> Topic {
    store.topic("numbers").open().unwrap()
}

/// G13: after a failed sync nothing durable is promised any more, nobody syncs again, and reopening says what is so.
#[test]
fn a_failed_sync_stops_the_store_until_it_is_opened_again() {
    let disk = SimDisk::new(1);
    let store = open_at(&disk, Durability::Disk).unwrap();
    let topic = numbers(&store);
    topic.publish("kept").unwrap();
    disk.fail_op_at(Op::Sync, disk.requests_of(Op::Sync), Fault::Io);
    assert!(matches!(topic.publish("unsure"), Err(Error::OutcomeUnknown { .. })));
    let syncs = disk.requests_of(Op::Sync);
    let refused = topic.publish("refused").unwrap_err();
    assert!(matches!(refused, Error::Poisoned { .. }) && refused.kind() == ErrorKind::Reopen, "{refused}");
    assert!(store.tick().is_err() && store.sync().is_err() && store.close().is_err());
    assert_eq!(disk.requests_of(Op::Sync), syncs, "a failed sync is not tried again");

    let store = open_at(&disk, Durability::Disk).unwrap();
    let group = numbers(&store).group("g").open().unwrap();
    let batch = group.receive_batch(10, Duration::ZERO).unwrap();
    let payloads: Vec<&[u8]> = batch.iter().map(|delivery| delivery.payload()).collect();
    assert!(payloads == [&b"kept"[..]] || payloads == [&b"kept"[..], b"unsure"], "{payloads:?}");
}

/// G14: on a full disk publishes are refused, and what is there can still be leased and settled; that gives room back, and
/// publishing goes on without a restart.
#[test]
fn a_full_store_can_be_emptied_and_takes_messages_again() {
    let disk = SimDisk::new(2);
    let store = Store::options()
        .durability(Durability::Os)
        .segment_bytes_max(256 << 10)
        .message_bytes_max(16 << 10)
        .open_on(Arc::new(disk.attach().unwrap()), Arc::new(SimClock::new(WallMs(1_000))))
        .unwrap();
    let topic = numbers(&store);
    let group = topic.group("g").max_attempts(1).backoff(Backoff::none()).open().unwrap();
    disk.set_capacity(Some(8 << 20));
    let fill = || {
        let mut published = 0u32;
        loop {
            if published.is_multiple_of(100) {
                store.tick().unwrap();
            }
            match topic.publish(published.to_le_bytes().repeat(25)) {
                Ok(_) => published += 1,
                Err(error) => break (published, error),
            }
        }
    };
    let (published, refused) = fill();
    assert!(matches!(refused, Error::DiskFull) && refused.kind() == ErrorKind::Retry, "{refused}");
    assert!(published > 30_000, "{published} messages are little for 8 MiB");
    // One at a time, which takes the most room; some go to the dead letters.
    let mut settled = 0;
    while let Some(delivery) = group.receive(Duration::ZERO).unwrap() {
        assert_eq!(delivery.payload()[..4], u32::to_le_bytes(settled), "in order, and none is missing");
        match settled % 1_000 {
            7 => delivery.nack("no").unwrap(),
            _ => delivery.ack().unwrap(),
        }
        settled += 1;
        if settled.is_multiple_of(100) {
            store.tick().unwrap();
        }
    }
    assert_eq!(settled, published);
    (0..3).for_each(|_| store.tick().unwrap());
    assert_eq!(group.dead_letters().unwrap().count() as u32, (published + 992) / 1_000);
    let (again, _) = fill();
    assert!(again > published / 2, "{again} after {published}: room came back");
    store.close().unwrap();
}

#[test]
fn files_of_a_newer_format_or_of_another_store_are_named_and_left_alone() {
    let other = SimDisk::new(3);
    let store = open_at(&other, Durability::Disk).unwrap();
    numbers(&store).publish("m").unwrap();
    store.close().unwrap();
    let segment = other.files().into_iter().find(|file| file.name.ends_with(".seg")).unwrap().name;

    let disk = SimDisk::new(4);
    let store = open_at(&disk, Durability::Disk).unwrap();
    numbers(&store).publish("m").unwrap();
    store.close().unwrap();
    drop(store);

    let foreign = disk.snapshot();
    foreign.write_file(&segment, &other.read_file(&segment).unwrap());
    match open_at(&foreign, Durability::Disk) {
        Err(Error::ForeignFile { file }) => assert_eq!(file, segment),
        result => panic!("{result:?}"),
    }

    let newer = disk.snapshot();
    let mut bytes = newer.read_file("STORE").unwrap();
    bytes[8] += 1;
    // The format word comes after the magic; the header's checksum covers the 40 bytes before it.
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    newer.write_file("STORE", &bytes);
    match open_at(&newer, Durability::Disk) {
        Err(error @ Error::NewerFormat { .. }) => assert_eq!(error.kind(), ErrorKind::Stop),
        result => panic!("{result:?}"),
    }
}

/// Bytes that changed at rest are found, named and put aside; what else is there flows on (G5, G12).
#[test]
fn a_damaged_message_is_told_of_and_does_not_hold_up_the_others() {
    let disk = SimDisk::new(5);
    let store = open_at(&disk, Durability::Os).unwrap();
    let topic = numbers(&store);
    (0..3u8).for_each(|n| drop(topic.publish(vec![n + b'a'; 100]).unwrap()));
    store.close().unwrap();
    drop((store, topic));
    let segment = disk.files().into_iter().find(|file| file.name.ends_with(".seg") && file.len > 300).unwrap().name;
    let mut bytes = disk.read_file(&segment).unwrap();
    let place = bytes.windows(20).position(|window| window == [b'b'; 20]).unwrap();
    bytes[place] ^= 1;
    disk.write_file(&segment, &bytes);

    let store = open_at(&disk, Durability::Os).unwrap();
    let group = numbers(&store).group("g").open().unwrap();
    let batch = group.receive_batch(10, Duration::ZERO).unwrap();
    let firsts: Vec<u8> = batch.iter().map(|delivery| delivery.payload()[0]).collect();
    assert_eq!(firsts, b"ac");
    assert!(matches!(batch.unreadable(), [Error::Corrupt(what)] if what.file == segment), "{:?}", batch.unreadable());
    assert!(batch.ack().unwrap().is_empty());
    let stats = store.stats().unwrap();
    assert_eq!(stats.topics[0].groups[0].lag, 1, "it is not settled");
}

/// Segments in which everything is settled are unlinked, and what follows is still there (G15 in part).
#[test]
fn segments_in_which_nothing_lives_are_unlinked() {
    let disk = SimDisk::new(6);
    let store = open_at(&disk, Durability::Os).unwrap();
    let topic = numbers(&store);
    let group = topic.group("g").open().unwrap();
    for _ in 0..120 {
        topic.publish_batch((0..50).map(|_| Message::new(vec![7; 200]))).unwrap();
        while !group.receive_batch(1_000, Duration::ZERO).unwrap().ack().unwrap().is_empty() {}
        store.tick().unwrap();
    }
    topic.publish("last").unwrap();
    let bytes: u64 = disk.files().iter().map(|file| file.len).sum();
    assert!(bytes < 700 << 10, "{bytes} bytes are left of a log of {}", store.stats().unwrap().log.end);
    assert!(store.stats().unwrap().log.end.get() > 700 << 10);
    let handles = (store, topic, group);
    std::mem::forget(handles);
    disk.crash_process();
    let store = open_at(&disk, Durability::Os).unwrap();
    let group = numbers(&store).group("g").open().unwrap();
    assert_eq!(group.receive(Duration::ZERO).unwrap().unwrap().payload(), b"last");
}

/// A subscription is a channel: it delivers, it can be selected on, and it ends with the store.
#[test]
fn a_subscription_delivers_until_the_store_closes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let topic = numbers(&store);
    let group = topic.group("g").open().unwrap();
    let deliveries = group.subscribe().unwrap();
    (0..20u8).for_each(|n| drop(topic.publish(vec![n]).unwrap()));
    for n in 0..20u8 {
        let delivery = deliveries.recv().unwrap();
        assert_eq!((delivery.payload(), delivery.attempt()), (&[n][..], 1));
        delivery.ack().unwrap();
    }
    store.close().unwrap();
    assert!(matches!(deliveries.recv(), Err(Error::Closed)), "the subscription ends");
}
