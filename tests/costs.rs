//! What operations cost, counted and never timed: allocations, requests to the disk, bytes on disk.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it skipped"
)]
#![allow(unsafe_code)] // A counting allocator cannot be written without.

use millpond::simulation::WallMs;
use millpond::simulation::{Clock, SimClock, SimDisk, lock_holds, real_disk, records_decoded};
use millpond::{Durability, Error, Group, Message, Start, Store, Topic};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

#[path = "common/memory.rs"]
mod memory;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread has allocated, less those that it has freed.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        HELD.with(|held| held.set(held.get() + layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get() - layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn held(work: impl FnOnce()) -> i64 {
    let before = HELD.with(Cell::get);
    work();
    HELD.with(Cell::get) - before
}

fn open_real(path: &std::path::Path) -> (Store, Topic, Group) {
    let store = Store::options().durability(Durability::Os).open(path).unwrap();
    let topic = store.topic("numbers").open().unwrap();
    let group = topic.group("reader").open().unwrap();
    (store, topic, group)
}

fn message() -> Message<'static> {
    Message::new(vec![7; 100])
}

#[test]
fn publish_receive_and_ack_do_not_allocate_per_record() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, topic, group) = open_real(&directory.path().join("store"));
    let cycle = |count: u64| {
        let messages: Vec<Message> = (0..count).map(|_| message()).collect();
        let publish = allocations(|| messages.into_iter().for_each(|message| drop(topic.publish(message).unwrap())));
        let receive_and_ack = allocations(|| {
            for _ in 0..count {
                group.receive(Duration::ZERO).unwrap().expect("a message").ack().unwrap();
            }
        });
        (publish, receive_and_ack)
    };
    cycle(2_000);
    let (publish, receive_and_ack) = cycle(2_000);
    // Tables grow now and then; nothing is allocated for each.
    assert!(publish < 200, "{publish} allocations in 2,000 publishes");
    // A delivery owns its bytes, and the call's lists hold one entry each.
    assert!(receive_and_ack < 4 * 2_000 + 200, "{receive_and_ack} allocations in 2,000 deliveries");
}

#[test]
fn opening_asks_the_disk_as_much_for_many_messages_as_for_few() {
    let requests = |messages: u32| {
        let disk = SimDisk::new(5);
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        let open = || {
            let disk = Arc::new(disk.attach().unwrap());
            Store::options().durability(Durability::Os).segment_bytes_max(4 << 20).open_on(disk, clock.clone()).unwrap()
        };
        let store = open();
        let topic = store.topic("numbers").open().unwrap();
        topic.group("reader").open().unwrap();
        for _ in 0..messages / 1_000 {
            topic.publish_batch((0..1_000).map(|_| message())).unwrap();
            store.tick().unwrap();
        }
        store.close().unwrap();
        drop((topic, store));
        let before = disk.requests();
        let store = open();
        let segments = store.stats().unwrap().log.segments as u64;
        (disk.requests() - before, segments)
    };
    let (few, _) = requests(20_000);
    let (many, segments) = requests(400_000);
    assert!(segments > 5, "several segments");
    assert!(many <= few + 12 * segments, "{few} requests for few, {many} for {segments} segments");
}

#[test]
fn a_store_with_ten_messages_takes_a_few_mebibytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (store, topic, _group) = open_real(&path);
    (0..10).for_each(|_| drop(topic.publish(message()).unwrap()));
    let bytes_on_disk = || -> u64 {
        let files = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap());
        files.map(|file| file.blocks() * 512).sum()
    };
    assert!(bytes_on_disk() <= 5 << 20, "{} bytes while open", bytes_on_disk());
    store.close().unwrap();
    assert!(bytes_on_disk() <= 256 << 10, "{} bytes when closed", bytes_on_disk());
}

fn simulated(segment_bytes_max: u64) -> (Store, SimDisk, Arc<SimClock>) {
    let disk = SimDisk::new(5);
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let store = Store::options()
        .durability(Durability::Os)
        .segment_bytes_max(segment_bytes_max)
        .open_on(Arc::new(disk.attach().unwrap()), clock.clone())
        .unwrap();
    (store, disk, clock)
}

/// Each record of a batch over many partitions is decoded once for all its messages, whether they are received together, one by
/// one, or by several consumers, and whatever else is read in between.
#[test]
fn records_are_decoded_once_however_many_share_a_frame() {
    for (partitions, frames) in [(64, 8), (256, 8), (1024, 8), (256, 32), (4096, 2)] {
        for (max, consumers) in [(1, 1), (7, 2), (1000, 1), (65_536, 3)] {
            let (store, ..) = simulated(64 << 20);
            let topic = store.topic("wide").partitions(partitions).open().unwrap();
            let group = topic.group("reader").open().unwrap();
            for _ in 0..frames {
                topic.publish_batch((0..partitions).map(|index| message().partition(index))).unwrap();
            }
            let handles: Vec<Group> = (0..consumers).map(|_| topic.group("reader").open().unwrap()).collect();
            let before = records_decoded();
            let (mut received, messages) = (0, u64::from(partitions) * frames);
            for handle in handles.iter().cycle() {
                let batch = handle.receive_batch(max, Duration::ZERO).unwrap();
                if batch.is_empty() {
                    break;
                }
                received += batch.len() as u64;
                assert!(batch.ack().unwrap().is_empty());
            }
            drop(group);
            let decoded = records_decoded() - before;
            assert_eq!(received, messages);
            assert!(decoded <= messages, "{decoded} records decoded for {messages} messages, {max} at a time");
        }
    }
}

