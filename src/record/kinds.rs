//! The names of kinds of records, for tests that must have seen all.
//!
//! Never here: what follows from a record.

use super::Record;

impl Record {
    /// The name of its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::ClockJumped { .. } => "clock jumped",
            Self::TopicCreated { .. } => "topic created",
            Self::GroupCreated { .. } => "group created",
            Self::TopicRemoved { .. } => "topic removed",
            Self::GroupRemoved { .. } => "group removed",
            Self::GroupAltered { .. } => "group altered",
            Self::GroupSought { .. } => "group sought",
            Self::Published { .. } => "published",
            Self::Considered { .. } => "considered",
            Self::Recalled { .. } => "recalled",
            Self::Filtered { .. } => "filtered",
            Self::Dropped { .. } => "dropped",
            Self::Leased { .. } => "leased",
            Self::ExclusivePending { .. } => "exclusive pending",
            Self::Extended { .. } => "extended",
            Self::Acked { .. } => "acked",
            Self::Nacked { .. } => "nacked",
            Self::Released { .. } => "released",
            Self::Unreadable { .. } => "unreadable",
            Self::Postponed { .. } => "postponed",
            Self::DeadLettered { .. } => "dead-lettered",
            Self::Redriven { .. } => "redriven",
            Self::Discarded { .. } => "discarded",
            Self::CursorSet { .. } => "cursor set",
            Self::CursorRemoved { .. } => "cursor removed",
            Self::Accepted { .. } => "accepted",
            Self::KeyTaken { .. } => "key taken",
            Self::Sequenced { .. } => "sequenced",
            Self::Appended { .. } => "appended",
            Self::StreamTruncated { .. } => "stream truncated",
            Self::SnapshotSaved { .. } => "snapshot saved",
            Self::RetentionMarked { .. } => "retention marked",
            Self::ScheduleCreated { .. } => "schedule created",
            Self::Scheduled { .. } => "scheduled",
            Self::ScheduleEnded { .. } => "schedule ended",
        }
    }
}
