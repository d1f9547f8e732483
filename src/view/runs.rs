//! The runs of messages of one segment, as its frames tell of them: a row for each record that carries messages, and one for what
//! damage has taken. What a cleaner took is in no row.
//!
//! Never here: disk, other segments.

use super::share::Share;
use crate::ids::{FileNumber, Offset, PartitionId, WallMs};
use crate::log::{self, KeyRows};
use crate::record::{OffsetClaim, Record};
use std::collections::BTreeMap;

/// A run of messages that one record of one frame carries: `count` parts from `part`, beginning at `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRun {
    pub(crate) first: Offset,
    pub(crate) count: u32,
    /// Where the frame begins in its segment's file.
    pub(crate) at: u32,
    pub(crate) part: u32,
}

/// A run in 20 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRun {
    /// The run's first offset less that of the partition in this segment: the low half, and the high one.
    difference: [u32; 2],
    count: u32,
    at: u32,
    part: u32,
}

impl PackedRun {
    const fn new(difference: u64, count: u32, at: u32, part: u32) -> Self {
        Self { difference: [difference as u32, (difference >> 32) as u32], count, at, part }
    }

    const fn difference(&self) -> u64 {
        self.difference[0] as u64 | (self.difference[1] as u64) << 32
    }

    /// The difference after the run's last message.
    const fn end(&self) -> u64 {
        self.difference().saturating_add(self.count as u64)
    }
}

/// A partition's runs in a segment, in offset order. What lies between two of them is not in the segment.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) end: Offset,
    /// When the first message that a record tells of was published; zero where none does.
    pub(crate) time: WallMs,
    rows: Vec<PackedRun>,
}

/// All runs of one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRuns {
    pub(crate) segment: FileNumber,
    /// In order of first appearance.
    pub(crate) partitions: Vec<Runs>,
    slots: PartitionTable,
    /// The index of the partition that was added to last.
    last: usize,
    /// The first and the last place from which on no frame proves itself, up to the next one that does: what is missing there is
    /// told of by a row that leads there, so that a reader of it learns what is wrong.
    pub(super) holes: Option<(u32, u32)>,
}

/// How many partitions share a page.
const PAGE_LEN: usize = 64;

/// By partition: 1 + its index in [`SegmentRuns::partitions`], or 0. In pages: memory follows the partitions that are there, and not
/// the highest of them.
#[derive(Clone, Debug, Default)]
struct PartitionTable(BTreeMap<u64, Box<[u32; PAGE_LEN]>>);

impl PartitionTable {
    const fn place(partition: PartitionId) -> (u64, usize) {
        (partition.0 / PAGE_LEN as u64, (partition.0 % PAGE_LEN as u64) as usize)
    }

    /// The index of the partition.
    #[inline]
    fn get(&self, partition: PartitionId) -> Option<usize> {
        let (page, index) = Self::place(partition);
        (self.0.get(&page)?[index] as usize).checked_sub(1)
    }

    fn set(&mut self, partition: PartitionId, index: usize) {
        let (page, at) = Self::place(partition);
        self.0.entry(page).or_insert_with(|| Box::new([0; PAGE_LEN]))[at] = index as u32 + 1;
    }
}

impl SegmentRuns {
    pub(crate) const fn new(segment: FileNumber) -> Self {
        Self { segment, partitions: Vec::new(), slots: PartitionTable(BTreeMap::new()), last: 0, holes: None }
    }

    pub(super) fn get(&self, partition: PartitionId) -> Option<&Runs> {
        self.partitions.get(self.slots.get(partition)?)
    }

    /// The runs of a partition: new ones begin at `first`.
    #[inline]
    fn runs(&mut self, partition: PartitionId, first: Offset, time: WallMs) -> &mut Runs {
        // Most frames are of the partition of the one before.
        let is_last = self.partitions.get(self.last).is_some_and(|runs| runs.partition == partition);
        let index = match if is_last { Some(self.last) } else { self.slots.get(partition) } {
            Some(index) => index,
            None => {
                self.partitions.push(Runs { partition, first, end: first, time, rows: Vec::new() });
                self.slots.set(partition, self.partitions.len() - 1);
                self.partitions.len() - 1
            }
        };
        self.last = index;
        &mut self.partitions[index]
    }

    /// Adds the messages that the records of the frame at `at` carry.
    #[inline]
    pub(crate) fn push_all(&mut self, records: &[Record], at: u32) {
        for (partition, run, time) in runs_of(records, at) {
            self.push(partition, run, time);
        }
    }

