//! For whom the room is that is kept back on the disk.
//!
//! Never here: how much that is.

/// How much of the room that is kept back on the disk an append may use, if it needs a new segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reserve {
    /// None: all of it stays.
    Keep,
    /// What is kept for the copies of messages.
    Copy,
    /// That, and what is kept for leases.
    Share,
    /// All of it.
    Use,
}

impl Reserve {
    /// From the least to the most.
    pub(crate) const ALL: [Self; 4] = [Self::Keep, Self::Copy, Self::Share, Self::Use];
}
