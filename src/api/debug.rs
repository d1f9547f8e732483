//! `{:?}` of the public types: short, and useful in a log line.
//!
//! Each shows names, ids and counts. None shows bytes of a message, walks over a state, or takes a lock; so each has a bounded length
//! and can be called anywhere.

use super::{
    Batch, BatchIter, BatchReceipt, Bytes, DeadLetter, DeadLetters, Delivery, DeliveryRef, Group, GroupBuilder,
    LogMessage, LogReader, LogReaderBuilder, Message, ObservedLog, Observer, Peek, Peeked, Receipt, Store,
    Subscription, Topic, TopicBuilder,
};
use std::fmt::{Debug, Formatter, Result};

/// Names are at most 255 bytes, but those given to a builder are not checked yet.
fn shown(name: &str) -> &str {
    let cut = (0..=255).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..cut).unwrap_or(name)
}

impl Debug for Store {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let shared = &self.shared;
        f.debug_struct("Store").field("path", &shared.engine.dir()).field("durability", &shared.level).finish()
    }
}

impl Debug for super::Cursor {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Cursor").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Debug for super::TopicCursor {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let topic = &self.topic.name();
        f.debug_struct("TopicCursor").field("topic", topic).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Debug for super::Producer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let topic = &self.topic.name();
        f.debug_struct("Producer").field("topic", topic).field("name", &self.name()).finish_non_exhaustive()
    }
}

#[cfg(feature = "async")]
mod futures {
    use super::super::{Deliveries, Durable, Publish, Receive, ReceiveBatch};
    use super::{Debug, Formatter, Result};

    /// A future by its name alone: what it waits for is known once it is ready.
    macro_rules! debug_by_name {
        ($($future:ident),*) => {
            $(impl Debug for $future {
                fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                    f.debug_struct(stringify!($future)).finish_non_exhaustive()
                }
            })*
        };
    }

    debug_by_name!(Receive, ReceiveBatch, Deliveries, Publish, Durable);
}

impl Debug for TopicBuilder {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("TopicBuilder").field("name", &shown(&self.name)).finish_non_exhaustive()
    }
}

impl Debug for Topic {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Topic")
            .field("name", &self.name())
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}

impl Debug for GroupBuilder {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let topic = &self.topic.name;
        f.debug_struct("GroupBuilder").field("topic", topic).field("name", &shown(&self.name)).finish_non_exhaustive()
    }
}

impl Debug for super::GroupChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("GroupChange").field("group", &self.group.name).finish_non_exhaustive()
    }
}

impl Debug for Group {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Group")
            .field("topic", &self.inner.topic.name)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Debug for super::Sleeper {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Sleeper").field("group", &self.group.name).finish_non_exhaustive()
    }
}

impl Debug for Subscription {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let group = &self.group;
        f.debug_struct("Subscription")
            .field("topic", &group.topic.name)
            .field("group", &group.name)
            .finish_non_exhaustive()
    }
}

impl Debug for LogReader {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("LogReader").field("topic", &self.topic.name).finish_non_exhaustive()
    }
}

impl Debug for LogReaderBuilder {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("LogReaderBuilder").field("topic", &self.topic.name).finish_non_exhaustive()
    }
}

impl Debug for LogMessage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("LogMessage")
            .field("topic", &self.topic())
            .field("id", &self.id().to_string())
            .field("position", &self.position().to_string())
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

impl Debug for Observer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Debug for ObservedLog {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("ObservedLog").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Debug for Peek {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Peek").finish_non_exhaustive()
    }
}

impl Debug for Peeked {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Peeked")
            .field("id", &self.id().to_string())
            .field("attempts", &self.attempts())
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

impl Debug for Delivery {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        delivery(DeliveryRef::from(self), "Delivery", f)
    }
}

impl Debug for DeliveryRef<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        delivery(*self, "DeliveryRef", f)
    }
}

impl Debug for super::KeepAlive {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (topic, group) = self.names();
        f.debug_struct("KeepAlive").field("topic", &topic).field("group", &group).finish_non_exhaustive()
    }
}

fn delivery(delivery: DeliveryRef<'_>, name: &str, f: &mut Formatter<'_>) -> Result {
    f.debug_struct(name)
        .field("topic", &delivery.topic())
        .field("group", &delivery.group())
        .field("id", &delivery.id().to_string())
        .field("attempt", &delivery.attempt())
        .field("payload_len", &delivery.payload().len())
        .finish_non_exhaustive()
}

impl Debug for Batch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let first = self.iter().next();
        f.debug_struct("Batch")
            .field("topic", &first.map(|first| first.topic()))
            .field("group", &first.map(|first| first.group()))
            .field("len", &self.len())
            .field("first", &first.map(|first| first.id().to_string()))
            .field("unreadable", &self.unreadable().len())
            .finish()
    }
}

impl Debug for BatchIter<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("BatchIter").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Debug for Receipt {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let id = self.id().to_string();
        f.debug_struct("Receipt").field("id", &id).field("lsn", &self.lsn()).field("level", &self.level()).finish()
    }
}

impl Debug for BatchReceipt {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("BatchReceipt")
            .field("len", &self.ids().len())
            .field("first", &self.ids().first().map(ToString::to_string))
            .field("last", &self.ids().last().map(ToString::to_string))
            .field("lsn", &self.lsn())
            .field("level", &self.level())
            .finish()
    }
}

impl Debug for DeadLetter {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("DeadLetter")
            .field("topic", &self.topic())
            .field("group", &self.group())
            .field("id", &self.id().to_string())
            .field("origin", &self.origin().to_string())
            .field("attempts", &self.attempts())
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

impl Debug for DeadLetters {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let group = &self.group;
        f.debug_struct("DeadLetters")
            .field("topic", &group.topic.name)
            .field("group", &group.name)
            .finish_non_exhaustive()
    }
}

impl Debug for Message<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Message")
            .field("payload_len", &self.payload.as_slice().len())
            .field("key_len", &self.key.as_ref().map(|key| key.as_slice().len()))
            .field("headers", &self.headers.len())
            .field("partition", &self.partition)
            .finish()
    }
}

impl Debug for Bytes<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Bytes").field("len", &self.as_slice().len()).finish()
    }
}

impl Debug for super::Transaction<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (published, settled) = self.counts();
        f.debug_struct("Transaction").field("published", &published).field("settled", &settled).finish_non_exhaustive()
    }
}

impl<T: Debug> Debug for super::Committed<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Committed")
            .field("value", &self.value)
            .field("messages", &self.ids().len())
            .field("lsn", &self.lsn())
            .finish_non_exhaustive()
    }
}
