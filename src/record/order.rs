//! What groups are ordered by.
//!
//! Never here: what waits for what.

use super::message;
use std::fmt;

/// Which messages of a group wait for each other: the next one is delivered once the one before it is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ordering {
    /// None: a message that fails lets the others pass.
    #[default]
    None,
    /// Those with the same key. A message without a key waits for none.
    Key,
    /// Those of the same partition.
    Partition,
}

impl fmt::Display for Ordering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Key => "by key",
            Self::Partition => "by partition",
        })
    }
}

/// The hash of a key, by which messages are ordered. Keys with the same hash are in order as if they were one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// There is no key.
    pub(crate) const NONE: Self = Self(0);
    /// There was one, and it cannot be read.
    pub(crate) const LOST: Self = Self(u64::MAX);

    pub(crate) fn of(key: Option<&[u8]>) -> Self {
        // No key has a hash that stands for something else.
        // seam: messages without a key wait for each other
        key.map_or(Self::NONE, |key| Self(message::key_hash(key).clamp(1, u64::MAX - 1)))
    }
}
