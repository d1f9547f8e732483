//! What follows from a record: each question has one answer, given beside all variants.
//!
//! Never here: what a record does to the state.

use super::{Copied, FailureCause, Provenance, Record, StreamNote};
use crate::ids::{GroupId, Offset, PartitionId, TopicId, WallMs};

/// The messages of its frame that a record claims: the next `count` parts, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetClaim<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) count: u32,
    pub(crate) time: WallMs,
    /// Of a copy.
    pub(crate) provenance: Option<&'a Provenance>,
}

impl OffsetClaim<'_> {
    /// The end of the partition behind these messages.
    #[inline]
    pub(crate) fn end(&self) -> Offset {
        self.first.saturating_add(u64::from(self.count))
    }
}

impl StreamNote {
    fn claim(self) -> OffsetClaim<'static> {
        let Self { partition, offset: first, time } = self;
        OffsetClaim { partition, first, count: 1, time, provenance: None }
    }
}

impl Copied {
    fn claim(&self) -> OffsetClaim<'_> {
        let Self { partition, offset, time, provenance } = self;
        OffsetClaim { partition: *partition, first: *offset, count: 1, time: *time, provenance: Some(provenance) }
    }
}

/// Which consumers look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakes {
    Nobody,
    /// One of each group that reads the partition, once its new messages may be seen.
    ReadersOf(PartitionId),
    /// One of the group.
    Group(GroupId),
    /// One of the group, if the limit on outstanding messages held it back.
    HeldBack(GroupId),
    /// All of the group, which is no more.
    AllOf(GroupId),
    /// All of all groups of the topic, which is no more.
    AllOfTopic(TopicId),
    /// One of each group.
    EachGroup,
}

