//! Group commit: one sync for all who wait.
//!
//! The first who waits for durability leads: it takes the turn, and syncs what is appended by then, outside the store's lock. The
//! others wait for the end of that turn, or of the next one where they appended too late for it. The watermark is the LSN
//! below which a sync has completed. A sync that fails, or a leader that panics, poisons the store, and every waiter
//! resolves. Never here: what is appended.

use super::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, UnwindWatch};

/// Who syncs, and how far syncs have come.
#[derive(Debug)]
pub(crate) struct Commit {
    watermark: AtomicU64,
    /// Held for moments only, and never while taking another lock.
    turns: Mutex<Turns>,
    /// Tell of the ends of turns, each of every other one: who waits for the next turn is not woken by the end of this one, but for
    /// the one who is to lead then.
    ended: [Condvar; 2],
}

/// The turns to sync, one after another.
#[derive(Debug)]
struct Turns {
    /// Whether somebody is syncing.
    taken: bool,
    /// How many have ended.
    ended: usize,
    /// All below is durable when the turn that is taken ends. Before its leader has said so, everybody waits for this turn.
    covers: Lsn,
}

impl Turns {
    /// Which of the two ends tells of the turn that is taken, or comes next where none is.
    const fn parity(&self) -> usize {
        self.ended % 2
    }
}

impl Commit {
    pub(crate) fn new(watermark: Lsn) -> Self {
        let turns = Turns { taken: false, ended: 0, covers: Lsn(u64::MAX) };
        Self { watermark: AtomicU64::new(watermark.0), turns: Mutex::new(turns), ended: Default::default() }
    }

    #[inline]
    pub(crate) fn watermark(&self) -> Lsn {
        Lsn(self.watermark.load(Ordering::Acquire))
    }

    /// Wakes all who wait, to look again at watermark and health.
    pub(crate) fn wake_all(&self) {
        // Taking the lock orders this after the check of anyone about to wait.
        drop(self.turns.lock());
        for end in &self.ended {
            end.notify_all();
        }
    }

    /// Ends the turn that is taken: all who wait for it look again, and one of those who wait for the next, to lead it.
    fn end_turn(&self) {
        let (this, next) = {
            let mut turns = self.turns.lock();
            let this = turns.parity();
            turns.taken = false;
            turns.ended = turns.ended.wrapping_add(1);
            turns.covers = Lsn(u64::MAX);
            (this, turns.parity())
        };
        // The leader first: the others are many, and the device waits for him.
        self.ended[next].notify_one();
        self.ended[this].notify_all();
    }
}

/// The turn to sync. Ends it however the leader leaves; a leader that panics poisons the store.
struct Turn<'a> {
    engine: &'a Engine,
    watch: UnwindWatch,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.watch.has_panicked() {
            self.engine.poison("a panic while syncing");
        }
        self.engine.commit.end_turn();
    }
}

impl Engine {
    /// Returns once everything below `lsn` is durable.
    ///
    /// # Errors
    /// `OutcomeUnknown` where a sync failed before that; `Forked`; `Closed` where the last handle was dropped before that.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        while self.commit.watermark() < lsn {
            if self.is_forked() {
                return Err(Error::Forked);
            }
            if self.health.is_abandoned() {
                return Err(Error::Closed);
            }
            if self.health.is_poisoned() {
                return Err(Error::OutcomeUnknown { cause: self.health.cause() });
            }
            if let Some(turn) = self.lead_or_wait(lsn) {
                self.sync_appended();
                drop(turn);
            }
        }
        Ok(())
    }

    /// The turn to sync. `None` where `lsn` is durable by now, or after waiting for whoever has the turn.
    fn lead_or_wait(&self, lsn: Lsn) -> Option<Turn<'_>> {
        let mut turns = self.commit.turns.lock();
        // A leader stores the watermark and the health before it takes this lock to end its turn: what is seen here under the
        // lock is what the last turn left. Seen before it, it may be old, and there would be nothing to sync.
        if self.commit.watermark() >= lsn || self.health.is_poisoned() || self.health.is_abandoned() {
            return None;
        }
        if turns.taken {
            let skip = usize::from(lsn > turns.covers);
            self.commit.ended[(turns.parity() + skip) % 2].wait(&mut turns);
            return None;
        }
        turns.taken = true;
        Some(Turn { engine: self, watch: UnwindWatch::new() })
    }

    /// Syncs the oldest segment that needs it, as far as it is appended now, and raises the watermark, or poisons the store. Only in
    /// a turn.
    fn sync_appended(&self) {
        let job = {
            let core = self.lock_core();
            core.appender.sync_job()
        };
        let Some(job) = job else {
            // Whoever waits, waits for something that was appended.
            return self.poison("nothing to sync below an LSN that is not durable");
        };
        self.commit.turns.lock().covers = job.upto;
        // seam: ack before the sync
        match job.run() {
            Ok(upto) => {
                let mut core = self.lock_core();
                core.appender.synced(upto);
                core.last_sync = Some(self.clock.monotonic());
                self.commit.watermark.store(upto.0, Ordering::Release);
                core.make_visible(upto);
            }
            // seam: a failed sync counts as done
            Err(error) => self.poison(&format!("a sync failed: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Setup;
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::ids::WallMs;
    use std::sync::Arc;
    use std::time::Duration;

    /// Who saw an LSN above the watermark, and finds nobody leading because the leader has just ended, does not lead: there
    /// is nothing to sync, which would stop the store.
    #[test]
    fn who_comes_late_does_not_lead() {
        let setup = Setup { durable_only: true, sync_interval: Duration::from_millis(50), ..Setup::quiet(1 << 20) };
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, setup, Arc::new(SimClock::new(WallMs(1)))).unwrap();
        engine.open_topic("t", 1).unwrap();
        let end = engine.lock_core().appender.end();
        assert_eq!(engine.commit.watermark(), end);
        assert!(engine.lead_or_wait(end).is_none());
        // There is something to sync for whoever waits for more, and the turn ends.
        assert!(engine.lead_or_wait(end.saturating_add(8)).is_some());
        assert!(engine.lead_or_wait(end.saturating_add(8)).is_some());
        engine.wait_durable(end).unwrap();
        assert!(engine.enter().is_ok());
    }
}
