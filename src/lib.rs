#![doc = include_str!("../README.md")]

/// Compiles the code of the guide (`cargo test --doc`).
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/getting-started.md")]
    mod getting_started {}
    #[doc = include_str!("../docs/delivery.md")]
    mod delivery {}
    #[doc = include_str!("../docs/exactly-once.md")]
    mod exactly_once {}
    #[doc = include_str!("../docs/event-sourcing.md")]
    mod event_sourcing {}
    #[doc = include_str!("../docs/retries.md")]
    mod retries {}
    #[doc = include_str!("../docs/operations.md")]
    mod operations {}
    #[doc = include_str!("../docs/testing-handlers.md")]
    mod testing_handlers {}
}

// First, for its macro is known only below it.
#[cfg(test)]
#[macro_use]
mod properties;

mod api;
mod clock;
mod disk;
mod engine;
mod error;
#[cfg(any(test, feature = "simulation"))]
mod fuzzing;
mod ids;
mod index;
pub mod limits;
mod log;
mod record;
mod state;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod wait;

pub use api::{
    Backoff, Batch, BatchIntoIter, BatchIter, BatchReceipt, Bytes, Cause, Committed, Cursor, DeadLetter, DeadLetters,
    Delivery, DeliveryRef, Durability, Event, Failure, ForeignProjection, Group, GroupBuilder, GroupChange,
    InTransaction, KeepAlive, LogMessage, LogReader, LogReaderBuilder, LostLeases, Message, ObservedLog, Observer,
    Peek, Peeked, Producer, Projection, ProjectionBuilder, ProjectionError, ProjectionStatus, RateLimit, ReadFrom,
    Receipt, ScheduledMessage, Seek, Start, Store, StoreOptions, Stream, StreamReceipt, StreamSnapshot, Subscription,
    Topic, TopicBuilder, TopicCursor, Transaction,
};
#[cfg(feature = "async")]
pub use api::{Deliveries, Durable, Publish, Receive, ReceiveBatch};
pub use engine::{
    BackupReport, DroppedTail, DumpEntry, DumpedFrame, DumpedRecord, FailureCounts, GroupCounters, GroupPartitionStats,
    GroupStats, IndexKind, LogStats, LostLog, LostMessages, MessageState, OpenReport, Ordering, PartitionStats,
    RepairReport, Retention, Sought, Stats, TopicStats, VerifyProgress, VerifyReport, WhenFull, WhilePending,
};
pub use error::{Corruption, Error, ErrorKind, ErrorScope, PositionFault, RefusedEvent, Result};
pub use ids::{Epoch, Expected, Lsn, MessageId, Offset, ParseMessageIdError, ParsePositionError, Position, TopicId};

/// A disk and a clock in memory, for tests that drive the engine through crashes, and the real ones for tests that watch
/// what the engine asks of them. No part of the stable API.
#[cfg(any(test, feature = "simulation"))]
pub mod simulation {
    pub use crate::api::Sleeper;
    pub use crate::clock::{Clock, SimClock, SystemClock};
    pub use crate::disk::sim::{Fault, Op, PowerOutcome, Rng, SimDisk, SimHandle, SimReader};
    pub use crate::disk::{Access, Disk, Entry, File, Tail, real_disk};
    pub use crate::engine::{IndexOutcome, SimIndexHome, lock_holds};
    pub use crate::ids::{MonoMs, WallMs};
    pub use crate::record::codec::records_decoded;
    /// Functions that take any bytes and panic where a promise is broken.
    pub mod fuzzing {
        pub use crate::fuzzing::*;
    }
    #[cfg(millpond_shuttle)]
    pub use crate::sync::{caught, elapse, panic_quietly};
}