/// Looking for where a group begins takes as many holds of the lock as there are partitions and their shares of segments, by the
/// thousand; for the latest message segments do not matter. What a hold looks at is bounded where positions are.
#[test]
fn opening_a_group_costs_what_there_is_and_no_product_of_it() {
    let holds = |partitions: u32, rounds: u32, start: fn() -> Start| {
        let (store, ..) = simulated(64 << 10);
        let topic = store.topic("wide").partitions(partitions).open().unwrap();
        for _ in 0..rounds {
            topic.publish_batch((0..partitions).map(|index| message().partition(index))).unwrap();
            store.tick().unwrap();
        }
        let segments = store.stats().unwrap().log.segments as u64;
        let (held, decoded) = (lock_holds(), records_decoded());
        topic.group("new").start(start()).open().unwrap();
        (lock_holds() - held, records_decoded() - decoded, segments)
    };
    for (partitions, rounds) in [(64, 4), (64, 64), (512, 4), (512, 32), (2048, 16)] {
        let (latest, decoded, segments) = holds(partitions, rounds, || Start::Latest);
        assert!(latest <= u64::from(partitions) / 512 + 20 && decoded == 0, "{latest} holds for the latest");
        for start in [|| Start::Earliest, || Start::Offset(1)] {
            let (held, decoded, _) = holds(partitions, rounds, start);
            let looked_at = u64::from(partitions) * segments;
            assert!(held <= looked_at / 512 + 20, "{held} holds for {partitions} partitions, {segments} segments");
            assert_eq!(decoded, 0);
        }
    }
}

/// By time each partition is looked at some times, by the logarithm of its messages; the frames that are met are decoded once each.
#[test]
fn a_start_by_time_decodes_each_frame_once() {
    for (partitions, rounds) in [(64u32, 16u32), (256, 16), (1024, 16), (256, 64)] {
        let (store, _, clock) = simulated(64 << 20);
        let topic = store.topic("wide").partitions(partitions).open().unwrap();
        topic.group("keeps").open().unwrap();
        let mut published = Vec::new();
        for _ in 0..rounds {
            published.push(clock.wall());
            topic.publish_batch((0..partitions).map(|index| message().partition(index))).unwrap();
            clock.advance(1_000);
        }
        let time = published[(rounds / 3) as usize];
        let time = std::time::UNIX_EPOCH + Duration::from_millis(time.0);
        let (held, decoded) = (lock_holds(), records_decoded());
        let group = topic.group("new").start(Start::Time(time)).open().unwrap();
        let (held, decoded) = (lock_holds() - held, records_decoded() - decoded);
        let steps = u64::from(rounds.ilog2() + 1);
        assert!(held <= u64::from(partitions) * (steps + 1) + 20, "{held} holds");
        assert!(decoded <= u64::from(partitions) * u64::from(rounds), "{decoded} records decoded");
        let left = u64::from(partitions) * u64::from(rounds - rounds / 3);
        assert_eq!(group.receive_batch(65_536, Duration::ZERO).unwrap().len() as u64, left);
    }
}

/// A handle that read a backlog keeps little of it, however large the messages were and however many shared a frame. All handles
/// share what else is kept.
#[test]
fn handles_that_read_once_keep_little() {
    // The caches of blocks and of fronts.
    let shared = 34 << 20;
    for (messages, len, batches) in [(2_000usize, 100usize, 3), (25, 1 << 19, 4), (10, 1_000_000, 10), (65_536, 1, 1)] {
        let directory = memory::directory();
        let (_store, topic, _) = open_real(&directory.path().join("store"));
        for _ in 0..batches {
            topic.publish_batch((0..messages).map(|_| vec![7; len])).unwrap();
        }
        let handles: Vec<Group> = (0..100).map(|_| topic.group("reader").open().unwrap()).collect();
        let kept = held(|| {
            for handle in &handles {
                let delivery = handle.receive(Duration::ZERO).unwrap().expect("a message");
                assert_eq!(delivery.payload().len(), len);
                delivery.ack().unwrap();
            }
        });
        let most = shared + 100 * (96 << 10);
        assert!(kept < most, "{kept} bytes kept by 100 handles for messages of {len}");
    }
}

