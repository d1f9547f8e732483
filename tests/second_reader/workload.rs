//! Stores made by random calls of the public API, with crashes and power failures between the processes.
//!
//! Never here: what a call must return. Equal seeds give equal stores.

use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::open;
use millpond::simulation::{Fault, PowerOutcome, Rng, SimClock, SimDisk};
use millpond::{
    Backoff, Delivery, Durability, Expected, Group, Message, Ordering, Position, Result, Seek, Store, Topic,
    WhilePending,
};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const NOW: Duration = Duration::ZERO;
const PROCESSES: usize = 10;
const CALLS: u64 = 60;
const WALL: WallMs = WallMs(1_800_000_000_000);

/// A process with the store open.
struct Process<'a> {
    rng: &'a mut Rng,
    clock: &'a SimClock,
    store: Store,
    held: Vec<Delivery>,
}

/// What the machine has after each process, with what ended it.
pub fn stores(seed: u64) -> Vec<(String, SimDisk)> {
    let (disk, clock, mut rng) = (SimDisk::new(seed), Arc::new(SimClock::new(WALL)), Rng::new(seed));
    let mut made = Vec::new();
    for number in 0..PROCESSES {
        clock.advance(1_000);
        let ended = process(&disk, &clock, &mut rng);
        disk.clear_faults();
        made.push((format!("store {seed} after process {number}, {ended}"), disk.snapshot()));
    }
    made
}

/// One process, from opening the store to its end. Some die within a request to the disk, while they open the store or later.
fn process(disk: &SimDisk, clock: &Arc<SimClock>, rng: &mut Rng) -> &'static str {
    if rng.chance(2, 5) {
        let soon = if rng.coin() { 30 } else { 300 };
        let faults = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter];
        disk.fail_at(disk.requests() + rng.below(soon), faults[rng.index(faults.len())]);
    }
    let level = if rng.coin() { Durability::Disk } else { Durability::Os };
    let opened = open(disk, clock, level);
    let Ok(store) = opened else {
        disk.crash_process();
        return "killed while it opened the store";
    };
    let calls = rng.below(CALLS);
    let mut process = Process { rng: &mut *rng, clock, store, held: Vec::new() };
    for _ in 0..calls {
        // Where the process is dead, every further call fails; other errors are part of the game.
        let _refused = process.call();
    }
    let Process { store, held, .. } = process;
    let ended = match rng.below(3) {
        0 => {
            disk.crash_process();
            "killed"
        }
        1 => {
            let outcomes = [
                PowerOutcome::LoseAll,
                PowerOutcome::RandomSectors,
                PowerOutcome::Torn,
                PowerOutcome::KeepAll,
                PowerOutcome::Garbage,
            ];
            disk.crash_power(outcomes[rng.index(outcomes.len())]);
            "without power"
        }
        _ if store.close().is_ok() => "closed",
        _ => {
            disk.crash_process();
            "killed while it closed the store"
        }
    };
    drop((store, held));
    ended
}

