//! Topics with a bound: who publishes to a full one is refused or waits, and nobody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/machine.rs"]
mod machine;

use machine::Machine;
use millpond::simulation::Rng;
use millpond::{Backoff, Durability, Error, ErrorKind, Group, Message, Ordering, Start, Store, Topic, WhenFull};
use std::thread;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3_600);

impl Machine {
    fn topic(&self, max: u64) -> Topic {
        self.store.topic("orders").partitions(2).max_messages(max).open().unwrap()
    }

    /// The most that a group of the topic has not settled, as the statistics count it.
    fn lag(&self) -> u64 {
        self.store.stats().unwrap().topics[0].groups.iter().map(|group| group.lag).max().unwrap_or(0)
    }
}

fn is_full<T: std::fmt::Debug>(published: Result<T, Error>) -> bool {
    match published {
        Ok(_) => false,
        Err(Error::TopicFull { topic, .. }) if topic == "orders" => true,
        Err(error) => panic!("{error}"),
    }
}

fn take(group: &Group) {
    group.receive(NOW).unwrap().unwrap().ack().unwrap();
}

#[test]
fn a_publish_is_refused_just_when_a_group_would_have_too_much() {
    const MAX: u64 = 12;
    let mut met = [0; 2];
    for seed in 0..40 {
        let (mut machine, mut rng) = (Machine::new(seed), Rng::new(seed));
        let mut topic = machine.topic(MAX);
        let names = ["a", "b", "c"];
        let open = |topic: &Topic, name: &str| {
            let (by, backoff) = ([Ordering::None, Ordering::Key, Ordering::Partition], Backoff::fixed(HOUR));
            let ordering = by[usize::from(name.as_bytes()[0] - b'a')];
            topic.group(name).ordering(ordering).backoff(backoff).max_attempts(2).start(Start::Earliest).open().unwrap()
        };
        for _ in 0..150 {
            let name = names[rng.index(3)];
            match rng.below(12) {
                0..=4 => {
                    let count = 1 + rng.below(4);
                    let new =
                        (0..count).map(|n| Message::new("m").key(if (n + seed).is_multiple_of(3) { "x" } else { "y" }));
                    let expected =
                        !machine.store.stats().unwrap().topics[0].groups.is_empty() && machine.lag() + count > MAX;
                    assert_eq!(is_full(topic.publish_batch(new)), expected, "seed {seed}");
                    met[usize::from(expected)] += 1;
                }
                5..=7 => match open(&topic, name).receive_batch(1 + rng.index(4), NOW).unwrap() {
                    batch if rng.coin() => assert!(batch.ack().is_ok()),
                    batch => drop(batch),
                },
                8 => {
                    if let Some(letter) = open(&topic, name).dead_letters().unwrap().next() {
                        letter.unwrap().redrive().unwrap();
                    }
                }
                9 => machine.clock.advance(3_600_000),
                10 => drop(topic.remove_group(name)),
                _ => {
                    drop(topic);
                    machine = machine.crash();
                    topic = machine.topic(MAX);
                }
            }
        }
        assert!(machine.store.violations().is_empty());
    }
    assert!(met.iter().all(|count| *count > 100), "{met:?}");
}

#[test]
fn only_who_publishes_is_refused() {
    let machine = Machine::new(1);
    let topic = machine.topic(2);
    let group = topic.group("g").max_attempts(1).open().unwrap();
    topic.publish(Message::new("later").delay(HOUR)).unwrap();
    topic.publish_batch(["one", "two"]).unwrap();
    assert!(is_full(topic.publish("three")));
    assert!(is_full(machine.store.transaction(|tx| tx.publish(&topic, "three"))));
    assert!(is_full(topic.producer("p").unwrap().publish(0, "three")));
    // What was published before needs no room.
    let other = Machine::new(2);
    let small = other.store.topic("orders").max_messages(1).open().unwrap();
    small.group("g").open().unwrap();
    small.publish(Message::new("a").dedup_id("1")).unwrap();
    assert!(small.publish(Message::new("a").dedup_id("1")).unwrap().is_repeat());
    // A message that is due is no publish, nor is what goes back from the dead letters.
    machine.clock.advance(3_600_000);
    machine.store.tick().unwrap();
    assert_eq!(machine.lag(), 3);
    group.receive(NOW).unwrap().unwrap().reject("no").unwrap();
    assert_eq!(machine.lag(), 2);
    assert!(is_full(topic.publish("three")), "a dead letter is settled, and two are left");
    group.dead_letters().unwrap().next().unwrap().unwrap().redrive().unwrap();
    assert_eq!(machine.lag(), 3);
    (0..2).for_each(|_| take(&group));
    topic.publish("three").unwrap();
    let batch = topic.publish_batch(["4", "5", "6"]).unwrap_err();
    assert!(matches!(batch, Error::TooLarge { len: 3, max: 2, unit: "messages", .. }), "{batch}");
}

