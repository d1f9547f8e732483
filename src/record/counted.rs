//! What the running numbers of a group count of each record.
//!
//! Never here: the numbers.

use super::{FailureCause, Record};
use crate::ids::{GroupId, Offset, PartitionId, TopicId};

/// What the running numbers of a group count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Nothing,
    /// Leases of `count` messages; where they are taken `again`, each that is still leased has expired.
    Leases {
        group: GroupId,
        partition: PartitionId,
        first: Offset,
        count: u32,
        again: bool,
    },
    /// So many leases that a consumer ended.
    Ended {
        group: GroupId,
        how: LeaseEnd,
        count: u32,
    },
    /// A lease that expired, if the message is still leased.
    Expiry {
        group: GroupId,
        partition: PartitionId,
        offset: Offset,
    },
    /// A message became a dead letter; `last` is how its lease ended, if it is still leased.
    DeadLetter {
        group: GroupId,
        partition: PartitionId,
        offset: Offset,
        last: Option<FailureCause>,
    },
    /// A dead letter was settled.
    DeadLetterSettled {
        group: GroupId,
        redriven: bool,
    },
    /// Messages did not pass the filter of a group.
    Filtered(GroupId, u32),
    /// The numbers of a group end.
    GroupRemoved(GroupId),
    /// The numbers of a topic and of its groups end.
    TopicRemoved(TopicId),
}

/// How a consumer ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    Acked,
    Nacked,
    Released,
    Unreadable,
}

impl Record {
    /// What running numbers count.
    #[inline]
    pub(crate) fn counted(&self) -> Counted {
        match self {
            &Self::Leased { group, partition, first, count, attempt, .. } => {
                Counted::Leases { group, partition, first, count, again: attempt > 1 }
            }
            &Self::Acked { group, count, .. } => Counted::Ended { group, how: LeaseEnd::Acked, count },
            &Self::Nacked { group, .. } => Counted::Ended { group, how: LeaseEnd::Nacked, count: 1 },
            &Self::Released { group, .. } => Counted::Ended { group, how: LeaseEnd::Released, count: 1 },
            &Self::Unreadable { group, .. } => Counted::Ended { group, how: LeaseEnd::Unreadable, count: 1 },
            &Self::Postponed { group, partition, offset, .. } => Counted::Expiry { group, partition, offset },
            Self::DeadLettered { group, partition, offset, copy } => {
                // The last failure goes along with the copy.
                let last = copy.provenance.history.last().map(|failure| failure.cause);
                Counted::DeadLetter { group: *group, partition: *partition, offset: *offset, last }
            }
            &Self::Redriven { group, .. } => Counted::DeadLetterSettled { group, redriven: true },
            &Self::Discarded { group, .. } => Counted::DeadLetterSettled { group, redriven: false },
            &Self::Filtered { group, count, .. } => Counted::Filtered(group, count),
            &Self::GroupRemoved { group } => Counted::GroupRemoved(group),
            &Self::TopicRemoved { topic } => Counted::TopicRemoved(topic),
            Self::Published { .. }
            | Self::Considered { .. }
            | Self::Recalled { .. }
            | Self::Dropped { .. }
            | Self::GroupAltered { .. }
            | Self::GroupSought { .. }
            | Self::Extended { .. }
            | Self::ExclusivePending { .. }
            | Self::Opened { .. }
            | Self::ClockJumped { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::KeyTaken { .. }
            | Self::Sequenced { .. }
            | Self::Appended { .. }
            | Self::StreamTruncated { .. }
            | Self::SnapshotSaved { .. }
            | Self::RetentionMarked { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. }
            | Self::ScheduleEnded { .. } => Counted::Nothing,
        }
    }
}
