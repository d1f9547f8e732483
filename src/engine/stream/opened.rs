//! An index of streams that is open: what it says of a stream, and bringing it further.
//!
//! Never here: the log, and when it is opened and thrown away.

use crate::engine::stream::index_entry::{FIRST_OF, entries_of, key, run_of, version_of};
use crate::ids::{Epoch, Lsn, Offset};
use crate::index::{DerivedIndex, Direction, IndexChange, IndexError, IndexStamp};
use crate::record::StreamId;
use crate::state::{StreamFact, StreamHead, StreamRun, Touch, VERSION_MAX};
use std::ops::Bound;

/// An index that is open.
pub(in crate::engine) struct Opened {
    pub(in crate::engine) index: DerivedIndex,
    /// It follows the log up to here.
    pub(in crate::engine) at: Lsn,
    /// As far as it is safe from a crash, some engines even from one of the process alone.
    pub(in crate::engine) flushed: Lsn,
    pub(in crate::engine) kind: OpenedKind,
}

/// What an open index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum OpenedKind {
    /// That of the store, in files.
    Files,
    /// That of the store, in memory.
    Memory,
    /// One in memory, while the files of the store's have no room or cannot be made.
    StandIn,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Opened {
    pub(in crate::engine) fn apply(
        &mut self,
        instance: [u8; 16],
        touches: &[(Lsn, StreamId, Touch)],
        (epoch, end): (Epoch, Lsn),
    ) -> Result<(), IndexError> {
        let entries: Vec<_> = touches.iter().flat_map(|(_, stream, touch)| entries_of(*stream, *touch)).collect();
        let changes: Vec<_> =
            entries.iter().map(|(key, value)| IndexChange { key, value: Some(value.as_slice()) }).collect();
        self.index.apply(&changes, IndexStamp { instance, epoch, lsn: end })?;
        self.at = end;
        Ok(())
    }

    pub(in crate::engine) fn fact(&mut self, stream: StreamId) -> Result<StreamFact, IndexError> {
        Ok(StreamFact { head: self.head(stream)?, as_of: self.at })
    }

    /// How far a stream has come.
    pub(in crate::engine) fn head(&mut self, stream: StreamId) -> Result<StreamHead, IndexError> {
        let (low, high) = (key(stream, 0), key(stream, FIRST_OF));
        let range = (Bound::Included(&low[..]), Bound::Included(&high[..]));
        let mut head = StreamHead::default();
        for entry in self.index.scan(range, Direction::Descending, 2)? {
            if version_of(&entry.0) == Some(FIRST_OF) {
                let first = entry.1.try_into().map_err(|_| self.index.failed("an entry of another length"))?;
                head.first = u64::from_le_bytes(first);
            } else if head.next == 0 {
                head.next = run_of(&entry).ok_or_else(|| self.index.failed("an entry of another length"))?.end();
            }
        }
        if head.first > head.next {
            return Err(self.index.failed("a stream that begins behind its end"));
        }
        Ok(head)
    }

    /// The snapshots of a stream with the highest versions, at most `max`, and the offsets of their notes.
    pub(in crate::engine) fn snapshots(
        &mut self,
        notes: StreamId,
        max: usize,
    ) -> Result<Vec<(u64, Offset)>, IndexError> {
        let (low, high) = (key(notes, 0), key(notes, FIRST_OF));
        let range = (Bound::Included(&low[..]), Bound::Included(&high[..]));
        let (mut first, mut found) = (0, Vec::new());
        for (key, value) in self.index.scan(range, Direction::Descending, max.saturating_add(1))? {
            let value = value.try_into().map(u64::from_le_bytes).ok();
            let entry = version_of(&key).zip(value).ok_or_else(|| self.index.failed("an entry of another length"))?;
            match entry {
                (FIRST_OF, value) => first = value,
                (version, value) => found.push((version, Offset(value))),
            }
        }
        found.truncate(max);
        found.retain(|(version, _)| *version >= first);
        Ok(found)
    }

    /// The runs of a stream that have versions from `from` on, or up to it: at most `max`.
    pub(in crate::engine) fn runs(
        &mut self,
        stream: StreamId,
        from: u64,
        direction: Direction,
        max: usize,
    ) -> Result<Vec<StreamRun>, IndexError> {
        let (low, at, high) = (key(stream, 0), key(stream, from.min(VERSION_MAX)), key(stream, FIRST_OF));
        let upto = (Bound::Included(&low[..]), Bound::Included(&at[..]));
        let after = (Bound::Excluded(&at[..]), Bound::Excluded(&high[..]));
        let found = match direction {
            Direction::Descending => self.index.scan(upto, direction, max)?,
            Direction::Ascending => {
                // The run that `from` lies in may begin before it.
                let mut found = self.index.scan(upto, Direction::Descending, 1)?;
                found.extend(self.index.scan(after, direction, max)?);
                found
            }
        };
        let runs = found.iter().map(run_of).collect::<Option<Vec<_>>>();
        runs.ok_or_else(|| self.index.failed("an entry of another length"))
    }
}
