//! Filters in a whole store: files that nobody wants, damage, threads, and other ways to receive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/machine.rs"]
mod machine;

use machine::{Machine, START, open};
use millpond::simulation::{SimClock, SimDisk, WallMs};
use millpond::{Durability, ErrorKind, Group, GroupStats, Message, Ordering, Store, Topic, WhilePending};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as Atomic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const WANTED: &str = "kind = 'wanted'";

fn message(number: u32, is_wanted: bool) -> Message<'static> {
    let payload = [number.to_le_bytes().as_slice(), &[7; 200]].concat();
    Message::new(payload).header("kind", if is_wanted { "wanted" } else { "other" })
}

/// Publishes so many messages, of which every so many-th is wanted.
fn publish(topic: &Topic, numbers: std::ops::Range<u32>, every: u32) {
    let all: Vec<_> = numbers.map(|number| message(number, number % every == 0)).collect();
    all.chunks(100).for_each(|some| drop(topic.publish_batch(some.iter().cloned()).unwrap()));
}

fn take_all(group: &Group) -> Vec<u32> {
    let mut seen = Vec::new();
    loop {
        let batch = group.receive_batch(64, NOW).unwrap();
        if batch.is_empty() {
            return seen;
        }
        let number = |payload: &[u8]| u32::from_le_bytes(payload[..4].try_into().unwrap());
        seen.extend(batch.iter().map(|delivery| number(delivery.payload())));
        assert!(batch.ack().unwrap().is_empty());
    }
}

fn stats(store: &Store, name: &str) -> GroupStats {
    let stats = store.stats().unwrap();
    stats.topics.iter().flat_map(|topic| &topic.groups).find(|group| group.name == name).unwrap().clone()
}

/// F12: groups that nobody receives from, of each order, paused too, keep the few messages that they want and no more. All of these are
/// delivered in the end, in order, also after a restart.
#[test]
fn what_does_not_pass_holds_no_segment() {
    let machine = Machine::new(3);
    let topic = machine.store.topic("orders").open().unwrap();
    for (name, ordering) in [("none", Ordering::None), ("key", Ordering::Key), ("partition", Ordering::Partition)] {
        topic.group(name).ordering(ordering).filter(WANTED).open().unwrap();
    }
    let nothing = topic.group("nothing").filter("kind = 'nothing'").open().unwrap();
    nothing.pause().unwrap();
    let all = topic.group("all").open().unwrap();
    let published = 20_000;
    for round in 0..10 {
        publish(&topic, round * 2_000..(round + 1) * 2_000, 500);
        take_all(&all);
        machine.store.checkpoint().unwrap();
        machine.pass(3);
    }
    for last in [published, published + 500] {
        publish(&topic, last..last + 1, 500);
        take_all(&all);
        machine.store.checkpoint().unwrap();
        machine.pass(10);
    }
    let log = machine.store.stats().unwrap().log;
    let written = log.end.0;
    assert!(written > 4_000_000 && log.bytes < 300_000, "{} of {written} bytes are kept", log.bytes);
    let machine = machine.reopen();
    let topic = machine.store.topic("orders").open().unwrap();
    for name in ["none", "key", "partition"] {
        let group = topic.group(name).open().unwrap();
        let expected: Vec<u32> = (0..=published + 500).step_by(500).collect();
        let mut seen = take_all(&group);
        if name != "partition" {
            assert_eq!(seen, expected, "{name}");
        }
        seen.sort_unstable();
        assert_eq!(seen, expected, "{name}");
        assert_eq!(stats(&machine.store, name).lag, 0);
    }
}

/// F2: once a second what consumers have read ahead is settled, with one record, and then no more.
#[test]
fn what_was_read_ahead_is_settled_at_rest() {
    let machine = Machine::new(4);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("few").filter(WANTED).open().unwrap();
    publish(&topic, 1..500, 1_000);
    assert!(take_all(&group).is_empty());
    let of = |machine: &Machine| (stats(&machine.store, "few").since_open.filtered, stats(&machine.store, "few").lag);
    assert_eq!(of(&machine), (0, 0), "it is known, and not recorded");
    machine.pass(2);
    assert_eq!(of(&machine), (499, 0));
    let end = machine.store.stats().unwrap().log.end;
    machine.pass(5);
    let marks = machine.store.stats().unwrap().log.end.0 - end.0;
    assert!(marks <= 64, "{marks} bytes at rest");
}

/// F11: its headers are damaged with it, so nobody can say that it does not pass.
#[test]
fn a_damaged_message_passes() {
    let machine = Machine::new(5);
    let topic = machine.store.topic("orders").open().unwrap();
    topic.group("few").filter(WANTED).open().unwrap();
    for letter in *b"abc" {
        topic.publish(Message::new(vec![letter; 100]).header("kind", "other")).unwrap();
    }
    machine.store.close().unwrap();
    let Machine { disk, clock, store } = machine;
    drop((store, topic));
    let segment = disk.files().into_iter().find(|file| file.name.ends_with(".seg") && file.len > 300).unwrap().name;
    let mut bytes = disk.read_file(&segment).unwrap();
    let place = bytes.windows(20).position(|window| window == [b'b'; 20]).unwrap();
    bytes[place] ^= 1;
    disk.write_file(&segment, &bytes);
    let store = open(&disk, &clock);
    let group = store.topic("orders").open().unwrap().group("few").open().unwrap();
    assert_eq!(group.receive(NOW).unwrap_err().kind(), ErrorKind::Skip);
    assert!(group.receive(NOW).unwrap().is_none());
    assert_eq!(stats(&store, "few").lag, 1, "it waits for its next attempt");
}

