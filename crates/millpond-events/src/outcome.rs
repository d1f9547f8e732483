//! What follows from the result of a handler: how it counts, and how the event is settled.

use crate::breaker::Ending;
use crate::error::DecodeError;
use crate::handler::{Next, Unhandled};
use crate::observe::{self, Status};
use crate::subscriber_builder::Unknown;
use crate::transport::{Lease, Settled, TransportError, TransportErrorKind, WireMessage};

/// How an attempt ended: for the numbers, for the breaker, and as a label.
pub(crate) fn classify(
    result: &Result<Vec<WireMessage>, Unhandled>,
    unknown: Unknown,
) -> (Status, Ending, &'static str) {
    match result {
        Ok(_) => (Status::Ok, Ending::Success, ""),
        Err(Unhandled::Duplicate) => (Status::Duplicate, Ending::Neutral, ""),
        Err(Unhandled::Inbox(error)) if error.kind() == TransportErrorKind::FixCall => {
            (Status::Rejected, Ending::Neutral, "inbox")
        }
        Err(Unhandled::Inbox(_)) => (Status::Retried, Ending::Failure, "inbox"),
        Err(Unhandled::Panicked(_)) => (Status::Retried, Ending::Failure, "panic"),
        Err(Unhandled::Decode(error)) if unknown.skips(error) => (Status::Ok, Ending::Neutral, "unknown"),
        Err(Unhandled::Decode(DecodeError::ChainTooLong { .. })) => (Status::Rejected, Ending::Neutral, "chain"),
        Err(Unhandled::Decode(DecodeError::Schema(_))) => (Status::Rejected, Ending::Neutral, "schema"),
        Err(Unhandled::Decode(_)) => (Status::Rejected, Ending::Neutral, "decode"),
        Err(Unhandled::Failed(failure)) => match failure.next {
            Next::Retry | Next::RetryAfter(_) => (Status::Retried, Ending::Failure, "handler"),
            Next::Reject => (Status::Rejected, Ending::Neutral, "permanent"),
        },
    }
}

/// Settles the event as its handler ended.
pub(crate) fn settle(
    lease: Box<dyn Lease>,
    result: Result<Vec<WireMessage>, Unhandled>,
    unknown: Unknown,
) -> Result<Settled, TransportError> {
    match result {
        Ok(messages) => {
            let settled = lease.ack(&messages);
            if matches!(settled, Ok(Settled::Done)) {
                messages.iter().for_each(observe::published);
            }
            settled
        }
        Err(Unhandled::Duplicate) => lease.ack(&[]),
        Err(Unhandled::Decode(error)) if unknown.skips(&error) => lease.ack(&[]),
        Err(Unhandled::Decode(error)) => lease.reject(&error.to_string()),
        Err(Unhandled::Inbox(error)) if error.kind() == TransportErrorKind::FixCall => lease.reject(&error.to_string()),
        Err(Unhandled::Inbox(error)) => lease.retry(None, &error.to_string()),
        Err(Unhandled::Panicked(text)) => lease.retry(None, &format!("panicked: {text}")),
        Err(Unhandled::Failed(failure)) => match failure.next {
            Next::Retry => lease.retry(None, &failure.text),
            Next::RetryAfter(delay) => lease.retry(Some(delay), &failure.text),
            Next::Reject => lease.reject(&failure.text),
        },
    }
}
