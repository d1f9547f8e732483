//! Where each message stands: (partition, offset) to a place in a segment.
//!
//! Of a segment that is still being written, or was sealed a moment ago, the rows are here in memory; once its index
//! file is written only its directory is: for each partition where that part of the index begins. So memory grows
//! with segments and the partitions in them, not with messages. Never here: disk, state.

use crate::ids::{FileNumber, Offset, PartitionId};
use std::collections::VecDeque;
use std::sync::Arc;

/// A run of messages that one record of one frame carries: `count` parts from `part`, beginning at `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Offset,
    pub(crate) count: u32,
    /// Where the frame begins in its segment's file.
    pub(crate) at: u32,
    pub(crate) part: u32,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this frame and part.
    Known { segment: FileNumber, at: u32, part: u32 },
    /// In this segment, whose index file says where: in the rows that `entry` describes.
    Indexed { segment: FileNumber, entry: Entry },
}

/// A partition's share of a segment's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    /// One past its last message in this segment. Messages in between may be missing where a cleaner took them.
    pub(crate) end: Offset,
    pub(crate) rows_at: u32,
    pub(crate) rows: u32,
}

/// A message's frame, as a row of 12 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The run's first offset less that of the partition in this segment.
    pub(crate) delta: u32,
    pub(crate) at: u32,
    pub(crate) part: u32,
}

/// A partition's runs in a segment, in offset order.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) end: Offset,
    pub(crate) rows: Vec<Row>,
}

/// All runs of one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRuns {
    pub(crate) segment: FileNumber,
    /// In order of first appearance.
    pub(crate) partitions: Vec<Runs>,
    /// By partition: 1 + its index in `partitions`, or 0.
    slots: Vec<u32>,
}

impl SegmentRuns {
    pub(crate) fn new(segment: FileNumber) -> Self {
        Self { segment, partitions: Vec::new(), slots: Vec::new() }
    }

    fn get(&self, partition: PartitionId) -> Option<&Runs> {
        let slot = *self.slots.get(partition.0 as usize)?;
        self.partitions.get((slot as usize).checked_sub(1)?)
    }

    /// Adds a run that comes after all of its partition's earlier ones.
    pub(crate) fn push(&mut self, partition: PartitionId, run: Run) {
        let index = partition.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, 0);
        }
        if self.slots[index] == 0 {
            self.partitions.push(Runs { partition, first: run.first, end: run.first, rows: Vec::new() });
            self.slots[index] = self.partitions.len() as u32;
        }
        let runs = &mut self.partitions[self.slots[index] as usize - 1];
        debug_assert!(run.first >= runs.end, "runs come in offset order");
        // A segment holds fewer than 2^32 bytes, so fewer messages than that.
        let delta = run.first.0.saturating_sub(runs.first.0) as u32;
        runs.rows.push(Row { delta, at: run.at, part: run.part });
        runs.end = run.first.saturating_add(u64::from(run.count));
    }
}

impl Runs {
    fn find(&self, offset: Offset) -> Option<Row> {
        if offset < self.first || offset >= self.end {
            return None;
        }
        let delta = offset.0 - self.first.0;
        // Frames of equal counts lie on a line: one guess finds the row, and a search mends a wrong guess.
        let span = self.end.0 - self.first.0;
        let guess = (u128::from(delta) * self.rows.len() as u128 / u128::from(span)) as usize;
        let holds = |index: usize| {
            u64::from(self.rows[index].delta) <= delta
                && self.rows.get(index + 1).is_none_or(|next| u64::from(next.delta) > delta)
        };
        let index = if guess < self.rows.len() && holds(guess) {
            guess
        } else {
            self.rows.partition_point(|row| u64::from(row.delta) <= delta).checked_sub(1)?
        };
        let row = self.rows[index];
        let part = u64::from(row.part) + (delta - u64::from(row.delta));
        Some(Row { delta: row.delta, at: row.at, part: u32::try_from(part).ok()? })
    }
}

/// The places of all messages of a store.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// Segments whose index files are not written, oldest first, but for the one that grows.
    unindexed: VecDeque<Arc<SegmentRuns>>,
    active: Option<SegmentRuns>,
    /// By partition: its share of each indexed segment, in offset order.
    indexed: Vec<Vec<(FileNumber, Entry)>>,
}

impl Positions {
    /// Records where a run stands. Runs of a partition come in offset order, segments in the order of the log.
    pub(crate) fn push(&mut self, segment: FileNumber, partition: PartitionId, run: Run) {
        if self.active.as_ref().is_none_or(|active| active.segment != segment) {
            self.roll(segment);
        }
        if let Some(active) = &mut self.active {
            active.push(partition, run);
        }
    }

