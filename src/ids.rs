//! Newtypes for every number that has a meaning of its own.
//!
//! Here live the identifiers and positions that all layers share, with checked arithmetic.
//! Never here: I/O, time, encoding.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number itself.
            #[inline]
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// `self + n`, or `None` where the number would wrap.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, n: $inner) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self - n`, or zero where that would be negative.
            #[inline]
            #[must_use]
            pub const fn saturating_sub(self, n: $inner) -> Self {
                Self(self.0.saturating_sub(n))
            }

            /// `self + n`, or the greatest number where that would wrap.
            #[inline]
            #[must_use]
            pub const fn saturating_add(self, n: $inner) -> Self {
                Self(self.0.saturating_add(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A place on the log's axis: the number of frame bytes before a frame. Only grows; always a multiple of 8.
    Lsn(u64)
}
number! {
    /// Rises durably before a process's first append; tells apart two messages that got one offset
    /// because a crash dropped the first.
    Epoch(u64)
}
number! {
    /// A topic, numbered in order of creation from 0.
    TopicId(u32)
}
number! {
    /// A partition of any topic, hidden ones included: one dense numbering for the whole store.
    PartitionId(u32)
}
number! {
    /// A group, numbered in order of creation from 0.
    GroupId(u32)
}
number! {
    /// A message's place in its partition: dense from 0, continuing across epochs.
    Offset(u64)
}
number! {
    /// The number in a file's name. Never reused in the life of a store.
    FileNumber(u64)
}
number! {
    /// Milliseconds since 1970-01-01 UTC by the wall clock, which may jump.
    WallMs(u64)
}
number! {
    /// Milliseconds by the monotonic clock of this boot; meaningless in another process.
    MonoMs(u64)
}

/// The identity of a message for ever: it never names other bytes, whatever crashes come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The topic's number in its store.
    pub topic: TopicId,
    /// The partition's index within its topic, from 0.
    pub partition: u32,
    /// The epoch in which the message was appended.
    pub epoch: Epoch,
    /// The message's offset in its partition.
    pub offset: Offset,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}@{}", self.topic, self.partition, self.offset, self.epoch)
    }
}
