//! What happens to a segment after it is full: its index is written, its file cut to its end, and once every message in
//! it is settled for everyone, it is retired and unlinked.
//!
//! Never here: rewriting segments that are partly alive.

use super::Engine;
use super::core::Core;
use crate::error::{Error, Result};
use crate::ids::{FileNumber, Lsn, Offset, PartitionId};
use crate::log::{OwnFrame, Reserve};
use std::io;
use std::sync::Arc;

impl Engine {
    /// Cuts the file of every segment that grows no more and is durable, and writes its index. An index file takes nothing of what is
    /// kept back on the disk: without it the rows stay in memory.
    ///
    /// # Errors
    /// The store's; where one segment cannot be finished, the others are.
    pub(super) fn finish_segments(&self) -> Result<()> {
        let unfinished: Vec<FileNumber> = {
            let core = self.lock_core();
            core.positions.unindexed().map(|runs| runs.segment).collect()
        };
        unfinished.into_iter().map(|number| self.finish_segment(number)).fold(Ok(()), Result::and)
    }

    fn finish_segment(&self, number: FileNumber) -> Result<()> {
        let mut keeper = self.keeper.lock();
        let (runs, segment, kept) = {
            let core = self.lock_core();
            let runs = core.positions.unindexed().find(|runs| runs.segment == number).map(Arc::clone);
            let (Some(runs), Some(segment)) = (runs, core.catalog.segment(number)) else { return Ok(()) };
            if segment.end() > self.commit.watermark() {
                return Ok(());
            }
            (runs, Arc::clone(segment), self.reserved_bytes(&core, Reserve::Keep))
        };
        let finished = if segment.is_closed() {
            segment
        } else {
            let finished = keeper.cut(&segment).map_err(|error| self.keeper_error(&keeper, error))?;
            self.lock_core().catalog.replace(Arc::clone(&finished));
            finished
        };
        let rows = runs.key_rows();
        let written = keeper.write_index(&finished, &rows, kept).and_then(|()| keeper.open_index(&finished));
        let index = written.map_err(|error| self.keeper_error(&keeper, error))?;
        let Some(index) = index else {
            return Err(Error::io("read the index file that was just written", io::ErrorKind::InvalidData.into()));
        };
        self.lock_core().positions.set_indexed(number, index);
        Ok(())
    }

    /// Removes what earlier processes and superseded spares left in the directory.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let mut keeper = self.keeper.lock();
        let removed = keeper.remove_leftovers(self.commit.watermark());
        removed.map(drop).map_err(|error| self.keeper_error(&keeper, error))
    }

    /// Retires and unlinks the segments in which nothing lives: durably recorded first, unlinked after.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn retire_dead_segments(&self) -> Result<()> {
        let mut retired = Vec::new();
        let mut end = Lsn(0);
        let dead = self.dead_segments();
        for number in dead {
            if let Some(retired_at) = self.retire_segment(number)? {
                retired.push(number);
                end = retired_at;
            }
        }
        if retired.is_empty() {
            return Ok(());
        }
        self.wait_durable(end)?;
        let mut keeper = self.keeper.lock();
        for number in retired {
            keeper.remove_segment(number).map_err(|error| self.keeper_error(&keeper, error))?;
        }
        Ok(())
    }

    /// Records that a segment is gone, and forgets it, in one hold of the lock: nobody can come to want it in between. `None` where
    /// somebody wants it by now. Once the log is durable up to what is returned, the file is to be unlinked.
    fn retire_segment(&self, number: FileNumber) -> Result<Option<Lsn>> {
        loop {
            let mut core = self.lock_core();
            self.health.check()?;
            let found = core.catalog.segment(number).filter(|_| core.positions.are_all(number, settled_in(&core)));
            let Some(segment) = found.map(Arc::clone) else { return Ok(None) };
            let own = OwnFrame::RangeRetired { from: segment.base(), to: segment.end() };
            match core.append_own(own, self.commit.watermark()) {
                Ok(end) => {
                    core.catalog.retire(segment.base(), segment.end());
                    core.positions.forget(segment.number());
                    core.retirements += 1;
                    return Ok(Some(end));
                }
                Err(refusal) => {
                    drop(core);
                    self.make_way(refusal)?;
                }
            }
        }
    }

    /// The segments below the older checkpoint and the watermark whose every message is settled.
    fn dead_segments(&self) -> Vec<FileNumber> {
        let core = self.lock_core();
        let below = core.checkpoint.older_covers.min(self.commit.watermark());
        dead_within(&core, Lsn(0), below).collect()
    }
}

/// The segments whose every message is settled, and which end above `from` and not above `to`.
pub(super) fn dead_within(core: &Core, from: Lsn, to: Lsn) -> impl Iterator<Item = FileNumber> {
    let within = core.catalog.segments().iter().filter(move |segment| segment.end() > from && segment.end() <= to);
    let numbers = within.map(|segment| segment.number());
    numbers.filter(|number| core.positions.are_all(*number, settled_in(core)))
}

/// Whether a partition is settled up to an offset.
fn settled_in(core: &Core) -> impl Fn(PartitionId, Offset) -> bool {
    |partition, end| end <= core.state.settled_before(partition)
}
