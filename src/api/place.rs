//! Where a message goes: which partition of its topic, and whether at once or later.
//!
//! Never here: publishing.

use super::Message;
use super::message::Bytes;
use super::topic::{Topic, TopicInner};
use crate::engine::{Later, Outgoing, key_hash};
use crate::error::{Error, Result};
use crate::ids::{PartitionId, SCHEDULE_INDEX};
use crate::sync::atomic::Ordering;

/// Where a message goes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Of the partition in its topic.
    pub(super) index: u32,
    /// If not at once, by which hidden partition, and when.
    later: Option<(PartitionId, Later)>,
}

impl Place {
    /// At once.
    pub(super) const fn now(index: u32) -> Self {
        Self { index, later: None }
    }

    /// The partition of its id.
    pub(super) fn index(self) -> u64 {
        if self.later.is_some() { SCHEDULE_INDEX } else { u64::from(self.index) }
    }
}

impl Topic {
    /// Where a message goes, and when.
    #[inline]
    pub(super) fn place(&self, message: &Message<'_>) -> Result<Place> {
        let index = self.choose(message)?;
        if message.wanted.is_none() {
            return Ok(Place { index, later: None });
        }
        let wall = self.inner().shared.engine.wall();
        let later = message.later(wall)?.map(|later| Ok::<_, Error>((self.inner().schedule()?, later))).transpose()?;
        Ok(Place { index, later })
    }

    /// The partition, by index, for a message.
    #[inline]
    fn choose(&self, message: &Message<'_>) -> Result<u32> {
        let count = self.inner().info.partitions;
        match (message.partition, &message.key) {
            (Some(partition), _) if partition < count => Ok(partition),
            (Some(partition), _) => Err(Error::InvalidOption {
                option: "partition",
                value: partition.to_string(),
                expected: "below the topic's number of partitions",
            }),
            (None, _) if count == 1 => Ok(0),
            // seam: a key is ignored
            (None, Some(key)) => Ok(self.inner().partition_of_key(key.as_slice())),
            (None, None) => Ok(self.inner().next_in_turn()),
        }
    }

    #[inline]
    pub(super) fn add(&self, outgoing: &mut Outgoing, place: Place, message: &Message<'_>) -> Result<()> {
        let to = self.inner().info.first.nth(place.index);
        let partition = place.later.map_or(to, |(hidden, _)| hidden);
        let headers = message.headers.iter().map(|(name, value)| (&**name, value.as_slice()));
        let max = self.inner().shared.engine.setup().message_bytes_max;
        let key = message.key.as_ref().map(Bytes::as_slice);
        outgoing.add(partition, key, headers, message.payload.as_slice(), max)?;
        if let Some((_, later)) = place.later {
            outgoing.delay(to, later);
        }
        if let Some(id) = &message.dedup_id {
            outgoing.identify(self.inner().shared.engine.dedup(), self.inner().info.id, id.as_slice());
        }
        if let Some((unique, while_pending)) = &message.unique_key {
            let unique = self.inner().shared.engine.dedup().id(self.inner().info.id, unique.as_slice());
            outgoing.make_unique(unique, key, *while_pending);
        }
        Ok(())
    }
}

impl TopicInner {
    /// The hidden partition of messages for later.
    fn schedule(&self) -> Result<PartitionId> {
        let known = self.schedule.load(Ordering::Relaxed);
        if known != u64::MAX {
            return Ok(PartitionId(known));
        }
        let partition = self.shared.engine.open_schedule(self.info.id)?;
        self.schedule.store(partition.0, Ordering::Relaxed);
        Ok(partition)
    }

    pub(super) fn partition_of_key(&self, key: &[u8]) -> u32 {
        (key_hash(key) % u64::from(self.info.partitions)) as u32
    }

    pub(super) fn next_in_turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.info.partitions
    }
}
