//! An outstanding message: handed out at least once, and not settled.
//!
//! Never here: when it may be leased again.

use super::history::History;
use crate::ids::{Lsn, MonoMs, WallMs};
use std::collections::VecDeque;
use std::sync::Arc;

/// One outstanding message.
#[derive(Clone, Debug)]
pub(super) struct OutstandingEntry {
    pub(super) phase: Phase,
    /// Attempts charged so far, the one under way included.
    pub(super) attempts: u32,
    /// The group's `max_attempts` when it was leased last: whoever changes that option sorts nothing anew.
    pub(super) max_attempts: u32,
    /// The last attempt that ended did so by a crash.
    pub(super) crashed: bool,
    /// The last attempt that ended did so by a crash under a lease that was not exclusive: one more is due, exclusive. Stays
    /// through a lease that is given back unused.
    pub(super) grace: bool,
    pub(super) history: Option<Arc<History>>,
}

/// What an outstanding message is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its consumer, or the end of the lease.
    Leased(Lease),
    /// The wall clock; `delay_ms` is the whole delay, by which `due` is clamped when the clock jumps.
    Waiting { due: WallMs, delay_ms: u64 },
    /// A consumer. `turn` says since when, by the group's own count.
    Ready { turn: u64 },
}

/// A lease. Its token is the epoch of the state (every epoch begins without leases) and `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) until: MonoMs,
    pub(super) lsn: Lsn,
    /// Which lease record of its group in the frame at `lsn` granted it.
    pub(super) rank: u32,
    pub(super) exclusive: bool,
    pub(super) extended: bool,
}

const _: () =
    assert!(size_of::<usize>() < 8 || size_of::<OutstandingEntry>() == 48, "a leaf of them is copied under a lock");

impl OutstandingEntry {
    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    /// An attempt ended by something else than a crash, if it `ended`: then no crash is on the account any more.
    pub(super) fn ended_otherwise(&mut self, ended: bool) {
        // seam: a crash stays on the account
        if ended {
            (self.crashed, self.grace) = (false, false);
        }
    }

    /// Whether a lease holds it at `mono`.
    pub(super) fn is_live(&self, mono: MonoMs) -> bool {
        self.lease().is_some_and(|lease| lease.until > mono)
    }
}

/// Gives back the memory of a queue that has come to be mostly unused, but for `kept` places. At once, however much it is: nothing
/// may be added or removed for a long time. What was given back is not needed again before as much has changed.
pub(super) fn give_back<T>(queue: &mut VecDeque<T>, kept: usize) {
    let capacity = queue.capacity();
    if capacity > kept && queue.len() < capacity / 4 {
        // seam: settled memory is kept
        queue.shrink_to((2 * queue.len()).max(kept));
    }
}
