//! For how long messages stay (G15): for a time, or the last so many, whatever groups settled, and as long as a group needs them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/machine.rs"]
mod machine;

use machine::{Machine, open};
use millpond::simulation::{Clock, WallMs};
use millpond::{Error, Message, Retention, Topic};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const HOUR: u64 = 3_600_000;

impl Machine {
    /// Lets files go that can, in a minute.
    fn rest(&self, topic: &Topic) {
        // What is in the segment that grows stays.
        for _ in 0..2 {
            (0..32).for_each(|_| drop(topic.publish(vec![0; 2_000]).unwrap()));
            self.store.checkpoint().unwrap();
        }
        for _ in 0..30 {
            self.clock.advance(2_000);
            self.store.tick().unwrap();
        }
    }

    fn bytes(&self) -> u64 {
        self.disk.files().iter().filter(|file| !file.name.ends_with(".ckp")).map(|file| file.len).sum()
    }
}

/// The numbers in the messages of a partition that are there.
fn there(topic: &Topic, partition: u32) -> Vec<u64> {
    let mut reader = topic.reader().open().unwrap();
    let mut found = Vec::new();
    loop {
        match reader.next(NOW) {
            Ok(Some(message)) if message.id().partition == u64::from(partition) => {
                found.push(u64::from_le_bytes(message.payload()[..8].try_into().unwrap()));
            }
            Ok(Some(_)) | Err(Error::Gap { .. }) => {}
            Ok(None) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

fn publish(topic: &Topic, partition: u32, number: u64) {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(2_000, 7);
    topic.publish(Message::new(payload).partition(partition)).unwrap();
}

#[test]
fn the_last_messages_stay() {
    let mut machine = Machine::new(1);
    let topic = machine.store.topic("log").partitions(2).retention(Retention::Count(50)).open().unwrap();
    let other = machine.store.topic("other").open().unwrap();
    let group = topic.group("slow").open().unwrap();
    for number in 1..=400 {
        publish(&topic, 0, number);
        if number % 20 == 0 {
            publish(&topic, 1, number);
        }
        if number > 10 {
            group.receive(NOW).unwrap().unwrap().ack().unwrap();
        }
    }
    while let Some(delivery) = group.receive(NOW).unwrap() {
        delivery.ack().unwrap();
    }
    machine.rest(&other);
    let last = |numbers: &[u64], count: usize| numbers[numbers.len() - count..].to_vec();
    let found = there(&topic, 0);
    assert_eq!(last(&found, 50), (351..=400).collect::<Vec<_>>());
    assert!(found.len() < 50 + 40, "more than a segment stays: {}", found.len());
    assert_eq!(there(&topic, 1).len(), 20, "fewer than fifty: all stay");
    assert!(machine.bytes() < 12 * (64 << 10), "{}", machine.bytes());
    drop((topic, other, group));
    machine = machine.reopen();
    let topic = machine.store.topic("log").open().unwrap();
    assert_eq!(last(&there(&topic, 0), 50), (351..=400).collect::<Vec<_>>());
    let late = topic.group("late").open().unwrap();
    let mut count = 0;
    while let Some(delivery) = late.receive(NOW).unwrap() {
        delivery.ack().unwrap();
        count += 1;
    }
    assert!(count >= 70, "a late group gets what stays: {count}");
}

/// What a group has not settled stays beyond its time.
#[test]
fn messages_stay_for_their_time_and_as_long_as_a_group_needs_them() {
    let mut machine = Machine::new(2);
    let topic = machine.store.topic("log").retention(Retention::Age(Duration::from_secs(3_600))).open().unwrap();
    let other = machine.store.topic("other").open().unwrap();
    let mut published = Vec::new();
    for number in 1..=300u64 {
        publish(&topic, 0, number);
        published.push(machine.clock.monotonic().0);
        for _ in 0..4 {
            machine.clock.advance(15_000);
            machine.store.tick().unwrap();
        }
    }
    machine.rest(&other);
    let now = machine.clock.monotonic().0;
    let found = there(&topic, 0);
    let young = (1..=300u64).filter(|number| now - published[*number as usize - 1] < HOUR).count();
    assert_eq!(found[found.len() - young..], ((301 - young as u64)..=300).collect::<Vec<_>>());
    assert!(found.len() < young + 8 + 40, "{} stay, {young} are young", found.len());
    let group = topic.group("slow").open().unwrap();
    machine.clock.advance(10 * HOUR);
    for _ in 0..40 {
        machine.clock.advance(60_000);
        machine.store.tick().unwrap();
    }
    machine.rest(&other);
    assert_eq!(there(&topic, 0), found, "a group needs them");
    while let Some(delivery) = group.receive(NOW).unwrap() {
        delivery.ack().unwrap();
    }
    machine.rest(&other);
    // Those beside what stays in a file.
    assert!(there(&topic, 0).len() < 16, "{:?}", there(&topic, 0));
    publish(&topic, 0, 301);
    drop((topic, other, group));
    machine = machine.reopen();
    let topic = machine.store.topic("log").open().unwrap();
    assert_eq!(there(&topic, 0).last(), Some(&301));
}

/// A clock that goes on by ten years while the store is open makes no message old, and one that has when it is opened none for ten minutes.
#[test]
fn a_clock_that_is_wrong_at_the_open_or_jumps_lets_nothing_go() {
    const TEN_YEARS: u64 = 10 * 366 * 24 * HOUR;
    let mut machine = Machine::new(3);
    let topic = machine.store.topic("log").retention(Retention::Age(Duration::from_secs(3_600))).open().unwrap();
    let other = machine.store.topic("other").open().unwrap();
    for number in 1..=100 {
        publish(&topic, 0, number);
    }
    // The store marks them, but for which nothing gets old.
    for _ in 0..25 {
        machine.clock.advance(30_000);
        machine.store.tick().unwrap();
    }
    let jump = |machine: &Machine, by: u64| {
        let wall = machine.clock.wall().0 + by;
        machine.clock.set_wall(WallMs(wall));
    };
    jump(&machine, TEN_YEARS);
    for _ in 0..25 {
        machine.clock.advance(30_000);
        machine.store.tick().unwrap();
    }
    machine.rest(&other);
    assert_eq!(there(&topic, 0).len(), 100);
    drop((topic, other));
    machine.store.close().unwrap();
    jump(&machine, TEN_YEARS);
    machine = Machine { store: open(&machine.disk, &machine.clock), ..machine };
    let topic = machine.store.topic("log").open().unwrap();
    let other = machine.store.topic("other").open().unwrap();
    machine.rest(&other);
    machine.rest(&other);
    assert_eq!(there(&topic, 0).len(), 100, "for ten minutes nothing goes");
    for _ in 0..25 {
        machine.clock.advance(30_000);
        machine.store.tick().unwrap();
    }
    machine.rest(&other);
    assert!(there(&topic, 0).len() < 16, "{:?}", there(&topic, 0));
}

#[test]
fn retentions_that_cannot_be_are_refused() {
    let machine = Machine::new(4);
    let refused = |retention| machine.store.topic("t").retention(retention).open().map(drop).unwrap_err();
    for retention in [
        Retention::Count(0),
        Retention::Age(NOW),
        Retention::Age(Duration::from_millis(999)),
        Retention::Age(Duration::MAX),
    ] {
        assert!(matches!(refused(retention), Error::InvalidOption { option: "retention", .. }), "{retention:?}");
    }
    machine.store.topic("t").retention(Retention::Count(1)).open().unwrap();
    let other = refused(Retention::Count(2));
    assert!(matches!(other, Error::OptionMismatch { option: "retention", .. }), "{other:?}");
    let streams = machine.store.topic("s").streams().retention(Retention::Count(1)).open().map(drop).unwrap_err();
    assert!(streams.to_string().contains("the last 1"), "{streams}");
}
