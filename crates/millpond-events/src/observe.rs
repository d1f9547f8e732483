//! What is counted: nothing, without the feature `metrics`.

use crate::fault::Fault;
use crate::transport::WireMessage;
use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Duplicate,
    Retried,
    Rejected,
}

/// An event was published.
pub(crate) const fn published(_message: &WireMessage) {}

/// An attempt ended.
pub(crate) const fn processed(_event_type: &str, _status: Status, _error: &str, _took: Duration) {}

/// A thread of the bus met a fault.
pub(crate) const fn fault(_fault: &Fault) {}