/// What a group had outstanding takes no memory once it is settled, however it was settled.
#[test]
fn groups_keep_nothing_of_what_they_settled() {
    // Without background threads: what this thread allocates and another one frees would count as kept.
    let directory = memory::directory();
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let disk = real_disk(&directory.path().join("store")).unwrap();
    let store = Store::options().durability(Durability::Os).open_on(disk, clock).unwrap();
    let topic = store.topic("numbers").open().unwrap();
    for _ in 0..20 {
        topic.publish_batch((0..1_000).map(|_| vec![7; 10])).unwrap();
    }
    let groups: Vec<Group> =
        (0..50).map(|n| topic.group(format!("g{n}")).start(Start::Earliest).open().unwrap()).collect();
    let kept = held(|| {
        for (n, group) in groups.iter().enumerate() {
            let batch = group.receive_batch(65_536, Duration::ZERO).unwrap();
            assert_eq!(batch.len(), 20_000);
            match n % 3 {
                0 => drop(batch.ack().unwrap()),
                1 => batch.into_iter().for_each(|delivery| delivery.ack().unwrap()),
                _ => {
                    let deliveries: Vec<_> = batch.into_iter().collect();
                    deliveries.into_iter().rev().for_each(|delivery| delivery.ack().unwrap());
                }
            }
        }
    });
    assert!(kept < 50 * (32 << 10), "{kept} bytes kept by 50 groups");
}

/// Groups and topics that come and go by the hundred a second leave nothing: not on the disk, not in the numbers, not in memory.
/// `MILLPOND_SHORT_LIVED` says how many rounds are made: 8640000 is a day.
#[test]
fn short_lived_groups_and_topics_leave_nothing() {
    let rounds =
        std::env::var("MILLPOND_SHORT_LIVED").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or_else(|| {
            println!("skipped: a day of short-lived groups, for MILLPOND_SHORT_LIVED is not set; 5000 rounds are made");
            5_000
        });
    let directory = memory::directory();
    let path = directory.path().join("store");
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    let store = options.open_on(real_disk(&path).unwrap(), clock.clone()).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let stays = topic.group("stays").max_attempts(3).open().unwrap();
    let bytes =
        || -> u64 { std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum() };
    let mut round = |number: u64| {
        let group = topic.group("short-lived").start(Start::Latest).max_attempts(1).open().unwrap();
        topic.publish(vec![number as u8; 600]).unwrap();
        let mut taken = group.receive_batch(2, Duration::ZERO).unwrap().into_iter();
        taken.next().unwrap().reject("seen").unwrap();
        topic.remove_group("short-lived").unwrap();
        assert!(matches!(group.receive(Duration::ZERO), Err(Error::Removed { what: "group" })));
        stays.receive(Duration::ZERO).unwrap().unwrap().ack().unwrap();
        if number.is_multiple_of(10) {
            let passing = store.topic("passing").partitions(3).open().unwrap();
            let held = passing.group("reader").open().unwrap();
            passing.publish(vec![1; 900]).unwrap();
            let delivery = held.receive(Duration::ZERO).unwrap();
            store.remove_topic("passing").unwrap();
            drop(delivery);
        }
        clock.advance(10);
        if number.is_multiple_of(20) {
            store.tick().unwrap();
        }
        if number.is_multiple_of(500) {
            store.checkpoint().unwrap();
        }
    };
    (0..1_000).for_each(&mut round);
    let (first, segments) = (bytes(), store.stats().unwrap().log.segments);
    let mut most = 0;
    let kept = held(|| {
        (1_000..rounds).for_each(|number| {
            round(number);
            if number.is_multiple_of(100) {
                most = most.max(bytes());
            }
        });
    });
    let stats = store.stats().unwrap();
    assert!(most <= first + (512 << 10), "{most} bytes on the disk, {first} after the first thousand rounds");
    assert!(stats.log.segments <= segments + 4, "{} segments, {segments} before", stats.log.segments);
    assert_eq!((stats.topics.len(), stats.topics[0].groups.len()), (1, 1));
    assert_eq!((stats.topics[0].groups[0].lag, stats.topics[0].published), (0, rounds));
    // A longer run fills the cache of blocks, which has 16 MiB.
    let cached = if rounds > 5_000 { 16 << 20 } else { 0 };
    assert!(kept < cached + (256 << 10), "{kept} bytes kept");
    assert!(store.violations().is_empty());
}

/// What a publish costs does not grow with the readers at the tail of its topic, nor does what they keep with the partitions.
#[test]
fn readers_at_the_tail_cost_a_publish_nothing() {
    const PARTITIONS: u32 = 2_000;
    let (store, _disk, _clock) = simulated(4 << 20);
    let topic = store.topic("wide").partitions(PARTITIONS).open().unwrap();
    let batch =
        || topic.publish_batch((0..PARTITIONS).map(|index| Message::new("x").partition(index))).map(drop).unwrap();
    batch();
    let alone = allocations(batch);
    let mut readers: Vec<_> = (0..20).map(|_| topic.reader().from_end().open().unwrap()).collect();
    readers.iter_mut().for_each(|reader| assert!(reader.try_next().unwrap().is_none()));
    let with_readers = allocations(batch);
    // The list of notes, which doubles as it grows.
    assert!(with_readers <= alone + 16, "{with_readers} allocations with 20 readers, {alone} without");
    for reader in &mut readers {
        while reader.try_next().unwrap().is_some() {}
    }
    let leaving = allocations(|| readers.clear());
    assert!(leaving <= 1, "{leaving} allocations to leave");
}
