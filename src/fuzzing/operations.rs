//! Calls of the API in any order, with faults of the disk and power failures at any request, against a naive model.
//!
//! The model notes each call that returned with the end of the log at that time; what survives is a prefix of the log, so
//! the end that recovery reports decides which calls there were. Never here: several topics and groups, and threads;
//! the simulation of the tests has those.

use super::rich;
use crate::api::{Backoff, Delivery, Durability, Group, Message, Seek, Store, Topic};
use crate::clock::{Clock as _, SimClock};
use crate::disk::sim::{Fault, PowerOutcome, SimDisk};
use crate::engine::Ordering;
use crate::error::{Error, Result};
use crate::ids::{MessageId, WallMs};
use crate::log::fuzzing::{Take, bounded};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const OPERATIONS_MAX: usize = 200;
const ATTEMPTS: u32 = 2;

/// What was promised.
#[derive(Default)]
struct Promised {
    /// Number and end of each published message.
    sent: BTreeMap<MessageId, (u32, u64)>,
    /// The end at which a message was acked or its dead letter discarded.
    settled: BTreeMap<MessageId, u64>,
    /// Settled by a call that did not return `Ok`, or at an end that is not known.
    maybe_settled: BTreeSet<MessageId>,
    /// What was published before the group went on from elsewhere: it may come again, beside a dead letter of it.
    sought: BTreeSet<MessageId>,
    /// Which number an id stood for when it was first seen: for ever.
    names: BTreeMap<MessageId, u32>,
    next: u32,
    end: u64,
    durable: u64,
}

struct Life {
    store: Store,
    topic: Topic,
    group: Group,
    held: Vec<Delivery>,
}

struct FuzzWorld {
    disk: SimDisk,
    clock: Arc<SimClock>,
    level: Durability,
    /// That of the group.
    ordering: Ordering,
    /// Whether the group has a filter, which all messages pass.
    has_filter: bool,
    life: Option<Life>,
    promised: Promised,
    /// Requests that met a fault before this life.
    faults: u64,
    crashes: u32,
}

/// The bytes are calls, faults and crashes; nothing that was promised may be lost, and nothing come that was not published.
pub fn operations(data: &[u8]) -> bool {
    let mut take = Take::new(data);
    let flags = take.byte();
    let level = if flags & 1 == 0 { Durability::Disk } else { Durability::Os };
    let mut world = FuzzWorld {
        disk: SimDisk::new(u64::from(flags)),
        clock: Arc::new(SimClock::new(WallMs(1_800_000_000_000))),
        level,
        ordering: [Ordering::None, Ordering::Key, Ordering::Partition, Ordering::None][usize::from(flags >> 1 & 3)],
        has_filter: flags & 8 != 0,
        life: None,
        promised: Promised::default(),
        faults: 0,
        crashes: 0,
    };
    let mut done = 0;
    while !take.is_empty() && done < OPERATIONS_MAX {
        world.step(&mut take);
        done += 1;
    }
    world.disk.clear_faults();
    world.fall(None);
    world.drain();
    bounded(&world.disk, 0, data.len());
    !world.promised.sent.is_empty() && world.crashes > 1
}

fn payload(number: u32) -> Vec<u8> {
    let len = [4, 30, 600, 4, 2_000, 100][number as usize % 6];
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len, (number % 3) as u8);
    bytes
}

impl Promised {
    /// An id was seen with these bytes: they were published, and it always was that message.
    fn name(&mut self, id: MessageId, bytes: &[u8]) {
        let number = bytes.first_chunk().copied().map(u32::from_le_bytes).unwrap();
        assert!(number < self.next && payload(number) == bytes, "{id} has bytes that nobody published (G4)");
        let known = *self.names.entry(id).or_insert(number);
        assert_eq!(known, number, "{id} names another message (G11)");
    }

    fn settle(&mut self, id: MessageId, end: Option<u64>, result: &Result<()>) {
        match (result, end) {
            (Ok(()), Some(end)) => drop(self.settled.insert(id, end)),
            (Err(Error::LeaseLost { .. } | Error::NoSuchDeadLetter { .. } | Error::DiskFull), _) => {}
            _ => drop(self.maybe_settled.insert(id)),
        }
    }