#[test]
fn a_topic_without_groups_is_never_full() {
    let machine = Machine::new(1);
    let topic = machine.topic(1);
    topic.publish("one").unwrap();
    topic.publish_batch(["two", "three"]).unwrap();
    let group = topic.group("g").start(Start::Earliest).open().unwrap();
    let full = topic.publish("three").unwrap_err();
    assert_eq!((full.kind(), full.to_string().contains("orders")), (ErrorKind::Retry, true), "{full}");
    drop(group);
    topic.remove_group("g").unwrap();
    topic.publish("three").unwrap();
}

#[test]
fn a_publish_waits_until_there_is_room() {
    const COUNT: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path().join("data")).unwrap();
    let topic = store.topic("orders").max_messages(3).when_full(WhenFull::Block(HOUR)).open().unwrap();
    let group = topic.group("g").open().unwrap();
    let publishers: Vec<_> = (0..3)
        .map(|_| {
            let topic = topic.clone();
            thread::spawn(move || (0..COUNT).for_each(|_| drop(topic.publish_batch(["m", "n"]).unwrap())))
        })
        .collect();
    for _ in 0..6 * COUNT {
        let delivery = group.receive(HOUR).unwrap().unwrap();
        assert!(store.stats().unwrap().topics[0].groups[0].lag <= 3);
        delivery.ack().unwrap();
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    assert!(group.receive(NOW).unwrap().is_none());
}

#[test]
fn who_waits_in_vain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(directory.path().join("data")).unwrap();
    let time = Duration::from_millis(2);
    let topic = store.topic("orders").max_messages(1).when_full(WhenFull::Block(time)).open().unwrap();
    let _group = topic.group("g").open().unwrap();
    topic.publish("one").unwrap();
    assert!(is_full(topic.publish("two")));
    // Of no use to wait for.
    assert!(matches!(topic.publish_batch(["2", "3"]), Err(Error::TooLarge { .. })));
    assert!(is_full(store.transaction(|tx| tx.publish(&topic, "two"))), "a transaction does not wait");
}

#[test]
fn who_waits_is_told_when_the_topic_goes_or_the_store_closes() {
    for closes in [false, true] {
        let machine = Machine::new(1);
        let topic = machine.store.topic("orders").max_messages(1).when_full(WhenFull::Block(HOUR)).open().unwrap();
        topic.group("g").open().unwrap();
        topic.publish("one").unwrap();
        let publisher = thread::spawn(move || topic.publish("two").map(drop));
        if closes {
            machine.store.close().unwrap();
        } else {
            machine.store.remove_topic("orders").unwrap();
        }
        let error = publisher.join().unwrap().unwrap_err();
        let is_told = matches!((&error, closes), (Error::Closed, true) | (Error::Removed { what: "topic" }, false));
        assert!(is_told, "{error}");
    }
}

#[test]
fn bounds_that_cannot_be_are_refused() {
    let machine = Machine::new(1);
    let refused = |option, builder: millpond::TopicBuilder| {
        let error = builder.open().map(drop).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: of, .. } if of == option), "{error}");
    };
    let topic = || machine.store.topic("t");
    refused("max_messages", topic().max_messages(0));
    refused("max_messages", topic().streams().max_messages(1));
    refused("when_full", topic().when_full(WhenFull::Block(HOUR)));
    refused("when_full", topic().when_full(WhenFull::Reject));
    refused("drop_unsettled", topic().drop_unsettled(true));
    refused("drop_unsettled", topic().drop_unsettled(true).retention(millpond::Retention::Forever));
    for time in [NOW, Duration::from_nanos(999_999), 25 * HOUR, Duration::MAX] {
        refused("when_full", topic().max_messages(1).when_full(WhenFull::Block(time)));
    }
    // Whole milliseconds are stored.
    let uneven = || {
        let wait = WhenFull::Block(Duration::from_micros(1_500));
        machine
            .store
            .topic("uneven")
            .max_messages(1)
            .when_full(wait)
            .retention(millpond::Retention::Age(HOUR + Duration::from_nanos(1)))
    };
    (0..2).for_each(|_| drop(uneven().open().unwrap()));
    topic().max_messages(u64::MAX).when_full(WhenFull::Block(24 * HOUR)).open().unwrap();
    topic().open().unwrap();
    for other in [topic().max_messages(1), topic().max_messages(u64::MAX).when_full(WhenFull::Reject)] {
        let error = other.open().map(drop).unwrap_err();
        assert!(matches!(error, Error::OptionMismatch { option: "max_messages" | "when_full", .. }), "{error}");
    }
}

