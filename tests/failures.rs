//! What happens when the disk fails, when files are not ours, and when there is nothing left to keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{Fault, Op, PowerOutcome, SimClock, SimDisk};
use millpond::{Backoff, Durability, Error, ErrorKind, Message, MessageId, Store, Topic};
use std::collections::{BTreeMap, BTreeSet};
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
    assert!(
        matches!(batch.unreadable(), [error] if error.corruption().is_some_and(|what| what.file == segment)),
        "{:?}",
        batch.unreadable()
    );
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

/// A store in segments of 64 KiB, and the clock that it goes by.
fn try_with_clock(disk: &SimDisk) -> Result<(Store, Arc<SimClock>), Error> {
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    let store = options.open_on(Arc::new(disk.attach().unwrap()), Arc::clone(&clock) as _)?;
    Ok((store, clock))
}

fn open_with_clock(disk: &SimDisk) -> (Store, Arc<SimClock>) {
    try_with_clock(disk).unwrap()
}

/// A close that finds no room is told so and leaves the store closed and the directory locked; the next one, with room, saves.
#[test]
fn a_close_on_a_full_disk_can_be_called_again() {
    let disk = SimDisk::new(11);
    let store = open_at(&disk, Durability::Os).unwrap();
    let topic = numbers(&store);
    let group = topic.group("g").backoff(Backoff::none()).open().unwrap();
    topic.publish_batch(["one", "two"]).unwrap();
    let held = group.receive_batch(2, Duration::ZERO).unwrap();
    disk.set_capacity(Some(0));
    for _ in 0..3 {
        assert!(matches!(store.close(), Err(Error::DiskFull)));
        assert!(matches!(topic.publish("three"), Err(Error::Closed)) && matches!(store.stats(), Err(Error::Closed)));
        assert!(disk.attach().is_err(), "the directory stays locked");
    }
    disk.set_capacity(None);
    store.close().unwrap();
    store.close().unwrap();
    drop(disk.attach().unwrap());
    drop((held, group, topic, store));
    let store = open_at(&disk, Durability::Os).unwrap();
    assert!(store.report().was_clean);
    let again = numbers(&store).group("g").open().unwrap().receive_batch(2, Duration::ZERO).unwrap();
    assert_eq!(again.len(), 2, "no lease counts as ended by a crash");

    // A caller that does not call it again gives the directory back with the last handle, and the next open recovers.
    drop(again);
    disk.set_capacity(Some(0));
    assert!(matches!(store.close(), Err(Error::DiskFull)));
    drop(store);
    disk.set_capacity(None);
    assert!(!open_at(&disk, Durability::Os).unwrap().report().was_clean);
}

/// No memory for the map of a segment is told as what it is, to whoever needs the segment; the jobs try again.
#[test]
fn no_memory_for_a_segment_is_told_and_passes() {
    let disk = SimDisk::new(12);
    let store = open_at(&disk, Durability::Os).unwrap();
    let topic = numbers(&store);
    let (mut refused, mut published) = (0, 0);
    for _ in 0..300 {
        disk.fail_op_at(Op::Create, disk.requests_of(Op::Create), Fault::NoMemory);
        match topic.publish([7; 2_000]) {
            Ok(_) => published += 1,
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory) && error.kind() == ErrorKind::Retry, "{error:?}");
                refused += 1;
            }
        }
        store.tick().unwrap();
        disk.clear_faults();
    }
    assert!(refused > 3 && published > 100, "{refused} refused, {published} published");
    let group = topic.group("g").open().unwrap();
    assert_eq!(group.receive_batch(1_000, Duration::ZERO).unwrap().len(), published);
    store.close().unwrap();
}

