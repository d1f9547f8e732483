//! The public handles: [`Store`], [`Topic`], [`Group`], [`Delivery`] and what they take and give.
//!
//! Handles check names, sizes and options, and translate between the caller's words and the engine's. Never here: disk,
//! log, records, decisions about messages.

mod batch;
mod cursor;
mod dead_letter;
mod debug;
mod delivery;
#[cfg(feature = "async")]
mod futures;
mod group;
mod group_builder;
mod group_options;
mod log_reader;
mod message;
mod observer;
mod options;
mod outcome;
mod place;
mod projection;
mod receipt;
mod repair;
mod schedule;
mod seek;
mod snapshot;
mod store;
mod stream;
mod subscription;
mod topic;
mod topic_builder;
mod transaction;
mod transaction_streams;

pub use batch::{Batch, BatchIntoIter, BatchIter, DeliveryRef, LostLeases};
pub use cursor::{Cursor, Producer, TopicCursor};
pub use dead_letter::{Cause, DeadLetter, DeadLetters, Failure};
pub use delivery::{Delivery, KeepAlive};
#[cfg(feature = "async")]
pub use futures::{Deliveries, Durable, Publish, Receive, ReceiveBatch};
pub use group::Group;
#[cfg(any(test, feature = "simulation"))]
pub use group::Sleeper;
pub use group_builder::GroupBuilder;
pub use group_options::GroupChange;
pub use log_reader::{LogMessage, LogReader, LogReaderBuilder};
pub use message::{Bytes, Message};
pub use observer::{ObservedLog, Observer, Peek, Peeked, ReadFrom};
pub use options::{Backoff, Durability, RateLimit, Start};
pub use projection::{ForeignProjection, Projection, ProjectionBuilder, ProjectionError, ProjectionStatus};
pub use receipt::{BatchReceipt, Receipt};
pub use schedule::ScheduledMessage;
pub use seek::Seek;
pub use snapshot::StreamSnapshot;
pub use store::{Store, StoreOptions};
pub use stream::{Event, Stream, StreamReceipt};
pub use subscription::Subscription;
pub use topic::Topic;
pub use topic_builder::TopicBuilder;
pub use transaction::{Committed, InTransaction, Transaction};

use crate::error::{Error, Result};
use crate::limits::{DURATION_MS_MAX, NAME_LEN_MAX};
use std::time::Duration;

/// A panic of the caller's leaves the store as it was, so handles may be used across `catch_unwind`: what a panic of the engine's own leaves
/// behind refuses every later call.
macro_rules! unwind_safe {
    ($($handle:ty),* $(,)?) => {
        $(
            impl std::panic::UnwindSafe for $handle {}
            impl std::panic::RefUnwindSafe for $handle {}
        )*
    };
}

unwind_safe!(
    Store,
    Topic,
    Group,
    Delivery,
    KeepAlive,
    Batch,
    BatchIntoIter,
    DeadLetter,
    DeadLetters,
    Subscription,
    LogReader,
    LogMessage,
    Receipt,
    BatchReceipt,
    Transaction<'_>,
    Cursor,
    TopicCursor,
    Producer,
    Observer,
    ObservedLog,
    Peek,
    Peeked,
    Stream,
    Projection,
    ForeignProjection
);

#[cfg(feature = "async")]
unwind_safe!(Receive, ReceiveBatch, Deliveries, Publish, Durable);

/// Checks the name of a topic, group or header.
fn check_name(what: &'static str, name: &str) -> Result<()> {
    let reason = match name.len() {
        0 => "empty; give it at least one byte",
        1..=NAME_LEN_MAX => return Ok(()),
        _ => "longer than 255 bytes",
    };
    let cut = (0..=64).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    Err(Error::InvalidName { what, name: name.get(..cut).unwrap_or(name).to_owned(), reason })
}

/// A duration in whole milliseconds, rounded up so that a delay is never shorter than asked.
fn millis(option: &'static str, duration: Duration) -> Result<u64> {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    match u64::try_from(ms) {
        Ok(ms) if ms <= DURATION_MS_MAX => Ok(ms),
        _ => Err(Error::InvalidOption { option, value: format!("{duration:?}"), expected: "at most ten years" }),
    }
}
