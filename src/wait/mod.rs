//! Waiting as a port: try, else leave a [`Waker`](std::task::Waker) and be woken.
//!
//! Whatever can be waited for is tried first. If it is not there, the try leaves a waker under the same lock, so that no wake-up is
//! missed in between. The waker belongs to the waiter: a blocked thread leaves a [`Parker`], a future its task. Wakers are called
//! without any lock ([`DueWakers`]), since they may run user code. Never here: what is waited for, time.

mod followers;
mod list;
mod parker;
mod publishers;

pub(crate) use followers::{Follower, Followers};
pub(crate) use list::{Ticket, WaitList};
pub(crate) use parker::Parker;
pub(crate) use publishers::Publishers;

use std::task::Waker;

/// Calls wakers of callers, without any lock. A panic of one is its caller's: it keeps no other from being called, and ends here.
#[cfg(feature = "async")]
pub(crate) fn wake_callers(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
    }
}

/// Wakers to be called, when this is dropped, after the lock under which they were found.
#[derive(Debug, Default)]
pub(crate) struct DueWakers(Vec<Waker>);

impl DueWakers {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    /// The first of them alone.
    pub(crate) fn take_first(&mut self) -> Self {
        Self(if self.0.is_empty() { Vec::new() } else { vec![self.0.remove(0)] })
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }
}

impl Drop for DueWakers {
    #[inline]
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let mut rest = Rest(std::mem::take(&mut self.0).into_iter());
            rest.wake();
        }
    }
}

/// Wakers that are not called yet. One that panics does not keep the others from being called.
struct Rest(std::vec::IntoIter<Waker>);

impl Rest {
    fn wake(&mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), 1, "the second call panics");
        }
    }

    #[test]
    fn panicking_waker_keeps_no_other_from_being_called() {
        let counted = Arc::new(Counted::default());
        let mut due = DueWakers::default();
        (0..5).for_each(|_| due.push(Waker::from(Arc::clone(&counted))));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(due.take()))).is_err());
        assert_eq!(counted.0.load(Ordering::Relaxed), 5);
        drop(due);
        assert_eq!(counted.0.load(Ordering::Relaxed), 5, "taken");
    }
}