/// A call that does not wait ends, however much does not pass, and the next one goes on from there.
#[test]
fn a_call_that_does_not_wait_looks_at_so_many() {
    let machine = Machine::new(6);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("few").filter(WANTED).open().unwrap();
    for round in 0..10 {
        topic.publish_batch((0..10_000).map(|_| Message::new("other"))).unwrap();
        assert!(round < 10);
    }
    topic.publish(message(7, true)).unwrap();
    assert!(group.receive(NOW).unwrap().is_none());
    let filtered = stats(&machine.store, "few").since_open.filtered;
    assert!((60_000..75_000).contains(&filtered), "{filtered}");
    let found = group.receive(NOW).unwrap().unwrap();
    assert_eq!(found.id().offset.0, 100_000);
}

/// A message under a unique key is pending for a group that does not want it until the group has settled it.
#[test]
fn a_unique_key_is_free_once_its_message_was_filtered() {
    let machine = Machine::new(8);
    let topic = machine.store.topic("orders").open().unwrap();
    let group = topic.group("few").filter(WANTED).open().unwrap();
    let publish = || topic.publish(message(1, false).unique_key("one", WhilePending::Reject));
    publish().unwrap();
    assert!(matches!(publish(), Err(millpond::Error::KeyPending { .. })));
    assert!(group.receive(NOW).unwrap().is_none());
    machine.pass(2);
    publish().unwrap();
    assert!(group.receive(NOW).unwrap().is_none());
    machine.pass(2);
    // No checkpoint may name either as pending: a store does not open from one that does.
    let machine = machine.reopen();
    let topic = machine.store.topic("orders").open().unwrap();
    topic.publish(message(1, false).unique_key("one", WhilePending::Reject)).unwrap();
}

/// Of a key with many messages most are only counted. They are found again, in order, and what does not pass is not.
#[test]
fn what_is_counted_is_found_among_what_does_not_pass() {
    let (disk, clock) = (SimDisk::new(7), Arc::new(SimClock::new(WallMs(START))));
    let options = Store::options().durability(Durability::Os).parked_max(2, 1);
    let store = options.open_on(Arc::new(disk.attach().unwrap()), clock).unwrap();
    let topic = store.topic("orders").open().unwrap();
    let group = topic.group("few").ordering(Ordering::Key).filter(WANTED).open().unwrap();
    for number in 0..60 {
        topic.publish(message(number, number % 3 == 0).key("one")).unwrap();
    }
    let mut seen = Vec::new();
    while let Some(delivery) = group.receive(NOW).unwrap() {
        assert!(group.receive(NOW).unwrap().is_none(), "the next one waits");
        seen.push(delivery.id().offset.0);
        delivery.ack().unwrap();
    }
    assert_eq!(seen, (0..60).step_by(3).collect::<Vec<_>>());
    assert_eq!(stats(&store, "few").lag, 0);
}

/// Threads that share a group get each message that passes once, by whatever call, beside publishers.
#[test]
fn threads_get_each_message_that_passes_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path()).unwrap();
    let topic = store.topic("orders").partitions(3).open().unwrap();
    let group = topic.group("few").filter(WANTED).open().unwrap();
    let (count, every) = (3_000u32, 7);
    let wanted: BTreeSet<u32> = (0..count).filter(|number| number % every == 0).collect();
    let left = AtomicU32::new(wanted.len() as u32);
    let seen = std::sync::Mutex::new(BTreeSet::new());
    let note = |payload: &[u8]| {
        let number = u32::from_le_bytes(payload[..4].try_into().unwrap());
        assert!(seen.lock().unwrap().insert(number), "{number} came twice");
        left.fetch_sub(1, Atomic::AcqRel);
    };
    std::thread::scope(|scope| {
        scope
            .spawn(|| (0..count).for_each(|number| drop(topic.publish(message(number, number % every == 0)).unwrap())));
        for thread in 0..3usize {
            let (group, left, note) = (&group, &left, &note);
            scope.spawn(move || {
                let subscription = (thread == 0).then(|| group.subscribe().unwrap());
                let wait = Duration::from_millis(20);
                while left.load(Atomic::Acquire) > 0 {
                    if let Some(subscription) = &subscription {
                        if let Some(delivery) = subscription.recv_timeout(wait).unwrap() {
                            note(delivery.payload());
                            delivery.ack().unwrap();
                        }
                        continue;
                    }
                    for delivery in group.receive_batch(thread * 3, wait).unwrap() {
                        note(delivery.payload());
                        delivery.ack().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(*seen.lock().unwrap(), wanted);
    assert_eq!(stats(&store, "few").lag, 0);
}
