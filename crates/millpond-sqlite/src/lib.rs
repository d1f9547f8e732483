//! Public names and nothing else. The text below is the README.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod drain;
mod error;
mod inbox;
mod message;
mod outbox;
mod schema;

pub use drain::{BlockedTopic, Drained};
pub use error::{Error, Result};
pub use inbox::{Inbox, Sighting};
pub use message::OutboxMessage;
pub use outbox::Outbox;
pub use rusqlite;
