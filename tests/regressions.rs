//! One test for each bug that another level found: see docs/bugs.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use millpond::ids::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Backoff, Durability, Store};
use std::sync::Arc;
use std::time::Duration;

const WALL: u64 = 1_800_000_000_000;

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Store {
    let handle = Arc::new(disk.attach().unwrap());
    Store::options().durability(Durability::Os).open_on(handle, Arc::clone(clock) as _).unwrap()
}

/// A jump of the wall clock between opening and the first beat of the jobs had nothing to be measured against, and a
/// retry waited for as long as the clock had gone back (G16).
#[test]
fn a_clock_jump_before_the_first_beat_is_noticed() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(WALL))));
    let store = open(&disk, &clock);
    let topic = store.topic("t").open().unwrap();
    let group = topic.group("g").backoff(Backoff::fixed(Duration::from_secs(1))).open().unwrap();
    topic.publish("m").unwrap();
    group.receive(Duration::ZERO).unwrap().unwrap().nack("no").unwrap();
    clock.set_wall(WallMs(WALL - 86_400_000));
    store.tick().unwrap();
    clock.advance(1_000);
    let again = group.receive(Duration::ZERO).unwrap().expect("its own delay is over");
    assert_eq!(again.attempt(), 2);
}

/// Handles that outlive a close kept the directory locked, so that it could not be opened again.
#[test]
fn a_closed_store_lets_go_of_its_directory_whatever_handles_are_left() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("s")).unwrap();
    let topic = store.topic("t").open().unwrap();
    store.close().unwrap();
    let again = Store::open(directory.path().join("s")).unwrap();
    assert!(again.topic("t").open().is_ok());
    assert!(topic.publish("m").is_err());
}
