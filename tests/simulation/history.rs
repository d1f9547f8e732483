//! One process's life on the store: random operations, and what they tell the oracle.

use crate::oracle::{Key, Oracle, Sent, payload};
use millpond::simulation::Rng;
use millpond::simulation::SimClock;
use millpond::{Backoff, Delivery, Durability, Error, Group, Message, MessageId, Start, Store, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often each kind of operation comes: each seed has its own mixture.
#[derive(Clone, Debug)]
pub struct Weights([u64; OPERATIONS]);

const OPERATIONS: usize = 13;

impl Weights {
    /// Some kinds often, some seldom, some never.
    pub fn swarm(rng: &mut Rng) -> Self {
        let mut weights = std::array::from_fn(|_| [0, 1, 3, 10][rng.index(4)]);
        weights[0] += 2;
        weights[3] += 2;
        Self(weights)
    }

    fn pick(&self, rng: &mut Rng) -> usize {
        let mut left = rng.below(self.0.iter().sum());
        self.0
            .iter()
            .position(|weight| {
                left < *weight || {
                    left -= weight;
                    false
                }
            })
            .unwrap_or(0)
    }
}

/// What the store of a case holds: it outlives every process.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Partitions of each topic.
    pub topics: Vec<u32>,
    /// Topic of each group, and its attempts.
    pub groups: Vec<(usize, u32)>,
}

pub struct Life<'a> {
    pub store: Store,
    pub topics: Vec<Topic>,
    pub groups: Vec<Group>,
    held: Vec<(usize, Delivery)>,
    zombies: Vec<(usize, Delivery)>,
    plan: &'a Plan,
    clock: Arc<SimClock>,
}

/// A delivery's key for the oracle.
fn key(group: usize, delivery: &Delivery) -> Key {
    (group, delivery.origin())
}

impl<'a> Life<'a> {
    /// Opens what the plan says, creating what a crash did not leave.
    pub fn begin(store: Store, plan: &'a Plan, clock: Arc<SimClock>) -> Result<Self, Error> {
        let mut topics = Vec::new();
        for (index, partitions) in plan.topics.iter().enumerate() {
            topics.push(store.topic(format!("topic-{index}")).partitions(*partitions).open()?);
        }
        let mut groups = Vec::new();
        for (index, (topic, attempts)) in plan.groups.iter().enumerate() {
            let builder = topics[*topic].group(format!("group-{index}")).start(Start::Earliest).max_attempts(*attempts);
            let backoff = Backoff::exponential(Duration::from_millis(100)).max(Duration::from_secs(2));
            groups.push(builder.visibility_timeout(Duration::from_secs(5)).backoff(backoff).open()?);
        }
        Ok(Self { store, topics, groups, held: Vec::new(), zombies: Vec::new(), plan, clock })
    }

    /// One random operation. An error of the store ends the life; errors of the call do not.
    pub fn step(&mut self, oracle: &mut Oracle, weights: &Weights, rng: &mut Rng) -> Result<(), String> {
        match weights.pick(rng) {
            0 => self.publish(oracle, rng, 1)?,
            1 => {
                let count = 1 + rng.below(12);
                self.publish(oracle, rng, count)?;
            }
            2 | 3 => self.receive(oracle, rng)?,
            4 => self.ack(oracle, rng, false)?,
            5 => self.ack(oracle, rng, true)?,
            6 => self.settle_otherwise(rng),
            7 => self.clock.advance(rng.below(3_000)),
            8 => drop(self.store.tick()),
            9 => drop(self.store.sync()),
            10 => self.letters(oracle, rng)?,
            11 => self.clock.set_wall(millpond::ids::WallMs(1_700_000_000_000 + rng.below(1 << 40))),
            _ => {
                // Nobody settles these; they come back by their timeout.
                self.zombies.append(&mut self.held);
            }
        }
        self.note(oracle)
    }

    /// Tells the oracle where the log stands. A store that cannot say is dead.
    pub fn note(&self, oracle: &mut Oracle) -> Result<(), String> {
        let violations = self.store.violations();
        if !violations.is_empty() {
            return Err(format!("the state disagrees with itself: {violations:?}"));
        }
        match self.store.stats() {
            Ok(stats) => oracle.saw(stats.log.end.0, stats.log.durable.0),
            Err(_) => Ok(()),
        }
    }

    pub fn is_alive(&self) -> bool {
        self.store.stats().is_ok()
    }

    fn end(&self) -> u64 {
        self.store.stats().map_or(u64::MAX, |stats| stats.log.end.0)
    }

    fn publish(&mut self, oracle: &mut Oracle, rng: &mut Rng, count: u64) -> Result<(), String> {
        let topic = rng.index(self.topics.len());
        let numbers: Vec<u64> = (0..count).map(|n| oracle.next_number + n).collect();
        oracle.next_number += count;
        let messages = numbers.iter().map(|number| match rng.below(3) {
            0 => Message::new(payload(*number)),
            n => {
                Message::new(payload(*number)).key(format!("key-{}", number % (n * 3))).header("n", vec![*number as u8])
            }
        });
        let messages: Vec<Message> = messages.collect();
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let handle = self.topics[topic].with_durability(level);
        let published = if count == 1 && rng.coin() {
            handle.publish(messages[0].clone()).map(|receipt| vec![receipt.id()])
        } else {
            handle.publish_batch(messages).map(|receipt| receipt.ids().to_vec())
        };
        match published {
            Ok(ids) => {
                let end = self.end();
                if end == u64::MAX {
                    // It returned, and the store died in a background job before it could say where.
                    oracle.unsure.extend(numbers.into_iter().map(|number| (number, topic)));
                    return Ok(());
                }
                for (id, number) in ids.into_iter().zip(numbers) {
                    oracle.name(id, &payload(number))?;
                    oracle.sent.insert(id, Sent { number, topic, end });
                }
                if level == Durability::Disk {
                    let durable = self.store.stats().map_or(end, |stats| stats.log.durable.0);
                    if durable < end {
                        return Err(format!(
                            "a publish at Disk returned with the watermark at {durable}, below {end} (G1)"
                        ));
                    }
                }
            }
            Err(_) => oracle.unsure.extend(numbers.into_iter().map(|number| (number, topic))),
        }
        Ok(())
    }

