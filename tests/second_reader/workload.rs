//! Stores made by random calls of the public API, with crashes and power failures between the processes.
//!
//! Never here: what a call must return. Equal seeds give equal stores.

use millpond::ids::WallMs;
use millpond::simulation::fuzzing::open;
use millpond::simulation::{PowerOutcome, Rng, SimClock, SimDisk};
use millpond::{Backoff, Delivery, Durability, Group, Message, Store, Topic};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const PROCESSES: usize = 6;
const CALLS: usize = 60;
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
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let store = open(&disk, &clock, level).unwrap();
        let mut process = Process { rng: &mut rng, clock: &clock, store, held: Vec::new() };
        for _ in 0..CALLS {
            process.call();
        }
        let Process { store, held, .. } = process;
        let ended = match rng.below(4) {
            0 => {
                disk.crash_process();
                "killed"
            }
            1 => {
                let outcomes =
                    [PowerOutcome::LoseAll, PowerOutcome::RandomSectors, PowerOutcome::Torn, PowerOutcome::KeepAll];
                disk.crash_power(outcomes[rng.index(outcomes.len())]);
                "without power"
            }
            _ => {
                store.close().unwrap();
                "closed"
            }
        };
        drop((store, held));
        made.push((format!("store {seed} after process {number}, {ended}"), disk.snapshot()));
    }
    made
}

impl Process<'_> {
    fn topic(&mut self) -> Topic {
        let number = self.rng.below(3) as u32;
        self.store.topic(format!("topic {number}")).partitions(number + 1).open().unwrap()
    }

    fn group(&mut self) -> (Topic, Group) {
        let (topic, number) = (self.topic(), self.rng.below(3) as u32);
        let backoff = Backoff::exponential(Duration::from_millis(50));
        let builder = topic.group(format!("group {number}")).max_attempts(number).backoff(backoff);
        let group = match builder.visibility_timeout(Duration::from_secs(5)).open() {
            Ok(group) => group,
            // It was altered.
            Err(_) => topic.group(format!("group {number}")).open().unwrap(),
        };
        (topic, group)
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

    /// One call. What the engine refuses, it refuses.
    fn call(&mut self) {
        match self.rng.below(20) {
            0..6 => {
                let (topic, count) = (self.topic(), self.rng.below(4));
                let messages: Vec<_> = (0..count).map(|_| self.message()).collect();
                topic.publish_batch(messages).unwrap();
            }
            6..9 => {
                let count = 1 + self.rng.index(5);
                let taken = self.group().1.receive_batch(count, NOW).unwrap();
                self.held.extend(taken);
            }
            9..14 => self.settle(),
            14 => self.clock.advance([100, 3_000, 20_000][self.rng.index(3)]),
            15 => {
                self.clock.set_wall(WallMs(WALL.0 + self.rng.below(1 << 30)));
                self.store.tick().unwrap();
            }
            16 => self.letters(),
            17 => {
                self.store.sync().unwrap();
                self.store.tick().unwrap();
            }
            18 => self.store.checkpoint().unwrap(),
            _ => self.change(),
        }
    }

    fn settle(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let delivery = self.held.swap_remove(self.rng.index(self.held.len()));
        // The lease may have ended meanwhile.
        let _lost = match self.rng.below(7) {
            0 => delivery.nack("again"),
            1 => delivery.nack_after(NOW, format!("at once, {}", self.rng.next_u64())),
            2 => delivery.nack_after(Duration::from_secs(self.rng.below(100_000)), "later"),
            3 => delivery.reject("never"),
            4 => delivery.release(),
            5 => delivery.extend(Duration::from_secs(60)).map(|()| self.held.push(delivery)),
            _ => delivery.ack(),
        };
    }

    fn letters(&mut self) {
        let (_, group) = self.group();
        let to = self.topic();
        for letter in group.dead_letters().unwrap().map(Result::unwrap).take(3) {
            // One may have been sent to topics as often as it may.
            let _refused = match self.rng.below(3) {
                0 => letter.redrive(),
                1 => letter.redrive_to(&to),
                _ => letter.discard(),
            };
        }
    }

    fn change(&mut self) {
        let (topic, group) = self.group();
        match self.rng.below(6) {
            0 => topic.remove_group(group.name()).unwrap(),
            1 => self.store.remove_topic(topic.name()).unwrap(),
            _ => group.alter().max_attempts(1 + self.rng.below(4) as u32).apply().unwrap(),
        }
    }
}
