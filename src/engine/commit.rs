//! Group commit: one sync for all who wait.
//!
//! The first who waits for durability leads: it syncs what is appended by then, outside the store's lock, and the others
//! wait for the watermark. The watermark is the LSN below which a sync has completed. A sync that fails, or a leader that
//! panics, poisons the store, and every waiter resolves. Never here: what is appended.

use super::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, panicking};

/// Who syncs, and how far syncs have come.
#[derive(Debug)]
pub(crate) struct Commit {
    watermark: AtomicU64,
    /// Whether somebody is syncing. Held for moments only, and never while taking another lock.
    leading: Mutex<bool>,
    moved: Condvar,
}

impl Commit {
    pub(crate) fn new(watermark: Lsn) -> Self {
        Self { watermark: AtomicU64::new(watermark.0), leading: Mutex::new(false), moved: Condvar::new() }
    }

    #[inline]
    pub(crate) fn watermark(&self) -> Lsn {
        Lsn(self.watermark.load(Ordering::Acquire))
    }

    /// Wakes all who wait, to look again at watermark and health.
    pub(crate) fn wake_all(&self) {
        // Taking the lock orders this after the check of anyone about to wait.
        drop(self.leading.lock());
        self.moved.notify_all();
    }
}

/// The turn to sync. Ends it however the leader leaves; a leader that panics poisons the store.
struct Turn<'a> {
    engine: &'a Engine,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.engine.poison("a panic while syncing");
        }
        *self.engine.commit.leading.lock() = false;
        self.engine.commit.moved.notify_all();
    }
}

impl Engine {
    /// Returns once everything below `lsn` is durable.
    ///
    /// # Errors
    /// `OutcomeUnknown` where a sync failed before that.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        while self.commit.watermark() < lsn {
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
        let mut leading = self.commit.leading.lock();
        // A leader stores the watermark and the health before it takes this lock to end its turn: what is seen here under the
        // lock is what the last turn left. Seen before it, it may be old, and there would be nothing to sync.
        if self.commit.watermark() >= lsn || self.health.is_poisoned() {
            return None;
        }
        if *leading {
            self.commit.moved.wait(&mut leading);
            return None;
        }
        *leading = true;
        Some(Turn { engine: self })
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
        match job.run() {
            Ok(upto) => {
                let mut core = self.lock_core();
                core.appender.synced(upto);
                core.last_sync = Some(self.clock.monotonic());
                self.commit.watermark.store(upto.0, Ordering::Release);
                core.make_visible(upto);
            }
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
        let setup = Setup {
            durable_only: true,
            sync_interval: Duration::from_millis(50),
            segment_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            allow_network_fs: false,
        };
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
