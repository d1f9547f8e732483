//! Which file holds which LSNs.
//!
//! A catalog is a value: a clone is cheap and stays as it was. Never here: I/O but for replay, which reads.

use crate::ids::{Epoch, FileNumber, Lsn};
#[cfg(test)]
use crate::log::error::ReadError;
use crate::log::format::checkpoint::{Section, note_epoch};
use crate::log::format::class::{Classes, Retired};
#[cfg(test)]
use crate::log::format::frame::Frame;
use crate::log::format::segment_info::SegmentInfo;
#[cfg(test)]
use crate::log::read::frames;
use crate::log::read::segment::Segment;
use std::sync::Arc;

#[cfg(test)]
/// What a replay is shown: each frame, and the segment that it lies in.
pub(crate) type Visit<'v, E> = &'v mut dyn FnMut(&Frame<'_>, &Arc<Segment>) -> Result<(), E>;

/// The segments and files of classes that tile the log, in the order of their LSNs, and the ranges that were given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    segments: Vec<Arc<Segment>>,
    /// Numbers with indexes into `segments`, sorted: numbers do not follow the order of LSNs.
    by_number: Vec<(FileNumber, usize)>,
    retired: Retired,
    /// Whether some of them are files of a class.
    has_class_files: bool,
    /// Where the last epochs of the log began. Shared by copies of the catalog: a process adds one.
    epochs: Arc<Vec<(Lsn, Epoch)>>,
}

impl Inner {
    fn renumber(&mut self) {
        self.segments.sort_by_key(|segment| (segment.base(), segment.number()));
        self.by_number.clear();
        self.by_number.extend(self.segments.iter().map(|segment| segment.number()).zip(0..));
        self.by_number.sort_unstable();
        self.has_class_files = self.segments.iter().any(|segment| segment.kind().class().is_some());
    }

    /// Lets what lies within the range serve these classes no more, and takes out what serves none then.
    fn leave(&mut self, from: Lsn, to: Lsn, classes: Classes) -> Vec<Arc<Segment>> {
        let mut gone = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            let left = segment.serves().without(classes);
            if segment.base() < from || segment.end() > to || left == segment.serves() {
                self.segments.push(segment);
            } else if left.is_empty() {
                gone.push(segment);
            } else {
                self.segments.push(Arc::new(segment.serving(left)));
            }
        }
        gone
    }
}

impl Catalog {
    pub(crate) fn new(segments: Vec<Arc<Segment>>, retired: Retired, epochs: Vec<(Lsn, Epoch)>) -> Self {
        let mut inner = Inner { segments, retired, epochs: Arc::new(epochs), ..Inner::default() };
        inner.renumber();
        Self { inner: Arc::new(inner) }
    }

    /// The segments and files of classes in the order of their first LSNs.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.inner.segments
    }

    /// Whether some of them are files of a class.
    pub(crate) fn has_class_files(&self) -> bool {
        self.inner.has_class_files
    }

    /// The retired ranges.
    pub(crate) fn retired(&self) -> &Retired {
        &self.inner.retired
    }

    /// Where the last epochs of the log began, in order.
    pub(crate) fn epochs(&self) -> &[(Lsn, Epoch)] {
        &self.inner.epochs
    }

    /// What a checkpoint says that covers the log up to `covers`.
    pub(crate) fn section(&self, covers: Lsn) -> Section {
        let below = self.segments().iter().filter(|segment| segment.base() < covers);
        let files = below
            .map(|segment| {
                let info = segment.info();
                SegmentInfo { end: info.end.min(covers), ..info }
            })
            .collect();
        let epochs = self.epochs().iter().filter(|(from, _)| *from < covers).copied().collect();
        Section { files, retired: self.retired().clone(), epochs }
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
        let begun = (segment.base(), segment.epoch_at(segment.base()));
        if inner.epochs.last().is_none_or(|(_, last)| *last < begun.1) {
            note_epoch(Arc::make_mut(&mut inner.epochs), begun);
        }
        inner.segments.push(segment);
        inner.renumber();
    }

    /// Puts `segment`, as it is once it was cut, in its own place.
    pub(crate) fn replace(&mut self, segment: Arc<Segment>) {
        let inner = Arc::make_mut(&mut self.inner);
        inner.segments.retain(|old| old.number() != segment.number());
        inner.segments.push(segment);
        inner.renumber();
    }

    /// Gives up the range in these classes, and returns what served no other within it: those files may be removed once the
    /// retirement is durable.
    pub(crate) fn retire(&mut self, from: Lsn, to: Lsn, classes: Classes) -> Vec<Arc<Segment>> {
        let inner = Arc::make_mut(&mut self.inner);
        let gone = inner.leave(from, to, classes);
        inner.retired.add(classes, from, to);
        inner.renumber();
        gone
    }

    /// Adds a file of a class in the place of what served the class within its range, and returns what served no other: as
    /// [`Catalog::retire`].
    pub(crate) fn take_place(&mut self, file: Arc<Segment>) -> Vec<Arc<Segment>> {
        let inner = Arc::make_mut(&mut self.inner);
        // seam: a segment keeps serving what was cleaned
        let gone = inner.leave(file.base(), file.end(), file.serves());
        inner.segments.push(file);
        inner.renumber();
        gone
    }

    /// Forgets the oldest epochs but for so many.
    #[cfg(test)]
    pub(crate) fn keep_epochs(&mut self, count: usize) {
        let epochs = Arc::make_mut(&mut Arc::make_mut(&mut self.inner).epochs);
        let beyond = epochs.len().saturating_sub(count);
        epochs.drain(..beyond);
    }

    #[cfg(test)]
    /// Shows `visit` every frame of the segments from `from` on, verified, in order.
    ///
    /// # Errors
    /// The first frame that cannot be read or is not valid, or what `visit` says.
    pub(crate) fn replay<E: From<ReadError>>(&self, from: Lsn, visit: Visit<'_, E>) -> Result<(), E> {
        let appended = self.inner.segments.iter().filter(|segment| segment.kind().class().is_none());
        for segment in appended.filter(|segment| segment.end() > from) {
            frames::for_each_whole(segment, from, &mut |frame| visit(frame, segment))?;
        }
        Ok(())
    }
}