    /// As [`SegmentRuns::push_all`], for records that nothing has checked but their checksums, and for what is wanted of them.
    /// `false` where they cannot be: they name a partition that never was, or messages that do not come behind the earlier ones.
    #[must_use]
    pub(crate) fn try_push_all(&mut self, records: &[Record], at: u32, share: &impl Fn(PartitionId) -> Share) -> bool {
        runs_of(records, at).all(|(partition, run, time)| match share(partition) {
            Share::Wanted => {
                let follows = self.get(partition).is_none_or(|runs| run.first >= runs.end) && run.count > 0;
                if follows {
                    self.push_hole(partition, run.first);
                    self.push(partition, run, time);
                }
                follows
            }
            Share::Passed => true,
            Share::Impossible => false,
        })
    }

    /// Notes that no frame proves itself from `at` on, up to the next run that is added.
    pub(crate) fn note_hole(&mut self, at: u32) {
        self.holes = Some((self.holes.map_or(at, |(first, _)| first), at));
    }

    /// Leads to the last hole what is missing before `next` and may be there.
    fn push_hole(&mut self, partition: PartitionId, next: Offset) {
        let Some((_, hole)) = self.holes else { return };
        let runs = self.slots.get(partition).and_then(|index| self.partitions.get_mut(index));
        if let Some(runs) = runs
            && runs.rows.last().is_some_and(|row| row.at < hole)
        {
            runs.extend_to(next, hole);
        }
    }

    /// Leads to a hole what of the partition's messages `first..end`, which this segment must hold, no frame tells of.
    pub(crate) fn complete(&mut self, partition: PartitionId, (first, end): (Offset, Offset)) {
        let Some((first_hole, last_hole)) = self.holes else { return };
        if first < end && end.0 - first.0 <= HOLE_COUNT_MAX {
            let runs = self.runs(partition, first, WallMs(0));
            runs.begin_at(first, first_hole);
            // seam: the end of a hole is lost
            runs.extend_to(end, last_hole);
        }
    }

    /// Adds a run that comes after all of its partition's earlier ones.
    #[inline]
    fn push(&mut self, partition: PartitionId, run: OffsetRun, time: WallMs) {
        let runs = self.runs(partition, run.first, time);
        debug_assert!(run.first >= runs.end, "runs come in offset order");
        let difference = run.first.0.saturating_sub(runs.first.0);
        runs.rows.push(PackedRun::new(difference, run.count, run.at, run.part));
        runs.end = run.first.saturating_add(u64::from(run.count));
    }
}

/// No more messages than this can be missing in a hole: a segment holds fewer than 2^32 bytes.
const HOLE_COUNT_MAX: u64 = u32::MAX as u64;

/// The runs of messages that the records of the frame at `at` carry, and when they were published.
fn runs_of(records: &[Record], at: u32) -> impl Iterator<Item = (PartitionId, OffsetRun, WallMs)> {
    let mut part = 0u32;
    records.iter().filter_map(move |record| {
        let OffsetClaim { partition, first, count, time, .. } = record.claim()?;
        let run = OffsetRun { first, count, at, part };
        part = part.saturating_add(count);
        Some((partition, run, time))
    })
}

impl SegmentRuns {
    /// What the segment's index file is made of.
    pub(crate) fn key_rows(&self) -> Vec<KeyRows> {
        let row = |runs: &Runs, row: &PackedRun| {
            let first = runs.first.saturating_add(row.difference()).0;
            log::Row { first, count: row.count, at: row.at, part: row.part }
        };
        let rows = |runs: &Runs| KeyRows {
            key: runs.partition.0,
            time_ms: runs.time.0,
            rows: runs.rows.iter().map(|entry| row(runs, entry)).collect(),
        };
        let mut keys: Vec<KeyRows> = self.partitions.iter().map(rows).collect();
        keys.sort_by_key(|key| key.key);
        keys
    }
}

impl Runs {
    /// Leads to the place `hole` what lies between the end and `end`, if a hole can hold as much.
    fn extend_to(&mut self, end: Offset, hole: u32) {
        let missing = end.0.saturating_sub(self.end.0);
        if missing > 0 && missing <= HOLE_COUNT_MAX {
            self.rows.push(PackedRun::new(self.end.0.saturating_sub(self.first.0), missing as u32, hole, 0));
            self.end = end;
        }
    }

    /// Leads to the place `hole` what lies between `first` and the first, if a hole can hold as much.
    fn begin_at(&mut self, first: Offset, hole: u32) {
        let missing = self.first.0.saturating_sub(first.0);
        if missing > 0 && missing <= HOLE_COUNT_MAX {
            for row in &mut self.rows {
                *row = PackedRun::new(row.difference().saturating_add(missing), row.count, row.at, row.part);
            }
            self.rows.insert(0, PackedRun::new(0, missing as u32, hole, 0));
            self.first = first;
        }
    }

