//! Retention: marks how far topics have come that keep their messages for a time, and drops what groups have not come to where a
//! topic says so.
//!
//! Never here: which messages a mark releases, or which go.

use crate::engine::Engine;
use crate::engine::core::{CommitOutcome, Core};
use crate::error::Result;
use crate::ids::TopicId;
use crate::log::Parts;
use crate::state::{Command, DROPS_MAX, Rejection};

/// How long the clocks must have agreed, in milliseconds: a wall clock that is wrong when the store is opened makes no message old.
const AGREED_MS: u64 = 600_000;

/// Marks one topic, if one is due.
///
/// # Errors
/// The store's.
pub(super) fn mark_retention(engine: &Engine) -> Result<()> {
    let now = engine.now();
    // seam: a clock that is wrong at the open lets messages go
    if now.mono.0.saturating_sub(engine.jobs.agreed_since().0) < AGREED_MS {
        return Ok(());
    }
    let due = {
        let core = engine.lock_core();
        // A process that only looks writes nothing.
        if core.unwritten_open.is_some() {
            return Ok(());
        }
        core.view.state.next_to_mark(core.view.state.store_time(now.steady))
    };
    let Some(topic) = due else { return Ok(()) };
    match engine.submit(&Command::MarkRetention { topic }, Parts::default(), |_, _| ())? {
        // It was removed, or marked, meanwhile.
        Ok(()) | Err(Rejection::Stale | Rejection::UnknownTopic) => Ok(()),
        Err(rejection) => Err(engine.rejected(rejection)),
    }
}

/// Drops the old messages of each topic that says so.
///
/// # Errors
/// The store's.
pub(super) fn drop_old(engine: &Engine) -> Result<()> {
    let due = {
        let core = engine.lock_core();
        // A process that only looks writes nothing.
        if core.unwritten_open.is_some() {
            return Ok(());
        }
        core.view.state.dropping()
    };
    due.into_iter().try_for_each(|topic| drop_old_of(engine, topic))
}

/// As many frames as it takes, each with a bounded number of records.
fn drop_old_of(engine: &Engine, topic: TopicId) -> Result<()> {
    let count = |core: &mut Core, _: &CommitOutcome| core.records.len();
    loop {
        match engine.submit(&Command::DropOld { topic }, Parts::default(), count)? {
            Ok(DROPS_MAX..) => {}
            // It may have been removed meanwhile.
            Ok(_) | Err(Rejection::UnknownTopic) => return Ok(()),
            Err(rejection) => return Err(engine.rejected(rejection)),
        }
    }
}
