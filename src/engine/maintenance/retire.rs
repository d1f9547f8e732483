//! Unlinking: a segment in which every message is settled for everyone is retired, durably recorded, and then removed.
//!
//! Never here: segments that are partly alive.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::error::Result;
use crate::ids::{FileNumber, Lsn, Offset, PartitionId};
use crate::log::{ControlFrame, Segment};
use crate::view::{Share, share_of};
use std::sync::Arc;

/// Removes what earlier processes and superseded standby segments left in the directory.
///
/// # Errors
/// The store's.
pub(super) fn remove_leftovers(engine: &Engine) -> Result<()> {
    let mut file_manager = engine.file_manager.lock();
    let removed = file_manager.remove_leftovers(engine.commit.watermark());
    removed.map(drop).map_err(|error| engine.file_manager_error(&file_manager, error))
}

/// Retires and unlinks the segments in which nothing lives: durably recorded first, unlinked after.
///
/// # Errors
/// The store's.
pub(super) fn retire_dead_segments(engine: &Engine) -> Result<()> {
    let (mut retired, mut end, mut recorded) = (Vec::new(), Lsn(0), Ok(()));
    for number in dead_segments(engine) {
        match retire_segment(engine, number) {
            Ok(Some((gone, retired_at))) => {
                retired.extend(gone);
                end = retired_at;
            }
            Ok(None) => {}
            // What was recorded before is unlinked all the same: nobody else will ask for it.
            // seam: retired segments are forgotten on a full disk
            Err(error) => {
                recorded = Err(error);
                break;
            }
        }
    }
    if retired.is_empty() { recorded } else { recorded.and(unlink(engine, &retired, end)) }
}

/// Unlinks what serves nothing any more, once that is durable: the log says so below `end`.
///
/// # Errors
/// The store's.
pub(super) fn unlink(engine: &Engine, gone: &[Arc<Segment>], end: Lsn) -> Result<()> {
    // seam: unlinked before recorded
    engine.wait_durable(end)?;
    let mut file_manager = engine.file_manager.lock();
    let removed = |gone: &Arc<Segment>| {
        file_manager.remove_segment(gone).map_err(|error| engine.file_manager_error(&file_manager, error))
    };
    gone.iter().map(removed).fold(Ok(()), Result::and)
}

/// Records that nothing is looked for in a segment any more, and forgets it, in one hold of the lock: nobody can come to want it in
/// between. `None` if somebody wants it by now, or may come to want it (a [`Pin`](super::Pin)). Once the log is durable up to the LSN
/// that is returned, the files that serve no class now are to be unlinked.
fn retire_segment(engine: &Engine, number: FileNumber) -> Result<Option<(Vec<Arc<Segment>>, Lsn)>> {
    loop {
        let mut core = engine.lock_core();
        engine.health.check()?;
        // seam: a pin is ignored
        if engine.maintenance.is_pinned() {
            return Ok(None);
        }
        let found = core.view.catalog.segment(number).filter(|segment| is_dead(&core, segment));
        let Some(segment) = found.map(Arc::clone) else { return Ok(None) };
        let (from, to, classes) = (segment.base(), segment.end(), segment.serves());
        match core.append_control(ControlFrame::RangeRetired { from, to, classes }, engine.commit.watermark()) {
            Ok(end) => {
                let gone = core.view.catalog.retire(from, to, classes);
                core.view.positions.forget(segment.number());
                return Ok(Some((gone, end)));
            }
            Err(error) => {
                drop(core);
                engine.make_way(error)?;
            }
        }
    }
}

/// The segments below the older checkpoint and the watermark whose every message is settled.
fn dead_segments(engine: &Engine) -> Vec<FileNumber> {
    let core = engine.lock_core();
    let below = core.checkpoint.older_covers.min(engine.commit.watermark());
    dead_within(&core, Lsn(0), below).collect()
}

/// The segments whose every message is settled, and which end above `from` and not above `to`.
pub(super) fn dead_within(core: &Core, from: Lsn, to: Lsn) -> impl Iterator<Item = FileNumber> {
    let within = core.view.catalog.segments().iter().filter(move |segment| segment.end() > from && segment.end() <= to);
    within.filter(|segment| is_dead(core, segment)).map(|segment| segment.number())
}

