//! The numbers of the messages in a queue that is built on a store of keys and values.
//!
//! Numbers are dense: a number becomes visible to the consumer only after everything before it was stored, so a consumer needs
//! no search and a poll of an empty queue costs nothing.

use crate::queue::Result;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a queue begins and ends.
pub(super) struct Numbers {
    head: Mutex<u64>,
    next: Mutex<u64>,
    end: AtomicU64,
}

impl Numbers {
    /// A queue in which these numbers wait.
    pub(super) fn new(waiting: Range<u64>) -> Self {
        Self { head: Mutex::new(waiting.start), next: Mutex::new(waiting.end), end: AtomicU64::new(waiting.end) }
    }

    /// Lets `store` put `count` messages under the numbers it is given.
    pub(super) fn append<T>(&self, count: usize, store: impl FnOnce(Range<u64>) -> Result<T>) -> Result<T> {
        let mut next = self.next.lock();
        let end = *next + count as u64;
        let stored = store(*next..end)?;
        *next = end;
        self.end.store(end, Ordering::Release);
        Ok(stored)
    }

    /// Lets `take` remove up to `max` messages with the numbers it is given; not called where none waits.
    pub(super) fn take(&self, max: usize, take: impl FnOnce(Range<u64>) -> Result<()>) -> Result<usize> {
        let mut head = self.head.lock();
        let count = (self.end.load(Ordering::Acquire) - *head).min(max as u64);
        if count > 0 {
            take(*head..*head + count)?;
            *head += count;
        }
        Ok(usize::try_from(count)?)
    }
}
