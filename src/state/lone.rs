//! The lone lease of the store: awaited, passed over, or out.
//!
//! A message that may have killed the process takes its last attempt alone, so that no other message dies for it. That
//! holds up every group, so both the wait and the lease have an end. Never here: which message needs one.

use crate::ids::{GroupId, MonoMs, Offset, PartitionId};

/// A message of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: GroupId,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
}

/// A message that waits until no other lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub(super) place: Place,
    /// Until then no other lease is granted.
    pub(super) until: MonoMs,
    /// From `until` to then no lone lease is waited for.
    pub(super) passed_over_until: MonoMs,
}

/// A lone lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) place: Place,
    pub(super) until: MonoMs,
}

/// At most one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lone {
    pub(super) awaited: Option<Awaited>,
    /// The lone lease granted last, while its message has it; it may have ended.
    pub(super) out: Option<Out>,
}

/// Who may have a lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// This message only.
    Only(Place),
    /// Nobody.
    Closed,
}

impl Lone {
    #[inline]
    pub(super) fn gate(&self, mono: MonoMs) -> Gate {
        // seam: leases beside a lone one
        if self.out.is_some_and(|out| mono < out.until) {
            return Gate::Closed;
        }
        match self.awaited {
            Some(awaited) if mono < awaited.until => Gate::Only(awaited.place),
            _ => Gate::Open,
        }
    }

    /// Whether no wait may begin now, since one was in vain.
    pub(super) fn passes_over(&self, mono: MonoMs) -> bool {
        self.awaited.is_some_and(|awaited| awaited.until <= mono && mono < awaited.passed_over_until)
    }

    /// Whether nothing is awaited and no lone lease is out.
    pub(super) fn is_idle(&self) -> bool {
        self.awaited.is_none() && self.out.is_none()
    }

    /// `count` messages from `place` on got another phase or were settled: nothing waits for them, and a lone lease of
    /// theirs is over.
    #[inline]
    pub(super) fn touched(&mut self, place: Place, count: u32) {
        if self.is_idle() {
            return;
        }
        let within = |other: Place| {
            (other.group, other.partition) == (place.group, place.partition)
                && other.offset.0.checked_sub(place.offset.0).is_some_and(|distance| distance < u64::from(count))
        };
        self.awaited = self.awaited.filter(|awaited| !within(awaited.place));
        self.out = self.out.filter(|out| !within(out.place));
    }

    /// The times after `mono` at which the gate opens or shuts by itself.
    pub(super) fn next_after(&self, mono: MonoMs) -> Option<MonoMs> {
        let awaited = self.awaited.iter().flat_map(|awaited| [awaited.until, awaited.passed_over_until]);
        awaited.chain(self.out.map(|out| out.until)).filter(|&time| time > mono).min()
    }
}
