//! What follows the log: one list, gone through for each frame that is appended now, and for each that an open reads again.
//!
//! Whatever else is to follow the log is added here, and is then right after a crash as well. Never here: what is counted since the
//! store was opened.

use super::View;
use crate::ids::{Epoch, FileNumber, Lsn, WallMs};
use crate::record::Record;
use crate::state::{Inconsistent, LostRun};

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
        records.iter().try_for_each(|record| self.state.apply(record, frame.lsn))?;
        self.follow_applied(records, frame);
        Ok(())
    }

    /// Takes in a record of a damaged log, some of which before it may be lost.
    ///
    /// # Errors
    /// The record does not follow from what is left.
    pub(crate) fn follow_left(
        &mut self,
        record: &Record,
        frame: &FrameAt,
        (epoch, wall): (Epoch, WallMs),
        missing: &mut Vec<LostRun>,
    ) -> Result<(), Inconsistent> {
        self.state.apply_left(record, (frame.lsn, epoch, wall), missing)?;
        self.follow_applied(std::slice::from_ref(record), frame);
        Ok(())
    }

    #[inline]
    fn follow_applied(&mut self, records: &[Record], frame: &FrameAt) {
        let Self { state, positions, visible, streams, .. } = self;
        if let Some((segment, at)) = frame.place {
            positions.push_all(records, segment, at);
        }
        visible.appended(records, frame.end);
        // seam: streams do not follow the log
        records.iter().for_each(|record| streams.follow(record, frame.end));
        if state.has_removed() {
            state.removed_partitions().for_each(|partitions| visible.forget(partitions));
        }
    }
}
