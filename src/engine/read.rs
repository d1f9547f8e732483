//! Reading one stored message: place, bytes, proof, and what its record says of it. Outside the lock.
//!
//! Every byte that leaves here was checked against its checksum, and its record names the partition and offset asked
//! for. Never here: leases.

use super::Engine;
use super::positions::{Place, SegmentRuns};
use crate::error::{Corruption, Error, Result};
use crate::ids::{Epoch, Offset, PartitionId, WallMs};
use crate::log::{self, Index, ReadError, Segment};
use crate::record::message::MessageView;
use crate::record::{Origin, Provenance, Record, codec};
use std::ops::Range;
use std::sync::Arc;

/// What is wrong with a frame whose messages cannot be where it says.
pub(super) const MISPLACED: &str = "a message of no partition, or out of order";

/// How long a frame is taken to be before it is known: most messages then need one read.
const GUESS_LEN: usize = 512;

/// A message as it was read and proven.
#[derive(Debug)]
pub(crate) struct Stored {
    buf: Vec<u8>,
    part: Range<usize>,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) epoch: Epoch,
    pub(crate) time: WallMs,
    /// Of a copy: where it comes from.
    pub(crate) provenance: Option<Box<Provenance>>,
}

impl Stored {
    /// The encoded message, to be copied elsewhere.
    pub(crate) fn part(&self) -> &[u8] {
        &self.buf[self.part.clone()]
    }

    /// The message in the part, which was found valid when it was read.
    pub(crate) fn view(&self) -> MessageView<'_> {
        MessageView::parse(self.part()).unwrap_or(MessageView::EMPTY)
    }

    /// The first publish of this message.
    pub(crate) fn origin(&self) -> Origin {
        match &self.provenance {
            Some(provenance) => provenance.origin,
            None => Origin { partition: self.partition, offset: self.offset, epoch: self.epoch, time: self.time },
        }
    }
}

/// Where to read: a place, and the segment that it lies in.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) segment: Arc<Segment>,
    pub(crate) place: Place,
}

impl super::core::Core {
    /// Where a message stands.
    pub(crate) fn locate(&self, partition: PartitionId, offset: Offset) -> Option<Located> {
        let place = self.positions.find(partition, offset)?;
        let (Place::Known { segment, .. } | Place::Indexed { segment, .. }) = &place;
        Some(Located { segment: Arc::clone(self.catalog.segment(*segment)?), place })
    }
}

impl Engine {
    /// Finds and reads a message.
    ///
    /// # Errors
    /// `Corrupt` where no segment holds it or its bytes do not prove themselves; `Io`.
    pub(crate) fn fetch(&self, partition: PartitionId, offset: Offset) -> Result<Stored> {
        let located = self.lock_core().locate(partition, offset);
        match located {
            Some(located) => self.read(&located, partition, offset),
            None => Err(absent(partition, offset)),
        }
    }

    /// Reads a message whose place is known.
    ///
    /// # Errors
    /// As [`Engine::fetch`].
    pub(crate) fn read(&self, located: &Located, partition: PartitionId, offset: Offset) -> Result<Stored> {
        let segment = &located.segment;
        let (at, part) = match &located.place {
            Place::Known { at, part, .. } => (*at, *part),
            Place::Indexed { index, .. } => self.look_up(segment, index, partition, offset)?,
        };
        let mut buf = Vec::new();
        let source = self.cache.source(segment);
        let read = log::read_part(segment, &source, at, part, GUESS_LEN, &mut buf).map_err(read_error)?;
        let damaged = |reason| {
            Error::Corrupt(Corruption {
                file: segment.name().to_string(),
                offset: Some(u64::from(at)),
                lsns: Some((read.lsn, read.lsn)),
                reason,
            })
        };
        let Some((time, provenance)) = claim(&buf[read.head.clone()], part, partition, offset) else {
            return Err(damaged("a frame that does not hold the message looked for"));
        };
        if MessageView::parse(&buf[read.part.clone()]).is_err() {
            return Err(damaged("a message that cannot be decoded"));
        }
        Ok(Stored { buf, part: read.part, partition, offset, epoch: read.epoch, time, provenance })
    }
}

