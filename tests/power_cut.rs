//! What `Disk` promises: a power cut takes nothing that was acknowledged (G1), and what it leaves is a prefix (G2).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::simulation::SimClock;
use millpond::simulation::WallMs;
use millpond::simulation::{PowerOutcome, SimDisk};
use millpond::{Durability, Message, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn open(disk: &SimDisk, level: Durability) -> Store {
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let handle = Arc::new(disk.attach().expect("no other attachment"));
    Store::options().durability(level).open_on(handle, clock).expect("the store opens")
}

fn drain(store: &Store) -> Vec<u64> {
    let group = store.topic("numbers").open().unwrap().group("reader").open().unwrap();
    let mut numbers = Vec::new();
    loop {
        let batch = group.receive_batch(1_000, Duration::ZERO).unwrap();
        if batch.is_empty() {
            return numbers;
        }
        numbers.extend(batch.iter().map(|d| u64::from_le_bytes(d.payload()[..8].try_into().unwrap())));
        assert!(batch.ack().unwrap().is_empty());
    }
}

fn message(number: u64) -> Message<'static> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(100, 7);
    Message::new(payload)
}

#[test]
fn a_hundred_thousand_durable_messages_survive_a_power_cut() {
    for (seed, outcome) in [(1, PowerOutcome::LoseAll), (2, PowerOutcome::RandomSectors), (3, PowerOutcome::Garbage)] {
        let disk = SimDisk::new(seed);
        let store = open(&disk, Durability::Disk);
        let topic = store.topic("numbers").open().unwrap();
        topic.group("reader").open().unwrap();
        for first in (0..100_000).step_by(1_000) {
            topic.publish_batch((first..first + 1_000).map(message)).unwrap();
            if first % 10_000 == 0 {
                store.tick().unwrap();
            }
        }
        // These were not promised to survive: whatever is left of them must be a prefix.
        let unsynced = topic.with_durability(Durability::Os);
        (100_000..100_050).for_each(|number| drop(unsynced.publish(message(number)).unwrap()));
        std::mem::forget((store, topic, unsynced));
        disk.crash_power(outcome);

        let store = open(&disk, Durability::Disk);
        let numbers = drain(&store);
        assert!(numbers.len() >= 100_000, "lost {}", 100_000 - numbers.len());
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "a prefix, in order");
        assert!(!store.report().was_clean);
    }
}

#[test]
fn messages_at_os_level_survive_the_death_of_the_process() {
    let disk = SimDisk::new(4);
    let store = open(&disk, Durability::Os);
    let topic = store.topic("numbers").open().unwrap();
    topic.group("reader").open().unwrap();
    (0..10_000).for_each(|number| drop(topic.publish(message(number)).unwrap()));
    std::mem::forget((store, topic));
    disk.crash_process();
    let numbers: BTreeSet<u64> = drain(&open(&disk, Durability::Os)).into_iter().collect();
    assert_eq!(numbers.len(), 10_000);
}
