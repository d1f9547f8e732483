//! What the log says of streams, read again for an index that does not follow it that far.
//!
//! Never here: the index.

use super::read::{ReplayError, decode_frame};
use crate::error::Result;
use crate::ids::Lsn;
use crate::log::{self, Met, Segment};
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
    let (mut records, mut goes_on) = (Vec::new(), true);
    log::for_each_left::<ReplayError>(segment, from, Lsn(0), &mut |met| {
        let Met::Frame(frame) = met else { return Ok(()) };
        let end = frame.lsn.saturating_add(frame.padded().into());
        goes_on = goes_on && end <= to;
        if goes_on {
            records.clear();
            if !frame.is_log() {
                decode_frame(segment, frame, &mut records)?;
            }
            goes_on = visit(&records, end);
        }
        Ok(())
    })
    .map_err(|failure| failure.0)
}
