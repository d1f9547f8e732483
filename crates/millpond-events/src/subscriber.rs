//! A subscriber that runs: its numbers, and its end.

use crate::breaker::BreakerState;
use crate::error::Result;
use crate::observe::Status;
use crate::worker::Inner;
use std::sync::Arc;
use std::time::Duration;

/// A subscriber that runs. The bus keeps it; dropping this handle changes nothing.
#[derive(Clone)]
pub struct Subscriber {
    pub(crate) inner: Arc<Inner>,
}

/// What a subscriber did since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events whose handler returned `Ok`.
    pub handled: u64,
    /// Events that another message had brought before, by the inbox.
    pub duplicates: u64,
    /// Attempts that failed. Another follows, or the event is a dead letter after its last.
    pub failed: u64,
    /// Events that were dead-lettered at once.
    pub rejected: u64,
    /// Attempts that took too long; they count as failed too.
    pub timed_out: u64,
    /// Events whose lease was lost while a handler had them.
    pub lost: u64,
    /// Events that were given back without an attempt.
    pub released: u64,
    /// Events that handlers have now.
    pub in_progress: usize,
    /// Handlers that took too long and have not returned.
    pub stuck: usize,
    /// What the breaker lets through.
    pub breaker: BreakerState,
    /// Whether it receives nothing more: it was shut down, or its store is gone.
    pub is_stopped: bool,
}

impl Default for Stats {
    fn default() -> Self {
        let (handled, duplicates, failed, rejected, timed_out, lost, released) = (0, 0, 0, 0, 0, 0, 0);
        let (in_progress, stuck, breaker, is_stopped) = (0, 0, BreakerState::Closed, false);
        Self {
            handled,
            duplicates,
            failed,
            rejected,
            timed_out,
            lost,
            released,
            in_progress,
            stuck,
            breaker,
            is_stopped,
        }
    }
}

impl Stats {
    pub(crate) const fn note(&mut self, status: Status) {
        let count = match status {
            Status::Ok => &mut self.handled,
            Status::Duplicate => &mut self.duplicates,
            Status::Retried => &mut self.failed,
            Status::Rejected => &mut self.rejected,
        };
        *count += 1;
    }
}

/// What a shutdown left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events that did not finish are handled again"]
pub struct ShutdownReport {
    /// Events that were given back without an attempt.
    pub released: u64,
    /// Handlers that had not returned. Their events are handled again.
    pub unfinished: usize,
}

impl ShutdownReport {
    pub(crate) const fn and(self, other: Self) -> Self {
        Self { released: self.released + other.released, unfinished: self.unfinished + other.unfinished }
    }
}

impl Subscriber {
    /// Its name, and that of its group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What it did since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Handles in the calling thread what can be handled now, and returns how many attempts that were. Delayed retries are left for a later
    /// call.
    ///
    /// # Errors
    /// `Transport` if nothing can be received.
    pub fn drain(&self) -> Result<usize> {
        let mut count = 0;
        while let Some(held) = self.inner.next(false)? {
            count += 1;
            self.inner.process(&held, false);
        }
        self.inner.leave_bus_if_over();
        Ok(count)
    }

    /// Waits until `is_met` accepts the numbers. Returns `false` if nothing changes for `limit`.
    pub fn wait(&self, limit: Duration, is_met: impl FnMut(&Stats) -> bool) -> bool {
        self.inner.wait(limit, is_met)
    }

    /// Stops receiving, waits up to `limit` for the handlers in progress while their leases are extended, and gives everything else back
    /// as if it had not been delivered. The name is free afterwards; if a handler of its own called this, when that handler has ended.
    pub fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let released_before = self.inner.stop();
        let until = self.inner.core.clock.monotonic().saturating_add(limit);
        self.inner.finish(until, released_before)
    }
}
