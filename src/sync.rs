//! Locks, threads and channels, by one name each: those of the machine, or those of a scheduler that a test controls.
//!
//! Built with `--cfg millpond_shuttle` the layers that share state between threads run under shuttle, which decides at each
//! operation here which thread goes on (see `tests/shuttle`). Every other build re-exports the real things and adds nothing. Never
//! here: anything that behaves differently in the two, but for the time that a wait takes.

#[cfg(millpond_shuttle)]
mod controlled;

#[cfg(millpond_shuttle)]
pub(crate) use controlled::{
    Builder, Condvar, JoinHandle, Mutex, MutexGuard, atomic, channel, panicking, thread_local, yield_now,
};
#[cfg(millpond_shuttle)]
pub use controlled::{caught, elapse, panic_quietly};

/// Tells a panic that began after it was made from one that was under way: a destructor that calls the engine while its thread
/// unwinds has not broken anything.
#[derive(Debug)]
pub(crate) struct UnwindWatch {
    unwinding: bool,
}

impl UnwindWatch {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { unwinding: panicking() }
    }

    /// Whether a panic began since, and goes on.
    #[inline]
    pub(crate) fn has_panicked(&self) -> bool {
        // seam: any unwinding stops the store
        !self.unwinding && panicking()
    }
}

#[cfg(not(millpond_shuttle))]
pub(crate) use crossbeam_channel as channel;
#[cfg(not(millpond_shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(millpond_shuttle))]
pub(crate) use std::sync::atomic;
#[cfg(not(millpond_shuttle))]
pub(crate) use std::thread::{Builder, JoinHandle, panicking, yield_now};

/// Whether the caller is the thread of this handle.
#[cfg(not(millpond_shuttle))]
pub(crate) fn is_this_thread(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == std::thread::current().id()
}
#[cfg(millpond_shuttle)]
pub(crate) fn is_this_thread(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == shuttle::thread::current().id()
}
#[cfg(not(millpond_shuttle))]
pub(crate) use std::thread_local;
