//! What a user sees, as one line: deliveries, dead letters, numbers and errors, without epochs.

use millpond::TopicId;
use millpond::simulation::WallMs;
use millpond::{Cause, DeadLetter, Delivery, DeliveryRef, Error, Failure, GroupStats, MessageId, Topic};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names for the partitions that were met, so that an ID reads `orders/0@3`.
#[derive(Debug, Default)]
pub struct Names {
    partitions: BTreeMap<(TopicId, u64), String>,
    /// How many partitions each topic has. Those behind them belong to its groups.
    counts: BTreeMap<String, u64>,
}

impl Names {
    pub fn topic(&mut self, topic: &Topic) {
        self.counts.insert(topic.name().to_owned(), topic.partitions().into());
    }

    /// The name of a message that was published to this topic.
    pub fn published(&mut self, id: MessageId, topic: &str) -> String {
        match self.counts.get(topic) {
            Some(count) if id.partition >= *count => self.name(id, format!("{topic}/later")),
            _ => self.name(id, format!("{topic}/{}", id.partition)),
        }
    }

    fn name(&mut self, id: MessageId, partition: String) -> String {
        self.partitions.insert((id.topic, id.partition), partition);
        self.of(id)
    }

    pub fn of(&self, id: MessageId) -> String {
        match self.partitions.get(&(id.topic, id.partition)) {
            Some(partition) => format!("{partition}@{}", id.offset),
            None => "unknown message".to_owned(),
        }
    }

    /// A delivery. A redriven message has an ID of its own, and an origin.
    pub fn delivery(&mut self, delivery: DeliveryRef<'_>) -> String {
        let (id, origin) = (delivery.id(), delivery.origin());
        let is_public = self.counts.get(delivery.topic()).is_some_and(|count| id.partition < *count);
        let name = match is_public {
            true => self.published(id, delivery.topic()),
            false => self.name(id, format!("{}/redriven", delivery.group())),
        };
        let mut line = format!("{name}, attempt {}: {}", delivery.attempt(), payload(delivery.payload()));
        if let Some(key) = delivery.key() {
            line += &format!(" key={}", String::from_utf8_lossy(key));
        }
        if id != origin {
            line += &format!(", origin {}", self.of(origin));
        }
        line
    }

    /// The headers of a delivery, with names for IDs; a time in milliseconds is counted from `start`.
    pub fn headers(&self, delivery: &Delivery, start: WallMs) -> Vec<String> {
        let shown = |name: &str, text: &str| match (name.ends_with("-ms"), text.parse(), text.parse()) {
            (true, Ok(ms), _) => since(UNIX_EPOCH + Duration::from_millis(ms), start),
            (_, _, Ok(id)) => self.of(id),
            _ => text.to_owned(),
        };
        delivery
            .headers()
            .map(|(name, value)| format!("{name}: {}", shown(name, &String::from_utf8_lossy(value))))
            .collect()
    }

    /// A dead letter, with how each attempt ended and when, counted from `start`.
    pub fn dead_letter(&mut self, letter: &DeadLetter, start: WallMs) -> String {
        self.name(letter.id(), format!("{}/dead", letter.group()));
        let (origin, attempts) = (self.of(letter.origin()), letter.attempts());
        let mut line = format!("{origin}, attempts {attempts}: {}", payload(letter.payload()));
        for failure in letter.history() {
            line += &format!("; {}", attempt_end(failure, start));
        }
        line
    }

    /// An error: what to do about it, and its text with names for IDs.
    pub fn error(&self, error: &Error) -> String {
        let text = error.to_string();
        let words = text.split(' ').map(|word| {
            let bare = word.trim_end_matches([',', ';', ':']);
            match bare.parse() {
                Ok(id) => format!("{}{}", self.of(id), &word[bare.len()..]),
                Err(_) => word.to_owned(),
            }
        });
        format!("error: {:?} {}", error.kind(), words.collect::<Vec<_>>().join(" "))
    }
}

pub fn payload(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=64 => format!("{:?}", String::from_utf8_lossy(bytes)),
        len => format!("{len} bytes"),
    }
}

fn attempt_end(failure: &Failure, start: WallMs) -> String {
    let cause = match failure.cause {
        Cause::Nacked => "nacked",
        Cause::Expired => "expired",
        Cause::Crashed => "crashed",
        Cause::Closed => "closed",
        Cause::Rejected => "rejected",
        _ => "ended otherwise",
    };
    let text = if failure.text.is_empty() { String::new() } else { format!(" {:?}", failure.text) };
    format!("{cause} at {}{text}", since(failure.time, start))
}

/// A time of the wall clock, in seconds from `start`.
pub fn since(time: SystemTime, start: WallMs) -> String {
    let start = UNIX_EPOCH + Duration::from_millis(start.0);
    match time.duration_since(start) {
        Ok(after) => format!("{}s", after.as_secs_f64()),
        Err(before) => format!("-{}s", before.duration().as_secs_f64()),
    }
}

/// What a group has still to settle, by its numbers that are not zero.
pub fn stats(group: &GroupStats) -> String {
    let numbers = [
        ("ready", group.ready),
        ("leased", group.leased),
        ("waiting", group.waiting),
        ("exhausted", group.exhausted),
        ("parked", group.parked),
        ("dead", group.dead),
        ("filtered", group.since_open.filtered),
    ];
    let shown = numbers.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}, "));
    let paused = if group.paused { "paused, " } else { "" };
    paused.to_owned() + &shown.collect::<String>() + &format!("lag {}", group.lag)
}
