//! Up to where each partition may be seen.
//!
//! In a store opened at `Disk` nothing above the watermark is delivered: a message becomes visible when the sync that
//! covers it has completed. In a store opened at `Os` everything appended is visible. Never here: the watermark itself.

use crate::ids::{Lsn, Offset, PartitionId};
use crate::record::Record;
use crate::state::{Sparse, State, Visible};
use std::collections::VecDeque;
use std::ops::Range;

/// The visible ends of all partitions.
#[derive(Debug)]
pub(crate) struct VisibleEnds {
    durable_only: bool,
    /// By partition; none where nothing may be seen yet.
    ends: Sparse<Offset>,
    /// Appended and not yet durable: the end of the frame, and the partition's end after it.
    pending: VecDeque<(Lsn, PartitionId, Offset)>,
}

impl VisibleEnds {
    /// All of what `state` holds, which recovery made durable, is visible.
    pub(crate) fn new(durable_only: bool, state: &State) -> Self {
        let mut ends = Sparse::default();
        if durable_only {
            state.partitions().for_each(|(partition, end)| ends.insert(partition.0, end));
        }
        Self { durable_only, ends, pending: VecDeque::new() }
    }

    /// What may be seen now. Shares its pages.
    pub(crate) fn snapshot(&self) -> Self {
        Self { durable_only: self.durable_only, ends: self.ends.clone(), pending: VecDeque::new() }
    }

    pub(crate) fn as_input(&self) -> Visible<'_> {
        // seam: shown before durable
        if self.durable_only { Visible::Ends(&self.ends) } else { Visible::All }
    }

    pub(crate) fn is_durable_only(&self) -> bool {
        self.durable_only
    }

    /// One past the last offset of the partition that may be seen, given its end.
    pub(crate) fn end(&self, partition: PartitionId, end: Offset) -> Offset {
        self.as_input().end(partition, end)
    }

    /// Notes the messages of a frame that ends at `end`.
    pub(crate) fn appended(&mut self, records: &[Record], end: Lsn) {
        if !self.durable_only {
            return;
        }
        for record in records {
            let Some(claim) = record.claim() else { continue };
            // seam: the last copy stays hidden
            let upto = claim.end();
            self.pending.push_back((end, claim.partition, upto));
        }
    }

    /// Forgets partitions that are no more.
    pub(crate) fn forget(&mut self, partitions: Range<u64>) {
        // seam: a removed partition is shown again
        self.pending.retain(|(_, partition, _)| !partitions.contains(&partition.0));
        partitions.for_each(|partition| _ = self.ends.remove(partition));
    }

    /// Shows what lies below `watermark`, and names each partition in which something appeared.
    pub(crate) fn advance(&mut self, watermark: Lsn, mut appeared: impl FnMut(PartitionId)) {
        while let Some((_, partition, upto)) = self.pending.pop_front_if(|(end, _, _)| *end <= watermark) {
            match self.ends.get_mut(partition.0) {
                Some(end) => *end = upto,
                None => self.ends.insert(partition.0, upto),
            }
            appeared(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WallMs;

    /// A sync that completes after its removal must not bring a partition back, for it would stay for ever.
    #[test]
    fn a_removed_partition_is_not_shown_again() {
        let mut visible = VisibleEnds::new(true, &State::new());
        for (partition, end) in [(3, 10), (4, 20), (5, 30)] {
            let (partition, time) = (PartitionId(partition), WallMs(1));
            visible.appended(&[Record::Published { partition, base: Offset(0), count: 2, time }], Lsn(end));
        }
        visible.advance(Lsn(10), |_| ());
        visible.forget(3..5);
        let mut appeared = Vec::new();
        visible.advance(Lsn(30), |partition| appeared.push(partition));
        assert_eq!(appeared, [PartitionId(5)]);
        assert_eq!(visible.ends.iter().map(|(partition, end)| (partition, *end)).collect::<Vec<_>>(), [(5, Offset(2))]);
        assert!(visible.pending.is_empty());
    }
}
