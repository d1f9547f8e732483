//! Where each message stands: (partition, offset) to a place in a segment.
//!
//! Of a segment that is still being written, or was sealed a moment ago, the rows are here in memory; once its index
//! file is written only its directory is: for each partition where that part of the index begins. So memory grows
//! with segments and the partitions in them, not with messages. Never here: disk, state.

use super::runs::{Runs, SegmentRuns};
use super::share::Share;
use crate::ids::{FileNumber, Offset, PartitionId, WallMs};
use crate::log::{self, Index};
use crate::record::Record;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where a message stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MessageLocation {
    /// At this frame and part.
    Known { segment: FileNumber, at: u32, part: u32 },
    /// In this segment, whose index file says where.
    Indexed { segment: FileNumber },
}

impl MessageLocation {
    pub(crate) const fn segment(&self) -> FileNumber {
        match self {
            Self::Known { segment, .. } | Self::Indexed { segment } => *segment,
        }
    }
}

/// A partition's share of an indexed segment. Messages in between may be missing where a cleaner took them.
#[derive(Clone, Copy, Debug)]
struct Span {
    segment: FileNumber,
    first: Offset,
    end: Offset,
    /// When the first message was published.
    time: WallMs,
}

/// The places of all messages of a store.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// Segments whose index files are not written, oldest first, but for the one that grows.
    unindexed: VecDeque<Arc<SegmentRuns>>,
    active: Option<SegmentRuns>,
    /// A partition's share of each indexed segment, in offset order. None is empty.
    spans: BTreeMap<PartitionId, Vec<Span>>,
    indexes: BTreeMap<FileNumber, Arc<Index>>,
}

impl Positions {
    /// Notes where the messages stand that the records of the frame at `at` carry. Runs of a partition come in offset order,
    /// segments in the order of the log.
    #[inline]
    pub(crate) fn push_all(&mut self, records: &[Record], segment: FileNumber, at: u32) {
        if self.active.as_ref().is_none_or(|active| active.segment != segment) {
            self.roll(segment);
        }
        if let Some(active) = &mut self.active {
            active.push_all(records, at);
        }
    }

    /// As [`Positions::push_all`], for records that nothing has checked but their checksums; see [`SegmentRuns::try_push_all`].
    #[must_use]
    pub(crate) fn try_push_all(
        &mut self,
        records: &[Record],
        segment: FileNumber,
        at: u32,
        share: &impl Fn(PartitionId) -> Share,
    ) -> bool {
        if self.active.as_ref().is_none_or(|active| active.segment != segment) {
            self.roll(segment);
        }
        self.active.as_mut().is_some_and(|active| active.try_push_all(records, at, share))
    }

    /// As [`SegmentRuns::note_hole`], of the segment that is being read.
    pub(crate) fn note_hole(&mut self, at: u32) {
        if let Some(active) = &mut self.active {
            active.note_hole(at);
        }
    }

    /// Leads to holes the messages that are nowhere else. `segments` are all files that serve a class, in the order of the log, each
    /// with whether something before or in it may have gone since the one before; `partitions` are all of the class, and of each
    /// `ends` are what is settled for everybody, and its end. What a hole tells nothing of is taken to be there, unless it may have gone.
    pub(crate) fn complete_holes(
        &mut self,
        segments: &[(FileNumber, bool)],
        partitions: impl Iterator<Item = PartitionId>,
        ends: impl Fn(PartitionId) -> (Offset, Offset),
    ) {
        let mut runs: BTreeMap<FileNumber, SegmentRuns> = BTreeMap::new();
        for damaged in self.unindexed.iter().filter(|runs| runs.holes.is_some()) {
            runs.insert(damaged.segment, SegmentRuns::clone(damaged));
        }
        if runs.is_empty() {
            return;
        }
        // Of each partition where its messages end in the segments so far, and in which of them that is.
        let mut reached: BTreeMap<PartitionId, (Offset, usize)> =
            partitions.map(|partition| (partition, (Offset(0), 0))).collect();
        let close = |runs: &mut BTreeMap<FileNumber, SegmentRuns>,
                     partition: PartitionId,
                     from,
                     (to, upto): (Offset, usize)| {
            let (mut first, since): (Offset, usize) = from;
            let between = segments.get(since..=upto.min(segments.len().saturating_sub(1))).unwrap_or(&[]);
            let is_first = first == Offset(0) && since == 0;
            if between.iter().skip(usize::from(!is_first)).any(|(_, retired_before)| *retired_before) {
                first = first.max(ends(partition).0);
            }
            let damaged = between.iter().find(|(number, _)| runs.contains_key(number));
            if first < to
                && let Some(runs) = damaged.and_then(|(number, _)| runs.get_mut(number))
            {
                let known = runs.get(partition).map_or((first, to), |runs| (runs.first.min(first), runs.end.max(to)));
                runs.complete(partition, known);
            }
        };
        for (index, (number, _)) in segments.iter().enumerate() {
            for (partition, first, end) in self.shares_of(*number) {
                let Some(before) = reached.get_mut(&partition) else { continue };
                if before.0 < first {
                    close(&mut runs, partition, *before, (first, index));
                }
                *before = (end, index);
            }
        }
        for (partition, before) in reached {
            let end = ends(partition).1;
            if before.0 < end {
                close(&mut runs, partition, before, (end, segments.len()));
            }
        }
        for place in &mut self.unindexed {
            if let Some(complete) = runs.remove(&place.segment) {
                *place = Arc::new(complete);
            }
        }
    }

