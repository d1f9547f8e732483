//! Snapshots of streams: saving them, and finding the newest.
//!
//! A snapshot is a note in the hidden partition of its topic; the index, and what is known beside it, say where. Never here: what is in one.

use crate::engine::Engine;
use crate::engine::Outgoing;
use crate::engine::deliver::settle::end_of;
use crate::engine::stream::streams::{StreamAt, check_there, shown};
use crate::error::{Error, Result};
use crate::ids::{Lsn, Offset, PartitionId};
use crate::record::StreamId;
use crate::state::{Command, Rejection, Touch};
use crate::view::{Stored, ViewHolder};
use std::collections::BTreeMap;

/// The stream has no event of the version that a snapshot is of.
pub(in crate::engine) fn no_such_version(key: &[u8], version: u64, actual: Option<u64>) -> Error {
    Error::NoSuchVersion { stream: shown(key), version, actual }
}

impl Engine {
    /// Saves a snapshot of a stream as it is after event `version`. Returns where the log must be durable for that to be.
    ///
    /// # Errors
    /// `NoSuchVersion`, `IndexRebuilding`, `LimitReached`; the store's. Nothing was saved then.
    pub(crate) fn save_snapshot(&self, stream: StreamAt<'_>, version: u64, note: &Outgoing) -> Result<Lsn> {
        self.enter()?;
        let submitted = self.submit_with_facts(&[stream.id], |facts| {
            let command = Command::SaveSnapshot { stream: stream.id, version, fact: facts.of(stream.id) };
            self.try_submit(&command, note.parts(), |core, committed| {
                (end_of(core, committed), core.view.streams.len())
            })
        })?;
        submitted.map_err(|rejection| match rejection {
            Rejection::NoSuchVersion { actual, .. } => no_such_version(stream.key, version, actual),
            other => self.rejected(other),
        })
    }

    /// Of the `kept` snapshots of the highest versions that may be seen, the newest of a version up to `upto`.
    ///
    /// # Errors
    /// `IndexRebuilding`; `Unreadable` where the snapshot is damaged; the store's.
    pub(crate) fn read_snapshot(
        &self,
        stream: StreamAt<'_>,
        notes: PartitionId,
        (upto, kept): (u64, usize),
    ) -> Result<Option<(u64, Stored)>> {
        self.enter()?;
        let (found, deleted) = self.known_snapshots(stream.id, notes, kept)?;
        if deleted {
            // A power failure could bring back what is not shown.
            self.tell(self.end())?;
        }
        let newest = found.into_iter().rev().take(kept).find(|(version, _)| *version <= upto);
        let Some((version, offset)) = newest else { return Ok(None) };
        let stored = self.fetch(notes, offset)?;
        if stored.view(0).key() != Some(stream.key) {
            return Err(self.doubt_index());
        }
        Ok(Some((version, stored)))
    }

    /// Where the snapshots of a stream are that may be seen: at least the `kept` of the highest versions. Also whether the stream was deleted
    /// lately.
    fn known_snapshots(
        &self,
        stream: StreamId,
        notes: PartitionId,
        kept: usize,
    ) -> Result<(BTreeMap<u64, Offset>, bool)> {
        loop {
            let (indexed, as_of) = self.indexed_snapshots(StreamId { partition: notes, ..stream }, kept)?;
            let core = self.lock_core();
            self.health.check()?;
            check_there(&core, stream)?;
            if as_of < core.view.streams.floor() {
                continue;
            }
            let visible = crate::engine::follow::log_reader::visible_end(&core, notes);
            let (mut found, mut deleted): (BTreeMap<u64, Offset>, bool) = (indexed.into_iter().collect(), false);
            for touch in core.view.streams.touches(stream) {
                match touch {
                    Touch::Saved { version, offset, .. } => {
                        // seam: a snapshot is shown before it is durable
                        if offset < visible {
                            found.insert(version, offset);
                        }
                    }
                    Touch::TruncatedTo(head, _) if head.last().is_none() => {
                        found.clear();
                        deleted = true;
                    }
                    Touch::Appended(_) | Touch::TruncatedTo(..) => {}
                }
            }
            return Ok((found, deleted));
        }
    }
}
