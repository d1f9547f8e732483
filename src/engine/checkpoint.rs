//! Checkpoints: the state at an LSN, in a file of its own, so that opening replays little.
//!
//! The state is cloned under the lock and encoded outside it; the file is written once all that it covers is durable, so
//! a checkpoint is never ahead of the log. Never here: the file's format.

use super::Engine;
use super::core::CheckpointNote;
use crate::error::Result;

impl Engine {
    /// Writes a checkpoint if the log has grown enough since the last: by a segment, and by four times its size.
    ///
    /// # Errors
    /// The store's; a full disk leaves the store as it is.
    pub(super) fn checkpoint_if_due(&self) -> Result<()> {
        let due = {
            let core = self.lock_core();
            let grown = core.appender.end().0.saturating_sub(core.checkpoint.covers.0);
            grown > self.setup.segment_bytes_max.max(core.checkpoint.len.saturating_mul(4))
        };
        if due { self.checkpoint() } else { Ok(()) }
    }

    /// Writes a checkpoint of what is appended now, unless nothing was since the last.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut keeper = self.keeper.lock();
        let (covers, catalog, state) = {
            let core = self.lock_core();
            let covers = core.appender.end();
            if covers <= core.checkpoint.covers || core.unwritten_open.is_some() {
                return Ok(());
            }
            (covers, core.catalog.clone(), core.state.clone())
        };
        let mut encoded = Vec::new();
        state.encode(&mut encoded);
        self.wait_durable(covers)?;
        let info = keeper
            .write_checkpoint(covers, &catalog, &encoded, self.commit.watermark())
            .map_err(|error| self.keeper_error(&keeper, error))?;
        let mut core = self.lock_core();
        core.checkpoint = CheckpointNote { covers, len: info.len, older_covers: core.checkpoint.covers };
        drop(core);
        keeper.prune_checkpoints().map_err(|error| self.keeper_error(&keeper, error))
    }
}
