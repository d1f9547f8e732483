//! The messages that a record claims of its frame.
//!
//! Never here: which records claim any.

use super::{Copied, Provenance, StreamNote};
use crate::ids::{Offset, PartitionId, WallMs};

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
    pub(super) fn claim(self) -> OffsetClaim<'static> {
        let Self { partition, offset: first, time } = self;
        OffsetClaim { partition, first, count: 1, time, provenance: None }
    }
}

impl Copied {
    pub(super) fn claim(&self) -> OffsetClaim<'_> {
        let Self { partition, offset, time, provenance } = self;
        OffsetClaim { partition: *partition, first: *offset, count: 1, time: *time, provenance: Some(provenance) }
    }
}
