//! Whether the store still works, and what stopped it.
//!
//! A store is stopped once and for good: by a failure on the write path, by a panic under the lock or in a job, or by
//! a close. Never here: waking those who wait for it (the engine does that after each change here).

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

const RUNNING: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;
/// Closed by the drop of the last handle: nothing was synced for it.
const ABANDONED: u8 = 3;

/// The store's condition, readable without a lock.
#[derive(Debug, Default)]
pub(crate) struct Health {
    condition: AtomicU8,
    cause: Mutex<Option<Arc<str>>>,
}

impl Health {
    /// Fails once the store is closed or poisoned.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match self.condition.load(Ordering::Acquire) {
            RUNNING => Ok(()),
            CLOSED | ABANDONED => Err(Error::Closed),
            // seam: a stopped store goes on
            _ => Err(Error::Poisoned { cause: self.cause() }),
        }
    }

    /// Stops the store for good. The first cause stays.
    pub(crate) fn poison(&self, cause: &str) {
        {
            let mut stored = self.cause.lock();
            if stored.is_none() {
                *stored = Some(Arc::from(cause));
            }
        }
        self.condition.store(POISONED, Ordering::Release);
    }

    /// Refuses every later call. Returns whether this call was the one that closed it.
    pub(crate) fn close(&self) -> bool {
        self.condition.compare_exchange(RUNNING, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Refuses every later call, as [`Health::close`] does, without the promise that what was appended gets durable.
    pub(crate) fn abandon(&self) {
        let _ = self.condition.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.condition.load(Ordering::Acquire) == ABANDONED
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.condition.load(Ordering::Acquire) == POISONED
    }

    /// The first failure.
    pub(crate) fn cause(&self) -> Arc<str> {
        self.cause.lock().clone().unwrap_or_else(|| Arc::from("unknown"))
    }
}