    /// Each partition's share of a segment.
    fn shares_of(&self, segment: FileNumber) -> Vec<(PartitionId, Offset, Offset)> {
        let of_key = |key: &log::IndexKey| (PartitionId(key.key), Offset(key.first), Offset(key.end));
        let of_runs = |runs: &Runs| (runs.partition, runs.first, runs.end);
        let indexed = self.indexes.get(&segment).into_iter().flat_map(|index| index.keys().iter().map(of_key));
        let runs = self.unindexed.iter().filter(|runs| runs.segment == segment);
        indexed.chain(runs.flat_map(|runs| runs.partitions.iter().map(of_runs))).collect()
    }

    /// Where the messages of a partition from `from` on are: each segment's share, in the order of offsets.
    pub(crate) fn shares_from(&self, partition: PartitionId, from: Offset) -> Vec<(FileNumber, Offset, Offset)> {
        let spans = self.spans.get(&partition).into_iter().flatten().map(|span| (span.segment, span.first, span.end));
        let unindexed = self.unindexed.iter().map(Arc::as_ref).chain(&self.active);
        let runs = unindexed.filter_map(|of| Some((of.segment, of.get(partition)?)));
        let all = spans.chain(runs.map(|(segment, runs)| (segment, runs.first, runs.end)));
        let mut shares: Vec<_> = all.filter(|(.., end)| *end > from).collect();
        shares.sort_unstable_by_key(|(_, first, _)| *first);
        shares
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

    /// Takes in a segment's index file, as far as its shares are wanted; forgets its rows.
    pub(crate) fn set_indexed(&mut self, segment: FileNumber, index: Index, share: impl Fn(PartitionId) -> Share) {
        self.set_index(segment, Arc::new(index), share);
    }

    /// Forgets the shares of an indexed segment that are not wanted there any more.
    pub(crate) fn share_again(&mut self, segment: FileNumber, share: impl Fn(PartitionId) -> Share) {
        if let Some(index) = self.index(segment) {
            self.set_index(segment, index, share);
        }
    }

    fn set_index(&mut self, segment: FileNumber, index: Arc<Index>, share: impl Fn(PartitionId) -> Share) {
        self.forget(segment);
        for key in index.keys().iter().filter(|key| share(PartitionId(key.key)) == Share::Wanted) {
            let (first, end) = (Offset(key.first), Offset(key.end));
            let spans = self.spans.entry(PartitionId(key.key)).or_default();
            let at = spans.partition_point(|other| other.first < first);
            spans.insert(at, Span { segment, first, end, time: WallMs(key.time_ms) });
        }
        self.indexes.insert(segment, index);
    }

    /// Takes in rows that were made anew, in place of an index file that is of no use.
    pub(crate) fn set_unindexed(&mut self, runs: SegmentRuns) {
        self.forget(runs.segment);
        self.unindexed.push_front(Arc::new(runs));
    }

    /// Forgets where the messages of a segment stand.
    pub(crate) fn forget(&mut self, segment: FileNumber) {
        self.unindexed.retain(|runs| runs.segment != segment);
        if let Some(index) = self.indexes.remove(&segment) {
            for key in index.keys().iter().map(|key| PartitionId(key.key)) {
                let Some(spans) = self.spans.get_mut(&key) else { continue };
                spans.retain(|span| span.segment != segment);
                if spans.is_empty() {
                    self.spans.remove(&key);
                }
            }
        }
    }

    /// Whether `holds` for every partition of a segment that grows no more, and the first message and the end of that partition there.
    /// `false` where the segment is not known.
    pub(crate) fn are_all(&self, segment: FileNumber, holds: impl Fn(PartitionId, Offset, Offset) -> bool) -> bool {
        if let Some(index) = self.indexes.get(&segment) {
            return index.keys().iter().all(|key| holds(PartitionId(key.key), Offset(key.first), Offset(key.end)));
        }
        // Where there was no room for an index file, the rows are here.
        let runs = self.unindexed.iter().find(|runs| runs.segment == segment);
        runs.is_some_and(|runs| runs.partitions.iter().all(|runs| holds(runs.partition, runs.first, runs.end)))
    }

    /// As [`Positions::are_all`], of the segment that grows.
    pub(crate) fn are_all_active(&self, holds: impl Fn(PartitionId, Offset, Offset) -> bool) -> bool {
        let active = self.active.iter().flat_map(|active| &active.partitions);
        active.into_iter().all(|runs| holds(runs.partition, runs.first, runs.end))
    }

    /// The first offset from which on no message before `end` is missing. `looked_at` grows by the shares of segments that were
    /// looked at: each of the partition's at most once.
    pub(crate) fn kept_from(&self, partition: PartitionId, end: Offset, looked_at: &mut usize) -> Offset {
        let spans = self.spans.get(&partition).into_iter().flatten().map(|span| (span.first, span.end));
        let unindexed = self.unindexed.iter().map(Arc::as_ref).chain(&self.active);
        let runs = unindexed.filter_map(|segment| segment.get(partition)).map(|runs| (runs.first, runs.end));
        let mut shares: SmallVec<[(Offset, Offset); 16]> = spans.chain(runs).collect();
        *looked_at += shares.len();
        // Segments in the order of the log, but for those whose rows were made anew.
        shares.sort_unstable();
        let mut from = end;
        for (first, end) in shares.into_iter().rev() {
            if end >= from && first < from {
                from = first;
            }
        }
        from
    }

    /// Tells `each` where the `count` messages from `first` on stand, in stretches that are next to each other in a frame or in an
    /// indexed segment: first offset, number, and place, which is `None` where no segment holds them.
    pub(crate) fn find(
        &self,
        partition: PartitionId,
        first: Offset,
        count: u32,
        mut each: impl FnMut(Offset, u32, Option<MessageLocation>),
    ) {
        let end = first.0.saturating_add(u64::from(count));
        let mut from = first.0;
        while from < end {
            let unindexed = self.active.iter().chain(self.unindexed.iter().rev().map(Arc::as_ref));
            let mut runs = unindexed.filter_map(|segment| Some((segment.segment, segment.get(partition)?)));
            if let Some((segment, runs, index)) =
                runs.find_map(|(segment, runs)| Some((segment, runs, runs.find(Offset(from))?)))
            {
                from = runs.tell(index, (from, end), &mut |first, count, at, part| {
                    each(first, count, Some(MessageLocation::Known { segment, at, part }));
                });
                continue;
            }
            let (stop, place) = match self.indexed_place(partition, Offset(from)) {
                Some((stop, place)) => (stop.0.min(end), Some(place)),
                None => (from + 1, None),
            };
            // At most `count`.
            each(Offset(from), (stop - from) as u32, place);
            from = stop;
        }
    }

    /// The first messages of a partition at or behind `from` that a segment has: those of one frame, or where an index file says more,
    /// one. First offset, count and place.
    pub(crate) fn find_from(&self, partition: PartitionId, from: Offset) -> Option<(Offset, u32, MessageLocation)> {
        let unindexed = self.active.iter().chain(self.unindexed.iter().map(Arc::as_ref));
        let shares = unindexed.filter_map(|segment| Some((segment.segment, segment.get(partition)?)));
        let known = shares.filter_map(|(segment, runs)| {
            let (first, count, at, part) = runs.first_from(from)?;
            Some((first, count, MessageLocation::Known { segment, at, part }))
        });
        let spans = self.spans.get(&partition).map(Vec::as_slice).unwrap_or_default();
        let span = spans.get(spans.partition_point(|span| span.end <= from));
        let indexed = span.map(|span| (from.max(span.first), 1, MessageLocation::Indexed { segment: span.segment }));
        known.chain(indexed).min_by_key(|(first, ..)| *first)
    }

    /// The indexed segment that may hold a message, and the end of the partition's share there.
    fn indexed_place(&self, partition: PartitionId, offset: Offset) -> Option<(Offset, MessageLocation)> {
        let span = self.span(partition, offset)?;
        Some((span.end, MessageLocation::Indexed { segment: span.segment }))
    }

    fn span(&self, partition: PartitionId, offset: Offset) -> Option<&Span> {
        let spans = self.spans.get(&partition)?;
        let span = spans.get(spans.partition_point(|span| span.first <= offset).checked_sub(1)?)?;
        (offset < span.end).then_some(span)
    }

    /// When the first message was published of the share of a segment within which `offset` lies: about how old a message is at
    /// most, known without reading it. `None` where no segment has such a share.
    pub(crate) fn time_before(&self, partition: PartitionId, offset: Offset) -> Option<WallMs> {
        let unindexed = self.active.iter().chain(self.unindexed.iter().rev().map(Arc::as_ref));
        let mut runs = unindexed.filter_map(|segment| segment.get(partition));
        let runs = runs.find(|runs| runs.first <= offset && offset < runs.end);
        runs.map(|runs| runs.time).or_else(|| self.span(partition, offset).map(|span| span.time))
    }

    /// The index of an indexed segment.
    pub(crate) fn index(&self, segment: FileNumber) -> Option<Arc<Index>> {
        self.indexes.get(&segment).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::OffsetRun;
    use super::*;

    fn run(first: u64, count: u32, at: u32) -> OffsetRun {
        OffsetRun { first: Offset(first), count, at, part: 0 }
    }

    fn push(positions: &mut Positions, segment: u64, partition: PartitionId, run: OffsetRun) {
        let record = Record::Published { partition, base: run.first, count: run.count, time: WallMs(0) };
        positions.push_all(&[record], FileNumber(segment), run.at);
    }

    fn found(positions: &Positions, partition: PartitionId, offset: u64) -> Option<(u64, u32, u32)> {
        let mut place = None;
        positions.find(partition, Offset(offset), 1, |first, count, found| {
            assert_eq!((first, count), (Offset(offset), 1));
            place = found;
        });
        match place? {
            MessageLocation::Known { segment, at, part } => Some((segment.0, at, part)),
            MessageLocation::Indexed { .. } => panic!("nothing is indexed here"),
        }
    }

    #[test]
    fn finds_every_message_of_uneven_frames() {
        let mut positions = Positions::default();
        let p = PartitionId(3);
        let mut first = 10;
        for (index, count) in [1, 1, 50, 1, 7, 1, 1, 1].into_iter().enumerate() {
            push(&mut positions, 1, p, run(first, count, index as u32 * 8));
            for part in 0..count {
                assert_eq!(found(&positions, p, first + u64::from(part)), Some((1, index as u32 * 8, part)));
            }
            first += u64::from(count);
        }
        assert_eq!(found(&positions, p, 9), None);
        assert_eq!(found(&positions, p, first), None);
        assert_eq!(found(&positions, PartitionId(2), 10), None);
    }

    #[test]
    fn stretches_end_with_frames_and_segments() {
        let mut positions = Positions::default();
        let p = PartitionId(0);
        for (segment, first, count, at) in [(1, 0, 3, 128), (1, 3, 4, 256), (2, 7, 1, 128), (2, 8, 5, 136)] {
            push(&mut positions, segment, p, run(first, count, at));
        }
        let mut told = Vec::new();
        positions.find(p, Offset(2), 13, |first, count, place| {
            let place = place.map(|place| match place {
                MessageLocation::Known { segment, at, part } => (segment.0, at, part),
                MessageLocation::Indexed { .. } => panic!("nothing is indexed here"),
            });
            told.push((first.0, count, place));
        });
        let expected = [
            (2, 1, Some((1, 128, 2))),
            (3, 4, Some((1, 256, 0))),
            (7, 1, Some((2, 128, 0))),
            (8, 5, Some((2, 136, 0))),
            (13, 1, None),
            (14, 1, None),
        ];
        assert_eq!(told, expected);
    }

    /// Forged records cost nothing: memory is by partition, and rows are in the order of their offsets.
    #[test]
    fn records_that_cannot_be_are_refused() {
        let published = |partition, base, count| Record::Published {
            partition: PartitionId(partition),
            base: Offset(base),
            count,
            time: WallMs(0),
        };
        let share = |partition: PartitionId| match partition.0 {
            3 => Share::Passed,
            0..5 => Share::Wanted,
            _ => Share::Impossible,
        };
        let mut positions = Positions::default();
        let mut add = |record| positions.try_push_all(&[record], FileNumber(1), 128, &share);
        assert!(add(published(4, 10, 3)));
        assert!(!add(published(5, 0, 1)) && !add(published(u64::MAX, 0, 1)), "no such partition");
        assert!(!add(published(4, 12, 1)) && !add(published(4, 0, 1)), "told of already");
        assert!(!add(published(4, 13, 0)), "no message");
        assert!(add(published(4, 13, 1)));
        assert!(add(published(3, 0, 1)) && add(published(3, 0, 1)), "not looked at");
        let place = found(&positions, PartitionId(4), 13);
        assert_eq!(place, Some((1, 128, 0)));
        assert_eq!(found(&positions, PartitionId(3), 0), None);
    }

    /// Each share of a segment is looked at once, however many there are, and whether they are indexed or not; a gap ends the search.
    #[test]
    fn what_is_kept_is_found_in_one_pass() {
        for segments in [1u64, 10, 100, 1000] {
            let mut positions = Positions::default();
            for segment in 1..=segments {
                for partition in 0..4 {
                    push(&mut positions, segment, PartitionId(partition), run(segment * 10, 10, 128));
                }
            }
            let end = Offset(segments * 10 + 10);
            let mut looked_at = 0;
            for partition in 0..4 {
                assert_eq!(positions.kept_from(PartitionId(partition), end, &mut looked_at), Offset(10));
            }
            assert_eq!(looked_at as u64, segments * 4);
            assert_eq!(positions.kept_from(PartitionId(9), Offset(7), &mut looked_at), Offset(7), "nothing is there");
            positions.seal();
            positions.forget(FileNumber(segments / 2 + 1));
            let kept = positions.kept_from(PartitionId(0), end, &mut 0);
            assert_eq!(kept, Offset(segments / 2 * 10 + 20));
        }
    }

    #[test]
    fn the_time_of_a_share_is_that_of_its_first_message() {
        let mut positions = Positions::default();
        let p = PartitionId(u64::MAX);
        for (segment, base) in [(1, 0), (1, 5), (2, 10), (2, 12)] {
            let record = Record::Published { partition: p, base: Offset(base), count: 2, time: WallMs(100 + base) };
            positions.push_all(&[record], FileNumber(segment), 128);
        }
        let time = |offset| positions.time_before(p, Offset(offset));
        assert_eq!([0, 1, 6, 10, 13].map(time), [100, 100, 100, 110, 110].map(|ms| Some(WallMs(ms))));
        assert_eq!(time(14), None);
        assert_eq!(positions.time_before(PartitionId(0), Offset(0)), None);
    }

    #[test]
    fn a_segment_that_was_rolled_is_still_known() {
        let mut positions = Positions::default();
        let p = PartitionId(0);
        push(&mut positions, 1, p, run(0, 5, 128));
        push(&mut positions, 2, p, run(5, 5, 128));
        positions.seal();
        assert_eq!(positions.unindexed().count(), 2);
        assert_eq!(found(&positions, p, 4), Some((1, 128, 4)));
        assert_eq!(found(&positions, p, 5), Some((2, 128, 0)));
        positions.forget(FileNumber(1));
        assert_eq!(found(&positions, p, 4), None);
    }
}
