//! A topic with a bound, beside the others: a publish is refused just when its group has too much that is not settled.
//!
//! Never here: topics whose messages the oracle follows.

use crate::history::Life;
use millpond::simulation::Rng;
use millpond::{Backoff, Durability, Error, Group, Message, Start, Topic};
use std::time::Duration;

const MAX: u64 = 6;

impl Life<'_> {
    /// Publishes some messages, or takes some and settles them, now and then badly.
    pub fn fill_bounded(&mut self, rng: &mut Rng) -> Result<(), String> {
        let (topic, group) = match self.bounded() {
            Ok(opened) => opened,
            Err(error) => return self.excuse("opening a topic with a bound", &error),
        };
        if rng.chance(1, 3) { self.take_bounded(&group, rng) } else { self.publish_bounded(&topic, rng) }
    }

    fn bounded(&self) -> Result<(Topic, Group), Error> {
        let topic = self.store.topic("bounded").partitions(2).max_messages(MAX).open()?;
        let backoff = Backoff::fixed(Duration::from_millis(10));
        let group = topic.group("slow").start(Start::Earliest).backoff(backoff).max_attempts(2).open()?;
        Ok((topic, group))
    }

    /// How many messages the group has not settled; `None` of a store that is dead.
    fn bounded_lag(&self) -> Option<u64> {
        let stats = self.store.stats().ok()?;
        stats.topics.iter().find(|topic| topic.name == "bounded")?.groups.first().map(|group| group.lag)
    }

    fn publish_bounded(&mut self, topic: &Topic, rng: &mut Rng) -> Result<(), String> {
        let Some(lag) = self.bounded_lag() else { return Ok(()) };
        let count = 1 + rng.below(4);
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let messages = (0..count).map(|number| Message::new(number.to_le_bytes()));
        match topic.with_durability(level).publish_batch(messages) {
            Ok(_) if lag + count > MAX => Err(format!("{count} messages were published with {lag} of {MAX} (B1)")),
            Ok(_) => Ok(()),
            Err(Error::TopicFull { max: MAX, .. }) if lag + count > MAX => {
                self.tally.count("publishes to a full topic");
                Ok(())
            }
            Err(error) => self.excuse("a publish to a topic with a bound", &error),
        }
    }

    fn take_bounded(&mut self, group: &Group, rng: &mut Rng) -> Result<(), String> {
        match group.receive_batch(1 + rng.index(4), Duration::ZERO) {
            Ok(batch) if rng.chance(1, 4) => drop(batch),
            Ok(batch) => {
                if let Err(error) = batch.ack() {
                    return self.excuse("an ack in a topic with a bound", &error);
                }
            }
            Err(error) => return self.excuse("a receive in a topic with a bound", &error),
        }
        Ok(())
    }
}
