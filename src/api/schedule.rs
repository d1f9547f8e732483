//! What is scheduled in a topic, and changing it.
//!
//! Never here: when a message is due.

use super::message::later_at;
use super::{Durability, Topic, millis};
use crate::engine::{Later, ScheduledAt};
use crate::error::Result;
use crate::ids::MessageId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message that was published for later ([`Message::delay`](crate::Message::delay)) and is not due yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduledMessage {
    /// What the receipt of its publish said.
    pub id: MessageId,
    /// When it is due, by the wall clock.
    pub due: SystemTime,
    /// The partition of the topic that it goes to then.
    pub partition: u32,
}

impl Topic {
    /// At most `max` messages of the topic that are not due yet, in the order in which they were published, behind the one with the ID
    /// `after`; 4,096 in one call.
    ///
    /// A store opened at `Durability::Disk` shows what is durable. What is due and did not move yet is among them.
    ///
    /// # Errors
    /// `InvalidOption` where `after` is the ID of another message than a scheduled one of the topic; `Removed`; the store's.
    pub fn scheduled(&self, after: Option<MessageId>, max: usize) -> Result<Vec<ScheduledMessage>> {
        let found = self.inner().shared.engine.scheduled(self.inner().info.id, after, max)?;
        let of = |ScheduledAt { id, due, partition }| ScheduledMessage {
            id,
            due: UNIX_EPOCH + Duration::from_millis(due.0),
            partition,
        };
        Ok(found.into_iter().map(of).collect())
    }

    /// Takes back a message that is not due yet: no consumer gets it. On return that is durable at the handle's level.
    ///
    /// # Errors
    /// `NotScheduled` where it has moved to its partition, or was cancelled before; `Removed`; the store's. Nothing was changed then, except by `OutcomeUnknown`.
    pub fn cancel_scheduled(&self, id: MessageId) -> Result<()> {
        self.change_schedule(id, None)
    }

    /// Lets a message that is not due yet be due this long from now: ten years at most.
    ///
    /// # Errors
    /// `InvalidOption`; else as [`Topic::cancel_scheduled`].
    pub fn reschedule_in(&self, id: MessageId, delay: Duration) -> Result<()> {
        self.change_schedule(id, Some(Later::In(millis("delay", delay)?)))
    }

    /// Lets a message that is not due yet be due at this time, ten years from now at most. A time that has passed is now.
    ///
    /// # Errors
    /// `InvalidOption`; else as [`Topic::cancel_scheduled`].
    pub fn reschedule_at(&self, id: MessageId, time: SystemTime) -> Result<()> {
        let later = later_at(time, self.inner().shared.engine.wall())?;
        self.change_schedule(id, Some(later.unwrap_or(Later::In(0))))
    }

    fn change_schedule(&self, id: MessageId, later: Option<Later>) -> Result<()> {
        let engine = &self.inner().shared.engine;
        let end = engine.reschedule(self.inner().info.id, id, later)?;
        if self.level() == Durability::Disk { engine.wait_durable(end) } else { Ok(()) }
    }
}
