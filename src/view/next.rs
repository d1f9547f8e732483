//! The next messages of a partition that there are, wherever they stand, and their place in the log.
//!
//! In two steps, as every read: what memory knows, under the lock, and what files say, outside it. Never here: which messages may be seen.

use super::positions::MessageLocation;
use super::read::{Reader, ViewHolder, load_rows};
use super::{ReadCaches, View};
use crate::error::Result;
use crate::ids::{Epoch, FileNumber, Lsn, Offset, PartitionId};
use crate::log::{Index, Segment};
use std::sync::Arc;

/// The next message of a partition, as far as memory knows.
#[derive(Debug)]
pub(crate) struct FoundRun {
    partition: PartitionId,
    first: Offset,
    count: u32,
    place: MessageLocation,
    segment: Arc<Segment>,
}

/// Messages of a partition that stand next to each other in a frame. Those of a topic are read in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NextRun {
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    /// Not 0.
    pub(crate) count: u32,
    pub(crate) segment: FileNumber,
    pub(crate) at: u32,
    pub(crate) part: u32,
}

impl FoundRun {
    /// No message that there is comes before this offset.
    pub(crate) const fn first(&self) -> Offset {
        self.first
    }

    pub(crate) const fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(crate) const fn segment(&self) -> FileNumber {
        self.place.segment()
    }
}

impl NextRun {
    /// Without its first message; `None` where that was the last.
    pub(crate) fn rest(self) -> Option<Self> {
        let count = self.count.checked_sub(1).filter(|count| *count > 0)?;
        Some(Self { first: self.first.saturating_add(1), count, part: self.part.saturating_add(1), ..self })
    }

    pub(crate) const fn end(&self) -> Offset {
        self.first.saturating_add(self.count as u64)
    }

    pub(crate) const fn place(&self) -> MessageLocation {
        MessageLocation::Known { segment: self.segment, at: self.at, part: self.part }
    }
}

impl View {
    /// The next message of a partition at or behind `from`. `None` where no segment has one.
    pub(crate) fn find_next(&self, partition: PartitionId, from: Offset) -> Option<FoundRun> {
        let (first, count, place) = self.positions.find_from(partition, from)?;
        let segment = Arc::clone(self.catalog.segment(place.segment())?);
        Some(FoundRun { partition, first, count, place, segment })
    }
}

impl View {
    /// The shares that files of a class have of a partition's messages from `from` on: of each the first, and the one behind the last.
    pub(crate) fn cleaned_shares(&self, partition: PartitionId, from: Offset) -> Vec<(Offset, Offset)> {
        if !self.catalog.has_class_files() {
            return Vec::new();
        }
        let is_cleaned =
            |number: &FileNumber| self.catalog.segment(*number).is_some_and(|file| file.kind().class().is_some());
        let shares = self.positions.shares_from(partition, from).into_iter();
        shares.filter(|(number, ..)| is_cleaned(number)).map(|(_, first, end)| (first, end)).collect()
    }
}

/// The first messages of a partition at or behind `from` that there are.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn next_run<H: ViewHolder + ?Sized>(
    holder: &H,
    reader: &mut Reader,
    partition: PartitionId,
    from: Offset,
) -> Result<Option<NextRun>> {
    loop {
        let Some(found) = holder.with_view(|view| view.find_next(partition, from)) else { return Ok(None) };
        if let Some(run) = resolve(holder, reader, found)? {
            return Ok(Some(run));
        }
    }
}

/// Where in the log the messages stand that were found. `None` where their segment has gone meanwhile.
///
/// # Errors
/// What reading an index file says, or the segment in its place.
pub(crate) fn resolve<H: ViewHolder + ?Sized>(
    holder: &H,
    reader: &mut Reader,
    found: FoundRun,
) -> Result<Option<NextRun>> {
    let FoundRun { partition, first, mut count, place, segment } = found;
    let (first, at, part) = match place {
        MessageLocation::Known { at, part, .. } => (first, at, part),
        MessageLocation::Indexed { .. } => {
            let rows = &mut reader.at_hand.rows;
            let cached = rows.next(segment.salt(), partition, first);
            let row = match cached {
                Some(row) => Some(row),
                None => {
                    let loaded = load_rows(holder, rows, &segment, (partition, first), Index::look_up_from);
                    // What must stay of it was copied to another file.
                    let is_gone = |view: &mut View| view.catalog.segment(segment.number()).is_none();
                    if loaded.is_err() && holder.with_view(is_gone) {
                        return Ok(None);
                    }
                    if !loaded? {
                        // The view knows the rows now, or the segment has gone.
                        let again = holder.with_view(|view| view.find_next(partition, first));
                        let again = again.filter(|again| matches!(again.place, MessageLocation::Known { .. }));
                        return again.map_or(Ok(None), |again| resolve(holder, reader, again));
                    }
                    rows.rows.first().copied()
                }
            };
            let Some(row) = row else { return Ok(None) };
            let from = first.max(Offset(row.first));
            // Fits: it lies within the row.
            let skip = from.0.saturating_sub(row.first) as u32;
            count = row.count.saturating_sub(skip);
            (from, row.at, row.part.saturating_add(skip))
        }
    };
    let lsn = lsn_of(holder.caches(), reader, &segment, at, part);
    let epoch = segment.epoch_at(lsn);
    Ok(Some(NextRun { epoch, lsn, partition, first, count, segment: segment.number(), at, part }))
}

/// The LSN of the frame at a place. Where neither the place nor the frame tells it, for that is damaged, it counts as the first of its file.
fn lsn_of(caches: &ReadCaches, reader: &mut Reader, segment: &Segment, at: u32, part: u32) -> Lsn {
    segment.lsn_at(at).unwrap_or_else(|| {
        let caches = (&caches.blocks, &caches.fronts);
        let read = reader.at_hand.parts.read(caches, segment, at, part, 1);
        read.map_or(segment.base(), |read| read.lsn)
    })
}
