//! Inboxes in the store: topics without groups, whose dedup ids are events.
//!
//! Two memories, each within the bounds that the subscriber gives: which message brought an event first, written before its handler
//! runs; and which events were processed, written together with what their handlers did.

use crate::transport::{Claim, Inbox, TransportError, TransportErrorKind};
use millpond::{Durability, Error, Message, Store, Topic};
use std::time::Duration;

/// Each event's id is published once: its message is the name of the message that brought the event. A second publish of the same bytes
/// is the first message again; of other bytes, another message with the same event.
pub(crate) struct EmbeddedInbox(Topic);

impl EmbeddedInbox {
    /// That of a group of this topic.
    pub(crate) fn open(
        store: &Store,
        topic: &Topic,
        group: &str,
        ids: u32,
        window: Duration,
    ) -> Result<Self, TransportError> {
        let name = format!("{}.{group}.inbox", topic.name());
        let topic = store.topic(name).dedup_ids(ids).dedup_window(window).open()?;
        Ok(Self(topic.with_durability(Durability::Os)))
    }
}

/// The topic of the events that a group has processed.
pub(crate) fn open_processed(
    store: &Store,
    topic: &Topic,
    group: &str,
    ids: u32,
    window: Duration,
) -> Result<Topic, TransportError> {
    let name = format!("{}.{group}.processed", topic.name());
    Ok(store.topic(name).dedup_ids(ids).dedup_window(window).open()?)
}

impl Inbox for EmbeddedInbox {
    fn claim(&self, event: &str, message: &str) -> Result<Claim, TransportError> {
        match self.0.publish(Message::new(message).dedup_id(event)) {
            Ok(_) => Ok(Claim::Held),
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
