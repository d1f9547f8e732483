//! Leases: which messages are leased, for how long, and when they may be leased again.

mod apply;
mod check;
mod deadlines;
mod decide;
mod exclusive;
mod outstanding;
mod query;
mod queue;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use check::{check_entries, lease_keys};
pub(super) use deadlines::{LeaseKey, key};
pub(super) use exclusive::ExclusiveLeases;
pub(super) use outstanding::{Lease, OutstandingEntry, Phase, Prospect};
pub(super) use queue::{AttemptClass, Queue, Queues, Source};
pub(super) use snapshot::{
    decode_cursors, decode_exclusive, decode_messages, encode_cursors, encode_exclusive, encode_messages,
};