    /// The log ends at `end` now: forgets what is not there any more, which must not have been promised.
    fn recovered(&mut self, end: u64, lost: bool) {
        let bound = if lost { self.durable } else { u64::MAX };
        let ends = self.sent.values().map(|(_, at)| *at).chain(self.settled.values().copied());
        let last = ends.filter(|at| *at <= bound).max().unwrap_or(0);
        assert!(end >= last, "the log ends at {end}, and {last} was promised (G1, G2)");
        self.sent.retain(|_, (_, at)| *at <= end);
        self.settled.retain(|_, at| *at <= end);
        self.end = end;
        self.durable = self.durable.min(end);
    }
}

impl FuzzWorld {
    fn step(&mut self, take: &mut Take<'_>) {
        let (op, value) = (take.byte(), take.byte());
        match op % 22 {
            0 => self.fault(value, take.byte()),
            1 => return self.fall(None),
            2 => return self.fall(Some(value)),
            3 => return self.close(),
            _ => {}
        }
        if self.life.is_none() {
            self.begin();
        }
        if let Some(mut life) = self.life.take() {
            self.call(&mut life, op % 22, value);
            self.life = Some(life);
        }
        self.look();
    }

    fn fault(&mut self, kind: u8, countdown: u8) {
        let faults =
            [Fault::Io, Fault::NoSpace, Fault::TooManyFiles, Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter];
        self.disk.fail_at(self.disk.requests() + u64::from(countdown), faults[usize::from(kind) % faults.len()]);
    }

    fn open(&self) -> Result<Life> {
        let store = rich::open(&self.disk, &self.clock, self.level)?;
        let topic = store.topic("t").partitions(2).open()?;
        let backoff = Backoff::fixed(Duration::from_millis(50));
        let group = topic.group("g").max_attempts(ATTEMPTS).visibility_timeout(Duration::from_secs(2));
        let filter = self.has_filter.then_some("not dropped exists");
        let group = group.backoff(backoff).ordering(self.ordering).filter(filter).open()?;
        Ok(Life { store, topic, group, held: Vec::new() })
    }

    /// Opens, with faults still to come.
    fn begin(&mut self) {
        match self.open() {
            Ok(life) => {
                let failed = self.disk.faults() > self.faults;
                self.promised.recovered(life.store.report().end.0, failed);
                self.life = Some(life);
            }
            Err(error) => {
                assert!(error.corruption().is_none(), "{error}");
                self.fall(None);
            }
        }
    }

    /// Tells the model where the log stands; a store that cannot say is dead.
    fn look(&mut self) {
        let Some(life) = &self.life else { return };
        let violations = life.store.violations();
        assert!(violations.is_empty(), "{violations:?}");
        let Ok(stats) = life.store.stats() else { return self.fall(None) };
        let (end, durable) = (stats.log.end.0, stats.log.durable.0);
        assert!(end >= self.promised.end && durable >= self.promised.durable, "the log went back");
        (self.promised.end, self.promised.durable) = (end, durable);
    }

    fn call(&mut self, life: &mut Life, op: u8, value: u8) {
        match op {
            4..=6 => self.publish(life, value),
            7..=9 => self.receive(life, value),
            10 | 11 if !life.held.is_empty() => {
                let delivery = life.held.remove(usize::from(value >> 1) % life.held.len());
                let origin = delivery.origin();
                let result = if value & 1 == 0 { delivery.ack() } else { delivery.ack_durable() };
                self.promised.settle(origin, end_of(life), &result);
            }
            12 if !life.held.is_empty() => {
                let delivery = life.held.remove(0);
                drop(match value % 3 {
                    0 => delivery.nack("it failed"),
                    1 => delivery.nack_after(Duration::from_millis(u64::from(value)), "later"),
                    _ => delivery.extend(Duration::from_millis(u64::from(value) * 50)),
                });
            }
            13 if !life.held.is_empty() => drop(life.held.remove(0).reject("no good")),
            14 => self.dead_letters(life, value),
            15 => self.clock.advance(u64::from(value) * 20),
            16 => drop(life.store.tick()),
            17 => drop(life.store.sync()),
            18 => self.clock.set_wall(WallMs(1_700_000_000_000 + (u64::from(value) << 33))),
            19 => life.held.clear(),
            20 => self.transact(life, value),
            21 => self.seek(life, value),
            _ => {}
        }
    }

