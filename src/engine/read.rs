//! Reading one stored message: place, bytes, proof, and what its record says of it. Outside the lock.
//!
//! Every byte that leaves here was checked against its checksum, and its record names the partition and offset asked
//! for. Never here: leases.

use super::Engine;
use super::positions::Place;
use crate::error::{Corruption, Error, Result};
use crate::ids::{Epoch, Offset, PartitionId, WallMs};
use crate::log::{self, ReadError, Segment};
use crate::record::message::MessageView;
use crate::record::{Origin, Provenance, Record, codec};
use std::ops::Range;
use std::sync::Arc;

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
        let (Place::Known { segment, .. } | Place::Indexed { segment, .. }) = place;
        Some(Located { segment: Arc::clone(self.catalog.segment(segment)?), place })
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
        let (at, part) = match located.place {
            Place::Known { at, part, .. } => (at, part),
            Place::Indexed { entry, .. } => {
                let _ = entry;
                return Err(absent(partition, offset));
            }
        };
        let mut buf = Vec::new();
        let source = segment.file().map_err(|error| Error::io("open a segment", error))?;
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
pub(super) fn read_error(error: ReadError) -> Error {
    match error {
        ReadError::Io { source, .. } => Error::io("read a segment", source),
        ReadError::Damaged { file, at, reason } => Error::Corrupt(Corruption::of(file, Some(at), reason)),
    }
}
