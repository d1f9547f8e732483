//! Futures that wait until the log is durable up to a place.
//!
//! They leave a waker and lead no turn to sync, for no poll does I/O: the flusher is woken, and syncs. Never here: public futures.

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::Lsn;
use crate::sync::Mutex;
use crate::wait::wake_callers;
use std::collections::BTreeMap;
use std::task::{Poll, Waker};

/// The wakers of futures, by the number of each.
#[derive(Debug, Default)]
pub(in crate::engine) struct DurableFutures(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, (Lsn, Waker)>,
}

/// Where the waker of one future is, if it left one.
#[derive(Debug, Default)]
pub(crate) struct DurableWait(Option<u64>);

impl DurableFutures {
    /// Wakes those of which `is_over` says that they need not wait on.
    pub(in crate::engine) fn wake(&self, is_over: impl Fn(Lsn) -> bool) {
        let woken: Vec<Waker> = {
            let mut waiting = self.0.lock();
            let over = waiting.wakers.extract_if(.., |_, (lsn, _)| is_over(*lsn));
            over.map(|(_, (_, waker))| waker).collect()
        };
        wake_callers(woken);
    }

    /// Leaves this waker in place of the one that was left before.
    fn leave(&self, wait: &mut DurableWait, lsn: Lsn, waker: Waker) {
        let mut waiting = self.0.lock();
        let number = *wait.0.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        let before = waiting.wakers.insert(number, (lsn, waker));
        drop(waiting);
        // A waker may be anything, so it is dropped without the lock.
        drop(before);
    }

    fn take_back(&self, wait: &mut DurableWait) {
        let before = wait.0.take().and_then(|number| self.0.lock().wakers.remove(&number));
        drop(before);
    }
}

impl Engine {
    /// Whether everything below `lsn` is durable; leaves a waker where that is not known yet.
    ///
    /// # Errors
    /// As [`Engine::wait_durable`].
    pub(crate) fn poll_durable(&self, lsn: Lsn, wait: &mut DurableWait, waker: &Waker) -> Poll<Result<()>> {
        let is_first = wait.0.is_none();
        let mut known = self.known_durable(lsn);
        if known.is_none() {
            self.futures.durable.leave(wait, lsn, waker.clone());
            // The end of a sync looks for wakers after it moves the watermark: it finds this one, or its watermark is seen here.
            known = self.known_durable(lsn);
        }
        let Some(known) = known else {
            if is_first {
                self.jobs.wake_flusher();
            }
            return Poll::Pending;
        };
        if !self.is_forked() {
            self.futures.durable.take_back(wait);
        }
        Poll::Ready(known)
    }

    /// The future is gone.
    pub(crate) fn forget_durable(&self, wait: &mut DurableWait) {
        if !self.is_forked() {
            self.futures.durable.take_back(wait);
        }
    }

    /// Wakes the futures for which there is something to see.
    pub(in crate::engine) fn wake_durable(&self) {
        let stopped = self.health.is_poisoned() || self.health.is_abandoned();
        let watermark = self.commit.watermark();
        self.futures.durable.wake(|lsn| stopped || lsn <= watermark);
    }
}