/// What can be made again, and what only takes room, may fail at any request: the store goes on, tries again later, and finds every
/// message meanwhile.
#[test]
fn errors_of_derived_files_and_of_unlinking_pass() {
    for op in [Op::Create, Op::Write, Op::Open, Op::SetLen, Op::Remove, Op::Read] {
        let mut met = 0;
        for nth in 0..150 {
            let disk = SimDisk::new(13);
            disk.fail_op_at(op, nth, Fault::Io);
            let lived = live_and_close(&disk);
            let faults = disk.faults_met();
            let is_derived = |(op, name, _): &(Op, String, Fault)| {
                name.ends_with(".idx") || *op == Op::Remove || *op == Op::SetLen && name.ends_with(".seg")
            };
            if faults.iter().all(is_derived) {
                lived.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
                met += faults.len();
            }
        }
        assert!(met > 2, "{op:?}: {met} errors were met");
    }
}

/// Publishes, receives and acks over several segments, with the jobs; closes, and opens again.
fn live_and_close(disk: &SimDisk) -> Result<(), Box<dyn std::error::Error>> {
    let (store, clock) = try_with_clock(disk)?;
    let topic = store.topic("numbers").open()?;
    let groups = [topic.group("first").open()?, topic.group("second").open()?];
    for round in 0..5u32 {
        for n in 0..40u32 {
            topic.publish((round * 40 + n).to_le_bytes().repeat(500))?;
            if n % 8 == 0 {
                store.tick()?;
            }
        }
        store.checkpoint()?;
        for (group, acks) in groups.iter().zip([round != 1, true]) {
            let batch = group.receive_batch(40, Duration::ZERO)?;
            if batch.len() != 40 {
                return Err(format!("{} came, and {:?}", batch.len(), batch.unreadable()).into());
            }
            if acks {
                let _lost = batch.ack()?;
            }
        }
        clock.advance(6_000);
        (0..3).try_for_each(|_| store.tick())?;
    }
    store.close()?;
    drop((groups, topic, store));
    assert!(open_at(disk, Durability::Os)?.report().was_clean);
    Ok(())
}

/// A file that cannot be unlinked is not asked for again at every beat.
#[test]
fn what_cannot_be_unlinked_is_left_alone_for_a_while() {
    let disk = SimDisk::new(14);
    let (store, clock) = open_with_clock(&disk);
    let topic = numbers(&store);
    let group = topic.group("g").open().unwrap();
    for _ in 0..600 {
        topic.publish([7; 2_000]).unwrap();
        store.tick().unwrap();
    }
    assert!(group.receive_batch(1_000, Duration::ZERO).unwrap().ack().unwrap().is_empty());
    store.checkpoint().unwrap();
    topic.publish("more").unwrap();
    store.checkpoint().unwrap();
    let before = disk.requests_of(Op::Remove);
    (0..10_000).for_each(|nth| disk.fail_op_at(Op::Remove, before + nth, Fault::Io));
    let segments = || disk.files().iter().filter(|file| file.name.ends_with(".seg")).count();
    let all = segments();
    (0..1_000).for_each(|_| store.tick().unwrap());
    let asked = disk.requests_of(Op::Remove) - before;
    assert!(asked > 0 && asked < 20 * all as u64, "asked {asked} times for {all} segments");
    disk.clear_faults();
    clock.advance(10_000);
    (0..3).for_each(|_| store.tick().unwrap());
    assert!(segments() < all / 2, "{} of {all} segments are left", segments());
    store.close().unwrap();
}

