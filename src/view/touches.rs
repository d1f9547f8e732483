//! What the log says of streams, read again for an index that does not follow it that far.
//!
//! Never here: the index.

use super::read::{ReplayError, decode_frame};
use crate::error::Result;
use crate::ids::Lsn;
use crate::log::{self, FRAME_ALIGN, Met, ReadError, Segment};
use crate::record::Record;

/// Shows `visit` the records of each frame of a segment from the frame at `from` on that ends at or below `to`, with its end. Stops where
/// `visit` says so.
///
/// # Errors
/// A frame that cannot be read or is not valid: what it said of streams cannot be known.
pub(crate) fn for_each_frame_of_records(
    segment: &Segment,
    (from, to): (Lsn, Lsn),
    visit: &mut dyn FnMut(&[Record], Lsn) -> bool,
) -> Result<()> {
    let mut records = Vec::new();
    let walked = log::for_each_left::<Stop>(segment, from, Lsn(0), &mut |met| {
        let Met::Frame(frame) = met else { return Ok(()) };
        // In a file of a class a frame is as long as what is left of it: what follows may begin anywhere behind its LSN.
        // seam: the end of a cleaned frame is taken for that of the frame
        let len = if segment.kind().class().is_some() { FRAME_ALIGN } else { frame.padded().into() };
        let end = frame.lsn.saturating_add(len);
        if end > to {
            return Err(Stop::Here);
        }
        records.clear();
        if !frame.is_log() {
            decode_frame(segment, frame, &mut records)?;
        }
        if visit(&records, end) { Ok(()) } else { Err(Stop::Here) }
    });
    match walked {
        Ok(()) | Err(Stop::Here) => Ok(()),
        Err(Stop::Failed(error)) => Err(error.0),
    }
}

/// Why a walk ends before the end of the segment.
pub(super) enum Stop {
    Here,
    Failed(ReplayError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ReplayError> for Stop {
    fn from(error: ReplayError) -> Self {
        Self::Failed(error)
    }
}