    /// Begins a segment; what came before grows no more.
    pub(crate) fn roll(&mut self, segment: FileNumber) {
        if let Some(done) = self.active.replace(SegmentRuns::new(segment)) {
            self.unindexed.push_back(Arc::new(done));
        }
    }

    /// Lets the growing segment grow no more, as before a close.
    pub(crate) fn seal(&mut self) {
        self.unindexed.extend(self.active.take().map(Arc::new));
    }

    /// The segments that grow no more and have no index file, oldest first.
    pub(crate) fn unindexed(&self) -> impl Iterator<Item = &Arc<SegmentRuns>> {
        self.unindexed.iter()
    }

    /// Takes in what an index file's directory says; forgets the segment's rows.
    pub(crate) fn set_indexed(&mut self, segment: FileNumber, entries: impl IntoIterator<Item = Entry>) {
        self.unindexed.retain(|runs| runs.segment != segment);
        for entry in entries {
            let index = entry.partition.0 as usize;
            if index >= self.indexed.len() {
                self.indexed.resize_with(index + 1, Vec::new);
            }
            let entries = &mut self.indexed[index];
            let place = entries.partition_point(|(_, other)| other.first < entry.first);
            entries.insert(place, (segment, entry));
        }
    }

    /// The partitions of a segment and one past the last offset of each, or `None` while it is not indexed.
    pub(crate) fn forget(&mut self, segment: FileNumber) {
        for entries in &mut self.indexed {
            entries.retain(|(number, _)| *number != segment);
        }
    }

    /// One past the greatest offset of each partition in each indexed segment.
    pub(crate) fn indexed_ends(&self) -> impl Iterator<Item = (FileNumber, PartitionId, Offset)> {
        self.indexed.iter().flatten().map(|(segment, entry)| (*segment, entry.partition, entry.end))
    }

    /// Where a message stands, or `None` where no segment holds it.
    pub(crate) fn find(&self, partition: PartitionId, offset: Offset) -> Option<Place> {
        let unindexed = self.unindexed.iter().rev().map(Arc::as_ref);
        for segment in self.active.iter().chain(unindexed) {
            if let Some(row) = segment.get(partition).and_then(|runs| runs.find(offset)) {
                return Some(Place::Known { segment: segment.segment, at: row.at, part: row.part });
            }
        }
        let entries = self.indexed.get(partition.0 as usize)?;
        let index = entries.partition_point(|(_, entry)| entry.first <= offset).checked_sub(1)?;
        let (segment, entry) = entries[index];
        (offset < entry.end).then_some(Place::Indexed { segment, entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u32, at: u32) -> Run {
        Run { first: Offset(first), count, at, part: 0 }
    }

    fn known(segment: u64, at: u32, part: u32) -> Option<Place> {
        Some(Place::Known { segment: FileNumber(segment), at, part })
    }

    #[test]
    fn finds_every_message_of_uneven_frames() {
        let mut positions = Positions::default();
        let (one, p) = (FileNumber(1), PartitionId(3));
        let mut first = 10;
        for (index, count) in [1, 1, 50, 1, 7, 1, 1, 1].into_iter().enumerate() {
            positions.push(one, p, run(first, count, index as u32 * 8));
            for part in 0..count {
                assert_eq!(positions.find(p, Offset(first + u64::from(part))), known(1, index as u32 * 8, part));
            }
            first += u64::from(count);
        }
        assert_eq!(positions.find(p, Offset(9)), None);
        assert_eq!(positions.find(p, Offset(first)), None);
        assert_eq!(positions.find(PartitionId(2), Offset(10)), None);
    }

    #[test]
    fn an_indexed_segment_keeps_only_its_directory() {
        let mut positions = Positions::default();
        let p = PartitionId(0);
        positions.push(FileNumber(1), p, run(0, 5, 128));
        positions.push(FileNumber(2), p, run(5, 5, 128));
        positions.seal();
        assert_eq!(positions.unindexed().count(), 2);
        let entry = Entry { partition: p, first: Offset(0), end: Offset(5), rows_at: 0, rows: 1 };
        positions.set_indexed(FileNumber(1), [entry]);
        assert_eq!(positions.unindexed().count(), 1);
        assert_eq!(positions.find(p, Offset(4)), Some(Place::Indexed { segment: FileNumber(1), entry }));
        assert_eq!(positions.find(p, Offset(5)), known(2, 128, 0));
        positions.forget(FileNumber(1));
        assert_eq!(positions.find(p, Offset(4)), None);
    }
}