/// A backup by hard links, at any time: no file that has a second link is written to or cut from the next beat on, in this process or
/// the next, and nothing is lost.
#[test]
fn files_that_others_have_links_to_are_left_alone() {
    let disk = SimDisk::new(15);
    let mut published = 0u32;
    for life in 0..6 {
        disk.link_files();
        let (store, _) = open_with_clock(&disk);
        let topic = numbers(&store);
        let group = topic.group("g").open().unwrap();
        for step in 0..150u32 {
            topic.publish(published.to_le_bytes().repeat(300)).unwrap();
            published += 1;
            if step.is_multiple_of(7) {
                group.receive(Duration::ZERO).unwrap().unwrap().ack().unwrap();
            }
            if step.is_multiple_of(31) {
                store.checkpoint().unwrap();
            }
            if step.is_multiple_of(11) {
                disk.link_files();
                store.tick().unwrap();
            }
            if step.is_multiple_of(5) {
                store.tick().unwrap();
            }
            assert_eq!(disk.linked_changes(), [], "life {life}, step {step}");
        }
        disk.link_files();
        match life % 3 {
            0 => store.close().unwrap(),
            1 => disk.crash_process(),
            _ => {
                store.sync().unwrap();
                drop((group, topic, store));
                disk.crash_power(PowerOutcome::LoseAll);
            }
        }
        assert_eq!(disk.linked_changes(), [], "at the end of life {life}");
    }
    let (store, _) = open_with_clock(&disk);
    let group = numbers(&store).group("all").open().unwrap();
    let batch = group.receive_batch(10_000, Duration::ZERO).unwrap();
    assert!(batch.len() as u32 > published / 2 && batch.unreadable().is_empty(), "{} of {published}", batch.len());
}

/// A file in use that somebody removed, or gave another name, is told of at the next beat, by name.
#[test]
fn a_file_in_use_that_lost_its_name_stops_the_store() {
    for which in ["STORE", ".seg"] {
        let disk = SimDisk::new(16);
        let store = open_at(&disk, Durability::Disk).unwrap();
        let topic = numbers(&store);
        topic.publish("before").unwrap();
        store.tick().unwrap();
        let files = disk.files().into_iter().filter(|file| file.name.ends_with(which));
        let name = files.min_by_key(|file| file.name.clone()).unwrap().name;
        assert!(disk.remove_file(&name));
        let error = store.tick().unwrap_err();
        assert!(matches!(&error, Error::Poisoned { cause } if cause.contains(&name)), "{error:?}");
        assert!(matches!(topic.publish("after"), Err(Error::Poisoned { .. })), "{name}");
        assert!(matches!(store.close(), Err(Error::Poisoned { .. })), "{name}");
    }
}

/// Calls again what was refused for a lack that passes, and nothing else.
fn again<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    match call() {
        Err(Error::DiskFull | Error::TooManyOpenFiles | Error::OutOfMemory) => call().unwrap(),
        done => done.unwrap(),
    }
}

/// No single request that finds no room, memory or descriptor stops the store, whoever makes it: the caller is told, the jobs go on, and
/// the next call is taken.
#[test]
fn no_request_that_lacks_something_stops_the_store() {
    for (op, fault) in [
        (Op::Append, Fault::NoSpace),
        (Op::Write, Fault::NoSpace),
        (Op::Create, Fault::NoSpace),
        (Op::SetLen, Fault::NoSpace),
        (Op::Create, Fault::TooManyFiles),
        (Op::Open, Fault::TooManyFiles),
        (Op::Create, Fault::NoMemory),
    ] {
        for nth in 0..60 {
            let disk = SimDisk::new(17);
            let (store, clock) = open_with_clock(&disk);
            disk.fail_op_at(op, disk.requests_of(op) + nth, fault);
            let topic = again(|| store.topic("numbers").open());
            let group = again(|| topic.group("g").open());
            let mut left = BTreeSet::new();
            for n in 0..120u32 {
                again(|| topic.publish(n.to_le_bytes().repeat(300)));
                left.insert(n);
                for _ in 0..2 {
                    // The second one finds nothing to sync, and leaves a mark.
                    store.tick().unwrap_or_else(|error| panic!("{op:?} {fault:?} {nth}: a job failed: {error}"));
                }
                if n.is_multiple_of(40) {
                    again(|| store.checkpoint());
                }
            }
            again(|| store.close());
            disk.clear_faults();
            drop((group, topic, store));
            let (store, _) = open_with_clock(&disk);
            assert!(store.report().was_clean, "{op:?} {fault:?} {nth}");
            clock.advance(1);
            let batch = numbers(&store).group("g").open().unwrap().receive_batch(200, Duration::ZERO).unwrap();
            for delivery in batch.iter() {
                left.remove(&u32::from_le_bytes(*delivery.payload().first_chunk().unwrap()));
            }
            assert!(left.is_empty() && batch.unreadable().is_empty(), "{op:?} {fault:?} {nth}: {left:?} are missing");
        }
    }
}

