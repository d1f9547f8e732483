//! Giving room back where nothing is appended: at rest, and at a close.
//!
//! Segments are long where much is appended, and the last one holds what was settled long ago, beside its unused rest. So a small one takes
//! its place, and the long one is removed like any other. Never here: what is dead.

use super::checkpoint::write_checkpoint;
use super::finish::finish_segments;
use super::retire::{dead_len, remove_leftovers, retire_dead_segments};
use crate::engine::Engine;
use crate::error::Result;
use crate::log::ControlFrame;

/// How long nothing was appended in a store that gives room back, in milliseconds.
const SHRINK_AFTER_MS: u64 = 5_000;
/// How long the segment is that takes the place.
const SMALL_LEN: u64 = 1 << 20;
/// Files that are appended to, and take no more than this, stay.
const ENOUGH_LEN: u64 = 4 * SMALL_LEN;

/// Where nothing was appended for a while, puts a small segment in the place of long ones.
///
/// # Errors
/// The store's.
pub(super) fn shrink_at_rest(engine: &Engine) -> Result<()> {
    let mono = engine.clock.monotonic();
    let is_large = {
        let core = engine.lock_core();
        let rests = core.checkpoint.end_seen == core.appender.wanted()
            && mono.0.saturating_sub(core.checkpoint.end_seen_at.0) >= SHRINK_AFTER_MS;
        // Where room is short, what there is may be needed.
        let is_short = core.appender.is_scarce() || engine.maintenance.wants_room();
        rests && !is_short && core.appender.allocated() > ENOUGH_LEN
    };
    if is_large { begin_small(engine) } else { Ok(()) }
}

/// Before a close: if much of the log is dead, lets it go.
///
/// # Errors
/// The store's.
pub(in crate::engine) fn shrink_to_close(engine: &Engine) -> Result<()> {
    let is_worth_it = {
        let core = engine.lock_core();
        core.unwritten_open.is_none() && dead_len(&core) > SMALL_LEN
    };
    if !is_worth_it {
        return Ok(());
    }
    begin_small(engine)?;
    // What both cover may go.
    for _ in 0..2 {
        write_checkpoint(engine)?;
    }
    finish_segments(engine)?;
    retire_dead_segments(engine)?;
    remove_leftovers(engine)
}

/// Begins a small segment, durably.
fn begin_small(engine: &Engine) -> Result<()> {
    let standby = engine.lock_core().appender.begin_small(SMALL_LEN);
    if let Some(standby) = standby {
        engine.file_manager.lock().discard_standby(standby);
    }
    let end = loop {
        let mut core = engine.lock_core();
        engine.health.check()?;
        match core.append_control(ControlFrame::Mark, engine.commit.watermark()) {
            Ok(end) => break end,
            Err(error) => {
                drop(core);
                engine.make_way(error)?;
            }
        }
    };
    engine.wait_durable(end)
}
