//! The exclusive lease of the store: awaited, or out.
//!
//! A message that may have killed the process takes its last attempt alone, so that no other message dies for it. That
//! holds up every group, so it has an end: [`HoldUp`] says how long the wait and the lease together may take. After that others
//! get leases again, and the first of them makes an ordinary lease of the exclusive one. Never here: which message needs one.

use super::HoldUp;
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
    pub(super) since: MonoMs,
}

/// An exclusive lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) place: Place,
    /// Since when others are held up for it, the wait for it included.
    pub(super) since: MonoMs,
    pub(super) until: MonoMs,
}

/// At most one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exclusive {
    /// The message that was awaited last, while nobody has it; the wait may be over.
    pub(super) awaited: Option<Awaited>,
    /// The exclusive lease granted last, while its message has it and nobody else got one; it may have ended.
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

impl Exclusive {
    #[inline]
    pub(super) fn gate(&self, mono: MonoMs, hold_up: HoldUp) -> Gate {
        // seam: leases beside an exclusive one
        if self.out.is_some_and(|out| mono < hold_up.end(out.since).min(out.until)) {
            return Gate::Closed;
        }
        match self.awaited {
            // seam: a wait for an exclusive lease has no end
            Some(awaited) if mono < hold_up.end(awaited.since) => Gate::Only(awaited.place),
            _ => Gate::Open,
        }
    }

    /// Whether a message was waited for in vain and has no lease yet: no other is waited for meanwhile.
    pub(super) fn waited_in_vain(&self, mono: MonoMs, hold_up: HoldUp) -> bool {
        self.awaited.is_some_and(|awaited| hold_up.end(awaited.since) <= mono)
    }

    /// When the last wait or exclusive lease began to hold others up that is noted here, over or not.
    pub(super) fn since(&self) -> Option<MonoMs> {
        self.out.map(|out| out.since).max(self.awaited.map(|awaited| awaited.since))
    }

    /// Whether nothing is awaited and no exclusive lease is out.
    pub(super) fn is_idle(&self) -> bool {
        self.awaited.is_none() && self.out.is_none()
    }

    /// `count` messages from `place` on got another phase or were settled: nothing waits for them, and an exclusive lease of
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

    /// A group is no more: nothing waits for a message of its, and none is out.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.awaited = self.awaited.filter(|awaited| awaited.place.group != group);
        self.out = self.out.filter(|out| out.place.group != group);
    }

    /// When the gate opens by itself, or opens for fewer; `None` where it is open.
    pub(super) fn next_after(&self, mono: MonoMs, hold_up: HoldUp) -> Option<MonoMs> {
        let awaited = self.awaited.map(|awaited| hold_up.end(awaited.since));
        let out = self.out.map(|out| hold_up.end(out.since).min(out.until));
        awaited.into_iter().chain(out).filter(|&time| time > mono).min()
    }
}
