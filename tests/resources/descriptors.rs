//! No descriptors left: a typed error for whoever needs one, and all goes on once there are some again.
//!
//! The limit binds a whole process, so a child lives under it.

use crate::child::{self, must, say};
use millpond::{Backoff, Durability, Error, ErrorKind, Expected, Group, Result, Store, Topic};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

#[test]
fn without_descriptors_calls_are_refused_and_go_on_when_there_are_some() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut said = Vec::new();
    let command = child::command("child_process", "descriptors", &dir.path().join("store"));
    let status = child::run(command, |line| said.push(line.to_owned()));
    assert!(status.success() && said.iter().any(|line| line == "fine"), "{status}: {said:#?}");
}

/// The body of the child. What is refused must be refused as it should; a panic here fails the parent.
pub(crate) fn work(dir: &Path) {
    let mut load = Load::open(dir).expect("there are descriptors");
    load.run(20);
    assert_eq!(load.refused, 0);
    for limit in (8..=64).rev().step_by(4) {
        set_limit(limit);
        load.run(20);
    }
    assert!(load.refused > 0, "there were always enough");
    // Nothing of it has stopped the store, its threads included.
    raise_limit();
    let before = load.refused;
    load.run(20);
    load.drain();
    assert_eq!(load.refused, before, "there are descriptors again");
    must(load.store.close());

    // A store is not opened by halves: each number of descriptors too few is an error, and then there are enough.
    drop(load);
    let mut opened = false;
    for limit in 3..30 {
        set_limit(limit);
        match Load::open(dir) {
            Ok(load) => {
                must(load.store.close());
                opened = true;
            }
            Err(error) => {
                assert!(matches!(error, Error::TooManyOpenFiles), "with {limit}: {error:?}");
                assert!(!opened, "{limit} descriptors are too few, and fewer were enough");
            }
        }
    }
    assert!(opened, "30 descriptors are not enough to open a store");
    raise_limit();
    keep_index(dir);
    say("fine");
}

/// Where descriptors lack, the index of streams cannot be opened. It is not thrown away.
fn keep_index(dir: &Path) {
    let open = || {
        let store = Store::open(dir).expect("there are descriptors");
        let stream = store.topic("orders").streams().open().expect("it opens").stream("o").expect("it has streams");
        (store, stream)
    };
    let (store, stream) = open();
    must(stream.append(Expected::Any, ["0"]));
    must(store.tick());
    must(store.close());
    drop(stream);
    let inode = || std::fs::metadata(dir.join("index")).map(|found| found.ino()).expect("it is there");
    let before = inode();
    for free in 0..12 {
        let (store, stream) = open();
        set_limit(open_descriptors() + free);
        match stream.last_version() {
            Ok(last) => assert_eq!(last, Some(0)),
            Err(error) => assert!(matches!(error, Error::TooManyOpenFiles), "with {free}: {error:?}"),
        }
        raise_limit();
        assert_eq!(must(stream.last_version()), Some(0));
        assert_eq!(inode(), before, "with {free} the index was thrown away");
        must(store.close());
    }
}

/// One more than the highest that is open.
fn open_descriptors() -> u64 {
    let names = std::fs::read_dir("/proc/self/fd").expect("it can be listed");
    let number = |name: std::io::Result<std::fs::DirEntry>| name.ok()?.file_name().to_str()?.parse::<u64>().ok();
    names.filter_map(number).max().unwrap_or(0) + 1
}

struct Load {
    store: Store,
    topic: Topic,
    group: Group,
    next: u64,
    waiting: BTreeSet<u64>,
    refused: u32,
}

impl Load {
    fn open(dir: &Path) -> Result<Self> {
        let store = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10).open(dir)?;
        let topic = store.topic("numbers").open()?;
        let group = topic.group("workers").backoff(Backoff::none()).open()?;
        Ok(Self { store, topic, group, next: 0, waiting: BTreeSet::new(), refused: 0 })
    }

    /// Publishes, receives and acks so many times, rolling a segment every few messages.
    fn run(&mut self, times: u32) {
        for _ in 0..times {
            let mut payload = self.next.to_le_bytes().to_vec();
            payload.resize(9_000, 7);
            if self.allowed(self.topic.publish(payload)).is_some() {
                self.waiting.insert(self.next);
                self.next += 1;
            }
            if self.next.is_multiple_of(3) {
                self.settle(Duration::ZERO);
            }
            let ticked = self.store.tick();
            self.allowed(ticked);
        }
    }

    /// Receives and acks a few. Whether there were any.
    fn settle(&mut self, wait: Duration) -> bool {
        let received = self.group.receive_batch(4, wait);
        let Some(batch) = self.allowed(received) else { return true };
        let is_empty = batch.is_empty();
        for delivery in batch {
            let (first, _) = delivery.payload().split_first_chunk().expect("eight bytes");
            let number = u64::from_le_bytes(*first);
            assert!(self.waiting.contains(&number), "{number} was acked or never published");
            let acked = delivery.ack();
            if self.allowed(acked).is_some() {
                self.waiting.remove(&number);
            }
        }
        !is_empty
    }

    /// What could not be read was postponed for a moment.
    fn drain(&mut self) {
        while !self.waiting.is_empty() && self.settle(Duration::from_secs(10)) {}
        assert_eq!(self.waiting, BTreeSet::new(), "these were published and never came");
    }

    /// `None` where it was refused for want of a descriptor, the only excuse.
    fn allowed<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                assert!(matches!(error, Error::TooManyOpenFiles), "{error:?}");
                assert_eq!(error.kind(), ErrorKind::Retry);
                self.refused += 1;
                None
            }
        }
    }
}

fn set_limit(descriptors: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    must(setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }));
}

fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    must(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }));
}