    fn receive(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        let max = 1 + rng.index(9);
        let Ok(batch) = self.groups[group].receive_batch(max, Duration::ZERO) else { return Ok(()) };
        for delivery in batch {
            oracle.name(delivery.origin(), delivery.payload())?;
            oracle.name(delivery.id(), delivery.payload())?;
            let attempts = self.plan.groups[group].1;
            if attempts != 0 && delivery.attempt() > attempts + 1 {
                return Err(format!("attempt {} of {attempts} (G9)", delivery.attempt()));
            }
            if oracle.acked.contains_key(&key(group, &delivery)) && !oracle.moved.contains(&key(group, &delivery)) {
                return Err(format!("{} was delivered to group {group} after its ack (G6)", delivery.origin()));
            }
            self.held.push((group, delivery));
        }
        Ok(())
    }

    fn ack(&mut self, oracle: &mut Oracle, rng: &mut Rng, durable: bool) -> Result<(), String> {
        if self.held.is_empty() {
            return Ok(());
        }
        let (group, delivery) = self.held.swap_remove(rng.index(self.held.len()));
        let key = key(group, &delivery);
        let acked = if durable { delivery.ack_durable() } else { delivery.ack() };
        match acked {
            Ok(()) => match self.end() {
                u64::MAX => drop(oracle.maybe_acked.insert(key)),
                end => drop(oracle.acked.insert(key, end)),
            },
            Err(Error::LeaseLost { .. }) => {}
            Err(_) => drop(oracle.maybe_acked.insert(key)),
        }
        Ok(())
    }

    fn settle_otherwise(&mut self, rng: &mut Rng) {
        if self.held.is_empty() {
            return;
        }
        let (_, delivery) = self.held.swap_remove(rng.index(self.held.len()));
        let _ = match rng.below(5) {
            0 => delivery.nack("it failed"),
            1 => delivery.nack_after(Duration::from_millis(rng.below(4_000)), "later"),
            2 => delivery.reject("no good"),
            3 => delivery.extend(Duration::from_millis(rng.below(20_000))),
            _ => Ok(()),
        };
    }

    fn letters(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let group = rng.index(self.groups.len());
        let Ok(mut letters) = self.groups[group].dead_letters() else { return Ok(()) };
        let Some(Ok(letter)) = letters.next() else { return Ok(()) };
        oracle.name(letter.origin(), letter.payload())?;
        let key = (group, letter.origin());
        match rng.below(4) {
            0 => match letter.discard() {
                Ok(()) if self.end() != u64::MAX => drop(oracle.discarded.insert(key, self.end())),
                _ => drop(oracle.maybe_discarded.insert(key)),
            },
            1 => {
                let target = rng.index(self.topics.len());
                oracle.moved.extend((0..self.groups.len()).map(|group| (group, letter.origin())));
                drop(letter.redrive_to(&self.topics[target]));
            }
            2 => drop(letter.redrive()),
            _ => drop(self.groups[group].redrive_all()),
        }
        Ok(())
    }

    /// Takes everything that every group still has, by origin; each message once.
    pub fn drain(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        let fail = |what: &str, error: Error| format!("{what} while draining: {error}");
        for group in 0..self.groups.len() {
            let mut got = BTreeMap::new();
            let mut quiet = 0;
            while quiet < 12 {
                let batch =
                    self.groups[group].receive_batch(64, Duration::ZERO).map_err(|e| fail("a receive failed", e))?;
                if batch.is_empty() {
                    quiet += 1;
                    // Past every delay and every lease that a dead process left.
                    self.clock.advance(3_000);
                    self.store.tick().map_err(|e| fail("a tick failed", e))?;
                    continue;
                }
                for delivery in batch {
                    let number = oracle.name(delivery.origin(), delivery.payload())?;
                    let moved = oracle.moved.contains(&key(group, &delivery));
                    if got.insert(delivery.origin(), number).is_some() && !moved {
                        return Err(format!("{} came twice to group {group} (G6)", delivery.origin()));
                    }
                    delivery.ack().map_err(|e| fail("an ack failed", e))?;
                }
            }
            let mut dead = std::collections::BTreeSet::<MessageId>::new();
            for letter in self.groups[group].dead_letters().map_err(|e| fail("no letters", e))? {
                let letter = letter.map_err(|e| fail("a letter failed", e))?;
                oracle.name(letter.origin(), letter.payload())?;
                if !dead.insert(letter.origin()) && !oracle.moved.contains(&(group, letter.origin())) {
                    return Err(format!("two letters of {} (G10)", letter.origin()));
                }
            }
            oracle.check_drained(group, self.plan.groups[group].0, &got, &dead)?;
        }
        Ok(())
    }
}
