//! Up to where each partition may be seen.
//!
//! In a store opened at `Disk` nothing above the watermark is delivered: a message becomes visible when the sync that
//! covers it has completed. In a store opened at `Os` everything appended is visible. Never here: the watermark itself.

use crate::ids::{Lsn, Offset, PartitionId};
use crate::record::Record;
use crate::state::{State, Visible};
use std::collections::VecDeque;

/// The visible ends of all partitions.
#[derive(Debug)]
pub(crate) struct VisibleEnds {
    durable_only: bool,
    /// By partition.
    ends: Vec<Offset>,
    /// Appended and not yet durable: the end of the frame, and the partition's end after it.
    pending: VecDeque<(Lsn, PartitionId, Offset)>,
}

impl VisibleEnds {
    /// All of what `state` holds, which recovery made durable, is visible.
    pub(crate) fn new(durable_only: bool, state: &State) -> Self {
        let partitions = if durable_only { state.partition_count() } else { 0 };
        let ends = (0..partitions).map(|index| state.partition_end(PartitionId(index.into()))).collect();
        Self { durable_only, ends, pending: VecDeque::new() }
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
        if self.durable_only { self.ends.get(partition.0 as usize).copied().unwrap_or_default() } else { end }
    }

    /// Notes the messages of a frame that ends at `end`.
    pub(crate) fn appended(&mut self, records: &[Record], end: Lsn) {
        if !self.durable_only {
            return;
        }
        for record in records {
            let (partition, upto) = match record {
                Record::Published { partition, base, count, .. } => {
                    (*partition, base.saturating_add(u64::from(*count)))
                }
                // seam: the last copy stays hidden
                Record::Copied { partition, offset, .. } => (*partition, offset.saturating_add(1)),
                _ => continue,
            };
            self.pending.push_back((end, partition, upto));
        }
    }

    /// Shows what lies below `watermark`, and names each partition in which something appeared.
    pub(crate) fn advance(&mut self, watermark: Lsn, mut appeared: impl FnMut(PartitionId)) {
        while let Some((_, partition, upto)) = self.pending.pop_front_if(|(end, _, _)| *end <= watermark) {
            let index = partition.0 as usize;
            if index >= self.ends.len() {
                self.ends.resize(index + 1, Offset(0));
            }
            self.ends[index] = upto;
            appeared(partition);
        }
    }
}