/// A topic that drops the oldest: a group gets the newest, each once and in order, and the others are counted.
#[test]
fn the_newest_stay() {
    for seed in 0..30 {
        let (mut machine, mut rng) = (Machine::new(seed), Rng::new(seed));
        let open = |machine: &Machine| {
            let topic = machine.store.topic("orders").max_messages(5).when_full(WhenFull::DropOldest).open().unwrap();
            let group = topic.group("g").open().unwrap();
            (topic, group)
        };
        let (mut topic, mut group) = open(&machine);
        let (mut published, mut waiting, mut dropped) = (0u64, std::collections::VecDeque::new(), 0);
        for _ in 0..120 {
            match rng.below(8) {
                0..=4 => {
                    let count = 1 + rng.below(4);
                    topic.publish_batch((published..published + count).map(|n| Message::new(n.to_le_bytes()))).unwrap();
                    waiting.extend(published..published + count);
                    published += count;
                    let over = waiting.len().saturating_sub(5);
                    dropped += waiting.drain(..over).count() as u64;
                }
                5 | 6 => {
                    let batch = group.receive_batch(1 + rng.index(4), NOW).unwrap();
                    for delivery in batch.iter() {
                        let number = u64::from_le_bytes(delivery.payload().try_into().unwrap());
                        assert_eq!(Some(number), waiting.pop_front(), "seed {seed}");
                    }
                    assert!(batch.ack().is_ok());
                }
                _ => {
                    drop((topic, group));
                    machine = machine.crash();
                    (topic, group) = open(&machine);
                }
            }
            let stats = machine.store.stats().unwrap().topics[0].groups[0].clone();
            assert_eq!((stats.dropped, stats.lag), (dropped, waiting.len() as u64), "seed {seed}");
        }
        assert!(dropped > 0 && machine.store.violations().is_empty());
    }
}

#[test]
fn what_was_leased_is_not_dropped() {
    let machine = Machine::new(1);
    let topic = machine.store.topic("orders").max_messages(2).when_full(WhenFull::DropOldest).open().unwrap();
    let group = topic.group("g").open().unwrap();
    topic.publish_batch(["one", "two"]).unwrap();
    let held = group.receive(NOW).unwrap().unwrap();
    topic.publish("three").unwrap();
    let next = group.receive(NOW).unwrap().unwrap();
    assert_eq!((held.payload(), next.payload()), (&b"one"[..], &b"three"[..]));
    assert!(is_full(topic.publish("four")), "both are leased");
    held.ack().unwrap();
    topic.publish("four").unwrap();
    assert!(matches!(topic.publish_batch(["1", "2", "3"]), Err(Error::TooLarge { .. })));
}

/// Old messages go where a topic says so, though nobody consumes; else they stay for their group.
#[test]
fn messages_go_at_the_end_of_their_time() {
    for drops in [false, true] {
        let machine = Machine::new(1);
        let retention = millpond::Retention::Age(HOUR);
        let topic = machine.store.topic("orders").retention(retention).drop_unsettled(drops).open().unwrap();
        let group = topic.group("g").open().unwrap();
        topic.publish_batch(["one", "two"]).unwrap();
        let pass = |minutes: u64| {
            for _ in 0..minutes {
                machine.clock.advance(60_000);
                machine.store.tick().unwrap();
            }
        };
        pass(50);
        topic.publish("three").unwrap();
        assert_eq!(machine.lag(), 3, "none is an hour old");
        pass(25);
        assert_eq!(machine.lag(), if drops { 1 } else { 3 });
        let next = group.receive(NOW).unwrap().unwrap();
        assert_eq!(next.payload(), if drops { &b"three"[..] } else { b"one" });
        assert_eq!(machine.store.stats().unwrap().topics[0].groups[0].dropped, if drops { 2 } else { 0 });
    }
}