    fn publish(&mut self, life: &Life, value: u8) {
        let level = if value & 1 == 0 { Durability::Disk } else { Durability::Os };
        let topic = life.topic.with_durability(level);
        let numbers: Vec<u32> = (self.promised.next..).take(1 + usize::from(value >> 5)).collect();
        self.promised.next += numbers.len() as u32;
        let messages = numbers.iter().map(|number| match value & 2 {
            0 => Message::new(payload(*number)),
            _ => Message::new(payload(*number)).key(format!("key {}", number % 3)).header("n", vec![value]),
        });
        let Ok(receipt) = topic.publish_batch(messages) else { return };
        // It returned; the store may have died before it could say where it stands: then nothing is known of the end.
        let Ok(stats) = life.store.stats() else { return };
        assert!(
            level == Durability::Os || stats.log.durable == stats.log.end,
            "not durable after a publish at Disk (G1)"
        );
        for (id, number) in receipt.ids().iter().zip(numbers) {
            self.promised.name(*id, &payload(number));
            self.promised.sent.insert(*id, (number, stats.log.end.0));
        }
    }

    /// Settles some of what is held and publishes, all of it or none.
    fn transact(&mut self, life: &mut Life, value: u8) {
        let taken: Vec<_> = (0..usize::from(value & 3).min(life.held.len())).map(|_| life.held.remove(0)).collect();
        let numbers: Vec<u32> = (self.promised.next..).take(usize::from(value >> 6)).collect();
        self.promised.next += numbers.len() as u32;
        let level = if value & 4 == 0 { Durability::Disk } else { Durability::Os };
        let how = |nth: usize| usize::from(value >> 3) + nth;
        let done = life.store.transaction(|tx| {
            tx.durability(level);
            for (nth, delivery) in taken.iter().enumerate() {
                match how(nth) % 4 {
                    0 | 1 => tx.ack(delivery)?,
                    2 => tx.nack(delivery, "it failed")?,
                    _ => tx.reject(delivery, "no good")?,
                }
            }
            numbers.iter().try_for_each(|number| tx.publish(&life.topic, payload(*number)).map(drop))
        });
        let end = end_of(life);
        let settled = done.as_ref().map(|_| ()).map_err(Clone::clone);
        for (_, delivery) in taken.iter().enumerate().filter(|(nth, _)| how(*nth) % 4 < 2) {
            self.promised.settle(delivery.origin(), end, &settled);
        }
        let (Ok(done), Some(end)) = (done, end) else { return };
        for (id, number) in done.ids().iter().zip(numbers) {
            self.promised.name(*id, &payload(number));
            self.promised.sent.insert(*id, (number, end));
        }
    }

    /// Lets the group go on from elsewhere. What was published before may come again then, or never.
    fn seek(&mut self, life: &Life, value: u8) {
        let ago = Duration::from_millis(u64::from(value) * 10);
        let to = match value & 3 {
            0 => Seek::Latest,
            1 => Seek::Time(UNIX_EPOCH + Duration::from_millis(self.clock.wall().0).saturating_sub(ago)),
            _ => Seek::Earliest,
        };
        let before = life.group.preview_seek(to);
        let sought = life.group.seek(to);
        if let (Ok(before), Ok(sought)) = (before, &sought) {
            assert_eq!(before, *sought);
            assert!(
                value & 3 < 2 || sought.lag >= sought.lag_before,
                "a seek to the start loses something: {sought:?}"
            );
        }
        self.promised.sought.extend(self.promised.sent.keys());
        let settled = std::mem::take(&mut self.promised.settled);
        match to {
            // What was not settled still comes.
            Seek::Earliest => self.promised.maybe_settled.extend(settled.into_keys()),
            Seek::Latest | Seek::Position(_) | Seek::Time(_) => {
                self.promised.maybe_settled.extend(self.promised.sent.keys());
            }
        }
    }

