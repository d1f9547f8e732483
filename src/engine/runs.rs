//! The runs of messages of one segment, as its frames tell of them: a row for each record that carries messages, and one for what
//! damage has taken.
//!
//! Never here: disk, other segments.

use crate::ids::{FileNumber, Offset, PartitionId};
use crate::log::{self, KeyRows};
use crate::record::{Claim, Record};

/// A run of messages that one record of one frame carries: `count` parts from `part`, beginning at `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Offset,
    pub(crate) count: u32,
    /// Where the frame begins in its segment's file.
    pub(crate) at: u32,
    pub(crate) part: u32,
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
    /// The first and the last place from which on no frame proves itself, up to the next one that does: what is missing there is
    /// told of by a row that leads there, so that whoever wants it learns what is wrong.
    pub(super) holes: Option<(u32, u32)>,
}

impl SegmentRuns {
    pub(crate) fn new(segment: FileNumber) -> Self {
        Self { segment, partitions: Vec::new(), slots: Vec::new(), holes: None }
    }

    pub(super) fn get(&self, partition: PartitionId) -> Option<&Runs> {
        let slot = *self.slots.get(partition.0 as usize)?;
        self.partitions.get((slot as usize).checked_sub(1)?)
    }

    /// Adds the messages that the records of the frame at `at` carry.
    #[inline]
    pub(crate) fn push_all(&mut self, records: &[Record], at: u32) {
        for (partition, run) in runs_of(records, at) {
            self.push(partition, run);
        }
    }

    /// As [`SegmentRuns::push_all`], for records that nothing has checked but their checksums. `false` where they cannot be: they
    /// name a partition beyond the `partitions` that there are, or messages that do not come behind the earlier ones.
    #[must_use]
    pub(crate) fn try_push_all(&mut self, records: &[Record], at: u32, partitions: u32) -> bool {
        runs_of(records, at).all(|(partition, run)| {
            let follows = self
                .get(partition)
                .is_none_or(|runs| run.first >= runs.end && run.first.0 - runs.first.0 <= u64::from(u32::MAX));
            let fits = partition.0 < u64::from(partitions) && follows;
            if fits {
                self.push_hole(partition, run.first);
                self.push(partition, run);
            }
            fits
        })
    }

    /// Notes that no frame proves itself from `at` on, up to the next run that is added.
    pub(crate) fn note_hole(&mut self, at: u32) {
        self.holes = Some((self.holes.map_or(at, |(first, _)| first), at));
    }

    /// Leads to the last hole what is missing before `next` and may be there.
    fn push_hole(&mut self, partition: PartitionId, next: Offset) {
        let Some((_, hole)) = self.holes else { return };
        let slot = self.slots.get(partition.0 as usize).copied().unwrap_or(0);
        let runs = (slot as usize).checked_sub(1).and_then(|index| self.partitions.get_mut(index));
        if let Some(runs) = runs
            && runs.end < next
            && runs.rows.last().is_some_and(|row| row.at < hole)
        {
            runs.extend_to(next, hole);
        }
    }

    /// Leads to a hole what of the partition's messages `first..end`, which this segment must hold, no frame tells of.
    pub(crate) fn complete(&mut self, partition: PartitionId, (first, end): (Offset, Offset)) {
        let Some((first_hole, last_hole)) = self.holes else { return };
        if end.0.saturating_sub(first.0) > u64::from(u32::MAX) || first >= end {
            return;
        }
        if self.get(partition).is_none() {
            self.push(partition, Run { first, count: 0, at: first_hole, part: 0 });
        }
        let slot = self.slots.get(partition.0 as usize).copied().unwrap_or(0);
        if let Some(runs) = (slot as usize).checked_sub(1).and_then(|index| self.partitions.get_mut(index)) {
            runs.begin_at(first, first_hole);
            // seam: the end of a hole is lost
            runs.extend_to(end, last_hole);
        }
    }

