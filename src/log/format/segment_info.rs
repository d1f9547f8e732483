//! What a checkpoint lists of one file of frames. Never here: the open file.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::class::Classes;
use crate::log::format::header::{FileKind, HEADER_LEN};
use crate::log::format::name::FileName;

/// What identifies a segment or a file of a class and says which LSNs it holds: what a checkpoint lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) number: FileNumber,
    pub(crate) kind: FileKind,
    pub(crate) salt: u64,
    pub(crate) generation: u32,
    /// It holds the LSNs `base..end`. In an appended segment they tell the places of frames.
    pub(crate) base: Lsn,
    pub(crate) end: Lsn,
    /// The length of the frames in a file of a class, 0 in an appended segment.
    pub(crate) body_len: u64,
    /// Which epoch began where; the first at or below `base`. Never empty.
    pub(crate) epochs: Vec<(Lsn, Epoch)>,
    /// The classes that are to be looked for here: a segment's become fewer.
    pub(crate) serves: Classes,
}

impl SegmentInfo {
    /// The place after the last frame; `None` where the numbers are absurd.
    pub(crate) fn limit(&self) -> Option<u64> {
        let len = match self.kind {
            FileKind::Appended => self.end.0.checked_sub(self.base.0)?,
            FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => self.body_len,
        };
        len.checked_add(HEADER_LEN as u64)
    }

    pub(crate) const fn name(&self) -> FileName {
        self.kind.name(self.number)
    }

    /// The epoch in which the frame at `lsn` was appended.
    pub(crate) fn epoch_at(&self, lsn: Lsn) -> Epoch {
        let run = self.epochs.iter().rev().find(|(from, _)| *from <= lsn).or_else(|| self.epochs.first());
        run.map_or(Epoch(0), |(_, epoch)| *epoch)
    }

    /// The highest epoch inside.
    pub(crate) fn last_epoch(&self) -> Epoch {
        self.epochs.iter().map(|(_, epoch)| *epoch).max().unwrap_or(Epoch(0))
    }
}
