//! Group commit: one sync for all that wait.
//!
//! The first waiter leads: it syncs everything appended so far, without the store's lock. The others leave a waker for the end of that
//! round, or of the next one if they appended too late for it. The watermark is the LSN below which a sync has completed. A sync that
//! fails, or a leader that panics, poisons the store, and every waiter resolves. Never here: what is appended.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, UnwindWatch};
use crate::wait::{DueWakers, Parker};
use std::task::Waker;

/// The round of syncs, and how far syncs have come.
#[derive(Debug)]
pub(crate) struct Commit {
    watermark: AtomicU64,
    /// Held for moments only, and never while taking another lock.
    turns: Mutex<Turns>,
}

/// The turns to sync, one after another.
#[derive(Debug)]
struct Turns {
    /// Whether somebody is syncing.
    taken: bool,
    /// All below is durable when the turn that is taken ends. Before its leader has said so, everybody waits for this turn.
    covers: Lsn,
    /// Those that wait for the end of the turn that is taken, and those that wait for the end of the one after it.
    waiting: [DueWakers; 2],
}

impl Commit {
    pub(crate) fn new(watermark: Lsn) -> Self {
        let turns = Turns { taken: false, covers: Lsn(u64::MAX), waiting: Default::default() };
        Self { watermark: AtomicU64::new(watermark.0), turns: Mutex::new(turns) }
    }

    #[inline]
    pub(crate) fn watermark(&self) -> Lsn {
        Lsn(self.watermark.load(Ordering::Acquire))
    }

    /// Wakes all waiters, to look again at watermark and health.
    pub(crate) fn wake_all(&self) {
        // The lock orders this after the check of anyone about to wait; what is taken is dropped without it.
        let woken = std::mem::take(&mut self.turns.lock().waiting);
        drop(woken);
    }

    /// Ends the turn that is taken: all who wait for it look again, and one of those who wait for the next, to lead it.
    fn end_turn(&self) {
        let (this, leader) = {
            let mut turns = self.turns.lock();
            turns.taken = false;
            turns.covers = Lsn(u64::MAX);
            turns.waiting.swap(0, 1);
            let [next, this] = &mut turns.waiting;
            (this.take(), next.take_first())
        };
        // The leader first: the others are many, and the device waits for it.
        drop(leader);
        drop(this);
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
        // A close syncs under its lock, and wakes futures behind it.
        #[cfg(feature = "async")]
        if self.engine.health.check().is_ok() {
            self.engine.wake_durable();
        }
    }
}

impl Engine {
    /// Returns once everything below `lsn` is durable.
    ///
    /// # Errors
    /// `OutcomeUnknown` where a sync failed before that; `Forked`; `Closed` where the last handle was dropped before that.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        loop {
            if let Some(known) = self.known_durable(lsn) {
                return known;
            }
            let mut parker = None;
            match self.try_lead(lsn, || parker.insert(Parker::new()).waker()) {
                Some(turn) => {
                    self.sync_appended();
                    drop(turn);
                }
                None => parker.into_iter().for_each(|parker| parker.park()),
            }
        }
    }

    /// Whether everything below `lsn` is durable, or never will be known to be. `None`: not yet.
    #[inline]
    pub(in crate::engine) fn known_durable(&self, lsn: Lsn) -> Option<Result<()>> {
        if self.commit.watermark() >= lsn {
            return Some(Ok(()));
        }
        if self.is_forked() {
            return Some(Err(Error::Forked));
        }
        if self.health.is_abandoned() {
            return Some(Err(Error::Closed));
        }
        self.health.is_poisoned().then(|| Err(Error::OutcomeUnknown { cause: self.health.cause() }))
    }

    /// The turn to sync. `None` if `lsn` is durable by now, or the store has stopped, or a waker was left: that is called when there is
    /// something to look at.
    fn try_lead(&self, lsn: Lsn, waker: impl FnOnce() -> Waker) -> Option<Turn<'_>> {
        let mut turns = self.commit.turns.lock();
        // A leader stores the watermark and the health before it takes this lock to end its turn: what is seen here under the
        // lock is what the last turn left. Seen before it, it may be old, and there would be nothing to sync.
        if self.commit.watermark() >= lsn || self.health.is_poisoned() || self.health.is_abandoned() {
            return None;
        }
        if turns.taken {
            let skip = usize::from(lsn > turns.covers);
            turns.waiting[skip].push(waker());
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
            // A waiter waits only for what was appended.
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
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Outgoing, Setup};
    use crate::ids::WallMs;
    use crate::record::TopicOptions;
    use std::sync::Arc;
    use std::time::Duration;

    /// A waiter that saw an LSN above the watermark, and finds no leader because the last one has just ended, does not lead. There
    /// is nothing left to sync, which would stop the store.
    #[test]
    fn late_waiter_does_not_lead() {
        let setup = Setup { durable_only: true, sync_interval: Duration::from_millis(50), ..Setup::quiet(1 << 20) };
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, setup, Arc::new(SimClock::new(WallMs(1)))).unwrap();
        engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let end = engine.lock_core().appender.end();
        assert_eq!(engine.commit.watermark(), end);
        assert!(engine.try_lead(end, || Waker::noop().clone()).is_none());
        // There is something to sync for a waiter that waits for more, and the turn ends.
        assert!(engine.try_lead(end.saturating_add(8), || Waker::noop().clone()).is_some());
        assert!(engine.try_lead(end.saturating_add(8), || Waker::noop().clone()).is_some());
        engine.wait_durable(end).unwrap();
        assert!(engine.enter().is_ok());
    }

    /// A waker that was left while somebody syncs is called once there is something to look at, and no lock is held then.
    #[test]
    fn waker_is_called_when_the_round_ends() {
        struct Looks(Arc<Engine>, AtomicU64);
        impl std::task::Wake for Looks {
            fn wake(self: Arc<Self>) {
                self.1.store(self.0.commit.watermark().0, Ordering::Release);
                assert!(self.0.commit.turns.try_lock().is_some() && self.0.core.try_lock().is_some());
            }
        }
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, Setup::quiet(1 << 20), Arc::new(SimClock::new(WallMs(1)))).unwrap();
        let engine = Arc::new(engine);
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), b"m", 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
        let end = engine.lock_core().appender.end();
        let looks = [0; 3].map(|_| Arc::new(Looks(Arc::clone(&engine), AtomicU64::new(0))));
        let turn = engine.try_lead(end, || unreachable!("nobody leads")).unwrap();
        for look in &looks {
            assert!(engine.try_lead(end, || Waker::from(Arc::clone(look))).is_none());
        }
        engine.sync_appended();
        assert!(looks.iter().all(|look| look.1.load(Ordering::Acquire) == 0), "the round has not ended");
        drop(turn);
        assert!(looks.iter().all(|look| look.1.load(Ordering::Acquire) == end.0));
    }
}