impl Process<'_> {
    fn topic(&mut self) -> Result<Topic> {
        let number = self.rng.below(3) as u32;
        // Of the three windows one is small, one is short, and one is as it comes.
        let builder = self.store.topic(format!("topic {number}")).partitions(number + 1);
        let builder = match number {
            0 => builder.dedup_ids(3),
            1 => builder.dedup_window(Duration::from_secs(2)),
            _ => builder,
        };
        if number == 2 { builder.streams().snapshots_kept(2).open() } else { builder.open() }
    }

    fn group(&mut self) -> Result<(Topic, Group)> {
        let (topic, number) = (self.topic()?, self.rng.below(4) as u32);
        let ms = Duration::from_millis;
        let backoff = [
            Backoff::exponential(ms(50)),
            Backoff::linear(ms(50)).max(ms(120)),
            Backoff::list(&[ms(20), ms(900), ms(70)]).full_jitter(),
            Backoff::exponential(ms(50)).full_jitter(),
        ][number as usize];
        // Each number has an order of its own.
        let (ordering, in_flight) =
            [(Ordering::None, 1), (Ordering::Key, 1), (Ordering::Key, 2), (Ordering::Partition, 2)][number as usize];
        let builder = topic.group(format!("group {number}")).max_attempts(number).backoff(backoff).ordering(ordering);
        let builder = if number > 0 { builder.max_in_flight_per_key(in_flight) } else { builder };
        let group = match builder.visibility_timeout(Duration::from_secs(5)).open() {
            Ok(group) => group,
            // It was altered.
            Err(_) => topic.group(format!("group {number}")).open()?,
        };
        if self.rng.chance(1, 6) {
            let rate = millpond::RateLimit::new(1 + self.rng.below(9) as u32, ms(100));
            group
                .alter()
                .max_in_flight(self.rng.below(4) as u32)
                .rate_limit(Some(rate).filter(|_| self.rng.coin()))
                .apply()?;
            group.pause()?;
            if self.rng.chance(3, 4) {
                group.resume()?;
            }
        }
        if self.rng.chance(1, 5) {
            let limit = self.rng.below(3) as u32;
            group.alter().max_nacks(limit).max_expiries(self.rng.below(3) as u32).max_crashes(limit).apply()?;
        }
        if self.rng.chance(1, 4) {
            let notices = if self.rng.coin() { Some(self.topic()?) } else { None };
            group.alter().dead_letter_notices(notices.as_ref()).apply()?;
        }
        Ok((topic, group))
    }

    fn message(&mut self) -> Message<'static> {
        let len = [0, 3, 40, 600, 3_000][self.rng.index(5)];
        let mut message = Message::new(self.rng.next_u64().to_le_bytes().repeat(len / 8 + 1)[..len].to_vec());
        if self.rng.coin() {
            message = message.key(format!("key {}", self.rng.below(9)));
        }
        if self.rng.chance(1, 4) {
            message = message.header("type", "order").header("empty", Vec::new());
        }
        message
    }

    fn call(&mut self) -> Result<()> {
        match self.rng.below(33) {
            27..30 => self.schedule()?,
            20 => self.publish_with_ids()?,
            30..33 => self.publish_unique()?,
            21 => self.publish_numbered()?,
            22..24 => self.named_cursor()?,
            24 => self.topic_cursor()?,
            25..27 => self.stream()?,
            0..6 => {
                let (topic, count) = (self.topic()?, self.rng.below(4));
                let messages: Vec<_> = (0..count).map(|_| self.message()).collect();
                topic.publish_batch(messages)?;
            }
            6..9 => {
                let count = 1 + self.rng.index(5);
                let taken = self.group()?.1.receive_batch(count, NOW)?;
                self.held.extend(taken);
            }
            9..14 => self.settle()?,
            14 => self.clock.advance([100, 3_000, 20_000][self.rng.index(3)]),
            15 => {
                self.clock.set_wall(WallMs(WALL.0 + self.rng.below(1 << 30)));
                self.store.tick()?;
            }
            16 => self.dead_letters()?,
            17 => {
                self.store.sync()?;
                self.store.tick()?;
            }
            18 => self.store.checkpoint()?,
            _ => self.change()?,
        }
        Ok(())
    }

    /// Publishes some for later, or changes when one is due.
    fn schedule(&mut self) -> Result<()> {
        let (topic, known) = (self.topic()?, self.rng.below(4));
        if known > 0 {
            let message = self.message();
            let message = match self.rng.below(3) {
                0 => message.deliver_at(UNIX_EPOCH + Duration::from_millis(WALL.0 + self.rng.below(1 << 30))),
                _ => message.delay(Duration::from_millis(self.rng.below(30_000))),
            };
            let with_id = self.rng.chance(1, 3);
            let message = if with_id { message.dedup_id(format!("id {}", self.rng.below(12))) } else { message };
            return topic.publish_batch([message, self.message()]).map(drop);
        }
        let scheduled = topic.scheduled(None, 8)?;
        let Some(one) = scheduled.get(self.rng.index(8)) else { return Ok(()) };
        match self.rng.below(3) {
            0 => topic.cancel_scheduled(one.id),
            1 => topic.reschedule_in(one.id, Duration::from_millis(self.rng.below(10_000))),
            _ => topic.reschedule_at(one.id, UNIX_EPOCH + Duration::from_millis(WALL.0 + self.rng.below(1 << 30))),
        }
    }

    fn stream(&mut self) -> Result<()> {
        let topic = self.store.topic("topic 2").partitions(3).streams().snapshots_kept(2).open()?;
        let stream = topic.stream(format!("key {}", self.rng.below(3)))?;
        let next = stream.last_version()?.map_or(0, |last| last + 1);
        match self.rng.below(8) {
            0 => stream.truncate_before(self.rng.below(next + 2)),
            1 => stream.delete(),
            2..5 => stream.save_snapshot(self.rng.below(next + 1), vec![7; self.rng.index(2_000)]),
            _ => stream.append(Expected::Any, (0..1 + self.rng.below(3)).map(|_| Message::new("event"))).map(drop),
        }
    }

    /// Few ids, so that many are there again: with the same bytes, or with others.
    fn publish_with_ids(&mut self) -> Result<()> {
        let topic = self.topic()?;
        let count = 1 + self.rng.index(4);
        let one = |rng: &mut Rng| {
            let id = rng.below(12);
            let other = if rng.chance(1, 8) { "other" } else { "same" };
            Message::new(format!("{other} {id}")).partition(0).dedup_id(format!("id {id}"))
        };
        let messages: Vec<_> = (0..count).map(|_| one(self.rng)).collect();
        topic.publish_batch(messages)?;
        Ok(())
    }

    /// Few keys, so that many are taken.
    fn publish_unique(&mut self) -> Result<()> {
        let topic = self.topic()?;
        let whiles = [WhilePending::Reject, WhilePending::Replace, WhilePending::Replace, WhilePending::ReturnExisting];
        let (key, while_pending) = (format!("key {}", self.rng.below(4)), whiles[self.rng.index(4)]);
        let message = self.message().unique_key(key, while_pending);
        let is_later = self.rng.chance(1, 3);
        topic.publish(if is_later { message.delay(Duration::from_millis(self.rng.below(9_000))) } else { message })?;
        Ok(())
    }

    fn publish_numbered(&mut self) -> Result<()> {
        let producer = self.topic()?.producer(format!("producer {}", self.rng.below(3)))?;
        let next = producer.next_sequence()?;
        producer.publish(next.saturating_sub(self.rng.below(2)), self.message())?;
        Ok(())
    }

    fn named_cursor(&mut self) -> Result<()> {
        let cursor = self.store.cursor(format!("cursor {}", self.rng.below(4)))?;
        if self.rng.chance(1, 4) {
            return cursor.remove();
        }
        let before = cursor.get()?;
        let len = [0, 1, 200][self.rng.index(3)];
        cursor.set(before.as_deref(), vec![self.rng.next_u64() as u8; len])
    }

    fn topic_cursor(&mut self) -> Result<()> {
        let topic = self.topic()?;
        let cursor = topic.cursor(format!("reader of {}", topic.name()))?;
        let mut reader = topic.reader().open()?;
        let mut to: Option<Position> = None;
        for _ in 0..self.rng.below(6) {
            to = reader.try_next()?.map(|message| message.position()).or(to);
        }
        match to {
            Some(to) => cursor.advance(cursor.position()?, to),
            None => cursor.remove(),
        }
    }

    fn settle(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let delivery = self.held.swap_remove(self.rng.index(self.held.len()));
        match self.rng.below(7) {
            0 => delivery.nack("again"),
            1 => delivery.nack_after(NOW, format!("at once, {}", self.rng.next_u64())),
            2 => delivery.nack_after(Duration::from_secs(self.rng.below(100_000)), "later"),
            3 => delivery.reject("never"),
            4 => delivery.release(),
            5 => delivery.extend(Duration::from_secs(60)).map(|()| self.held.push(delivery)),
            _ => delivery.ack(),
        }
    }

    fn dead_letters(&mut self) -> Result<()> {
        let (_, group) = self.group()?;
        let to = self.topic()?;
        for letter in group.dead_letters()?.take(3) {
            let letter = letter?;
            match self.rng.below(3) {
                0 => letter.redrive()?,
                1 => letter.redrive_to(&to)?,
                _ => letter.discard()?,
            }
        }
        Ok(())
    }

    fn seek(&mut self, topic: &Topic, group: &Group) -> Result<()> {
        let to = match self.rng.below(4) {
            0 => Seek::Earliest,
            1 => Seek::Latest,
            2 => Seek::Time(UNIX_EPOCH + Duration::from_millis(WALL.0 + self.rng.below(1 << 17))),
            _ => match topic.reader().open()?.try_next()? {
                Some(first) => Seek::Position(first.position()),
                None => Seek::Earliest,
            },
        };
        group.seek(to).map(drop)
    }

    fn change(&mut self) -> Result<()> {
        let (topic, group) = self.group()?;
        match self.rng.below(9) {
            0 => topic.remove_group(group.name()),
            1 => self.store.remove_topic(topic.name()),
            2..5 => self.seek(&topic, &group),
            _ => group.alter().max_attempts(1 + self.rng.below(4) as u32).apply(),
        }
    }
}
