//! Public names and nothing else. The text below is the README.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// Compiles the code of the guide (`cargo test --doc`).
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/events.md")]
    mod events {}
    #[doc = include_str!("../../../docs/designing-events.md")]
    mod designing_events {}
    #[doc = include_str!("../../../docs/deploying.md")]
    mod deploying {}
    #[doc = include_str!("../../../docs/cookbook.md")]
    mod cookbook {}
    #[cfg(feature = "metrics")]
    #[doc = include_str!("../../../docs/metrics.md")]
    mod metrics {}
}

mod aggregate;
mod attributes;
mod breaker;
mod bus;
mod bus_builder;
mod clock;
mod cloudevents;
#[cfg(feature = "testing")]
pub mod conformance;
mod context;
mod embedded;
mod error;
mod event;
mod failed;
#[cfg(feature = "testing")]
pub mod fake;
mod fault;
mod future;
mod handler;
mod held;
mod inbox;
mod listener;
mod observe;
mod outcome;
mod pattern;
#[cfg(feature = "schema")]
mod schema;
mod spans;
mod subscriber;
mod subscriber_builder;
mod time;
mod timer;
mod transacted;
pub mod transport;
mod watch;
mod worker;

pub use aggregate::{Aggregate, Loaded, Repository, RepositoryError};
pub use attributes::Attributes;
pub use breaker::{BreakerOptions, BreakerState};
pub use bus::{Appended, Bus, Validator};
pub use bus_builder::BusBuilder;
pub use clock::{Clock, SystemClock};
pub use embedded::Embedded;
pub use error::{DecodeError, Error, Result, SchemaViolation};
pub use event::{Encoded, Event, EventType, Outgoing, RawEvent, Variant, json};
pub use failed::EventFailed;
pub use fault::Fault;
pub use handler::{Failure, Incoming, RawIncoming};
pub use listener::Listener;
#[cfg(feature = "metrics")]
pub use observe::{describe_metrics, record_store};
pub use pattern::Pattern;
#[cfg(feature = "schema")]
pub use schema::Schemas;
pub use subscriber::{ShutdownReport, Stats, Subscriber};
pub use subscriber_builder::{SubscriberBuilder, Unknown};
pub use time::{ParseTimestampError, Timestamp};
