//! Inboxes in the store: topics whose dedup ids are events.
//!
//! Two memories, each within the bounds that the subscriber gives: which message brought an event first, written before its handler
//! runs; and which events were processed, written together with what their handlers did. The ids are what is remembered. Nobody reads
//! the messages: a group of the topic settles them, so that they leave the disk.

use crate::transport::{Claim, Inbox, TransportError, TransportErrorKind};
use millpond::{Durability, Error, Group, Message, Store, Topic};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The group of a memory's topic.
const GROUP: &str = "memory";
const CLAIMED: &str = ".inbox";
const PROCESSED: &str = ".processed";
/// After how many messages they are settled, and how many at once.
const SETTLE_EVERY: u32 = 1_024;
/// How often as many are settled then at most: what an earlier process left goes too.
const SETTLES_MAX: usize = 4;

/// Whether the group is that of a memory, which has no consumer to be watched.
#[cfg(feature = "metrics")]
pub(crate) fn is_memory(topic: &str, group: &str) -> bool {
    group == GROUP && (topic.ends_with(CLAIMED) || topic.ends_with(PROCESSED))
}

/// A topic whose dedup ids are remembered.
pub(crate) struct Memory {
    topic: Topic,
    group: Group,
    unsettled: AtomicU32,
}

impl Memory {
    /// Which message brought each event to a group of this topic.
    pub(crate) fn of_claims(store: &Store, topic: &Topic, group: &str, size: Size) -> Result<Self, TransportError> {
        Self::open(store, &format!("{}.{group}{CLAIMED}", topic.name()), size)
    }

    /// Which events a group of this topic has processed.
    pub(crate) fn of_processed(store: &Store, topic: &Topic, group: &str, size: Size) -> Result<Self, TransportError> {
        Self::open(store, &format!("{}.{group}{PROCESSED}", topic.name()), size)
    }

    fn open(store: &Store, name: &str, (ids, window): Size) -> Result<Self, TransportError> {
        let topic = store.topic(name).dedup_ids(ids).dedup_window(window).open()?;
        let group = topic.group(GROUP).max_attempts(0).open()?;
        Ok(Self { topic, group, unsettled: AtomicU32::new(0) })
    }

    pub(crate) const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Notes that a message was added, and settles what there is now and then.
    pub(crate) fn note_added(&self) {
        if self.unsettled.fetch_add(1, Ordering::Relaxed) != SETTLE_EVERY {
            return;
        }
        self.unsettled.store(0, Ordering::Relaxed);
        for _ in 0..SETTLES_MAX {
            let settled = self.group.receive_batch(SETTLE_EVERY as usize, Duration::ZERO).and_then(|batch| {
                let count = batch.len();
                batch.ack().map(|_| count)
            });
            // What could not be settled is, the next time.
            if !settled.is_ok_and(|count| count == SETTLE_EVERY as usize) {
                return;
            }
        }
    }
}

/// How many ids are remembered, and for how long.
pub(crate) type Size = (u32, Duration);

/// Each event's id is published once: its message is the name of the message that brought the event. A second publish of the same bytes
/// is the first message again; of other bytes, another message with the same event.
pub(crate) struct EmbeddedInbox {
    memory: Memory,
    topic: Topic,
}

impl EmbeddedInbox {
    pub(crate) fn new(memory: Memory) -> Self {
        let topic = memory.topic().with_durability(Durability::Os);
        Self { memory, topic }
    }
}

impl Inbox for EmbeddedInbox {
    fn claim(&self, event: &str, message: &str) -> Result<Claim, TransportError> {
        match self.topic.publish(Message::new(message).dedup_id(event)) {
            Ok(receipt) => {
                if !receipt.is_repeat() {
                    self.memory.note_added();
                }
                Ok(Claim::Held)
            }
            Err(Error::DedupConflict { .. }) => Ok(Claim::Duplicate),
            Err(error @ (Error::TooLarge { .. } | Error::InvalidOption { .. })) => {
                Err(TransportError::new(TransportErrorKind::FixCall, error))
            }
            // The store's limits and a removed topic are no fault of the event.
            Err(error @ (Error::LimitReached { .. } | Error::Removed { .. })) => {
                Err(TransportError::new(TransportErrorKind::Retry, error))
            }
            Err(error) => Err(error.into()),
        }
    }
}
