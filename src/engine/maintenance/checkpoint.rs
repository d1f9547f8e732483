//! Checkpoints: the state at an LSN, in a file of its own, so that opening replays little.
//!
//! A snapshot of the state is taken under the lock and encoded outside it; the file is written once all that it covers is durable, so
//! a checkpoint is never ahead of the log. Never here: the file's format.

use super::retire::dead_within;
use crate::engine::Engine;
use crate::engine::core::CheckpointNote;
use crate::error::Result;
use crate::ids::Lsn;

/// How long nothing was appended in a store that is at rest.
const REST_MS: u64 = 500;
/// Less log than this since the last checkpoint is replayed faster than it is worth one at rest.
const REST_GROWN_MIN: u64 = 1 << 20;

/// Writes a checkpoint if the log has grown enough since the last: by a segment, and by four times its size. At rest the last two
/// cover all but a little: a kill then costs the next open little. At rest and where room is wanted, also as soon as that lets a segment
/// be unlinked.
///
/// # Errors
/// The store's; a full disk leaves the store as it is.
pub(super) fn checkpoint_if_due(engine: &Engine) -> Result<()> {
    let mono = engine.clock.monotonic();
    let due = {
        let mut core = engine.lock_core();
        let wanted = core.appender.wanted();
        if core.checkpoint.end_seen != wanted {
            (core.checkpoint.end_seen, core.checkpoint.end_seen_at) = (wanted, mono);
        }
        let rests = mono.0.saturating_sub(core.checkpoint.end_seen_at.0) >= REST_MS;
        let grown_since = |covered: Lsn| wanted.0.saturating_sub(covered.0);
        let CheckpointNote { covers, older_covers, len, .. } = core.checkpoint;
        let frees = || dead_within(&core, older_covers, engine.commit.watermark()).next().is_some();
        // seam: no checkpoint for room
        grown_since(covers) > engine.setup.segment_bytes_max.max(len.saturating_mul(4))
            || rests && grown_since(older_covers) > REST_GROWN_MIN.max(len)
            || (rests || engine.maintenance.wants_room()) && frees()
    };
    if due { write_checkpoint(engine) } else { Ok(()) }
}

/// Writes a checkpoint of what is appended now, unless nothing was since the last.
///
/// # Errors
/// The store's.
pub(super) fn checkpoint_if_new(engine: &Engine) -> Result<()> {
    let core = engine.lock_core();
    let is_new = core.appender.end() > core.checkpoint.covers;
    drop(core);
    if is_new { write_checkpoint(engine) } else { Ok(()) }
}

/// Writes a checkpoint, unless this process has appended nothing.
pub(super) fn write_checkpoint(engine: &Engine) -> Result<()> {
    let (covers, catalog, state, outstanding_len) = {
        let core = engine.lock_core();
        if core.unwritten_open.is_some() {
            return Ok(());
        }
        let state = &core.view.state;
        (core.appender.end(), core.view.catalog.clone(), state.snapshot(), state.outstanding_len())
    };
    let mut encoded = Vec::new();
    state.encode(&mut encoded);
    // Outside the lock on files: a thread that needs a segment does not wait for this sync.
    engine.wait_durable(covers)?;
    let mut file_manager = engine.file_manager.lock();
    // One that covers no more is a second one for what the first covers: then nothing is kept for the one before.
    if file_manager.checkpoints().iter().filter(|known| known.covers >= covers).count() >= 2 {
        return Ok(());
    }
    let info = file_manager
        .write_checkpoint(covers, &catalog, &encoded, engine.commit.watermark())
        .map_err(|error| engine.file_manager_error(&file_manager, error))?;
    let mut core = engine.lock_core();
    let CheckpointNote { covers: older_covers, len: older_len, .. } = core.checkpoint;
    core.checkpoint =
        CheckpointNote { covers, len: info.len, outstanding_len, older_len, older_covers, ..core.checkpoint };
    drop(core);
    file_manager.prune_checkpoints().map_err(|error| engine.file_manager_error(&file_manager, error))
}
