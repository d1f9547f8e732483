//! Public names and nothing else. The text below is the README.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod breaker;
mod bus;
mod clock;
mod cloudevents;
mod context;
mod embedded;
mod error;
mod event;
mod fault;
mod handler;
mod listener;
mod observe;
mod pattern;
#[cfg(feature = "schema")]
mod schema;
mod subscriber;
mod time;
mod timer;
pub mod transport;
mod worker;

pub use breaker::{BreakerOptions, BreakerState};
pub use bus::{Bus, BusBuilder, Validator};
pub use clock::{Clock, SystemClock};
pub use embedded::Embedded;
pub use error::{DecodeError, Error, Result, SchemaViolation};
pub use event::{Attributes, Encoded, Event, EventType, Outgoing, RawEvent, Variant, json};
pub use fault::Fault;
pub use handler::{Failure, Incoming, RawIncoming};
pub use listener::Listener;
#[cfg(feature = "metrics")]
pub use observe::record_store;
pub use pattern::Pattern;
#[cfg(feature = "schema")]
pub use schema::Schemas;
pub use subscriber::{ShutdownReport, Stats, Subscriber, SubscriberBuilder, Unknown};
pub use time::{ParseTimestampError, Timestamp};
