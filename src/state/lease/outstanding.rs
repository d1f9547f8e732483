//! An outstanding message: delivered at least once, and not settled.
//!
//! Never here: when it may be leased again.

use super::queue::{AttemptClass, class};
use crate::ids::{Lsn, MonoMs, WallMs};
use crate::state::retry::History;
use std::sync::Arc;

/// One outstanding message.
#[derive(Clone, Debug)]
pub(in crate::state) struct OutstandingEntry {
    pub(in crate::state) phase: Phase,
    /// Attempts counted so far, the one under way included.
    pub(in crate::state) attempts: u32,
    /// The group's `max_attempts` when it was leased last: a change of that option sorts nothing anew.
    pub(in crate::state) max_attempts: u32,
    /// Of a leased message: how long it waits once its lease has ended by its timeout. Fixed with the lease, like its limit.
    pub(in crate::state) backoff_ms: u32,
    /// How many crashes it was out in since an attempt ended otherwise.
    pub(in crate::state) crashes: u16,
    /// At how many orderly closes in a row it was leased; no more than were not counted.
    pub(in crate::state) closes: u8,
    /// Stays through a lease that is not counted.
    pub(in crate::state) prospect: Prospect,
    pub(in crate::state) history: Option<Arc<History>>,
}

/// What the last attempt that ended says of the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) enum Prospect {
    /// Nothing.
    #[default]
    None,
    /// It ended by a crash under a lease that was not exclusive: if no attempt is left, one more is due, exclusive.
    Grace,
    /// It ended by a crash, and one more in a row is as many as its group allows: the next attempt is exclusive.
    Alone,
    /// There is none: it ended in one way as often as its group allows. Never while it is leased.
    Over,
}

/// What an outstanding message is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum Phase {
    /// Its consumer, or the end of the lease.
    Leased(Lease),
    /// The wall clock; `delay_ms` is the whole delay, by which `due` is clamped when the clock jumps.
    Waiting { due: WallMs, delay_ms: u64 },
    /// A consumer. `turn` says since when, by the group's own count.
    Ready { turn: u64 },
    /// Messages of its key that are before it, and then a consumer: it was never leased. `turn` says since when.
    Parked { turn: u64 },
}

/// A lease. Its token is the epoch of the state (every epoch begins without leases) and `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct Lease {
    pub(in crate::state) until: MonoMs,
    pub(in crate::state) lsn: Lsn,
    /// Which lease record of its group in the frame at `lsn` granted it.
    pub(in crate::state) rank: u32,
    pub(in crate::state) exclusive: bool,
    pub(in crate::state) extended: bool,
    /// If it ends by its timeout, there were as many of these as the group allows.
    pub(in crate::state) is_last: bool,
}

const _: () =
    assert!(size_of::<usize>() < 8 || size_of::<OutstandingEntry>() == 48, "a leaf of them is copied under a lock");

impl OutstandingEntry {
    pub(in crate::state) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Leased(lease) => Some(lease),
            Phase::Waiting { .. } | Phase::Ready { .. } | Phase::Parked { .. } => None,
        }
    }

    /// Since when it waits for those of its key, if it does or is the first of them.
    pub(in crate::state) fn parked(&self) -> Option<u64> {
        if let Phase::Parked { turn } = self.phase { Some(turn) } else { None }
    }

    /// When it may be leased again if its lease ends by its timeout.
    pub(in crate::state) fn leasable_from(&self, lease: &Lease) -> MonoMs {
        // seam: no backoff after a timeout
        lease.until.saturating_add(u64::from(self.backoff_ms))
    }

    /// Lets a message that is ready wait for `delay_ms` from `wall` on, if that is any time.
    pub(in crate::state) fn wait_from(&mut self, wall: WallMs, delay_ms: u64) {
        if delay_ms > 0 {
            self.phase = Phase::Waiting { due: wall.saturating_add(delay_ms), delay_ms };
        }
    }

    /// Whether a lease holds it at `mono`.
    pub(in crate::state) fn is_live(&self, mono: MonoMs) -> bool {
        self.lease().is_some_and(|lease| lease.until > mono)
    }

    pub(in crate::state) fn is_exhausted(&self) -> bool {
        class(self) == AttemptClass::Exhausted
    }

    /// Whether the last attempt that `max_attempts` allows has been counted.
    pub(in crate::state) fn is_spent(&self) -> bool {
        self.max_attempts != 0 && self.attempts >= self.max_attempts
    }

    /// Whether it may have another lease now, as far as time goes.
    pub(in crate::state) fn is_due(&self, mono: MonoMs, wall: WallMs) -> bool {
        match self.phase {
            Phase::Leased(lease) => self.leasable_from(&lease) <= mono,
            Phase::Waiting { due, .. } => due <= wall,
            // Whether its key is free is asked apart.
            Phase::Ready { .. } | Phase::Parked { .. } => true,
        }
    }
}
