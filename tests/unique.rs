//! Unique keys: at most one message of a key is pending (G20). For crashes see the simulation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Error, ErrorKind, Expected, Group, Message, Store, Topic, WhilePending};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
    jobs: Topic,
    workers: Group,
}

impl Machine {
    fn new(level: Durability) -> Self {
        let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let store = open(&disk, &clock, level);
        let jobs = store.topic("jobs").open().unwrap();
        let workers = jobs.group("workers").open().unwrap();
        Self { disk, clock, store, jobs, workers }
    }

    /// What the workers get, each acknowledged.
    fn drain(&self) -> Vec<String> {
        let mut got = Vec::new();
        loop {
            let batch = self.workers.receive_batch(3, NOW).unwrap();
            if batch.is_empty() {
                return got;
            }
            got.extend(batch.iter().map(|delivery| String::from_utf8(delivery.payload().to_vec()).unwrap()));
            assert!(batch.ack().unwrap().is_empty());
        }
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, level: Durability) -> Store {
    Store::options().durability(level).open_on(Arc::new(disk.attach().unwrap()), clock.clone()).unwrap()
}

fn reject<'a>(text: &'a str, key: &'a str) -> Message<'a> {
    Message::new(text).unique_key(key, WhilePending::Reject)
}

fn replace<'a>(text: &'a str, key: &'a str) -> Message<'a> {
    Message::new(text).unique_key(key, WhilePending::Replace)
}

fn existing<'a>(text: &'a str, key: &'a str) -> Message<'a> {
    Message::new(text).unique_key(key, WhilePending::ReturnExisting)
}

#[test]
fn g20_each_policy_does_what_it_says() {
    let machine = Machine::new(Durability::Os);
    let jobs = &machine.jobs;
    let first = jobs.publish(reject("one", "k")).unwrap();
    let refused = jobs.publish(reject("two", "k")).unwrap_err();
    assert!(matches!(&refused, Error::KeyPending { pending, .. } if *pending == first.id()), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let same = jobs.publish(existing("three", "k")).unwrap();
    assert!(same.is_repeat() && (same.id(), same.lsn()) == (first.id(), first.lsn()));
    // Another topic has keys of its own.
    machine.store.topic("other").open().unwrap().publish(reject("four", "k")).unwrap();
    let newer = jobs.publish(replace("five", "k")).unwrap();
    assert!(!newer.is_repeat() && newer.id() != first.id());
    assert_eq!(machine.drain(), ["five"]);
    assert!(!jobs.publish(existing("six", "k")).unwrap().is_repeat(), "nothing is pending");
    assert_eq!(machine.drain(), ["six"]);
}

/// However the messages around it stand, of new ones and of those that come again.
#[test]
fn g20_replaced_messages_are_left_out_of_batches() {
    for replaced in 0..8u32 {
        let machine = Machine::new(Durability::Os);
        let all: Vec<_> = (0..8).map(|nth| (format!("job {nth}"), format!("key {nth}"))).collect();
        machine.jobs.publish_batch(all.iter().map(|(text, key)| reject(text, key))).unwrap();
        for seen in [false, true] {
            if seen {
                // All were tried once.
                machine.workers.receive_batch(100, NOW).unwrap().into_iter().for_each(|delivery| {
                    delivery.nack_after(Duration::ZERO, "later").unwrap();
                });
            }
            let key = format!("key {}", if seen { (replaced + 3) % 8 } else { replaced });
            machine.jobs.publish(replace("newer", &key)).unwrap();
        }
        let got = machine.drain();
        let left_out = [replaced, (replaced + 3) % 8].map(|nth| format!("job {nth}"));
        assert_eq!((got.len(), got.iter().filter(|text| *text == "newer").count()), (8, 2), "{got:?}");
        assert!(left_out.iter().all(|text| !got.contains(text)), "{got:?}");
    }
}

/// A consumer that comes too late has lost what was replaced, which is no dead letter then.
#[test]
fn g20_a_lease_that_has_ended_is_lost_with_what_is_replaced() {
    let machine = Machine::new(Durability::Os);
    let workers = machine.jobs.group("once").max_attempts(1).open().unwrap();
    for late in 0..4 {
        machine.jobs.publish(reject("one", "k")).unwrap();
        let delivery = workers.receive(NOW).unwrap().unwrap();
        machine.clock.advance(30_000);
        machine.jobs.publish(replace("two", "k")).unwrap();
        let lost = match late {
            0 => delivery.extend(Duration::from_secs(60)),
            1 => delivery.ack(),
            2 => delivery.nack("too late"),
            _ => delivery.reject("too late"),
        };
        assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
        let newer = workers.receive(NOW).unwrap().unwrap();
        assert_eq!((newer.payload(), newer.attempt()), (&b"two"[..], 1));
        newer.ack().unwrap();
        assert_eq!((machine.drain(), workers.dead_letters().unwrap().count()), (vec!["two".to_owned()], 0));
    }
}

#[test]
fn g20_many_replaced_in_a_row_are_passed_over_in_one_call() {
    let machine = Machine::new(Durability::Os);
    let count = 3_000;
    for nth in 0..=count {
        machine.jobs.publish(replace(&format!("{nth}"), "k")).unwrap();
    }
    let delivery = machine.workers.receive(NOW).unwrap().unwrap();
    assert_eq!(delivery.payload(), format!("{count}").as_bytes());
    delivery.ack().unwrap();
    let stats = machine.store.stats().unwrap();
    assert_eq!(stats.topics[0].groups[0].lag, 0);
}

#[test]
fn g20_a_pending_message_is_told_once_it_is_durable() {
    let machine = Machine::new(Durability::Disk);
    let quick = machine.jobs.with_durability(Durability::Os);
    let tells: [&dyn Fn(); 3] = [
        &|| drop(quick.publish(reject("two", "k")).unwrap_err()),
        &|| assert!(quick.publish(existing("two", "k")).unwrap().is_repeat()),
        &|| assert!(quick.publish_batch([existing("two", "k")]).unwrap().is_repeat(0)),
    ];
    for tell in tells {
        let first = quick.publish(replace("one", "k")).unwrap();
        assert!(machine.store.stats().unwrap().log.durable <= first.lsn());
        tell();
        assert!(machine.store.stats().unwrap().log.durable > first.lsn(), "it names what another call did");
    }
}

#[test]
fn g20_keys_outlive_their_process_and_a_checkpoint() {
    for with_checkpoint in [true, false] {
        let machine = Machine::new(Durability::Os);
        machine.jobs.publish(reject("old", "k")).unwrap();
        let later = machine.jobs.publish(reject("later", "l").delay(Duration::from_secs(5))).unwrap();
        let newer = machine.jobs.publish(replace("new", "k")).unwrap();
        if with_checkpoint {
            machine.store.checkpoint().unwrap();
        }
        let Machine { disk, clock, store, jobs, workers } = machine;
        drop((store, jobs, workers));
        let store = open(&disk, &clock, Durability::Os);
        let jobs = store.topic("jobs").open().unwrap();
        let workers = jobs.group("workers").open().unwrap();
        let machine = Machine { disk, clock, store, jobs, workers };
        assert_eq!(machine.jobs.publish(existing("x", "k")).unwrap().id(), newer.id());
        assert_eq!(machine.jobs.publish(existing("x", "l")).unwrap().id(), later.id());
        assert_eq!(machine.drain(), ["new"]);
        machine.clock.advance(5_000);
        machine.store.tick().unwrap();
        let here = machine.jobs.publish(existing("x", "l")).unwrap();
        assert!(here.is_repeat() && here.id() != later.id(), "where it is delivered");
        assert_eq!(machine.drain(), ["later"]);
    }
}

/// A reminder that is put off again and again comes once.
#[test]
fn g20_a_message_for_later_is_replaced() {
    let machine = Machine::new(Durability::Os);
    for text in ["1", "2", "3"] {
        machine.jobs.publish(replace(text, "cart 7").delay(Duration::from_secs(60))).unwrap();
        machine.clock.advance(30_000);
        machine.store.tick().unwrap();
    }
    assert_eq!(machine.jobs.scheduled(None, 9).unwrap().len(), 1);
    assert_eq!(machine.drain(), [""; 0]);
    machine.clock.advance(30_000);
    machine.store.tick().unwrap();
    assert_eq!(machine.drain(), ["3"]);
}

#[test]
fn a_batch_and_a_transaction_publish_what_is_new_or_nothing() {
    let machine = Machine::new(Durability::Os);
    let jobs = &machine.jobs;
    let first = jobs.publish(reject("one", "k")).unwrap();
    let receipt = jobs.publish_batch([existing("two", "k"), reject("three", "l")]).unwrap();
    assert!(receipt.ids()[0] == first.id() && receipt.is_repeat(0) && !receipt.is_repeat(1));
    let before = machine.store.state_hash().unwrap();
    let refused = jobs.publish_batch([reject("four", "m"), reject("five", "k")]).unwrap_err();
    assert!(matches!(refused, Error::KeyPending { pending, .. } if pending == first.id()));
    let refused = machine.store.transaction(|tx| tx.publish(jobs, reject("six", "k")).map(drop)).map(|_| ());
    assert!(matches!(refused, Err(Error::KeyPending { .. })), "{refused:?}");
    for twice in [
        jobs.publish_batch([reject("seven", "n"), reject("eight", "n")]).map(drop),
        machine
            .store
            .transaction(|tx| {
                tx.publish(jobs, reject("seven", "n"))?;
                tx.publish(jobs, reject("eight", "n")).map(drop)
            })
            .map(drop),
    ] {
        assert!(matches!(&twice, Err(Error::InvalidOption { option: "unique_key", .. })), "{twice:?}");
    }
    assert_eq!(machine.store.state_hash().unwrap(), before);
    // What is settled with it is pending until then.
    let held = machine.workers.receive(NOW).unwrap().unwrap();
    let again = machine.store.transaction(|tx| {
        tx.ack(&held)?;
        tx.publish(jobs, replace("nine", "k")).map(drop)
    });
    assert!(matches!(again.map(drop), Err(Error::KeyPending { .. })));
    let done = machine.store.transaction(|tx| {
        tx.ack(&held)?;
        tx.publish(jobs, existing("nine", "k"))
    });
    let done = done.unwrap();
    assert_eq!(done.id(done.value), Some(first.id()));
    assert_eq!(machine.drain(), ["three"]);
}

#[test]
fn keys_out_of_bounds_and_out_of_place_are_refused() {
    let machine = Machine::new(Durability::Os);
    let before = machine.store.state_hash().unwrap();
    let empty = machine.jobs.publish(reject("m", "")).unwrap_err();
    assert!(matches!(empty, Error::InvalidOption { option: "unique_key", .. }), "{empty}");
    let long = machine.jobs.publish(reject("m", &"k".repeat(1_025))).unwrap_err();
    assert!(matches!(long, Error::TooLarge { what: "unique key", len: 1_025, max: 1_024, .. }), "{long}");
    let producer = machine.jobs.producer("p").unwrap();
    let numbered = producer.publish(0, reject("m", "k")).unwrap_err();
    assert!(matches!(numbered, Error::InvalidOption { option: "unique_key", .. }), "{numbered}");
    assert_eq!(machine.store.state_hash().unwrap(), before);
    let events = machine.store.topic("events").streams().open().unwrap();
    let appended = events.stream("s").unwrap().append(Expected::Any, [reject("m", "k")]).map(drop).unwrap_err();
    assert!(matches!(appended, Error::InvalidOption { option: "unique_key", .. }), "{appended}");
    machine.jobs.publish(reject("m", &"k".repeat(1_024))).unwrap();
}
