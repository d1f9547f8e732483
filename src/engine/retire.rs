//! What happens to a segment after it is full: its index is written, its file cut to its end, and once every message in
//! it is settled for everyone, it is retired and unlinked.
//!
//! Never here: rewriting segments that are partly alive.

use super::Engine;
use crate::error::Result;
use crate::ids::{FileNumber, Lsn};
use crate::log::{OwnFrame, Segment};
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
        let dead = self.dead_segments();
        if dead.is_empty() {
            return Ok(());
        }
        let mut end = Lsn(0);
        for segment in &dead {
            end = self.append_retirement(segment)?;
        }
        self.wait_durable(end)?;
        let mut keeper = self.keeper.lock();
        for segment in dead {
            let number = segment.number();
            let mut core = self.lock_core();
            core.catalog.retire(segment.base(), segment.end());
            core.positions.forget(number);
            drop(core);
            keeper.remove_segment(number).map_err(|error| self.keeper_error(&keeper, error))?;
        }
        Ok(())
    }

    /// The segments below the older checkpoint and the watermark whose every message is settled.
    fn dead_segments(&self) -> Vec<Arc<Segment>> {
        let core = self.lock_core();
        let below = core.checkpoint.older_covers.min(self.commit.watermark());
        let old = |number: &FileNumber| core.catalog.segment(*number).filter(|segment| segment.end() <= below);
        let settled = |(partition, end)| end <= core.state.settled_before(partition);
        let indexed = core.positions.indexed().filter_map(|(number, mut shares)| shares.all(settled).then_some(number));
        // Where there was no room for an index file, a segment can be dead without one.
        let unindexed = core.positions.unindexed().filter(|runs| runs.shares().all(settled)).map(|runs| runs.segment);
        indexed.chain(unindexed).filter_map(|number| old(&number)).map(Arc::clone).collect()
    }

    fn append_retirement(&self, segment: &Segment) -> Result<Lsn> {
        let own = OwnFrame::RangeRetired { from: segment.base(), to: segment.end() };
        loop {
            let mut core = self.lock_core();
            self.health.check()?;
            match core.append_own(own, self.commit.watermark()) {
                Ok(end) => return Ok(end),
                Err(refusal) => {
                    drop(core);
                    self.make_way(refusal)?;
                }
            }
        }
    }
}
