//! Checkpoints: the state at an LSN, in a file of its own, so that opening replays little.
//!
//! The state is cloned under the lock and encoded outside it; the file is written once all that it covers is durable, so
//! a checkpoint is never ahead of the log. Never here: the file's format.

use super::Engine;
use super::core::CheckpointNote;
use crate::error::Result;

/// How long nothing was appended in a store that is at rest.
const REST_MS: u64 = 500;
/// Less log than this since the last checkpoint is replayed faster than it is worth one at rest.
const REST_GROWN_MIN: u64 = 1 << 20;

impl Engine {
    /// Writes a checkpoint if the log has grown enough since the last: by a segment, and by four times its size; or by less,
    /// and the store is at rest, so that a kill then costs the next open little.
    ///
    /// # Errors
    /// The store's; a full disk leaves the store as it is.
    pub(super) fn checkpoint_if_due(&self) -> Result<()> {
        let mono = self.clock.monotonic();
        let due = {
            let mut core = self.lock_core();
            let wanted = core.appender.wanted();
            if core.checkpoint.end_seen != wanted {
                (core.checkpoint.end_seen, core.checkpoint.end_seen_at) = (wanted, mono);
            }
            let rests = mono.0.saturating_sub(core.checkpoint.end_seen_at.0) >= REST_MS;
            let grown = wanted.0.saturating_sub(core.checkpoint.covers.0);
            grown > self.setup.segment_bytes_max.max(core.checkpoint.len.saturating_mul(4))
                || rests && grown > REST_GROWN_MIN.max(core.checkpoint.len)
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
        let older_covers = core.checkpoint.covers;
        core.checkpoint = CheckpointNote { covers, len: info.len, older_covers, ..core.checkpoint };
        drop(core);
        keeper.prune_checkpoints().map_err(|error| self.keeper_error(&keeper, error))
    }
}
