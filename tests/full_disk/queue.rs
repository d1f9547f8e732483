//! A queue that is filled until the disk is full, and what was published, handed out and settled in it.

use millpond::simulation::{SystemClock, real_disk};
use millpond::{Backoff, Delivery, Durability, Error, ErrorKind, Group, Store, Topic};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Queue {
    dir: PathBuf,
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    next: u32,
    /// Published and not settled.
    waiting: BTreeSet<u32>,
}

/// The store, without threads: a beat of its jobs is a call.
fn open(dir: &Path) -> (Store, Topic, Group) {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    let disk = real_disk(dir).expect("it attaches");
    let store = options.open_on(disk, Arc::new(SystemClock)).expect("it opens");
    let topic = store.topic("numbers").open().expect("it opens");
    let group = topic.group("workers").backoff(Backoff::none()).open().expect("it opens");
    (store, topic, group)
}

/// A payload of about a thousand bytes that begins with its number.
fn payload(number: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(900 + number as usize % 200, number.to_le_bytes()[0]);
    bytes
}

fn number(delivery: &Delivery) -> u32 {
    let (first, _) = delivery.payload().split_first_chunk().expect("four bytes");
    let number = u32::from_le_bytes(*first);
    assert_eq!(delivery.payload(), payload(number), "G4: {number} was published otherwise");
    number
}

impl Queue {
    pub(crate) fn new(dir: &Path) -> Self {
        let (store, topic, group) = open(dir);
        Self { dir: dir.to_owned(), store, topic, group, next: 0, waiting: BTreeSet::new() }
    }

    /// Publishes one message. `false` where the disk is full: nothing was changed then.
    pub(crate) fn publish(&mut self) -> bool {
        match self.topic.publish(payload(self.next)) {
            Ok(_) => {
                self.waiting.insert(self.next);
                self.next += 1;
                true
            }
            Err(Error::DiskFull) => {
                assert_eq!(Error::DiskFull.kind(), ErrorKind::Retry);
                false
            }
            Err(error) => panic!("a full disk is told as {error}"),
        }
    }

    pub(crate) fn publish_some(&mut self, count: usize) {
        for _ in 0..count {
            assert!(self.publish(), "there is room");
        }
    }

    /// Publishes until the disk is full. Returns how many messages there was room for.
    pub(crate) fn fill(&mut self) -> u32 {
        let before = self.next;
        while self.publish() {
            if self.next.is_multiple_of(16) {
                self.tick();
            }
        }
        // The jobs meet the full disk, too.
        self.tick();
        while self.publish() {}
        self.next - before
    }

    pub(crate) fn tick(&self) {
        self.store.tick().expect("no job fails because the disk is full");
    }

    /// Leases at most `max` messages.
    pub(crate) fn lease(&self, max: usize) -> Vec<Delivery> {
        let batch = self.group.receive_batch(max, Duration::ZERO).expect("a lease is granted");
        assert_eq!(batch.unreadable().len(), 0, "{:?}", batch.unreadable());
        batch.into_iter().collect()
    }

    pub(crate) fn ack(&mut self, delivery: Delivery) {
        let number = number(&delivery);
        delivery.ack().unwrap_or_else(|error| panic!("G14: an ack was refused: {error}"));
        assert!(self.waiting.remove(&number), "G6: {number} was settled before");
    }

    /// Leases and acks everything.
    pub(crate) fn ack_all(&mut self) {
        loop {
            let deliveries = self.lease(50);
            if deliveries.is_empty() {
                break;
            }
            for delivery in deliveries {
                self.ack(delivery);
            }
            self.tick();
        }
        assert_eq!(self.waiting, BTreeSet::new(), "G5: these were never delivered");
    }

    /// Opens the store again: exactly what was published and not settled is there.
    pub(crate) fn reopen_and_check(mut self) {
        self.store.close().expect("it closes");
        let (store, topic, group) = open(&self.dir);
        (self.store, self.topic, self.group) = (store, topic, group);
        self.ack_all();
        self.publish_some(3);
        self.ack_all();
        self.store.close().expect("it closes");
    }
}
