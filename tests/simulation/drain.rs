//! The last check of a store: whatever every group still has is taken, and held against what was promised.

use crate::history::{Life, key};
use crate::oracle::Oracle;
use crate::removal::filter_of;
use millpond::simulation::Rng;
use millpond::{Error, MessageId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn failed(what: &str, error: &Error) -> String {
    format!("{what} failed while draining: {error}")
}

impl Life<'_> {
    /// Appends a little more (F07), and takes everything that every group still has, by origin; each message once.
    pub fn drain(&mut self, oracle: &mut Oracle) -> Result<(), String> {
        let mut rng = Rng::new(oracle.end);
        for count in [1, 2] {
            self.publish(oracle, &mut rng, count, false)?;
        }
        for _ in 0..3 {
            self.read_log(oracle, &mut rng)?;
        }
        for group in 0..self.groups.len() {
            self.drain_group(oracle, group)?;
        }
        self.check_notices(oracle)
    }

    fn drain_group(&mut self, oracle: &mut Oracle, group: usize) -> Result<(), String> {
        let mut got = BTreeMap::new();
        let mut quiet = 0;
        while quiet < 8 {
            let received = self.groups[group].receive_batch(64, Duration::ZERO);
            let batch = received.map_err(|error| failed("a receive", &error))?;
            if let Some(error) = batch.unreadable().first() {
                return Err(failed("reading a message", error));
            }
            if batch.is_empty() {
                quiet += 1;
                // Past every delay and every lease that a dead process left.
                self.clock.advance(5_000);
                self.store.tick().map_err(|error| failed("a job", &error))?;
                continue;
            }
            for delivery in &batch {
                let number = oracle.name(delivery.origin(), delivery.payload())?;
                let key = key(group, delivery);
                let is_moved = oracle.moved.contains(&key) || oracle.is_doubled(&key);
                if got.insert(delivery.origin(), number).is_some() && !is_moved {
                    return Err(format!("{} came twice to group {group} (G6)", delivery.origin()));
                }
                let end = self.log().map_or(0, |(end, _)| end);
                oracle.attempt((group, delivery.id()), delivery.attempt(), end)?;
            }
            let lost = batch.ack().map_err(|error| failed("an ack", &error))?;
            if !lost.is_empty() {
                return Err(format!("{lost:?} were lost between lease and ack (G8)"));
            }
        }
        let mut dead = BTreeSet::<MessageId>::new();
        for letter in self.groups[group].dead_letters().map_err(|error| failed("listing dead letters", &error))? {
            let letter = letter.map_err(|error| failed("a dead letter", &error))?;
            oracle.name(letter.origin(), letter.payload())?;
            let key = (group, letter.origin());
            if !dead.insert(letter.origin()) && !oracle.moved.contains(&key) && !oracle.is_doubled(&key) {
                return Err(format!("two dead letters of {} (G10)", letter.origin()));
            }
        }
        let (topic, attempts) = self.plan.groups[group];
        oracle.check_drained(group, (topic, filter_of(attempts).is_some()), &got, &dead)
    }
}
