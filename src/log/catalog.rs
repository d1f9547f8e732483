//! Which file holds which LSNs.
//!
//! A catalog is a value: a clone is cheap and stays as it was. Never here: I/O but for replay, which reads.

#[cfg(test)]
use super::error::ReadError;
#[cfg(test)]
use super::frame::Frame;
#[cfg(test)]
use super::frames;
use super::segment::Segment;
use crate::ids::{FileNumber, Lsn};
use std::sync::Arc;

#[cfg(test)]
/// What a replay is shown: each frame, and the segment that it lies in.
pub(crate) type Visit<'v, E> = &'v mut dyn FnMut(&Frame<'_>, &Arc<Segment>) -> Result<(), E>;

/// The segments that tile the log, in the order of their LSNs, and the ranges that were given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    segments: Vec<Arc<Segment>>,
    /// Numbers with indexes into `segments`, sorted: numbers do not follow the order of LSNs.
    by_number: Vec<(FileNumber, usize)>,
    retired: Vec<(Lsn, Lsn)>,
}

impl Inner {
    fn renumber(&mut self) {
        self.segments.sort_by_key(|segment| segment.base());
        self.by_number.clear();
        self.by_number.extend(self.segments.iter().map(|segment| segment.number()).zip(0..));
        self.by_number.sort_unstable();
    }
}

impl Catalog {
    pub(crate) fn new(segments: Vec<Arc<Segment>>, retired: Vec<(Lsn, Lsn)>) -> Self {
        let mut inner = Inner { segments, by_number: Vec::new(), retired };
        inner.renumber();
        Self { inner: Arc::new(inner) }
    }

    /// The segments in the order of their LSNs.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.inner.segments
    }

    /// The retired ranges, disjoint and in order.
    pub(crate) fn retired(&self) -> &[(Lsn, Lsn)] {
        &self.inner.retired
    }

    /// The segment in this file.
    pub(crate) fn segment(&self, number: FileNumber) -> Option<&Arc<Segment>> {
        let found = self.inner.by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, index) = self.inner.by_number.get(found)?;
        self.inner.segments.get(*index)
    }

    /// Adds the segment that the appender has begun.
    pub(crate) fn add(&mut self, segment: Arc<Segment>) {
        let inner = Arc::make_mut(&mut self.inner);
        inner.segments.push(segment);
        inner.renumber();
    }

    /// Puts `segment` in place of all segments within its range: of itself once cut, or of those it was built from.
    pub(crate) fn replace(&mut self, segment: Arc<Segment>) {
        let inner = Arc::make_mut(&mut self.inner);
        let (from, to) = (segment.base(), segment.end());
        inner.segments.retain(|old| old.base() < from || old.end() > to);
        inner.segments.push(segment);
        inner.renumber();
    }

    /// Gives up the range, and returns the segments within it, whose files may be removed once the retirement is durable.
    pub(crate) fn retire(&mut self, from: Lsn, to: Lsn) -> Vec<Arc<Segment>> {
        let inner = Arc::make_mut(&mut self.inner);
        let (gone, kept) = inner.segments.drain(..).partition(|segment| segment.base() >= from && segment.end() <= to);
        inner.segments = kept;
        merge_range(&mut inner.retired, from, to);
        inner.renumber();
        gone
    }

    #[cfg(test)]
    /// Shows `visit` every frame from `from` on, verified, in order.
    ///
    /// # Errors
    /// The first frame that cannot be read or is not valid, or what `visit` says.
    pub(crate) fn replay<E: From<ReadError>>(&self, from: Lsn, visit: Visit<'_, E>) -> Result<(), E> {
        for segment in self.inner.segments.iter().filter(|segment| segment.end() > from) {
            frames::for_each_whole(segment, from, &mut |frame| visit(frame, segment))?;
        }
        Ok(())
    }
}

/// Adds `from..to` to disjoint sorted ranges, joining what touches.
pub(crate) fn merge_range(ranges: &mut Vec<(Lsn, Lsn)>, from: Lsn, to: Lsn) {
    let (mut from, mut to) = (from, to);
    ranges.retain(|(start, end)| {
        let apart = *end < from || *start > to;
        if !apart {
            from = from.min(*start);
            to = to.max(*end);
        }
        apart
    });
    let index = ranges.partition_point(|(start, _)| *start < from);
    ranges.insert(index, (from, to));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_what_touches() {
        let mut ranges = Vec::new();
        for (from, to) in [(64, 80), (0, 8), (16, 24), (8, 16), (72, 96), (200, 208)] {
            merge_range(&mut ranges, Lsn(from), Lsn(to));
        }
        assert_eq!(ranges, [(Lsn(0), Lsn(24)), (Lsn(64), Lsn(96)), (Lsn(200), Lsn(208))]);
        merge_range(&mut ranges, Lsn(24), Lsn(200));
        assert_eq!(ranges, [(Lsn(0), Lsn(208))]);
    }
}
