//! The exclusive lease of the store: pending, or out.
//!
//! A message that may have killed the process takes its last attempt alone, so that no other message dies for it. That
//! holds up every group, so it has an end: [`HoldUp`] says how long the wait and the lease together may take. After that others
//! get leases again, and the first of them makes an ordinary lease of the exclusive one. Never here: which message needs one.

use crate::ids::{GroupId, MonoMs, PartitionId};
use crate::state::HoldUp;
use crate::state::message::MessageRef;

/// A message that waits until no other lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct PendingLease {
    pub(in crate::state) message: MessageRef,
    pub(in crate::state) since: MonoMs,
}

/// An exclusive lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct ExclusiveLease {
    pub(in crate::state) message: MessageRef,
    /// Since when others are held up for it, the wait for it included.
    pub(in crate::state) since: MonoMs,
    pub(in crate::state) until: MonoMs,
}

/// At most one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct ExclusiveLeases {
    /// The message that was pending last, while nobody has it; the wait may be over.
    pub(in crate::state) pending: Option<PendingLease>,
    /// The exclusive lease granted last, while its message has it and nobody else got one; it may have ended.
    pub(in crate::state) granted: Option<ExclusiveLease>,
}

/// Which messages may have a lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum Gate {
    Open,
    /// This message only.
    Only(MessageRef),
    /// Nobody.
    Closed,
}

impl ExclusiveLeases {
    #[inline]
    pub(in crate::state) fn gate(&self, mono: MonoMs, hold_up: HoldUp) -> Gate {
        // seam: leases beside an exclusive one
        if self.granted.is_some_and(|granted| mono < hold_up.end(granted.since).min(granted.until)) {
            return Gate::Closed;
        }
        match self.pending {
            // seam: a wait for an exclusive lease has no end
            Some(pending) if mono < hold_up.end(pending.since) => Gate::Only(pending.message),
            _ => Gate::Open,
        }
    }

    /// Whether a message was waited for in vain and has no lease yet: no other is waited for meanwhile.
    pub(in crate::state) fn waited_in_vain(&self, mono: MonoMs, hold_up: HoldUp) -> bool {
        self.pending.is_some_and(|pending| hold_up.end(pending.since) <= mono)
    }

    /// When the last wait or exclusive lease began to hold others up that is noted here, over or not.
    pub(in crate::state) fn since(&self) -> Option<MonoMs> {
        self.granted.map(|granted| granted.since).max(self.pending.map(|pending| pending.since))
    }

    /// Whether nothing is pending and no exclusive lease is out.
    pub(in crate::state) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.granted.is_none()
    }

    /// `count` messages from `message` on got another phase or were settled: nothing waits for them, and an exclusive lease of
    /// theirs is over.
    #[inline]
    pub(in crate::state) fn touched(&mut self, message: MessageRef, count: u32) {
        if self.is_idle() {
            return;
        }
        let within = |other: MessageRef| {
            (other.group, other.partition) == (message.group, message.partition)
                && other.offset.0.checked_sub(message.offset.0).is_some_and(|distance| distance < u64::from(count))
        };
        self.pending = self.pending.filter(|pending| !within(pending.message));
        self.granted = self.granted.filter(|granted| !within(granted.message));
    }

    /// A group is no more: nothing waits for a message of its, and none is out.
    pub(in crate::state) fn forget(&mut self, group: GroupId) {
        self.stop_waiting(group);
        self.granted = self.granted.filter(|granted| granted.message.group != group);
    }

    /// A group has let go of its messages but for those of one partition: nothing waits for another one, and none of them is out.
    pub(in crate::state) fn let_go(&mut self, group: GroupId, kept: PartitionId) {
        let stays = |message: MessageRef| message.group != group || message.partition == kept;
        self.pending = self.pending.filter(|pending| stays(pending.message));
        self.granted = self.granted.filter(|granted| stays(granted.message));
    }

    /// Nothing waits for a message of this group.
    pub(in crate::state) fn stop_waiting(&mut self, group: GroupId) {
        self.pending = self.pending.filter(|pending| pending.message.group != group);
    }

    /// When the gate opens by itself, or opens for fewer; `None` where it is open.
    pub(in crate::state) fn next_after(&self, mono: MonoMs, hold_up: HoldUp) -> Option<MonoMs> {
        let pending = self.pending.map(|pending| hold_up.end(pending.since));
        let granted = self.granted.map(|granted| hold_up.end(granted.since).min(granted.until));
        pending.into_iter().chain(granted).filter(|&time| time > mono).min()
    }
}
