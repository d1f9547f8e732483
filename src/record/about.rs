//! What follows from a record: each question has one answer, given beside all variants.
//!
//! Never here: what a record does to the state.

use super::{OffsetClaim, Record};
use crate::ids::{GroupId, Offset, PartitionId, TopicId};

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
    /// The same, of each group that reads the partition.
    HeldBackOf(PartitionId),
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
            | Self::Dropped { .. }
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
            | Self::KeyTaken { .. }
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
            | Self::Dropped { .. }
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
            | Self::KeyTaken { .. }
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
            | Self::Dropped { .. }
            | Self::Leased { .. }
            | Self::ExclusivePending { .. }
            | Self::Extended { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
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
        match self {
            Self::CursorSet { name, .. } => Some(name),
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
            | Self::Dropped { .. }
            | Self::Leased { .. }
            | Self::ExclusivePending { .. }
            | Self::Extended { .. }
            | Self::Acked { .. }
            | Self::Nacked { .. }
            | Self::DeadLettered { .. }
            | Self::Released { .. }
            | Self::Unreadable { .. }
            | Self::Postponed { .. }
            | Self::Discarded { .. }
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
            | Self::ScheduleEnded { .. } => None,
        }
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
            Self::KeyTaken { replaced: Some((partition, _)), .. } => Wakes::HeldBackOf(*partition),
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
            | Self::Dropped { .. }
            | Self::Extended { .. }
            | Self::ExclusivePending { .. }
            | Self::Discarded { .. }
            | Self::Opened { .. }
            | Self::TopicCreated { .. }
            | Self::GroupCreated { .. }
            | Self::CursorSet { .. }
            | Self::CursorRemoved { .. }
            | Self::Accepted { .. }
            | Self::KeyTaken { replaced: None, .. }
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
            | Self::KeyTaken { .. }
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
            | Self::Dropped { .. }
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
}
