//! A topic with a bound, beside the others: a publish is refused just when its group has too much that is not settled.
//!
//! Never here: topics whose messages the oracle follows.

use crate::history::Life;
use millpond::simulation::Rng;
use millpond::{Backoff, Durability, Error, Group, GroupStats, Message, Start, Topic, WhenFull};
use std::time::Duration;

const MAX: u64 = 6;

impl Life<'_> {
    /// Publishes some messages, or takes some and settles them, now and then badly.
    pub fn fill_bounded(&mut self, rng: &mut Rng) -> Result<(), String> {
        let [bounded, ring] = match self.bounded() {
            Ok(opened) => opened,
            Err(error) => return self.excuse("opening a topic with a bound", &error),
        };
        if rng.chance(1, 3) {
            let (_, of) = if rng.coin() { &ring } else { &bounded };
            self.take_bounded(of, rng)
        } else if rng.coin() {
            self.publish_to_ring(&ring.0, rng)
        } else {
            self.publish_bounded(&bounded.0, rng)
        }
    }

    /// A topic that refuses what is too much, and one that lets the oldest go.
    fn bounded(&self) -> Result<[(Topic, Group); 2], Error> {
        let open = |name: &str, when_full: WhenFull| {
            let topic = self.store.topic(name).partitions(2).max_messages(MAX).when_full(when_full).open()?;
            let backoff = Backoff::fixed(Duration::from_millis(10));
            let group = topic.group("slow").start(Start::Earliest).backoff(backoff).max_attempts(2).open()?;
            Ok((topic, group))
        };
        Ok([open("bounded", WhenFull::Reject)?, open("ring", WhenFull::DropOldest)?])
    }

    /// How many messages the group has not settled; `None` of a store that is dead.
    fn group_stats(&self, name: &str) -> Option<GroupStats> {
        let stats = self.store.stats().ok()?;
        stats.topics.into_iter().find(|topic| topic.name == name)?.groups.into_iter().next()
    }

    /// It takes whatever comes, and drops just what is too much and was never looked at.
    fn publish_to_ring(&mut self, topic: &Topic, rng: &mut Rng) -> Result<(), String> {
        let Some(before) = self.group_stats("ring") else { return Ok(()) };
        let count = 1 + rng.below(4);
        let over = (before.lag + count).saturating_sub(MAX);
        match topic.publish_batch((0..count).map(|number| Message::new(number.to_le_bytes()))) {
            Ok(_) => {
                let Some(after) = self.group_stats("ring") else { return Ok(()) };
                self.tally.count_if(over > 0, "messages dropped for want of room");
                if (after.dropped, after.lag) != (before.dropped + over, before.lag + count - over) {
                    return Err(format!("{count} were published, {before:?} became {after:?} (B10)"));
                }
                Ok(())
            }
            // Of those that count as ready some may have been leased before, and stay.
            Err(Error::TopicFull { max: MAX, .. }) if over > 0 => Ok(()),
            Err(error) => self.excuse("a publish to a topic that drops", &error),
        }
    }

    fn publish_bounded(&mut self, topic: &Topic, rng: &mut Rng) -> Result<(), String> {
        let Some(lag) = self.group_stats("bounded").map(|stats| stats.lag) else { return Ok(()) };
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
