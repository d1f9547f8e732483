//! A durable embedded queue engine.

mod api;
pub mod clock;
pub mod disk;
mod engine;
mod error;
pub mod ids;
pub mod limits;
mod log;
mod record;
mod state;

pub use api::{
    Backoff, Batch, BatchReceipt, Cause, DeadLetter, DeadLetters, Delivery, Durability, Failure, Group, GroupBuilder, Message,
    Receipt, Start, Store, StoreOptions, Topic, TopicBuilder,
};
pub use engine::{GroupStats, LogStats, OpenReport, PartitionStats, Stats, TopicStats};
pub use error::{Corruption, Error, ErrorKind, Result};
pub use ids::MessageId;
