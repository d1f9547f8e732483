//! The commands of a scenario about messages for later. They are named by their places in the hidden partition.

use crate::script::Words;
use crate::session::{Refused, Reply, SILENT, START, Session};
use crate::show;
use millpond::{MessageId, Topic};
use std::time::{Duration, UNIX_EPOCH};

impl Session {
    pub(crate) fn with_schedule(&mut self, command: &str, words: &mut Words) -> Reply {
        let topic = self.topic(words)?;
        if command == "scheduled" {
            let all = topic.scheduled(None, 100)?;
            let line = |one: &millpond::ScheduledMessage| {
                format!("{} due at {}", self.names.published(one.id, topic.name()), show::since(one.due, START))
            };
            return Ok(all.iter().map(line).collect());
        }
        let id = find(&topic, words.number("which, from 0")?)?;
        match command {
            "cancel" => topic.cancel_scheduled(id)?,
            "reschedule_in" => topic.reschedule_in(id, words.duration()?)?,
            _ => topic.reschedule_at(id, UNIX_EPOCH + Duration::from_millis(START.0) + words.duration()?)?,
        }
        SILENT
    }
}

/// The ID of the message at this place of the hidden partition, whether it is scheduled or not.
fn find(topic: &Topic, offset: usize) -> Result<MessageId, Refused> {
    let text = topic.scheduled(None, 100)?.first().map(|one| one.id.to_string());
    let text = text.ok_or_else(|| Refused::ByScript("nothing is scheduled, so no ID is known".to_owned()))?;
    let mut parts: Vec<&str> = text.split('-').collect();
    let offset = offset.to_string();
    parts[2] = &offset;
    parts.join("-").parse().map_err(|_| Refused::ByScript("no ID".to_owned()))
}