    fn receive(&mut self, life: &mut Life, value: u8) {
        let batch = match life.group.receive_batch(1 + usize::from(value % 5), Duration::ZERO) {
            Ok(batch) => batch,
            Err(error) => return assert!(error.corruption().is_none(), "{error}"),
        };
        // A read that met a fault: the message is put back.
        assert!(batch.unreadable().iter().all(|error| error.corruption().is_none()), "{:?}", batch.unreadable());
        let keys: Vec<&[u8]> = batch.iter().filter_map(|delivery| delivery.key()).collect();
        let is_twice = keys.iter().enumerate().any(|(nth, key)| keys[..nth].contains(key));
        assert!(!is_twice || self.ordering != Ordering::Key, "a batch has two of a key (G7)");
        for delivery in batch {
            self.promised.name(delivery.origin(), delivery.payload());
            self.promised.name(delivery.id(), delivery.payload());
            assert!((1..=ATTEMPTS + 1).contains(&delivery.attempt()), "attempt {} (G9)", delivery.attempt());
            assert!(
                !self.promised.settled.contains_key(&delivery.origin())
                    || self.promised.sought.contains(&delivery.origin()),
                "{} came after its ack (G6)",
                delivery.origin()
            );
            life.held.push(delivery);
        }
    }

    fn dead_letters(&mut self, life: &Life, value: u8) {
        let Ok(mut dead_letters) = life.group.dead_letters() else { return };
        let Some(Ok(dead_letter)) = dead_letters.next() else { return };
        self.promised.name(dead_letter.origin(), dead_letter.payload());
        match value % 3 {
            0 => {
                let origin = dead_letter.origin();
                let result = dead_letter.discard();
                self.promised.settle(origin, end_of(life), &result);
            }
            1 => drop(dead_letter.redrive()),
            _ => drop(life.group.redrive_all()),
        }
    }

    fn close(&mut self) {
        let Some(life) = self.life.take() else { return };
        let failed = life.store.close().is_err();
        drop(life);
        if failed {
            self.fall(None);
        }
    }

    /// The process dies, with the machine where there is an outcome; and another one begins without faults.
    fn fall(&mut self, outcome: Option<u8>) {
        self.crashes += 1;
        self.disk.clear_faults();
        // A sync that failed may have taken unsynced bytes out of the page cache.
        let failed = self.disk.faults() > self.faults;
        self.faults = self.disk.faults();
        match outcome {
            Some(outcome) => self.disk.crash_power(PowerOutcome::EACH[usize::from(outcome) % 10]),
            None => self.disk.crash_process(),
        }
        drop(self.life.take());
        let life = self.open().unwrap_or_else(|error| panic!("after a crash: {error}"));
        self.promised.recovered(life.store.report().end.0, failed || outcome.is_some());
        self.life = Some(life);
        self.look();
    }

    /// Takes everything that there still is: each message is settled, or here, or a dead letter, and in one place.
    fn drain(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        let mut seen = BTreeSet::new();
        let mut quiet = 0;
        while quiet < 4 {
            self.receive(&mut life, 4);
            quiet = if life.held.is_empty() { quiet + 1 } else { 0 };
            for delivery in life.held.drain(..) {
                let is_first = seen.insert(delivery.origin());
                assert!(
                    is_first || self.promised.sought.contains(&delivery.origin()),
                    "{} came twice (G6)",
                    delivery.origin()
                );
                delivery.ack().unwrap();
            }
            self.clock.advance(3_000);
            life.store.tick().unwrap();
        }
        for dead_letter in life.group.dead_letters().unwrap() {
            let dead_letter = dead_letter.unwrap();
            self.promised.name(dead_letter.origin(), dead_letter.payload());
            let is_first = seen.insert(dead_letter.origin());
            assert!(
                is_first || self.promised.sought.contains(&dead_letter.origin()),
                "{} is in two places (G10)",
                dead_letter.origin()
            );
            assert!(
                !self.promised.settled.contains_key(&dead_letter.origin())
                    || self.promised.sought.contains(&dead_letter.origin()),
                "{} is dead after its ack",
                dead_letter.origin()
            );
        }
        for id in self.promised.sent.keys() {
            let settled = self.promised.settled.contains_key(id) || self.promised.maybe_settled.contains(id);
            assert!(settled || seen.contains(id), "{id} is lost (G1, G5)");
        }
        life.store.close().unwrap();
    }
}

fn end_of(life: &Life) -> Option<u64> {
    life.store.stats().ok().map(|stats| stats.log.end.0)
}