    /// The number of the row that holds `offset`.
    pub(super) fn find(&self, offset: Offset) -> Option<usize> {
        if offset < self.first || offset >= self.end {
            return None;
        }
        let difference = offset.0 - self.first.0;
        let holds = |row: &PackedRun| row.difference() <= difference && difference < row.end();
        // Frames of equal counts lie on a line: one guess finds the row, and a search mends a wrong guess.
        let span = self.end.0 - self.first.0;
        let guess = difference.checked_mul(self.rows.len() as u64).map_or(0, |scaled| (scaled / span) as usize);
        if self.rows.get(guess).is_some_and(holds) {
            return Some(guess);
        }
        let last = self.rows.partition_point(|row| row.difference() <= difference).checked_sub(1)?;
        self.rows.get(last).is_some_and(holds).then_some(last)
    }

    /// The first messages at or behind `offset` that share a frame: first offset, count, place of the frame, part. `None` where there
    /// are none.
    pub(super) fn first_from(&self, offset: Offset) -> Option<(Offset, u32, u32, u32)> {
        let difference = offset.0.saturating_sub(self.first.0);
        let row = self.rows.get(self.rows.partition_point(|row| row.end() <= difference))?;
        // Fits: a row holds fewer than 2^32 messages.
        let skip = difference.saturating_sub(row.difference()) as u32;
        let first = self.first.saturating_add(row.difference().max(difference));
        Some((first, row.count - skip, row.at, row.part.saturating_add(skip)))
    }

    /// Tells `each` the stretches, each within one frame, of the messages `from..end`, the first of which the row `index` holds, up
    /// to the first that is not here. Returns the offset after the last one told of.
    pub(super) fn tell(
        &self,
        index: usize,
        (from, end): (u64, u64),
        each: &mut impl FnMut(Offset, u32, u32, u32),
    ) -> u64 {
        let mut from = from;
        for row in self.rows.iter().skip(index) {
            let Some(skip) = from.checked_sub(self.first.0.saturating_add(row.difference())) else { break };
            if from >= end {
                break;
            }
            let stop = self.first.0.saturating_add(row.end()).min(end);
            // Both fit: a run holds fewer than 2^32 messages.
            each(Offset(from), (stop - from) as u32, row.at, row.part.saturating_add(skip as u32));
            from = stop;
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of the messages `from..end` of a partition is found.
    fn found(runs: &Runs, from: u64, end: u64) -> Vec<(u64, u32, u32, u32)> {
        let mut told = Vec::new();
        if let Some(index) = runs.find(Offset(from)) {
            runs.tell(index, (from, end), &mut |first, count, at, part| told.push((first.0, count, at, part)));
        }
        told
    }

    fn published(base: u64, count: u32) -> Record {
        Record::Published { partition: PartitionId(1 << 40), base: Offset(base), count, time: WallMs(base) }
    }

    /// What a cleaner took is in no row, however much it is; a stretch ends before it.
    #[test]
    fn gaps_are_not_found() {
        let mut runs = SegmentRuns::new(FileNumber(1));
        let far = 5 << 40;
        for (base, count, at) in [(10, 2, 128), (12, 1, 136), (20, 3, 144), (far, 2, 152)] {
            assert!(runs.try_push_all(&[published(base, count)], at, &|_| Share::Wanted));
        }
        let share = runs.get(PartitionId(1 << 40)).unwrap();
        assert_eq!((share.first, share.end, share.time), (Offset(10), Offset(far + 2), WallMs(10)));
        assert_eq!(found(share, 10, 30), [(10, 2, 128, 0), (12, 1, 136, 0)]);
        assert_eq!(found(share, 11, 12), [(11, 1, 128, 1)]);
        assert_eq!(found(share, 22, 23), [(22, 1, 144, 2)]);
        assert_eq!(found(share, far + 1, u64::MAX), [(far + 1, 1, 152, 1)]);
        for absent in [9, 13, 19, 23, far - 1, far + 2] {
            assert_eq!(found(share, absent, u64::MAX), [], "{absent}");
        }
        let rows = &runs.key_rows()[0].rows;
        assert_eq!(
            rows.iter().map(|row| (row.first, row.count)).collect::<Vec<_>>(),
            [(10, 2), (12, 1), (20, 3), (far, 2)]
        );
    }

    /// A hole may hold what is missing before a run that follows it, but no more than a segment can hold.
    #[test]
    fn holes_are_no_larger_than_a_segment() {
        for (missing, is_led) in [(1, true), (HOLE_COUNT_MAX, true), (HOLE_COUNT_MAX + 1, false)] {
            let mut runs = SegmentRuns::new(FileNumber(1));
            assert!(runs.try_push_all(&[published(0, 1)], 128, &|_| Share::Wanted));
            runs.note_hole(136);
            assert!(runs.try_push_all(&[published(1 + missing, 1)], 144, &|_| Share::Wanted));
            let share = runs.get(PartitionId(1 << 40)).unwrap();
            assert_eq!(!found(share, missing, missing + 1).is_empty(), is_led, "{missing}");
            assert_eq!(found(share, 1 + missing, 2 + missing), [(1 + missing, 1, 144, 0)]);
        }
    }
}
