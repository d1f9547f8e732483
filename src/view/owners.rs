//! Which record of a frame owns which of its parts: decoded once, then found by a binary search.
//!
//! Never here: bytes of messages, disk.

use crate::ids::{Offset, PartitionId, WallMs};
use crate::record::wire::{DecodeError, Newer};
use crate::record::{OffsetClaim, Provenance, codec};
use smallvec::SmallVec;

/// The owners of all parts of a frame, in order. Most frames have one.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: SmallVec<[Owner; 1]>,
    /// Where reading ended at what a newer version wrote. Boxed, since there is hardly ever one.
    newer: Option<Box<Newer>>,
}

/// The record that owns the parts from the end of the one before up to `end`: messages of one partition, in order.
#[derive(Debug)]
struct Owner {
    end: u32,
    partition: PartitionId,
    first: Offset,
    time: WallMs,
    /// Of a copy, which is one message.
    provenance: Option<Box<Provenance>>,
}

impl Owners {
    /// What a head says. Behind a record that cannot be decoded nothing is owned.
    pub(super) fn of(head: &[u8]) -> Self {
        let (mut owners, mut next, mut newer) = (SmallVec::new(), 0u32, None);
        for record in codec::decode(head) {
            let record = match record {
                Ok(record) => record,
                Err(DecodeError::Newer(found)) => {
                    // seam: a newer record hides when its message is read
                    newer = Some(Box::new(found));
                    break;
                }
                Err(DecodeError::Truncated | DecodeError::BadNumber | DecodeError::Invalid(_)) => break,
            };
            let Some(OffsetClaim { partition, first, count, time, provenance }) = record.claim() else { continue };
            let Some(end) = next.checked_add(count) else { break };
            owners.push(Owner { end, partition, first, time, provenance: provenance.cloned().map(Box::new) });
            next = end;
        }
        owners.shrink_to_fit();
        Self { owners, newer }
    }

    /// What a newer version wrote in this head, if anything: what stands behind it belongs to nobody here.
    pub(super) fn newer(&self) -> Option<Newer> {
        self.newer.as_deref().copied()
    }

    /// What is known of the message in `part`, if it is the one asked for: how many of its record's there are from there on, when
    /// they were published, and where a copy comes from.
    pub(super) fn claim(
        &self,
        part: u32,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<(u32, WallMs, Option<Box<Provenance>>)> {
        let index = self.owners.partition_point(|owner| owner.end <= part);
        let owner = self.owners.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.owners.get(before)).map_or(0, |before| before.end);
        let at = owner.first.checked_add(u64::from(part - start));
        let is_asked_for = owner.partition == partition && at == Some(offset);
        is_asked_for.then(|| (owner.end - part, owner.time, owner.provenance.clone()))
    }
}