/// How many bytes of segments hold nothing that anybody wants, the one that grows included.
pub(super) fn dead_len(core: &Core) -> u64 {
    let segments = core.view.catalog.segments().iter();
    let dead = segments.filter(|segment| {
        is_dead(core, segment) || !segment.is_closed() && core.view.positions.are_all_active(settled(core, segment))
    });
    dead.map(|segment| segment.frames_len()).sum()
}

/// Whether all that is looked for in a segment is settled for everyone.
fn is_dead(core: &Core, segment: &Segment) -> bool {
    core.view.positions.are_all(segment.number(), settled(core, segment))
}

/// Whether nobody looks in a segment for a partition's messages from one up to another any more.
fn settled<'a>(core: &'a Core, segment: &'a Segment) -> impl Fn(PartitionId, Offset, Offset) -> bool + 'a {
    let state = &core.view.state;
    let share = share_of(state, segment);
    let is_passed = |partition| state.held_from(partition).is_none_or(|from| segment.end() <= from);
    move |partition, first, end| {
        share(partition) == Share::Passed || state.is_settled(partition, first, end) && is_passed(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Begin, GroupInfo, Outgoing, Received, Request, Setup, TopicInfo, Wait};
    use crate::error::Error;
    use crate::ids::WallMs;
    use crate::log::Class;
    use crate::record::{BackoffOptions, GroupOptions, Growth, Jitter, Ordering, RateOptions, Retention, TopicOptions};
    use crate::view::ViewHolder;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    const GROUP: GroupOptions = GroupOptions {
        visibility_timeout_ms: 1_000,
        max_attempts: 5,
        max_nacks: 0,
        max_expiries: 0,
        max_crashes: 0,
        backoff: BackoffOptions { first_ms: 1, max_ms: 1, jitter: Jitter::None, growth: Growth::Exponential },
        max_outstanding: 10,
        max_closes: 20,
        notices: None,
        ordering: Ordering::None,
        max_in_flight_per_key: 1,
        paused: false,
        max_in_flight: 0,
        rate: RateOptions { count: 0, per_ms: 0, burst: 0 },
        filter: None,
    };

    fn engine(disk: &SimDisk) -> Engine {
        let setup = Setup::quiet(64 << 10);
        Engine::open_on(Arc::new(disk.attach().unwrap()), setup, Arc::new(SimClock::new(WallMs(1)))).unwrap()
    }

    /// Publishes what takes several segments and settles it, durably below two checkpoints.
    fn publish(engine: &Engine) {
        let topic = engine.open_topic("busy", 1, TopicOptions::LEFT_OUT).unwrap();
        let group = engine.open_group(topic, "w", &GROUP, Begin::Earliest).unwrap();
        let reader = crate::sync::Mutex::default();
        for _ in 0..2 {
            for _ in 0..100 {
                let mut outgoing = Outgoing::default();
                outgoing.add(topic.first, None, std::iter::empty(), &[7; 2000], 1 << 20).unwrap();
                engine.publish(&outgoing).unwrap().unwrap();
                let mut held = Vec::new();
                let mut each = |received: Received| held.push(received.held_run());
                engine.receive(request(engine, topic, &group, 1), &reader, &mut each).unwrap();
                assert_eq!(held.len(), 1);
                engine.ack(group.id, &held).unwrap();
            }
            engine.sync().unwrap();
            engine.checkpoint().unwrap();
        }
    }

    /// What was settled by all stays where its topic keeps it for ever, after a reopening as well, and goes with the topic.
    #[test]
    fn segments_stay_that_hold_a_message_that_stays_for_ever() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        let kept = TopicOptions { retention: Retention::Forever, ..TopicOptions::LEFT_OUT };
        let audit = engine.open_topic("audit", 1, kept).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(audit.first, None, std::iter::empty(), &[7; 20], 1 << 20).unwrap();
        publish(&engine);
        engine.publish(&outgoing).unwrap().unwrap();
        // No group of it wants what was published before.
        engine.open_group(audit, "late", &GROUP, Begin::Latest).unwrap();
        publish(&engine);
        let gone = retired(&engine);
        let base = |engine: &Engine| {
            let at = engine.lock_core().view.locate(audit.first, Offset(0));
            at.map(|at| at.segment.base().0)
        };
        let first = base(&engine).unwrap();
        assert!(gone > 0, "what stands before it goes");
        engine.close().unwrap();
        drop(engine);
        let engine = self::engine(&disk);
        publish(&engine);
        publish(&engine);
        assert!(retired(&engine) > gone, "and what stands behind it");
        assert_eq!(base(&engine), Some(first));
        assert_eq!(engine.fetch(audit.first, Offset(0)).unwrap().view(0).payload(), [7; 20]);
        engine.remove_topic("audit").unwrap();
        publish(&engine);
        retired(&engine);
        let oldest = engine.lock_core().view.catalog.segments()[0].base().0;
        assert!(oldest > first, "{oldest} {first}");
    }

    /// What is behind a message that nobody settles goes all the same, so that it holds no more than its own segment, after a
    /// reopening as well. A group that comes later begins behind what is gone.
    #[test]
    fn a_stuck_message_holds_its_own_segment_alone() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        let topic = engine.open_topic("busy", 1, TopicOptions::LEFT_OUT).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), b"stuck", 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
        let group = engine.open_group(topic, "w", &GROUP, Begin::Earliest).unwrap();
        let (mut held, reader) = (Vec::new(), crate::sync::Mutex::default());
        let mut each = |received: Received| held.push(received.held(0));
        engine.receive(request(&engine, topic, &group, 1), &reader, &mut each).unwrap();
        assert!(engine.extend(group.id, held[0], 1 << 37).unwrap());
        for _ in 0..5 {
            publish(&engine);
            retired(&engine);
        }
        let segments = |engine: &Engine| engine.lock_core().view.catalog.segments().len();
        assert!(segments(&engine) <= 12, "{} of 64 KiB", segments(&engine));
        engine.close().unwrap();
        drop(engine);
        let engine = self::engine(&disk);
        assert_eq!(engine.fetch(topic.first, Offset(0)).unwrap().view(0).payload(), b"stuck");
        let late = engine.open_group(topic, "late", &GROUP, Begin::Earliest).unwrap();
        let at_offset = engine.open_group(topic, "at", &GROUP, Begin::Offset(Offset(1))).unwrap();
        for group in [late, at_offset] {
            let mut count = 0;
            let mut each = |received: Received| count += received.stored.count();
            let unreadable = engine.receive(request(&engine, topic, &group, 10), &reader, &mut each).unwrap();
            assert!(unreadable.is_empty(), "{unreadable:?}");
        }
    }

    fn request(engine: &Engine, topic: TopicInfo, group: &GroupInfo, max: usize) -> Request<'static> {
        Request { group: group.id, topic: topic.id, max, wait: Wait::new(engine, Duration::ZERO) }
    }

    fn retired(engine: &Engine) -> u64 {
        engine.maintain().unwrap();
        let core = engine.lock_core();
        let messages = core.view.catalog.retired().of(Class::Messages);
        messages.iter().map(|(from, to)| to.0 - from.0).sum()
    }

    /// While a start is looked for nothing is retired, so that it is found in one pass; afterwards retirement goes on, however the
    /// looking ended.
    #[test]
    fn segments_stay_while_a_start_is_looked_for_and_go_afterwards() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        publish(&engine);
        let before = retired(&engine);
        assert!(before > 0, "what is settled is dead");
        let looking = (engine.maintenance.pin(), engine.maintenance.pin());
        publish(&engine);
        assert_eq!(retired(&engine), before, "two look");
        drop(looking.0);
        assert_eq!(retired(&engine), before, "one looks");
        drop(looking.1);
        let after = retired(&engine);
        assert!(after > before);
        // A look that unwinds, and one that fails.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _pin = engine.maintenance.pin();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), &[7; 20], 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
        publish(&engine);
        let (again, newest) = (retired(&engine), engine.lock_core().view.catalog.segments().to_vec());
        assert!(again > after);
        for segment in newest {
            let name = segment.name().to_string();
            let zeros = vec![0; disk.read_file(&name).unwrap().len()];
            disk.write_file(&name, &zeros);
        }
        let failed = engine.open_group(topic, "g", &GROUP, Begin::Time(WallMs(0)));
        assert!(matches!(failed, Err(Error::Unreadable { .. })), "{failed:?}");
        assert!(!engine.maintenance.is_pinned());
        engine.open_group(topic, "g", &GROUP, Begin::Latest).unwrap();
        assert!(!engine.maintenance.is_pinned());
    }
}
