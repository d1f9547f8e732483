//! What receipts know of their store after its end. Never here: receipts.

use super::Durability;
#[cfg(feature = "async")]
use crate::engine::DurableWait;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
#[cfg(feature = "async")]
use std::task::{Poll, Waker};

/// What receipts keep of a store: nothing that would keep it open.
pub(super) struct Outcome {
    engine: Weak<Engine>,
    /// Up to where the log was known to be durable when the last handle was dropped.
    durable: AtomicU64,
}

impl Outcome {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::downgrade(engine), durable: AtomicU64::new(0) }
    }

    /// The last handle was dropped: up to where the log was durable then.
    pub(super) fn ended(&self, durable: Lsn) {
        self.durable.store(durable.0, Ordering::Release);
    }

    /// Returns once everything below `lsn` is durable, which it was on publishing at `level`.
    pub(super) fn wait_durable(&self, lsn: Lsn, level: Durability) -> Result<()> {
        if level == Durability::Disk {
            return Ok(());
        }
        match self.engine.upgrade() {
            Some(engine) => engine.wait_durable(lsn),
            None if self.durable.load(Ordering::Acquire) >= lsn.0 => Ok(()),
            None => Err(Error::Closed),
        }
    }

    /// As [`Outcome::wait_durable`], but leaves a waker where that would wait.
    #[cfg(feature = "async")]
    pub(super) fn poll_durable(
        &self,
        lsn: Lsn,
        level: Durability,
        wait: &mut DurableWait,
        waker: &Waker,
    ) -> Poll<Result<()>> {
        if level == Durability::Disk {
            return Poll::Ready(Ok(()));
        }
        match self.engine.upgrade() {
            Some(engine) => engine.poll_durable(lsn, wait, waker),
            None if self.durable.load(Ordering::Acquire) >= lsn.0 => Poll::Ready(Ok(())),
            None => Poll::Ready(Err(Error::Closed)),
        }
    }

    #[cfg(feature = "async")]
    pub(super) fn forget_durable(&self, wait: &mut DurableWait) {
        if let Some(engine) = self.engine.upgrade() {
            engine.forget_durable(wait);
        }
    }
}