/// For what room on a full disk is asked, from what is refused first to what is never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Adds to the store.
    Adds,
    /// Copies a message, so that the original may go.
    Moves,
    /// Lets a message be worked on.
    Leases,
    /// Gives room back, or keeps the store in order.
    Settles,
}

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
    /// The messages that it claims.
    #[inline]
    pub(crate) fn claim(&self) -> Option<OffsetClaim<'_>> {
        match self {
            Self::Published { partition, base, count, time } => {
                Some(OffsetClaim { partition: *partition, first: *base, count: *count, time: *time, provenance: None })
            }
            Self::Appended { stream, base, count, time, .. } => Some(OffsetClaim {
                partition: stream.partition,
                first: *base,
                count: *count,
                time: *time,
                provenance: None,
            }),
            Self::DeadLettered { copy, .. } | Self::Redriven { copy, .. } => Some(copy.claim()),
            Self::ScheduleEnded { copy, .. } => copy.as_ref().map(|copy| copy.claim()),
            Self::StreamTruncated { note, .. } | Self::SnapshotSaved { note, .. } => Some(note.claim()),
            Self::Opened { .. }
            | Self::ClockJumped { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::TopicRemoved { .. }
            | Self::GroupRemoved { .. }
            | Self::GroupAltered { .. }
            | Self::GroupSought { .. }
            | Self::Considered { .. }
            | Self::Recalled { .. }
            | Self::Filtered { .. }
            | Self::Leased { .. }
            | Self::ExclusivePending { .. }
            | Self::Extended { .. }
            | Self::Acked { .. }
            | Self::Nacked { .. }
            | Self::Released { .. }
            | Self::Unreadable { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::Sequenced { .. }
            | Self::RetentionMarked { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. } => None,
        }
    }

    /// The same record for `count` of the messages that it claims, behind the first `skip` of them. `None` where it claims none.
    pub(crate) fn claiming(&self, skip: u32, count: u32) -> Option<Self> {
        let mut part = self.claim().map(|_| self.clone())?;
        if let Self::Appended { version, .. } = &mut part {
            *version = version.saturating_add(skip.into());
        }
        if let Self::Published { base, count: of, .. } | Self::Appended { base, count: of, .. } = &mut part {
            (*base, *of) = (base.saturating_add(skip.into()), count);
        }
        Some(part)
    }

    /// The partition, first offset and count of the messages that it claims.
    pub(crate) fn claim_mut(&mut self) -> Option<(PartitionId, &mut Offset, u32)> {
        match self {
            Self::Published { partition, base, count, .. } => Some((*partition, base, *count)),
            Self::Appended { stream, base, count, .. } => Some((stream.partition, base, *count)),
            Self::DeadLettered { copy, .. } | Self::Redriven { copy, .. } => {
                Some((copy.partition, &mut copy.offset, 1))
            }
            Self::ScheduleEnded { copy, .. } => copy.as_mut().map(|copy| (copy.partition, &mut copy.offset, 1)),
            Self::StreamTruncated { note, .. } | Self::SnapshotSaved { note, .. } => {
                Some((note.partition, &mut note.offset, 1))
            }
            Self::Opened { .. }
            | Self::ClockJumped { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::TopicRemoved { .. }
            | Self::GroupRemoved { .. }
            | Self::GroupAltered { .. }
            | Self::GroupSought { .. }
            | Self::Considered { .. }
            | Self::Recalled { .. }
            | Self::Filtered { .. }
            | Self::Leased { .. }
            | Self::ExclusivePending { .. }
            | Self::Extended { .. }
            | Self::Acked { .. }
            | Self::Nacked { .. }
            | Self::Released { .. }
            | Self::Unreadable { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::Sequenced { .. }
            | Self::RetentionMarked { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. } => None,
        }
    }

    /// The messages whose leases it ends: group, partition, the first, and one beyond the last.
    pub(crate) fn settles(&self) -> Option<(GroupId, PartitionId, Offset, Offset)> {
        let one = |group: GroupId, partition: PartitionId, first: Offset, count: u32| {
            Some((group, partition, first, first.saturating_add(u64::from(count))))
        };
        match *self {
            Self::Acked { group, partition, first, count } => one(group, partition, first, count),
            Self::Nacked { group, partition, offset, .. }
            | Self::DeadLettered { group, partition, offset, .. }
            | Self::Released { group, partition, offset }
            | Self::Unreadable { group, partition, offset, .. } => one(group, partition, offset, 1),
            Self::Published { .. }
            | Self::Redriven { .. }
            | Self::Opened { .. }
            | Self::ClockJumped { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::TopicRemoved { .. }
            | Self::GroupRemoved { .. }
            | Self::GroupAltered { .. }
            | Self::GroupSought { .. }
            | Self::Considered { .. }
            | Self::Recalled { .. }
            | Self::Filtered { .. }
            | Self::Leased { .. }
            | Self::ExclusivePending { .. }
            | Self::Extended { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::Sequenced { .. }
            | Self::Appended { .. }
            | Self::StreamTruncated { .. }
            | Self::SnapshotSaved { .. }
            | Self::RetentionMarked { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. }
            | Self::ScheduleEnded { .. } => None,
        }
    }

    /// How long the value is that it keeps.
    pub(crate) fn value_len(&self) -> u64 {
        if let Self::CursorSet { value, .. } = self { value.len() as u64 } else { 0 }
    }

    /// The version and the offset of the first event that it appends to a stream.
    pub(crate) fn appends(&self) -> Option<(u64, Offset)> {
        if let Self::Appended { version, base, .. } = self { Some((*version, *base)) } else { None }
    }

    /// The name of the cursor that it sets.
    pub(crate) fn sets_cursor(&self) -> Option<&str> {
        if let Self::CursorSet { name, .. } = self { Some(name) } else { None }
    }

    /// Which consumers look again.
    #[inline]
    pub(crate) fn wakes(&self) -> Wakes {
        match self {
            Self::Published { partition, .. } => Wakes::ReadersOf(*partition),
            Self::Appended { stream, .. } => Wakes::ReadersOf(stream.partition),
            Self::Redriven { copy, .. } => Wakes::ReadersOf(copy.partition),
            Self::ScheduleEnded { copy: Some(copy), .. } => Wakes::ReadersOf(copy.partition),
            // The message may have another attempt, now or at a time that nobody may know yet.
            Self::Nacked { group, .. }
            | Self::Released { group, .. }
            | Self::Unreadable { group, .. }
            | Self::Postponed { group, .. } => Wakes::Group(*group),
            // A place below the limit.
            Self::Acked { group, .. } | Self::DeadLettered { group, .. } => Wakes::HeldBack(*group),
            Self::ClockJumped { .. } => Wakes::EachGroup,
            // Its sleepers learn that it is gone.
            Self::GroupRemoved { group } => Wakes::AllOf(*group),
            Self::TopicRemoved { topic } => Wakes::AllOfTopic(*topic),
            // Under another limit there may be a place, or another deadline.
            Self::GroupAltered { group, .. } => Wakes::Group(*group),
            // What it had let go may come again.
            // seam: a seek wakes nobody
            Self::GroupSought { group, .. } => Wakes::Group(*group),
            // A consumer that leases wakes the next, which then sleeps until that lease ends; one that considers goes on and leases. What
            // makes a lease longer, or others wait, makes nothing ready. Nobody waits yet for what is opened or created.
            Self::Leased { .. }
            | Self::Considered { .. }
            | Self::Recalled { .. }
            | Self::Filtered { .. }
            | Self::Extended { .. }
            | Self::ExclusivePending { .. }
            | Self::Discarded { .. }
            | Self::Opened { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::Sequenced { .. }
            | Self::StreamTruncated { .. }
            | Self::SnapshotSaved { .. }
            | Self::RetentionMarked { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. }
            | Self::ScheduleEnded { copy: None, .. } => Wakes::Nobody,
        }
    }

    /// What room it may use.
    #[inline]
    pub(crate) fn room(&self) -> Room {
        match self {
            Self::Published { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::Redriven { .. }
            | Self::CursorSet { hold: None, .. }
            | Self::Accepted { .. }
            | Self::Sequenced { .. }
            | Self::Appended { .. }
            // Its events stay until they are cleaned.
            | Self::StreamTruncated { .. }
            | Self::SnapshotSaved { .. }
            | Self::ScheduleCreated { .. }
            | Self::Scheduled { .. } => Room::Adds,
            Self::DeadLettered { .. } | Self::ScheduleEnded { copy: Some(_), .. } => Room::Moves,
            Self::Considered { .. } | Self::Recalled { .. } | Self::Leased { .. } | Self::ExclusivePending { .. } => {
                Room::Leases
            }
            Self::RetentionMarked { .. }
            | Self::Filtered { .. }
            | Self::Opened { .. }
            | Self::ClockJumped { .. }
            | Self::TopicRemoved { .. }
            | Self::GroupRemoved { .. }
            | Self::GroupAltered { .. }
            | Self::GroupSought { .. }
            | Self::Extended { .. }
            | Self::Acked { .. }
            | Self::Nacked { .. }
            | Self::Released { .. }
            | Self::Unreadable { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
            // It lets go of what it has passed.
            | Self::CursorSet { hold: Some(_), .. }
            | Self::CursorRemoved { .. }
            | Self::ScheduleEnded { copy: None, .. } => Room::Settles,
        }
    }

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
