//! Why a command changes nothing, and what cannot be.
//!
//! Never here: what a caller is told of it (the engine says that).

use super::command::Repeat;
use crate::ids::{MessageId, TopicId};
use crate::record::StreamId;
use std::fmt;

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    UnknownTopic,
    UnknownGroup,
    UnknownPartition,
    /// The token is dead: the message was settled, or belongs to another holder, or to none since the store was reopened.
    LeaseLost,
    /// The same, in a transaction: of message `number` of this step.
    LeaseLostIn {
        step: u32,
        number: u32,
    },
    /// The group has another topic for notices of dead letters than the command goes by.
    NoticeDue,
    /// No dead letter has this offset, or it was settled.
    NoSuchDeadLetter,
    /// The dead letter was sent to topics as often as a message may be.
    TooManyRedrives,
    /// The message is not exhausted (any more), or a transaction has other messages than its records claim.
    Stale,
    /// The name is taken.
    Exists,
    /// These messages were accepted before.
    Repeated(Vec<Repeat>),
    /// Another message was accepted under the id of message number `part`.
    DedupConflict {
        part: u32,
        first: Box<MessageId>,
    },
    /// The same, in a transaction: under the id of event number `part` of the append that this step is.
    DedupConflictIn {
        step: u32,
        part: u32,
        first: Box<MessageId>,
    },
    /// This message is pending under a unique key.
    KeyPending {
        pending: Box<MessageId>,
    },
    /// A producer has published this number before.
    SequenceRepeated,
    /// Another number of the producer comes next.
    SequenceGap {
        expected: u64,
    },
    NoSuchCursor,
    /// The message waits for no time, or for none any more.
    NotScheduled,
    /// The cursor stands elsewhere.
    CursorMoved,
    /// The same, in a transaction: that of this step.
    CursorMovedIn {
        step: u32,
    },
    /// How far this stream has come must be read in the index first, or again.
    StreamUnknown(StreamId),
    /// The last event of the stream is another than was expected, or there is none.
    WrongVersion {
        stream: StreamId,
        actual: Option<u64>,
    },
    /// The same, in a transaction: of this step.
    WrongVersionIn {
        step: u32,
        actual: Option<u64>,
    },
    /// The stream has no event of this version: its last is another, or there is none.
    NoSuchVersion {
        stream: StreamId,
        actual: Option<u64>,
    },
    /// The topic has no room for so many messages.
    TopicFull {
        topic: TopicId,
        count: u64,
    },
    /// A bound of the engine, by its name in words.
    LimitReached(&'static str),
    /// The command contradicts itself or the state.
    Invalid(&'static str),
    /// The same, in a transaction: what is wrong with this step, or with message `number` of what it settles.
    InvalidIn {
        step: u32,
        number: u32,
        reason: &'static str,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownTopic => "there is no such topic",
            Self::UnknownGroup => "there is no such group",
            Self::UnknownPartition => "there is no such partition",
            Self::LeaseLost | Self::LeaseLostIn { .. } => "the lease is lost",
            Self::NoticeDue => "the group has another topic for notices",
            Self::NoSuchDeadLetter => "there is no such dead letter",
            Self::TooManyRedrives => "the dead letter was sent to topics too often",
            Self::Stale => "the message is no longer exhausted",
            Self::Exists => "the name is taken",
            Self::Repeated(_) => "a message was published before",
            Self::DedupConflict { .. } | Self::DedupConflictIn { .. } => "another message was published under this id",
            Self::KeyPending { .. } => "a message with this unique key is pending",
            Self::SequenceRepeated => "the producer has published this number before",
            Self::SequenceGap { .. } => "another number of the producer comes next",
            Self::NoSuchCursor => "there is no such cursor",
            Self::NotScheduled => "the message is not scheduled",
            Self::CursorMoved | Self::CursorMovedIn { .. } => "the cursor stands elsewhere",
            Self::StreamUnknown(_) => "how far a stream has come is not known",
            Self::WrongVersion { .. } | Self::WrongVersionIn { .. } => "the stream has another version",
            Self::NoSuchVersion { .. } => "the stream has no such version",
            Self::TopicFull { .. } => "the topic has no room for so many messages",
            Self::LimitReached(limit) => return write!(f, "the limit on {limit} is reached"),
            Self::Invalid(reason) | Self::InvalidIn { reason, .. } => reason,
        })
    }
}

impl Rejection {
    /// Whether it tells what another call did. Where only what is durable is shown, that must be durable before it is told.
    pub(crate) fn tells(&self) -> bool {
        match self {
            Self::Repeated(_)
            | Self::DedupConflict { .. }
            | Self::DedupConflictIn { .. }
            | Self::KeyPending { .. }
            | Self::SequenceRepeated
            | Self::SequenceGap { .. }
            | Self::NoSuchCursor
            | Self::NotScheduled
            | Self::CursorMoved
            | Self::CursorMovedIn { .. }
            | Self::WrongVersion { .. }
            | Self::WrongVersionIn { .. }
            | Self::NoSuchVersion { .. } => true,
            Self::UnknownTopic
            | Self::UnknownGroup
            | Self::UnknownPartition
            | Self::LeaseLost
            | Self::LeaseLostIn { .. }
            | Self::NoticeDue
            | Self::NoSuchDeadLetter
            | Self::TooManyRedrives
            | Self::Stale
            | Self::Exists
            | Self::StreamUnknown(_)
            | Self::TopicFull { .. }
            | Self::LimitReached(_)
            | Self::Invalid(_)
            | Self::InvalidIn { .. } => false,
        }
    }
}

impl std::error::Error for Rejection {}

/// A record that does not follow from the state: the log and this code disagree, and nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inconsistent(pub(crate) &'static str);

impl fmt::Display for Inconsistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Inconsistent {}

impl From<Rejection> for Inconsistent {
    fn from(rejection: Rejection) -> Self {
        Self(match rejection {
            Rejection::Invalid(reason) | Rejection::InvalidIn { reason, .. } | Rejection::LimitReached(reason) => {
                reason
            }
            Rejection::UnknownTopic => "there is no such topic",
            Rejection::UnknownGroup => "there is no such group",
            Rejection::UnknownPartition => "there is no such partition",
            Rejection::LeaseLost | Rejection::LeaseLostIn { .. } => "there is no such lease",
            Rejection::NoticeDue => "the group has another topic for notices",
            Rejection::NoSuchDeadLetter => "there is no such dead letter",
            Rejection::TooManyRedrives => "a message was sent to topics too often",
            Rejection::Stale => "the message is not exhausted",
            Rejection::Exists => "the name is taken",
            Rejection::Repeated(_) | Rejection::SequenceRepeated => "a message was published before",
            Rejection::DedupConflict { .. } | Rejection::DedupConflictIn { .. } => {
                "another message was published under this id"
            }
            Rejection::KeyPending { .. } => "a message with this unique key is pending",
            Rejection::SequenceGap { .. } => "another number of the producer comes next",
            Rejection::TopicFull { .. } => "the topic has no room",
            Rejection::NoSuchCursor => "there is no such cursor",
            Rejection::NotScheduled => "the message is not scheduled",
            Rejection::CursorMoved | Rejection::CursorMovedIn { .. } => "the cursor stands elsewhere",
            Rejection::StreamUnknown(_)
            | Rejection::WrongVersion { .. }
            | Rejection::WrongVersionIn { .. }
            | Rejection::NoSuchVersion { .. } => "the stream has another version",
        })
    }
}