/// A jump of the wall clock whose record finds no room is recorded by the next beat: no retry waits for the hour that the clock lost.
#[test]
fn a_jump_that_finds_no_room_is_noticed_at_the_next_beat() {
    let disk = SimDisk::new(18);
    let (store, clock) = open_with_clock(&disk);
    let topic = numbers(&store);
    let group = topic.group("g").open().unwrap();
    topic.publish("again").unwrap();
    group.receive(Duration::ZERO).unwrap().unwrap().nack_after(Duration::from_secs(10), "not now").unwrap();
    store.tick().unwrap();
    clock.set_wall(WallMs(1_800_000_000_000 - 3_600_000));
    disk.fail_op_at(Op::Append, disk.requests_of(Op::Append), Fault::NoSpace);
    store.tick().unwrap();
    assert_eq!(disk.faults(), 1);
    store.tick().unwrap();
    clock.advance(10_001);
    assert!(group.receive(Duration::ZERO).unwrap().is_some(), "it waits for the hour that the clock lost");
}

fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.files().into_iter().map(|entry| (entry.name.clone(), disk.read_file(&entry.name).unwrap())).collect()
}

/// One process: what it publishes, is given, moves and puts back goes to `seen`, where no id may stand for two messages.
fn live(disk: &SimDisk, life: u8, count: u8, seen: &mut BTreeMap<MessageId, Vec<u8>>) {
    let store = open_at(disk, Durability::Disk).unwrap();
    let topic = numbers(&store);
    let group = topic.group("g").max_attempts(1).open().unwrap();
    let mut see = |id: MessageId, payload: &[u8]| {
        let was = seen.entry(id).or_insert_with(|| payload.to_vec());
        assert_eq!(was, payload, "the id {id} in life {life}");
    };
    for number in 0..count {
        let payload = vec![life, number];
        see(topic.publish(payload.clone()).unwrap().id(), &payload);
    }
    // Each life moves and settles other messages: their copies are messages with ids of their own.
    for delivery in group.receive_batch(usize::from(life), Duration::ZERO).unwrap() {
        see(delivery.id(), delivery.payload());
        delivery.reject("no").unwrap();
    }
    store.sync().unwrap();
    for (n, letter) in group.dead_letters().unwrap().enumerate() {
        let letter = letter.unwrap();
        see(letter.id(), letter.payload());
        if n == 0 {
            letter.redrive().unwrap();
        }
    }
    store.close().unwrap();
}

/// G11: a closed directory is copied and used further; then the copy takes its place. What is given out from there on has other ids
/// than what was given out in the meantime, however often that is done, and also where the copy is of an empty store.
#[test]
fn a_restored_copy_gives_no_id_of_its_other_life() {
    for before in 0..3 {
        let disk = SimDisk::new(u64::from(before));
        let mut seen = BTreeMap::new();
        (0..before).for_each(|life| live(&disk, life, 4, &mut seen));
        drop(open_at(&disk, Durability::Disk).unwrap());
        let copy = files(&disk);
        for life in before..before + 4 {
            live(&disk, life, 3 + life, &mut seen);
            if life % 2 == 1 {
                live(&disk, life + 100, 2, &mut seen);
            }
            disk.files().iter().for_each(|entry| assert!(disk.remove_file(&entry.name)));
            copy.iter().for_each(|(name, bytes)| disk.write_file(name, bytes));
        }
        live(&disk, 50, 9, &mut seen);
        assert!(seen.len() > 30, "{}", seen.len());
    }
}
