//! Order by key in a whole store: damage, sleepers, and a key that stays blocked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Backoff, Delivery, Durability, Group, Message, Ordering, Start, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as Atomic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
/// As long as only a test that fails waits.
const LONG: Duration = Duration::from_secs(60);

fn open(disk: &SimDisk) -> Store {
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let handle = Arc::new(disk.attach().unwrap());
    Store::options().durability(Durability::Os).segment_bytes_max(64 << 10).open_on(handle, clock).unwrap()
}

fn next(group: &Group) -> Option<Delivery> {
    group.receive(NOW).unwrap()
}

/// Its key is damaged with it: its successor goes on, and the messages around it keep their order.
#[test]
fn a_damaged_message_has_no_key() {
    let disk = SimDisk::new(5);
    {
        let store = open(&disk);
        let topic = store.topic("orders").open().unwrap();
        topic.group("ledger").ordering(Ordering::Key).open().unwrap();
        for letter in *b"abcd" {
            topic.publish(Message::new(vec![letter; 100]).key("one")).unwrap();
        }
        store.close().unwrap();
    }
    let segment = disk.files().into_iter().find(|file| file.name.ends_with(".seg") && file.len > 300).unwrap().name;
    let mut bytes = disk.read_file(&segment).unwrap();
    let place = bytes.windows(20).position(|window| window == [b'b'; 20]).unwrap();
    bytes[place] ^= 1;
    disk.write_file(&segment, &bytes);

    let store = open(&disk);
    let group = store.topic("orders").open().unwrap().group("ledger").open().unwrap();
    let first = next(&group).unwrap();
    assert_eq!(first.payload()[0], b'a');
    // The damaged one is told of, and waits for no other.
    assert!(group.receive(NOW).is_err());
    assert!(next(&group).is_none());
    first.ack().unwrap();
    let third = next(&group).unwrap();
    assert_eq!(third.payload()[0], b'c');
    assert!(next(&group).is_none());
    third.ack().unwrap();
    assert_eq!(next(&group).unwrap().payload()[0], b'd');
}

/// A consumer that sleeps for the next of a key is woken when the one before it is settled, in whatever way.
#[test]
fn a_settled_message_wakes_who_waits_for_the_next_of_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path()).unwrap();
    for ordering in [Ordering::Key, Ordering::Partition] {
        let topic = store.topic(format!("orders {ordering}")).open().unwrap();
        let group = topic.group("ledger").ordering(ordering).backoff(Backoff::none()).open().unwrap();
        for how in 0..4 {
            topic.publish(Message::new("first").key("one")).unwrap();
            topic.publish(Message::new("second").key("one")).unwrap();
            let first = next(&group).unwrap();
            let sleeper = std::thread::spawn({
                let group = group.clone();
                move || group.receive(LONG).unwrap().map(|delivery| delivery.payload().to_vec())
            });
            match how {
                0 => first.ack().unwrap(),
                1 => first.reject("no").unwrap(),
                2 => store.transaction(|tx| tx.ack(&first)).map(drop).unwrap(),
                // It is ready again itself.
                _ => first.nack("once").unwrap(),
            }
            let woken = sleeper.join().unwrap();
            assert!(woken.is_some(), "{ordering}: nobody woke it ({how})");
            while let Some(left) = next(&group) {
                left.ack().unwrap();
            }
        }
    }
}

/// G23: a key that is blocked, with 10,000 messages behind it, keeps no other key waiting.
#[test]
fn a_blocked_key_keeps_no_other_waiting() {
    let store = open(&SimDisk::new(6));
    let topic = store.topic("orders").partitions(2).open().unwrap();
    let group = topic.group("ledger").ordering(Ordering::Key).open().unwrap();
    topic.publish_batch((0..10_000).map(|_| Message::new("blocked").key("blocked"))).unwrap();
    let blocked = next(&group).unwrap();
    topic.publish_batch((0..50).map(|n| Message::new("free").key(format!("free {}", n % 10)))).unwrap();
    assert_eq!(blocked.payload(), b"blocked");
    for _ in 0..50 {
        let delivery = next(&group).unwrap();
        assert_eq!(delivery.payload(), b"free");
        delivery.ack().unwrap();
    }
    assert!(next(&group).is_none());
    let stats = store.stats().unwrap();
    let stats = &stats.topics[0].groups[0];
    assert_eq!((stats.leased, stats.parked, stats.at_cap), (1, 9_999, false));
    blocked.ack().unwrap();
    assert_eq!(next(&group).unwrap().payload(), b"blocked");
}

/// Threads that share a group, with failures among their attempts, see each key in order and one at a time.
#[test]
fn threads_see_each_key_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path()).unwrap();
    let topic = store.topic("orders").partitions(3).open().unwrap();
    let group = topic.group("ledger").ordering(Ordering::Key).backoff(Backoff::none()).max_attempts(0);
    let group = group.start(Start::Earliest).open().unwrap();
    let (keys, each) = (20u32, 50u32);
    for number in 0..keys * each {
        topic.publish(Message::new((number / keys).to_le_bytes()).key(format!("key {}", number % keys))).unwrap();
    }
    let left = AtomicU32::new(keys * each);
    let seen: Vec<BTreeMap<Vec<u8>, AtomicU32>> =
        vec![(0..keys).map(|key| (format!("key {key}").into_bytes(), AtomicU32::new(0))).collect()];
    let next_of = &seen[0];
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (group, left) = (&group, &left);
            scope.spawn(move || {
                let mut taken = thread;
                while left.load(Atomic::Acquire) > 0 {
                    let batch = group.receive_batch(1 + thread as usize, Duration::from_millis(20)).unwrap();
                    for delivery in batch {
                        taken += 1;
                        let number = u32::from_le_bytes(delivery.payload().try_into().unwrap());
                        let expected = next_of[delivery.key().unwrap()].load(Atomic::Acquire);
                        assert_eq!(number, expected, "{:?}", delivery.key());
                        if taken.is_multiple_of(5) {
                            delivery.nack("again").unwrap();
                            continue;
                        }
                        next_of[delivery.key().unwrap()].store(number + 1, Atomic::Release);
                        delivery.ack().unwrap();
                        left.fetch_sub(1, Atomic::AcqRel);
                    }
                }
            });
        }
    });
    assert!(next_of.values().all(|next| next.load(Atomic::Acquire) == each));
    assert_eq!(store.stats().unwrap().topics[0].groups[0].lag, 0);
}