impl Engine {
    /// Frame and part of a message, as the index file of its segment says. An index file that does not prove itself is of no
    /// use: its rows are made anew from the segment.
    fn look_up(&self, segment: &Segment, index: &Index, partition: PartitionId, offset: Offset) -> Result<(u32, u32)> {
        let mut rows = Vec::new();
        let found = index.look_up(&self.cache, partition.0, offset.0, 1, &mut rows);
        if !matches!(found, Ok(Some(_))) {
            let partitions = self.lock_core().state.partition_count();
            let runs = read_runs(segment, partitions)?;
            let mut core = self.lock_core();
            core.positions.set_unindexed(runs);
            return match core.positions.find(partition, offset) {
                Some(Place::Known { at, part, .. }) => Ok((at, part)),
                _ => Err(absent(partition, offset)),
            };
        }
        let part = |row: &log::Row| row.part.checked_add(u32::try_from(offset.0.checked_sub(row.first)?).ok()?);
        let place = rows.first().and_then(|row| Some((row.at, part(row)?)));
        place.ok_or_else(|| absent(partition, offset))
    }
}

/// Where all messages of a segment stand, as its frames say.
fn read_runs(segment: &Segment, partitions: u32) -> Result<SegmentRuns> {
    let mut runs = SegmentRuns::new(segment.number());
    let mut records = Vec::new();
    log::for_each_frame::<Failure>(segment, segment.base(), &mut |frame| {
        if !frame.is_log() {
            decode_frame(segment, frame, &mut records)?;
            if !runs.try_push_all(&records, frame.at, partitions) {
                return Err(Failure(damaged(segment, frame, MISPLACED)));
            }
        }
        Ok(())
    })
    .map_err(|failure| failure.0)?;
    Ok(runs)
}

/// Whatever ends a walk over frames.
pub(super) struct Failure(pub(super) Error);

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self(read_error(error))
    }
}

/// Puts the records of a frame in place of what `records` held.
pub(super) fn decode_frame(
    segment: &Segment,
    frame: &log::Frame<'_>,
    records: &mut Vec<Record>,
) -> Result<(), Failure> {
    records.clear();
    for record in codec::decode(frame.head()) {
        records.push(record.map_err(|_| Failure(damaged(segment, frame, "a record that cannot be decoded")))?);
    }
    Ok(())
}

pub(super) fn damaged(segment: &Segment, frame: &log::Frame<'_>, reason: &'static str) -> Error {
    let end = frame.lsn.saturating_add(u64::from(frame.padded()));
    Error::Corrupt(Corruption {
        file: segment.name().to_string(),
        offset: Some(u64::from(frame.at)),
        lsns: Some((frame.lsn, end)),
        reason,
    })
}

/// What the frame's record says of the message in `part`, if it is the one asked for.
fn claim(head: &[u8], part: u32, partition: PartitionId, offset: Offset) -> Option<(WallMs, Option<Box<Provenance>>)> {
    let mut next = 0u32;
    for record in codec::decode(head) {
        let (owner, first, count, time, provenance) = match record.ok()? {
            Record::Published { partition, base, count, time } => (partition, base, count, time, None),
            Record::Copied { partition, offset, time, provenance } => (partition, offset, 1, time, Some(provenance)),
            _ => continue,
        };
        if part - next < count {
            let here = first.checked_add(u64::from(part - next))?;
            return (owner == partition && here == offset).then_some((time, provenance));
        }
        next = next.checked_add(count)?;
    }
    None
}

fn absent(partition: PartitionId, offset: Offset) -> Error {
    Error::Corrupt(Corruption {
        file: format!("partition {partition}, offset {offset}"),
        offset: None,
        lsns: None,
        reason: "a message that no segment holds",
    })
}

/// A failure to read, as the caller sees it.
fn read_error(error: ReadError) -> Error {
    match error {
        ReadError::Io { source, .. } => Error::io("read a segment", source),
        ReadError::Damaged { file, at, reason } => Error::Corrupt(Corruption::of(file, Some(at), reason)),
    }
}
