//! What happens to a segment after it is full: its index is written, its file cut to its end, and once every message in
//! it is settled for everyone, it is retired and unlinked.
//!
//! Never here: rewriting segments that are partly alive.

use super::Engine;
use super::core::Core;
use crate::error::{Error, Result};
use crate::ids::{FileNumber, Lsn};
use crate::log::{ControlFrame, Reserve, Segment};
use crate::sync::atomic::Ordering;
use crate::view::Share;
use crate::view::share_of;
use std::io;
use std::sync::Arc;

/// While one is there no segment is retired: a start that was found stays one until the group is created there.
#[derive(Debug)]
pub(super) struct Pin<'a>(&'a Engine);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.starts_sought.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Engine {
    /// Keeps every segment. A thread that locks the core afterwards sees all that was retired before.
    pub(super) fn pin_segments(&self) -> Pin<'_> {
        self.starts_sought.fetch_add(1, Ordering::AcqRel);
        Pin(self)
    }

    /// Cuts the file of every segment that grows no more and is durable, and writes its index. An index file takes nothing of what is
    /// kept back on the disk: without it the rows stay in memory.
    ///
    /// # Errors
    /// The store's; where one segment cannot be finished, the others are.
    pub(super) fn finish_segments(&self) -> Result<()> {
        let unfinished: Vec<FileNumber> = {
            let core = self.lock_core();
            core.view.positions.unindexed().map(|runs| runs.segment).collect()
        };
        unfinished.into_iter().map(|number| self.finish_segment(number)).fold(Ok(()), Result::and)
    }

    fn finish_segment(&self, number: FileNumber) -> Result<()> {
        let mut file_manager = self.file_manager.lock();
        let (runs, segment, kept) = {
            let core = self.lock_core();
            let runs = core.view.positions.unindexed().find(|runs| runs.segment == number).map(Arc::clone);
            let (Some(runs), Some(segment)) = (runs, core.view.catalog.segment(number)) else { return Ok(()) };
            if segment.end() > self.commit.watermark() {
                return Ok(());
            }
            (runs, Arc::clone(segment), self.reserved_bytes(&core, Reserve::Keep))
        };
        let finished = if segment.is_closed() {
            segment
        } else {
            let finished = file_manager.cut(&segment).map_err(|error| self.file_manager_error(&file_manager, error))?;
            self.lock_core().view.catalog.replace(Arc::clone(&finished));
            finished
        };
        let rows = runs.key_rows();
        let written =
            file_manager.write_index(&finished, &rows, kept).and_then(|()| file_manager.indexes().open(&finished));
        let index = written.map_err(|error| self.file_manager_error(&file_manager, error))?;
        let Some(index) = index else {
            return Err(Error::io("read the index file that was just written", io::ErrorKind::InvalidData.into()));
        };
        let core = &mut *self.lock_core();
        core.view.positions.set_indexed(number, index, share_of(&core.view.state, &finished));
        Ok(())
    }

    /// Removes what earlier processes and superseded spares left in the directory.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let mut file_manager = self.file_manager.lock();
        let removed = file_manager.remove_leftovers(self.commit.watermark());
        removed.map(drop).map_err(|error| self.file_manager_error(&file_manager, error))
    }

    /// Retires and unlinks the segments in which nothing lives: durably recorded first, unlinked after.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn retire_dead_segments(&self) -> Result<()> {
        let (mut retired, mut end, mut recorded) = (Vec::new(), Lsn(0), Ok(()));
        for number in self.dead_segments() {
            match self.retire_segment(number) {
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
        if retired.is_empty() {
            return recorded;
        }
        // seam: unlinked before recorded
        self.wait_durable(end)?;
        let mut file_manager = self.file_manager.lock();
        let removed = |gone: Arc<Segment>| {
            file_manager.remove_segment(&gone).map_err(|error| self.file_manager_error(&file_manager, error))
        };
        retired.into_iter().map(removed).fold(recorded, Result::and)
    }

    /// Records that nothing is looked for in a segment any more, and forgets it, in one hold of the lock: nobody can come to want it in
    /// between. `None` where somebody wants it by now, or may come to want it: see [`Pin`]. Once the log is durable up to the LSN that
    /// is returned, the files that serve no class now are to be unlinked.
    fn retire_segment(&self, number: FileNumber) -> Result<Option<(Vec<Arc<Segment>>, Lsn)>> {
        loop {
            let mut core = self.lock_core();
            self.health.check()?;
            // seam: a pin is ignored
            if self.starts_sought.load(Ordering::Acquire) > 0 {
                return Ok(None);
            }
            let found = core.view.catalog.segment(number).filter(|segment| is_dead(&core, segment));
            let Some(segment) = found.map(Arc::clone) else { return Ok(None) };
            let (from, to, classes) = (segment.base(), segment.end(), segment.serves());
            match core.append_control(ControlFrame::RangeRetired { from, to, classes }, self.commit.watermark()) {
                Ok(end) => {
                    let gone = core.view.catalog.retire(from, to, classes);
                    core.view.positions.forget(segment.number());
                    return Ok(Some((gone, end)));
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
    let within = core.view.catalog.segments().iter().filter(move |segment| segment.end() > from && segment.end() <= to);
    within.filter(|segment| is_dead(core, segment)).map(|segment| segment.number())
}

/// Whether all that is looked for in a segment is settled for everyone.
fn is_dead(core: &Core, segment: &Segment) -> bool {
    let share = share_of(&core.view.state, segment);
    let is_settled =
        |partition, end| share(partition) == Share::Passed || end <= core.view.state.settled_before(partition);
    core.view.positions.are_all(segment.number(), is_settled)
}

#[cfg(test)]
mod tests {
    use super::super::topics::Begin;
    use super::super::{Outgoing, Setup};
    use super::super::{Received, Wait};
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::error::Error;
    use crate::ids::Offset;
    use crate::ids::WallMs;
    use crate::log::Class;
    use crate::record::{BackoffOptions, GroupOptions, Retention, TopicOptions};
    use crate::view::ViewHolder;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    const GROUP: GroupOptions = GroupOptions {
        visibility_timeout_ms: 1_000,
        max_attempts: 5,
        backoff: BackoffOptions { first_ms: 1, max_ms: 1, jitter: false },
        max_outstanding: 10,
        max_closes: 20,
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
                engine.publish(&outgoing, |_, _, _| ()).unwrap();
                let mut held = Vec::new();
                let wait = Wait::new(engine, Duration::ZERO);
                let mut each = |received: Received| held.push(received.held_run());
                engine.receive(group.id, topic.id, 1, wait, &reader, &mut each).unwrap();
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
        let kept = TopicOptions { retention: Retention::Forever };
        let audit = engine.open_topic("audit", 1, kept).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(audit.first, None, std::iter::empty(), &[7; 20], 1 << 20).unwrap();
        publish(&engine);
        engine.publish(&outgoing, |_, _, _| ()).unwrap();
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

    fn retired(engine: &Engine) -> u64 {
        engine.chores().unwrap();
        let core = engine.lock_core();
        let (messages, dead_letters) =
            (core.view.catalog.retired().of(Class::Messages), core.view.catalog.retired().of(Class::DeadLetters));
        assert_eq!(messages, dead_letters, "a segment is retired in both classes");
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
        let looking = (engine.pin_segments(), engine.pin_segments());
        publish(&engine);
        assert_eq!(retired(&engine), before, "two look");
        drop(looking.0);
        assert_eq!(retired(&engine), before, "one looks");
        drop(looking.1);
        let after = retired(&engine);
        assert!(after > before);
        // A look that unwinds, and one that fails.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _pin = engine.pin_segments();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), &[7; 20], 1 << 20).unwrap();
        engine.publish(&outgoing, |_, _, _| ()).unwrap();
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
        assert_eq!(engine.starts_sought.load(Ordering::Acquire), 0);
        engine.open_group(topic, "g", &GROUP, Begin::Latest).unwrap();
        assert_eq!(engine.starts_sought.load(Ordering::Acquire), 0);
    }
}
