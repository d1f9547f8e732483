//! What is known of messages that a group looks at, and how many it parks.
//!
//! Never here: reading.

use crate::ids::{Offset, PartitionId};
use crate::limits::{PARKED_MAX, PARKED_PER_KEY_MAX};
use crate::record::KeyHash;

/// How many messages of a group are parked before others that wait are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParkedMax {
    pub(crate) of_group: u32,
    pub(crate) of_key: u32,
}

impl Default for ParkedMax {
    fn default() -> Self {
        Self { of_group: PARKED_MAX, of_key: PARKED_PER_KEY_MAX }
    }
}

/// The hashes of the keys of messages next to each other, as somebody has read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRun<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) keys: &'a [KeyHash],
    pub(crate) parked_max: ParkedMax,
}

impl<'a> KeyRun<'a> {
    /// Those from `first` on.
    pub(in crate::state) fn from(&self, partition: PartitionId, first: Offset) -> &'a [KeyHash] {
        let skip = first.0.checked_sub(self.first.0).filter(|_| partition == self.partition);
        skip.and_then(|skip| self.keys.get(usize::try_from(skip).ok()?..)).unwrap_or(&[])
    }
}