    /// Adds a run that comes after all of its partition's earlier ones.
    #[inline]
    fn push(&mut self, partition: PartitionId, run: Run) {
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

/// The runs of messages that the records of the frame at `at` carry.
fn runs_of(records: &[Record], at: u32) -> impl Iterator<Item = (PartitionId, Run)> {
    let mut part = 0u32;
    records.iter().filter_map(move |record| {
        let Claim { partition, first, count, .. } = record.claim()?;
        let run = Run { first, count, at, part };
        part = part.saturating_add(count);
        Some((partition, run))
    })
}

impl SegmentRuns {
    /// What the segment's index file is made of.
    pub(crate) fn key_rows(&self) -> Vec<KeyRows> {
        let row = |runs: &Runs, row: &Row| {
            let first = runs.first.saturating_add(u64::from(row.delta)).0;
            log::Row { first, at: row.at, part: row.part }
        };
        let rows = |runs: &Runs| KeyRows {
            key: runs.partition.0,
            count: runs.end.0.saturating_sub(runs.first.0),
            rows: runs.rows.iter().map(|entry| row(runs, entry)).collect(),
        };
        let mut keys: Vec<KeyRows> = self.partitions.iter().map(rows).collect();
        keys.sort_by_key(|key| key.key);
        keys
    }
}

impl Runs {
    /// Leads to the place `hole` what lies between the end and `end`. It fits in: all of the runs span fewer than 2^32.
    fn extend_to(&mut self, end: Offset, hole: u32) {
        if self.end < end {
            let delta = self.end.0.saturating_sub(self.first.0) as u32;
            if self.rows.last().is_none_or(|row| row.delta < delta) {
                self.rows.push(Row { delta, at: hole, part: 0 });
            }
            self.end = end;
        }
    }

    /// Leads to the place `hole` what lies between `first` and the first.
    fn begin_at(&mut self, first: Offset, hole: u32) {
        let more = self.first.0.saturating_sub(first.0);
        if more > 0 && self.end.0.saturating_sub(first.0) <= u64::from(u32::MAX) {
            self.rows.iter_mut().for_each(|row| row.delta = row.delta.saturating_add(more as u32));
            self.rows.insert(0, Row { delta: 0, at: hole, part: 0 });
            self.first = first;
        }
    }

    /// The number of the row that holds `offset`.
    pub(super) fn find(&self, offset: Offset) -> Option<usize> {
        if offset < self.first || offset >= self.end {
            return None;
        }
        let delta = offset.0 - self.first.0;
        // Frames of equal counts lie on a line: one guess finds the row, and a search mends a wrong guess.
        let span = self.end.0 - self.first.0;
        let guess = delta.checked_mul(self.rows.len() as u64).map_or(0, |scaled| (scaled / span) as usize);
        let holds = |index: usize| {
            u64::from(self.rows[index].delta) <= delta
                && self.rows.get(index + 1).is_none_or(|next| u64::from(next.delta) > delta)
        };
        if guess < self.rows.len() && holds(guess) {
            return Some(guess);
        }
        self.rows.partition_point(|row| u64::from(row.delta) <= delta).checked_sub(1)
    }

    /// Tells `each` the stretches, each within one frame, of the messages `from..end`, the first of which the row `index` holds.
    /// Returns the offset after the last one told of.
    pub(super) fn tell(
        &self,
        index: usize,
        (from, end): (u64, u64),
        each: &mut impl FnMut(Offset, u32, u32, u32),
    ) -> u64 {
        let (base, end) = (self.first.0, end.min(self.end.0));
        let mut from = from;
        for (number, row) in self.rows.iter().enumerate().skip(index) {
            if from >= end {
                break;
            }
            let next = self.rows.get(number + 1).map_or(self.end.0, |next| base + u64::from(next.delta));
            let stop = next.min(end);
            // Both fit: a frame holds fewer than 2^32 messages.
            let (skip, count) = ((from - base - u64::from(row.delta)) as u32, (stop - from) as u32);
            each(Offset(from), count, row.at, row.part.saturating_add(skip));
            from = stop;
        }
        from
    }
}
