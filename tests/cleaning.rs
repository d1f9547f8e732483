//! Cleaning (G5, G15): what one message keeps is that message, whatever else passed through the store, and nothing else is lost by it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::{PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{Durability, Error, Group, Message, Retention, Store, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const START: u64 = 1_800_000_000_000;
const SEGMENT: u64 = 64 << 10;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Store {
    let attached = Arc::new(disk.attach().unwrap());
    let options = Store::options().segment_bytes_max(SEGMENT).durability(Durability::Os);
    options.open_on(attached, Arc::clone(clock) as _).unwrap()
}

impl Machine {
    fn new(seed: u64) -> Self {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(START))));
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    fn reopen(self) -> Self {
        self.store.close().unwrap();
        let Self { disk, clock, store } = self;
        drop(store);
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).open().unwrap()
    }

    /// Two checkpoints cover what there is; then the jobs run for some seconds.
    fn rest(&self, seconds: u64) {
        for _ in 0..2 {
            traffic(self, 1);
            self.store.checkpoint().unwrap();
        }
        for _ in 0..seconds {
            self.clock.advance(1_000);
            self.store.tick().unwrap();
        }
    }

    /// How many bytes files of each kind take.
    fn files(&self) -> BTreeMap<String, (usize, u64)> {
        let mut kinds = BTreeMap::new();
        for file in self.disk.files() {
            let kind = file.name.rsplit_once('.').map_or("STORE", |(_, kind)| kind).to_owned();
            let of_kind: &mut (usize, u64) = kinds.entry(kind).or_default();
            *of_kind = (of_kind.0 + 1, of_kind.1 + file.len);
        }
        kinds
    }

    fn count(&self, kind: &str) -> usize {
        self.files().get(kind).map_or(0, |(count, _)| *count)
    }
}

/// Publishes this many messages of 1,000 bytes and settles them.
fn traffic(machine: &Machine, count: usize) {
    let topic = machine.topic("busy");
    let group = topic.group("worker").open().unwrap();
    for _ in 0..count {
        topic.publish([7; 1_000]).unwrap();
        group.receive(NOW).unwrap().unwrap().ack().unwrap();
    }
    machine.store.sync().unwrap();
}

fn texts(group: &Group) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(delivery) = group.receive(NOW).unwrap() {
        found.push(String::from_utf8(delivery.payload()[..8.min(delivery.payload().len())].to_vec()).unwrap());
        delivery.ack().unwrap();
    }
    found
}

/// A message that nobody settles ends alone in a file of messages, which stays as it is through more traffic and reopenings, and goes with it.
#[test]
fn a_stuck_message_holds_itself_alone() {
    let mut machine = Machine::new(1);
    let stuck = machine.topic("stuck");
    let group = stuck.group("nobody").open().unwrap();
    traffic(&machine, 40);
    stuck.publish("stuck").unwrap();
    drop((stuck, group));
    for round in 0..4 {
        traffic(&machine, 400);
        machine.rest(6);
        let files = machine.files();
        let (count, bytes) = files["msg"];
        assert_eq!(count, 1, "round {round}: {files:?}");
        assert!(bytes < 512, "round {round}: {files:?}");
        assert!(files["seg"].0 <= 3, "round {round}: {files:?}");
        machine = machine.reopen();
    }
    let group = machine.topic("stuck").group("nobody").open().unwrap();
    assert_eq!(texts(&group), ["stuck"]);
    traffic(&machine, 200);
    machine.rest(6);
    assert_eq!(machine.count("msg"), 0, "{:?}", machine.files());
}

/// Dead letters leave the segments for a file of theirs, which goes with the last of them.
#[test]
fn dead_letters_hold_no_segment() {
    let mut machine = Machine::new(2);
    let topic = machine.topic("orders");
    let group = topic.group("g").max_attempts(1).open().unwrap();
    for number in 0..10 {
        topic.publish(format!("letter {number}")).unwrap();
        group.receive(NOW).unwrap().unwrap().reject("no").unwrap();
        drop(group.receive(NOW).unwrap());
        traffic(&machine, 30);
    }
    traffic(&machine, 300);
    machine.rest(20);
    let letters = |group: &Group| {
        let letters = group.dead_letters().unwrap().map(Result::unwrap);
        letters.map(|letter| String::from_utf8(letter.payload().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let expected: Vec<String> = (0..10).map(|number| format!("letter {number}")).collect();
    assert_eq!(letters(&group), expected);
    let files = machine.files();
    assert!(files.contains_key("dead") && !files.contains_key("msg") && files["seg"].0 <= 3, "{files:?}");
    drop((topic, group));
    machine = machine.reopen();
    let group = machine.topic("orders").group("g").open().unwrap();
    assert_eq!(letters(&group), expected);
    group.dead_letters().unwrap().map(Result::unwrap).for_each(|letter| letter.discard().unwrap());
    traffic(&machine, 200);
    machine.rest(6);
    assert_eq!(machine.count("dead"), 0, "{:?}", machine.files());
}

/// A group that is created later begins behind what was cleaned away, and gets every message from there on; while nobody had come to read a
/// topic, it begins at the first.
#[test]
fn a_late_group_begins_behind_the_gaps() {
    let mut machine = Machine::new(3);
    let unread = machine.topic("unread");
    let topic = machine.topic("mixed");
    let group = topic.group("g").open().unwrap();
    let mut held = Vec::new();
    for number in 0..60 {
        unread.publish(format!("u{number:03}")).unwrap();
        topic.publish(format!("m{number:03}")).unwrap();
        let delivery = group.receive(NOW).unwrap().unwrap();
        if number % 7 == 3 {
            delivery.extend(Duration::from_secs(3_600 * 24)).unwrap();
            held.push(delivery);
        } else {
            delivery.ack().unwrap();
        }
        traffic(&machine, 10);
    }
    traffic(&machine, 200);
    machine.rest(20);
    for number in 60..70 {
        topic.publish(format!("m{number:03}")).unwrap();
    }
    assert!(machine.count("msg") >= 1, "{:?}", machine.files());
    let late = |machine: &Machine, name: &str| texts(&machine.topic("mixed").group(name).open().unwrap());
    let expected: Vec<String> = (59..70).map(|number| format!("m{number:03}")).collect();
    let whole: Vec<String> = (0..60).map(|number| format!("u{number:03}")).collect();
    assert_eq!(late(&machine, "late"), expected);
    held.into_iter().for_each(|delivery| delivery.release().unwrap());
    drop((unread, topic, group));
    machine = machine.reopen();
    assert_eq!(late(&machine, "later"), expected);
    assert_eq!(texts(&machine.topic("unread").group("first").open().unwrap()), whole);
    let stuck = texts(&machine.topic("mixed").group("g").open().unwrap());
    let expected: Vec<String> =
        (0..70).filter(|number| number % 7 == 3 || *number >= 60).map(|n| format!("m{n:03}")).collect();
    assert_eq!(stuck.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), expected);
}
