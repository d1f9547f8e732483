//! What follows the log: one list, gone through for each frame that is appended now, and for each that an open reads again.
//!
//! Whatever else is to follow the log is added here, and is then right after a crash as well. Never here: what is counted since the
//! store was opened.

use super::View;
use crate::ids::{FileNumber, Lsn};
use crate::record::Record;
use crate::state::Inconsistent;

/// A frame of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameAt {
    pub(crate) lsn: Lsn,
    /// Where the log goes on.
    pub(crate) end: Lsn,
    /// Segment and byte; `None` where somebody else notes where the messages are.
    pub(crate) place: Option<(FileNumber, u32)>,
}

impl View {
    /// Takes in the records of a frame.
    ///
    /// # Errors
    /// A record does not follow from the state. What came before it was taken in.
    #[inline]
    pub(crate) fn follow(&mut self, records: &[Record], frame: &FrameAt) -> Result<(), Inconsistent> {
        let Self { state, positions, visible, streams, .. } = self;
        records.iter().try_for_each(|record| state.apply(record, frame.lsn))?;
        if let Some((segment, at)) = frame.place {
            positions.push_all(records, segment, at);
        }
        visible.appended(records, frame.end);
        // seam: streams do not follow the log
        records.iter().for_each(|record| streams.follow(record, frame.end));
        if state.has_removed() {
            state.removed_partitions().for_each(|partitions| visible.forget(partitions));
        }
        Ok(())
    }
}
