//! A thread that blocks until it is woken. Never here: what it waits for.

use crate::sync::{Condvar, Mutex};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

/// Blocks one thread. A wake-up that comes before the thread blocks is not lost.
#[derive(Debug, Default)]
pub(crate) struct Parker {
    woken: Mutex<bool>,
    condvar: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Blocks until woken.
    pub(crate) fn park(&self) {
        let mut woken = self.woken.lock();
        while !*woken {
            self.condvar.wait(&mut woken);
        }
    }

    /// Blocks until woken, or for as long as given; or for no reason.
    pub(crate) fn park_for(&self, at_most: Duration) {
        let mut woken = self.woken.lock();
        if !*woken {
            self.condvar.wait_for(&mut woken, at_most);
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.condvar.notify_one();
    }
}
