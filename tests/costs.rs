//! What operations cost, counted and never timed: allocations, requests to the disk, bytes on disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unsafe_code)] // A counting allocator cannot be written without.

use millpond::ids::WallMs;
use millpond::simulation::SimClock;
use millpond::simulation::SimDisk;
use millpond::{Durability, Group, Message, Store, Topic};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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
