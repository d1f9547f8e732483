//! A queue that is filled until the disk is full, and what was published, handed out and settled in it.

use millpond::simulation::{SystemClock, real_disk};
use millpond::{Backoff, Delivery, Durability, Error, ErrorKind, Group, Store, Topic};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// More beats of the jobs than anything here needs.
const BEATS_MAX: usize = 100;

pub(crate) struct Queue {
    dir: PathBuf,
    pub(crate) store: Store,
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    next: u32,
    /// Published and not settled.
    waiting: BTreeSet<u32>,
    /// Leased, and the ack was refused.
    stuck: Vec<u32>,
    /// In the dead letters.
    dead: BTreeSet<u32>,
}

/// The store, without threads: a beat of its jobs is a call.
fn open(dir: &Path) -> (Store, Topic, Group) {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10).message_bytes_max(16 << 10);
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

fn number_of(bytes: &[u8]) -> u32 {
    let (first, _) = bytes.split_first_chunk().expect("four bytes");
    let number = u32::from_le_bytes(*first);
    assert_eq!(bytes, payload(number), "G4: {number} was published otherwise");
    number
}

fn number(delivery: &Delivery) -> u32 {
    number_of(delivery.payload())
}

impl Queue {
    pub(crate) fn new(dir: &Path) -> Self {
        let (store, topic, group) = open(dir);
        Self {
            dir: dir.to_owned(),
            store,
            topic,
            group,
            next: 0,
            waiting: BTreeSet::new(),
            stuck: Vec::new(),
            dead: BTreeSet::new(),
        }
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

    /// Leases at most `max` messages. A full disk may refuse that, but not for ever: else it would stay full.
    pub(crate) fn lease(&self, max: usize) -> Vec<Delivery> {
        for _ in 0..BEATS_MAX {
            match self.group.receive_batch(max, Duration::ZERO) {
                Ok(batch) => {
                    assert_eq!(batch.unreadable().len(), 0, "{:?}", batch.unreadable());
                    return batch.into_iter().collect();
                }
                Err(Error::DiskFull) => self.tick(),
                Err(error) => panic!("a full disk is told as {error}"),
            }
        }
        panic!("G14: while nothing is leased no lease is granted")
    }

    pub(crate) fn ack(&mut self, delivery: Delivery) {
        let number = number(&delivery);
        delivery.ack().unwrap_or_else(|error| panic!("G14: an ack was refused: {error}"));
        assert!(self.waiting.remove(&number), "G6: {number} was settled before");
    }

    /// Gives it back, to be delivered again.
    pub(crate) fn nack(&mut self, delivery: Delivery) {
        delivery.nack("not now").unwrap_or_else(|error| panic!("G14: a nack was refused: {error}"));
    }

    pub(crate) fn reject(&mut self, delivery: Delivery) {
        let number = number(&delivery);
        delivery.reject("spoilt").unwrap_or_else(|error| panic!("G14: a reject was refused: {error}"));
        assert!(self.waiting.remove(&number) && self.dead.insert(number), "G6: {number} was settled before");
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

    /// Settles deliveries in all the ways that there are: one is rejected, for which a copy needs room, the others are extended,
    /// given back or acked.
    pub(crate) fn settle_in_all_ways(&mut self, deliveries: Vec<Delivery>) {
        for (index, delivery) in deliveries.into_iter().enumerate() {
            let extended = delivery.extend(Duration::from_secs(60));
            extended.unwrap_or_else(|error| panic!("G14: an extension was refused: {error}"));
            match index {
                0 => self.reject(delivery),
                1..5 => self.nack(delivery),
                _ => self.ack(delivery),
            }
        }
    }

    /// Leases one and acks it, as far as the disk allows.
    pub(crate) fn try_one(&mut self) {
        match self.group.receive(Duration::ZERO) {
            Ok(Some(delivery)) => {
                let number = number(&delivery);
                match delivery.ack() {
                    Ok(()) => assert!(self.waiting.remove(&number), "G6: {number} was settled before"),
                    Err(Error::DiskFull) => {
                        // It stays leased for now.
                        self.waiting.remove(&number);
                        self.stuck.push(number);
                    }
                    Err(error) => panic!("a full disk is told as {error}"),
                }
            }
            Ok(None) | Err(Error::DiskFull) => {}
            Err(error) => panic!("a full disk is told as {error}"),
        }
    }

    /// Lets the jobs go on until a publish is taken.
    pub(crate) fn publish_when_possible(&mut self) {
        for _ in 0..BEATS_MAX {
            if self.publish() {
                return;
            }
            self.tick();
        }
        panic!("G14: everything is settled, and there is still no room to publish");
    }

    /// Opens the store again: exactly what was published and not settled is there.
    pub(crate) fn reopen_and_check(mut self) {
        self.store.close().expect("it closes");
        let (store, topic, group) = open(&self.dir);
        (self.store, self.topic, self.group) = (store, topic, group);
        self.waiting.extend(self.stuck.drain(..));
        let letters = self.group.dead_letters().expect("it lists");
        let numbers = letters.map(|letter| number_of(letter.expect("it is readable").payload()));
        assert_eq!(numbers.collect::<BTreeSet<_>>(), self.dead, "G10: the dead letters");
        self.ack_all();
        self.publish_some(3);
        self.ack_all();
        self.store.close().expect("it closes");
    }
}
