//! One outstanding message of a group: how it is found for a record, and how it is changed.
//!
//! Each function that applies a record first checks that the record follows from the state, then changes it; a record that
//! does not follow changes nothing. The monotonic time of a lease record is its end less the group's timeout, so that apply
//! holds leases to the same rules as the decision did. Where a rule is about which of several messages comes first, apply does
//! not ask. Never here: a choice.

use super::group::GroupState;
use super::lease::{Lease, OutstandingEntry};
use super::{Inconsistent, Rejection, State};
use crate::ids::{GroupId, Offset, PartitionId};
use crate::record::AttemptFailure;

pub(super) type Applied = Result<(), Inconsistent>;

pub(super) fn require(holds: bool, otherwise: &'static str) -> Applied {
    if holds { Ok(()) } else { Err(Inconsistent(otherwise)) }
}

/// A message of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageRef {
    pub(super) group: GroupId,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
}

/// One outstanding message, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct LeaseTarget<'a> {
    pub(super) message: MessageRef,
    pub(super) group: &'a GroupState,
    pub(super) cursor: u32,
    pub(super) entry: &'a OutstandingEntry,
}

impl State {
    pub(super) fn group_named(&self, group: GroupId) -> Result<&GroupState, Rejection> {
        self.groups.get(&group).map(Box::as_ref).ok_or(Rejection::UnknownGroup)
    }

    pub(super) fn target(
        &self,
        (group, partition, offset): (GroupId, PartitionId, Offset),
    ) -> Result<LeaseTarget<'_>, Inconsistent> {
        let message = MessageRef { group, partition, offset };
        let group = self.group_named(group)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Inconsistent("the message is not outstanding"))?;
        Ok(LeaseTarget { message, group, cursor, entry })
    }

    pub(super) fn leased(&self, at: (GroupId, PartitionId, Offset)) -> Result<(LeaseTarget<'_>, Lease), Inconsistent> {
        let at = self.target(at)?;
        let lease = at.entry.lease().ok_or(Inconsistent("the message is not leased"))?;
        Ok((at, *lease))
    }

    /// Changes a message; everything has been checked.
    pub(super) fn change(
        &mut self,
        message: MessageRef,
        failure: Option<AttemptFailure>,
        change: impl FnOnce(&mut OutstandingEntry, u64),
    ) -> Applied {
        let group = self.groups.get_mut(&message.group).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(message.partition).ok_or(Rejection::UnknownPartition)?;
        group.change(cursor, message.offset, failure, change);
        group.tidy();
        self.exclusive.touched(message, 1);
        Ok(())
    }
}
