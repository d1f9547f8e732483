//! Group commit: one sync for all who wait.
//!
//! The first who waits for durability leads: it syncs what is appended by then, outside the store's lock, and the others
//! wait for the watermark. The watermark is the LSN below which a sync has completed. A sync that fails, or a leader that
//! panics, poisons the store, and every waiter resolves. Never here: what is appended.

use super::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

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
        if std::thread::panicking() {
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
            let mut leading = self.commit.leading.lock();
            if *leading {
                // The leader stores the watermark and the health before it takes this lock to end its turn.
                if self.commit.watermark() < lsn && !self.health.is_poisoned() {
                    self.commit.moved.wait(&mut leading);
                }
                continue;
            }
            *leading = true;
            drop(leading);
            let turn = Turn { engine: self };
            self.sync_appended();
            drop(turn);
        }
        Ok(())
    }

    /// Syncs what is appended now and raises the watermark, or poisons the store. Only in a turn.
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
