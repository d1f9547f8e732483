//! What shuttle has, in the form of parking_lot: no poisoning, guards that are waited with in place, waits that time out.
//!
//! Time stands still until [`elapse`] is called, so a thread that waits for a wake-up that never comes is in a deadlock, which shuttle
//! reports, whatever the wait's time limit. A condition variable here wakes any one of its waiters, not the first, and
//! nobody unasked.

pub(crate) mod channel;

pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread::{Builder, JoinHandle, yield_now};
pub(crate) use shuttle::thread_local;

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::{Rng, thread_rng};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

/// A lock that a panic under it does not poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.take()) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, held: Some(held) })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the lock, but inside a wait.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_deref().unwrap_or_else(|| unreachable!("inside a wait nobody looks"))
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().unwrap_or_else(|| unreachable!("inside a wait nobody looks"))
    }
}

/// One wait, ended by a wake-up or by the time, whichever is first.
#[derive(Debug)]
struct TimedWait {
    over: AtomicBool,
    until: u64,
    woken: BatchSemaphore,
}

impl TimedWait {
    fn is_open(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }
}

/// The waits at one place. Tasks are coroutines in one thread of the machine: this lock is never contended, and nobody else runs
/// while it is held.
#[derive(Debug, Default)]
struct Tickets(std::sync::Mutex<Vec<Arc<TimedWait>>>);

impl Tickets {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Arc<TimedWait>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leave(&self, ticket: &Arc<TimedWait>) {
        self.with(|tickets| tickets.retain(|other| !Arc::ptr_eq(other, ticket)));
    }

    /// Ends the waits that `choose` leaves in the list of those that are not over, all in one moment.
    fn end(&self, choose: impl FnOnce(&mut Vec<Arc<TimedWait>>)) {
        let mut chosen = self.with(|tickets| tickets.clone());
        chosen.retain(|ticket| ticket.is_open());
        choose(&mut chosen);
        chosen.iter().for_each(|ticket| ticket.over.store(true, Ordering::SeqCst));
        chosen.iter().for_each(|ticket| ticket.woken.release(1));
    }
}

/// The time of one execution, and the waits for it.
#[derive(Debug, Default)]
struct Time {
    now: AtomicU64,
    waiting: Tickets,
}

shuttle::lazy_static! {
    static ref TIME: Time = Time::default();
}

/// Lets `ms` milliseconds pass for all waits.
pub fn elapse(ms: u64) {
    switch();
    let now = TIME.now.fetch_add(ms, Ordering::SeqCst) + ms;
    TIME.waiting.end(|open| open.retain(|ticket| ticket.until <= now));
}

/// Waits by tickets, for shuttle's own waits never time out.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    waiting: Tickets,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_until(guard, u64::MAX);
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.wait_until(guard, TIME.now.load(Ordering::SeqCst).saturating_add(ms));
    }

    fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: u64) {
        // Between what the caller saw and its waiting others may run, who do not take this lock.
        switch();
        let woken = BatchSemaphore::new(0, Fairness::Unfair);
        let ticket = Arc::new(TimedWait { over: AtomicBool::new(false), until, woken });
        self.waiting.with(|tickets| tickets.push(Arc::clone(&ticket)));
        TIME.waiting.with(|tickets| tickets.push(Arc::clone(&ticket)));
        guard.held = None;
        // An error says that the execution is over.
        let _ = ticket.woken.acquire_blocking(1);
        self.waiting.leave(&ticket);
        TIME.waiting.leave(&ticket);
        guard.held = Some(guard.mutex.take());
    }

    pub(crate) fn notify_one(&self) {
        switch();
        self.waiting.end(|open| {
            let nth = if open.len() > 1 { thread_rng().gen_range(0..open.len()) } else { 0 };
            *open = open.get(nth).cloned().into_iter().collect();
        });
    }

    pub(crate) fn notify_all(&self) {
        switch();
        self.waiting.end(|_| ());
    }
}

/// Lets the scheduler choose which task goes on.
fn switch() {
    shuttle::thread::sleep(Duration::ZERO);
}

thread_local! {
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Whether *this* task unwinds. The machine's answer is that of the thread in which all tasks run.
pub(crate) fn panicking() -> bool {
    std::thread::panicking() && PANICS.try_with(Cell::get).unwrap_or(false)
}

/// Panics without the message and the schedule that shuttle prints at a panic, for it is meant.
pub fn panic_quietly() -> ! {
    PANICS.with(|panics| panics.set(true));
    resume_unwind(Box::new("a panic that is meant"))
}

/// Runs `f` up to its end, or to its [`panic_quietly`]: `None` then.
pub fn caught<T>(f: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(_) if PANICS.with(|panics| panics.replace(false)) => None,
        Err(panic) => resume_unwind(panic),
    }
}
