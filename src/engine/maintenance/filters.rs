//! Filters: what does not pass is settled where no lease does that, so that it holds no segment.
//!
//! What consumers have read ahead is settled once a second. A group that nobody receives from reads nothing ahead: where its next message keeps a
//! segment that is full, it is made to look at that and those behind it. Never here: what a filter says.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::error::Result;
use crate::ids::{GroupId, MonoMs, Offset, PartitionId};
use crate::log::Parts;
use crate::record::Record;
use crate::state::{Command, Decision, Rejection};
use std::collections::BTreeMap;

/// How often what is known is settled, and for how long a group has not moved on that nobody receives from, in milliseconds.
const EVERY_MS: u64 = 1_000;
/// For how many looks of a group the others wait.
const LOOKS_MAX: usize = 16;

/// What is remembered from run to run.
#[derive(Debug, Default)]
pub(super) struct FilterNotes {
    next: MonoMs,
    /// The next message of a group that keeps a segment, and since when it has been that.
    keeping: BTreeMap<(GroupId, PartitionId), (Offset, MonoMs)>,
}

/// Settles what is known not to pass, and makes groups look ahead that keep segments.
///
/// # Errors
/// The store's.
pub(super) fn settle_filtered(engine: &Engine) -> Result<()> {
    let mono = engine.clock.monotonic();
    let wants_room = engine.maintenance.wants_room();
    // Where this fails, what was remembered is forgotten.
    let before = {
        let mut notes = engine.maintenance.filters.lock();
        if mono < notes.next && !wants_room {
            return Ok(());
        }
        std::mem::replace(&mut *notes, FilterNotes { next: mono.saturating_add(EVERY_MS), keeping: BTreeMap::new() })
    };
    let mut keeping = BTreeMap::new();
    for group in with_filters(engine) {
        // seam: what does not pass is never settled at rest
        settle(engine, group, None)?;
        for (partition, next) in kept_by(&engine.lock_core(), group) {
            let known = before.keeping.get(&(group, partition)).filter(|(of, _)| *of == next);
            keeping.insert((group, partition), *known.unwrap_or(&(next, mono)));
        }
    }
    let is_stuck = |since: MonoMs| wants_room || mono.0.saturating_sub(since.0) >= EVERY_MS;
    // seam: a group without consumers keeps what it does not want
    let stuck = keeping.iter().filter(|(_, (_, since))| is_stuck(*since)).map(|(at, _)| *at);
    let stuck: Vec<_> = stuck.collect();
    engine.maintenance.filters.lock().keeping = keeping;
    stuck.into_iter().try_for_each(|(group, partition)| look_ahead(engine, group, partition))
}

/// The groups that have a filter. A process that only looks writes nothing: then none.
fn with_filters(engine: &Engine) -> Vec<GroupId> {
    let core = engine.lock_core();
    if core.unwritten_open.is_some() {
        return Vec::new();
    }
    let groups = core.view.state.groups().filter(|(_, group)| group.options.filter.is_some());
    groups.map(|(id, _)| id).collect()
}

/// Settles what is known. `None` where the group is no more.
fn settle(engine: &Engine, group: GroupId, ahead: Option<PartitionId>) -> Result<Option<Decision>> {
    let command = Command::SettleFiltered { group, ahead, parked_max: engine.setup.parked_max };
    let settled = engine.submit(&command, Parts::default(), |core, committed| {
        let parked = core.records.iter().map(|record| {
            let Record::Considered { keys, .. } = record else { return 0 };
            keys.len() as u64
        });
        let parked = if committed.frame.is_some() { parked.sum() } else { 0 };
        core.use_room(parked);
        committed.decision.clone()
    })?;
    match settled {
        Ok(decision) => Ok(Some(decision)),
        Err(Rejection::UnknownGroup) => Ok(None),
        Err(rejection) => Err(engine.rejected(rejection)),
    }
}

/// The partitions in which the next message of a group keeps a segment that is full, and that message.
fn kept_by(core: &Core, group: GroupId) -> Vec<(PartitionId, Offset)> {
    let mut kept = Vec::new();
    let Some(group) = core.view.state.group(group) else { return kept };
    for (partition, next) in group.topic_nexts() {
        let end = core.view.visible.end(partition, core.view.state.partition_end(partition));
        if next >= end {
            continue;
        }
        core.view.positions.find(partition, next, 1, |_, _, place| {
            let segment = place.and_then(|place| core.view.catalog.segment(place.segment()));
            if segment.is_some_and(|segment| segment.is_closed()) {
                kept.push((partition, next));
            }
        });
    }
    kept
}

/// Makes a group look at the next messages of a partition until it keeps no segment with them, or has room for no more.
fn look_ahead(engine: &Engine, group: GroupId, partition: PartitionId) -> Result<()> {
    for _ in 0..LOOKS_MAX {
        if !kept_by(&engine.lock_core(), group).iter().any(|(of, _)| *of == partition) {
            return Ok(());
        }
        match settle(engine, group, Some(partition))? {
            Some(Decision::VerdictsNeeded { partition, first, count }) => {
                engine.read_verdicts(group, (partition, first, count))?;
            }
            Some(Decision::Filtered { .. }) => {}
            Some(
                Decision::Done
                | Decision::Nothing
                | Decision::Exhausted { .. }
                | Decision::KeysNeeded { .. }
                | Decision::Considered { .. }
                | Decision::Settled { .. },
            )
            | None => return Ok(()),
        }
    }
    Ok(())
}
