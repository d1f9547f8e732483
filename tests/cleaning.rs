//! Cleaning (G5, G15): what one message keeps is that message, whatever else passed through the store, and nothing else is lost by it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/machine.rs"]
mod machine;

use machine::{Machine, START, open};
use millpond::simulation::{Fault, PowerOutcome, Rng, SimClock, SimDisk, WallMs};
use millpond::{Durability, Error, Group, Message, Store, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const SEGMENT: u64 = 64 << 10;

impl Machine {
    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).open().unwrap()
    }

    /// Two checkpoints cover what there is; then the jobs run for some seconds.
    fn rest(&self, seconds: u64) {
        for _ in 0..2 {
            traffic(self, 1);
            self.store.checkpoint().unwrap();
        }
        self.pass(seconds);
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

/// What a group gets until it has everything.
fn texts(group: &Group) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(delivery) = group.receive(NOW).unwrap() {
        found.push(String::from_utf8(delivery.payload().to_vec()).unwrap());
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

/// What somebody wants of a store: messages that are not settled, dead letters, messages for later, and events.
fn wanted(store: &Store) -> Vec<String> {
    let topic = store.topic("orders").open().unwrap();
    let mut found = Vec::new();
    for name in ["a", "b"] {
        let group = topic.group(name).open().unwrap();
        let mut held = Vec::new();
        while let Some(delivery) = group.receive(NOW).unwrap() {
            found.push(format!("{name} {} {}", delivery.id(), String::from_utf8_lossy(delivery.payload())));
            held.push(delivery);
        }
        held.into_iter().for_each(|delivery| delivery.release().unwrap());
        for letter in group.dead_letters().unwrap().map(Result::unwrap) {
            found.push(format!("{name} dead {} {}", letter.id(), String::from_utf8_lossy(letter.payload())));
        }
    }
    for later in topic.scheduled(None, 1_000).unwrap() {
        found.push(format!("later {}", later.id));
    }
    let streams = store.topic("events").streams().open().unwrap();
    for event in streams.stream("s").unwrap().read(0, 1_000).unwrap() {
        found.push(format!("event {} {}", event.version(), String::from_utf8_lossy(event.payload())));
    }
    found.sort_unstable();
    found
}

/// A store of many segments with all that must stay in one here and one there, which two checkpoints cover.
fn mixed(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    let topic = machine.topic("orders");
    let groups = ["a", "b"].map(|name| topic.group(name).max_attempts(1).open().unwrap());
    let streams = machine.store.topic("events").streams().open().unwrap();
    let mut held = Vec::new();
    for number in 0..24u64 {
        topic.publish(format!("order {number}")).unwrap();
        for (nth, group) in (0..).zip(&groups) {
            let delivery = group.receive(NOW).unwrap().unwrap();
            match (number + nth) % 4 {
                0 => held.push(delivery),
                1 => delivery.reject("no").unwrap(),
                _ => delivery.ack().unwrap(),
            }
        }
        if number % 5 == 0 {
            topic.publish(Message::new(format!("later {number}")).delay(Duration::from_secs(1_000_000))).unwrap();
            let event = Message::new(format!("event {number}"));
            streams.stream("s").unwrap().append(millpond::Expected::Any, [event]).unwrap();
        }
        traffic(&machine, 25);
    }
    held.into_iter().for_each(|delivery| delivery.release().unwrap());
    for _ in 0..2 {
        traffic(&machine, 1);
        machine.store.checkpoint().unwrap();
    }
    machine
}

/// Wherever cleaning ends, by a crash before, within or after any request of it, or by a fault, what is wanted is there.
#[test]
fn whatever_ends_a_cleaning_nothing_that_is_wanted_is_lost() {
    let machine = mixed(4).reopen();
    let expected = wanted(&machine.store);
    assert!(expected.len() > 30, "{expected:?}");
    let start = machine.reopen();
    start.store.close().unwrap();
    let Machine { disk, clock, store } = start;
    drop(store);
    // Two looks, each with its run, and a third one.
    let run = |disk: &SimDisk, fault: Option<(u64, Fault)>| {
        let store = open(disk, &clock);
        store.topic("busy").open().unwrap().publish("next").unwrap();
        let before = disk.requests();
        if let Some((request, fault)) = fault {
            disk.fail_at(before + request, fault);
        }
        let jobs = (0..4).try_for_each(|_| {
            clock.advance(1_000);
            store.tick()
        });
        (store, before, jobs)
    };
    let whole = disk.snapshot();
    let (store, before, jobs) = run(&whole, None);
    jobs.unwrap();
    let requests = whole.requests() - before;
    let files = whole.files();
    assert!(files.iter().any(|file| file.name.ends_with(".msg")), "{files:?}");
    assert!(files.iter().any(|file| file.name.ends_with(".dead")), "{files:?}");
    assert_eq!(wanted(&store), expected);
    store.close().unwrap();
    drop(store);
    let mut rng = Rng::new(4);
    // An error of an append leaves any part of it, and sometimes all.
    let faults = || Fault::ALL.into_iter().chain([Fault::Io; 5]);
    for (request, fault) in (0..requests).flat_map(|request| faults().map(move |fault| (request, fault))) {
        let disk = disk.snapshot();
        disk.reseed(rng.next_u64());
        let (store, ..) = run(&disk, Some((request, fault)));
        if rng.below(3) == 0 {
            disk.crash_power(PowerOutcome::EACH[rng.index(PowerOutcome::EACH.len())]);
        } else {
            disk.crash_process();
        }
        drop(store);
        disk.clear_faults();
        let store = open(&disk, &clock);
        assert_eq!(wanted(&store), expected, "{fault:?} at request {request}");
        assert_eq!(store.violations(), Vec::<String>::new());
        store.close().unwrap();
    }
}

/// A message for later is moved out of a cleaned file when it is due.
#[test]
fn a_message_for_later_is_delivered_from_a_cleaned_file() {
    let machine = mixed(5);
    machine.rest(8);
    let machine = machine.reopen();
    assert!(machine.count("msg") > 0 && machine.count("seg") <= 5, "{:?}", machine.files());
    machine.clock.advance(1_000_000_000);
    machine.rest(1);
    let group = machine.topic("orders").group("a").open().unwrap();
    let later: Vec<String> = texts(&group).into_iter().filter(|text| text.starts_with("later")).collect();
    assert_eq!(later, ["later 0", "later 5", "later 10", "later 15", "later 20"]);
}

/// An index of streams that is made anew finds every event in files of messages, also where it is filled in several steps.
#[test]
fn streams_are_found_in_cleaned_files() {
    const STREAMS: u64 = 17_000;
    let machine = Machine::new(6);
    let streams = machine.store.topic("events").streams().open().unwrap();
    let busy = machine.topic("busy");
    let group = busy.group("worker").open().unwrap();
    for number in 0..STREAMS {
        let stream = streams.stream(format!("s{number}")).unwrap();
        stream.append(millpond::Expected::NoStream, [Message::new("e")]).unwrap();
        if number % 8 == 0 {
            busy.publish([7; 2_000]).unwrap();
            group.receive(NOW).unwrap().unwrap().ack().unwrap();
        }
        if number % 256 == 0 {
            machine.store.tick().unwrap();
        }
    }
    drop((streams, busy, group));
    machine.rest(200);
    let machine = machine.reopen();
    let files = machine.files();
    assert!(files["msg"].1 > 10 * SEGMENT && files["seg"].0 <= 6, "{files:?}");
    let streams = machine.store.topic("events").streams().open().unwrap();
    let version = |number: u64| loop {
        match streams.stream(format!("s{number}")).unwrap().last_version() {
            Err(millpond::Error::IndexRebuilding { .. }) => {}
            other => return other.unwrap(),
        }
    };
    for number in 0..STREAMS {
        assert_eq!(version(number), Some(0), "stream {number}");
    }
}

/// G15: a store whose messages are all settled takes a few MiB at rest, and less than one once it is closed, whatever passed through it.
#[test]
fn g15_an_emptied_store_shrinks() {
    let (disk, clock) = (SimDisk::new(7), Arc::new(SimClock::new(WallMs(START))));
    let attached = Arc::new(disk.attach().unwrap());
    let store = Store::options().durability(Durability::Os).open_on(attached, Arc::clone(&clock) as _).unwrap();
    let machine = Machine { disk, clock, store };
    let total = |machine: &Machine| machine.disk.files().iter().map(|file| file.len).sum::<u64>();
    for _ in 0..40 {
        traffic(&machine, 1_000);
        machine.store.tick().unwrap();
    }
    assert!(total(&machine) > 8 << 20, "{:?}", machine.files());
    for _ in 0..20 {
        machine.clock.advance(1_000);
        machine.store.tick().unwrap();
    }
    assert!(total(&machine) <= 8 << 20, "{:?}", machine.files());
    for _ in 0..20 {
        traffic(&machine, 1_000);
    }
    let Machine { disk, store, .. } = machine;
    store.close().unwrap();
    let total: u64 = disk.files().iter().map(|file| file.len).sum();
    assert!(total <= 1 << 20, "{:?}", disk.files());
}

/// G15, the bound: twice what must stay, nine segments and twelve checkpoints.
fn check_bound(machine: &Machine, live: u64, what: &str) {
    let files = machine.disk.files();
    let checkpoint = files.iter().filter(|file| file.name.ends_with(".ckp")).map(|file| file.len).max().unwrap_or(0);
    let total: u64 = files.iter().map(|file| file.len).sum();
    // `STORE` is no part of it.
    let bound = 2 * live + 9 * SEGMENT + 12 * checkpoint + (16 << 10);
    assert!(total <= bound, "{what}: {total} bytes, and {bound} are allowed: {:?}", machine.files());
}

/// What a small message takes at most in a file of a class, with its row in the index.
const SMALL_LEN: u64 = 200;

#[test]
fn g15_a_message_in_each_segment_of_traffic() {
    let machine = Machine::new(8);
    let topic = machine.topic("slow");
    let group = topic.group("g").open().unwrap();
    for number in 1..200u64 {
        topic.publish("slow").unwrap();
        let delivery = group.receive(NOW).unwrap().unwrap();
        delivery.nack_after(Duration::from_secs(1_000_000), "later").unwrap();
        traffic(&machine, 64);
        machine.rest(2);
        if number % 10 == 0 {
            machine.rest(6);
            check_bound(&machine, number * SMALL_LEN, "a retry that waits in each segment");
        }
    }
}

#[test]
fn g15_one_group_of_a_thousand_is_stuck() {
    let machine = Machine::new(9);
    let topic = machine.topic("wide");
    let groups: Vec<Group> = (0..1_000).map(|nth| topic.group(format!("g{nth}")).open().unwrap()).collect();
    for _ in 0..10 {
        topic.publish("wide").unwrap();
        for group in &groups[1..] {
            group.receive(NOW).unwrap().unwrap().ack().unwrap();
        }
        traffic(&machine, 200);
    }
    machine.rest(60);
    check_bound(&machine, 10 * SMALL_LEN, "a stuck group");
    assert_eq!(texts(&groups[0]).len(), 10);
}

#[test]
fn g15_letters_that_are_redriven_and_die_again() {
    let machine = Machine::new(10);
    let topic = machine.topic("loop");
    let group = topic.group("g").max_attempts(1).open().unwrap();
    (0..20).for_each(|_| drop(topic.publish("loop").unwrap()));
    for round in 0..60 {
        while let Some(delivery) = group.receive(NOW).unwrap() {
            delivery.reject("no").unwrap();
        }
        traffic(&machine, 100);
        group.dead_letters().unwrap().map(Result::unwrap).for_each(|letter| letter.redrive().unwrap());
        if round % 10 == 9 {
            machine.rest(12);
            check_bound(&machine, 20 * SMALL_LEN, "a loop of redrives");
        }
    }
    assert_eq!(texts(&group).len(), 20);
}

#[test]
fn g15_many_restarts_and_topics_without_traffic() {
    let mut machine = Machine::new(11);
    for nth in 0..50 {
        let topic = machine.topic(&format!("idle{nth}"));
        topic.publish("idle").unwrap();
        traffic(&machine, 20);
    }
    for restart in 0..1_200u32 {
        machine = machine.reopen();
        traffic(&machine, 1);
        if restart % 100 == 99 {
            machine.rest(8);
            check_bound(&machine, 50 * SMALL_LEN, "restarts");
        }
    }
    for nth in 0..50 {
        let group = machine.topic(&format!("idle{nth}")).group("late").open().unwrap();
        assert_eq!(texts(&group), ["idle"]);
    }
}

/// The soak: so many MiB of traffic through small segments, with a message that nobody settles and a kill now and then.
/// `MILLPOND_SOAK_MIB` says how many.
#[test]
fn g15_a_soak_stays_within_the_bound() {
    let mib: u64 = std::env::var("MILLPOND_SOAK_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(32);
    let mut machine = Machine::new(12);
    let stuck = machine.topic("stuck");
    let group = stuck.group("nobody").open().unwrap();
    stuck.publish("immortal").unwrap();
    drop((stuck, group));
    for round in 0..mib {
        traffic(&machine, 1_024);
        machine.rest(3);
        check_bound(&machine, SMALL_LEN, "a soak");
        if round % 7 == 6 {
            machine.disk.crash_process();
            let Machine { disk, clock, store } = machine;
            drop(store);
            let store = open(&disk, &clock);
            machine = Machine { disk, clock, store };
        }
    }
    let group = machine.topic("stuck").group("nobody").open().unwrap();
    assert_eq!(texts(&group), ["immortal"]);
}

/// G14: a store that may take so many bytes takes no more, can be emptied, and goes on then, any number of times.
#[test]
fn g14_a_store_with_a_bound_stays_within_it() {
    const BOUND: u64 = 8 << 20;
    let (disk, clock) = (SimDisk::new(13), Arc::new(SimClock::new(WallMs(START))));
    let open = |bytes| {
        let attached = Arc::new(disk.attach().unwrap());
        Store::options().durability(Durability::Os).max_bytes(bytes).open_on(attached, Arc::clone(&clock) as _)
    };
    let refused = open(BOUND - 1).map(drop).unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { option: "max_bytes", .. }), "{refused:?}");
    let mut store = open(BOUND).unwrap();
    let total = || disk.files().iter().map(|file| file.len).sum::<u64>();
    for round in 0..6 {
        let topic = store.topic("t").open().unwrap();
        let group = topic.group("g").open().unwrap();
        let mut published = 0u64;
        let full = loop {
            match topic.publish([7; 2_000]) {
                Ok(_) => published += 1,
                Err(error) => break error,
            }
            assert!(total() <= BOUND, "round {round}: {} bytes", total());
            if published.is_multiple_of(64) {
                store.tick().unwrap();
            }
        };
        assert!(matches!(full, Error::DiskFull), "{full:?}");
        assert!(published > 1_000, "round {round}: {published}");
        for _ in 0..published {
            group.receive(NOW).unwrap().unwrap().ack().unwrap();
            assert!(total() <= BOUND, "round {round}: {} bytes", total());
        }
        assert!(group.receive(NOW).unwrap().is_none());
        for _ in 0..10 {
            clock.advance(1_000);
            store.tick().unwrap();
        }
        drop((topic, group));
        store.close().unwrap();
        drop(store);
        store = open(BOUND).unwrap();
    }
}
