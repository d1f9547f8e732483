//! Faults: what goes wrong where no call returns it.

use crate::error::DecodeError;
use crate::transport::TransportError;
use std::fmt;

/// Something that went wrong where no call of the application returns it.
///
/// A subscriber loses no event by a fault: it is delivered again, or becomes a dead letter. A listener does: `Missed`, `Unread` and
/// `Listener` report events that its handler did not see, or failed on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// A receive failed. The subscriber tries again after a second.
    Receive {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: TransportError,
    },
    /// A subscriber ended, since no later call can succeed.
    Ended {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: TransportError,
    },
    /// The outcome of a handler could not be recorded: the event is delivered again.
    Settle {
        /// The subscriber.
        subscriber: String,
        /// The event's id; empty if it has none.
        event: String,
        /// Why.
        error: TransportError,
    },
    /// Another consumer has the event of a handler, or has settled it.
    LeaseLost {
        /// The subscriber.
        subscriber: String,
        /// The event's id; empty if it has none.
        event: String,
    },
    /// A handler took longer than it may. Another attempt follows, and what the handler returns does not count.
    TimedOut {
        /// The subscriber.
        subscriber: String,
        /// The event's id.
        event: String,
    },
    /// A worker could not be replaced while its handler does not return.
    Thread {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: std::io::Error,
    },
    /// The circuit breaker of a subscriber opened.
    BreakerOpened {
        /// The subscriber.
        subscriber: String,
    },
    /// A snapshot of an aggregate could not be saved. Its events were appended.
    Snapshot {
        /// The key of the stream.
        stream: String,
        /// Why.
        error: TransportError,
    },
    /// Events were gone before a listener read them.
    Missed {
        /// Why.
        error: TransportError,
    },
    /// A listener ended, since no later call can succeed.
    ListenerEnded {
        /// Why.
        error: TransportError,
    },
    /// A listener could not read an event.
    Unread {
        /// Why.
        error: DecodeError,
    },
    /// The handler of a listener failed.
    Listener {
        /// The event's id.
        event: String,
        /// What it reports.
        text: String,
    },
}

impl Fault {
    /// What kind of fault it is, as a label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Receive { .. } => "receive",
            Self::Ended { .. } => "ended",
            Self::Settle { .. } => "settle",
            Self::LeaseLost { .. } => "lease_lost",
            Self::TimedOut { .. } => "timed_out",
            Self::Thread { .. } => "thread",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::Snapshot { .. } => "snapshot",
            Self::Missed { .. } => "missed",
            Self::ListenerEnded { .. } => "listener_ended",
            Self::Unread { .. } => "unread",
            Self::Listener { .. } => "listener",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive { subscriber, error } => write!(f, "subscriber {subscriber:?} cannot receive: {error}"),
            Self::Ended { subscriber, error } => write!(f, "subscriber {subscriber:?} ended: {error}"),
            Self::Settle { subscriber, event, error } => {
                write!(f, "subscriber {subscriber:?} cannot settle event {event:?}: {error}")
            }
            Self::LeaseLost { subscriber, event } => {
                write!(f, "subscriber {subscriber:?} lost the lease of event {event:?}")
            }
            Self::TimedOut { subscriber, event } => {
                write!(f, "the handler of subscriber {subscriber:?} takes too long for event {event:?}")
            }
            Self::Thread { subscriber, error } => {
                write!(f, "subscriber {subscriber:?} cannot start a worker: {error}")
            }
            Self::BreakerOpened { subscriber } => write!(f, "the breaker of subscriber {subscriber:?} opened"),
            Self::Snapshot { stream, error } => write!(f, "no snapshot of stream {stream:?} was saved: {error}"),
            Self::Missed { error } => write!(f, "a listener missed events: {error}"),
            Self::ListenerEnded { error } => write!(f, "a listener ended: {error}"),
            Self::Unread { error } => write!(f, "a listener cannot read an event: {error}"),
            Self::Listener { event, text } => write!(f, "a listener failed for event {event:?}: {text}"),
        }
    }
}
