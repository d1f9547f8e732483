//! What happens to a segment after it is full: its index is written, its file cut to its end, and once every message in
//! it is settled for everyone, it is retired and unlinked.
//!
//! Never here: rewriting segments that are partly alive.

use super::Engine;
use super::core::Core;
use crate::error::Result;
use crate::ids::{FileNumber, Lsn, Offset, PartitionId};
use crate::log::OwnFrame;
use std::sync::Arc;

impl Engine {
    /// Writes the index of every segment that grows no more and is durable, and cuts its file.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn finish_segments(&self) -> Result<()> {
        loop {
            let mut keeper = self.keeper.lock();
            let next = {
                let core = self.lock_core();
                let watermark = self.commit.watermark();
                core.positions.unindexed().find_map(|runs| {
                    let segment = core.catalog.segment(runs.segment)?;
                    (segment.end() <= watermark).then(|| (Arc::clone(runs), Arc::clone(segment)))
                })
            };
            let Some((runs, segment)) = next else { return Ok(()) };
            keeper.write_index(&segment, &runs.key_rows()).map_err(|error| self.keeper_error(&keeper, error))?;
            let finished = keeper.cut(&segment).map_err(|error| self.keeper_error(&keeper, error))?;
            let index = keeper.open_index(&finished).map_err(|error| self.keeper_error(&keeper, error))?;
            let Some(index) = index else { return Err(self.fail("an index file is not what was written")) };
            let mut core = self.lock_core();
            core.catalog.replace(finished);
            core.positions.set_indexed(runs.segment, index);
        }
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
        // seam: unlinked before recorded
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
        let old = core.catalog.segments().iter().filter(|segment| segment.end() <= below);
        let numbers = old.map(|segment| segment.number());
        numbers.filter(|number| core.positions.are_all(*number, settled_in(&core))).collect()
    }
}

/// Whether a partition is settled up to an offset.
fn settled_in(core: &Core) -> impl Fn(PartitionId, Offset) -> bool {
    |partition, end| end <= core.state.settled_before(partition)
}
