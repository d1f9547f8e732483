//! What watches over workers: leases that are extended, handlers that take too long, and the end.

use crate::breaker::Ending;
use crate::error::Error;
use crate::fault::Fault;
use crate::held::{Held, Taken};
use crate::observe::{self, Attempt, Status};
use crate::subscriber::{ShutdownReport, Stats};
use crate::transport::{Settled, guarded};
use crate::worker::{INSIDE, Inner};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::time::Duration;

impl Inner {
    /// Extends leases and ends handlers that take too long. Returns for how long nothing else is due.
    pub(crate) fn tick(self: &Arc<Self>, now: Duration) -> Duration {
        let lease_len = self.source.visibility_timeout();
        let interval = lease_len / 3;
        let all: Vec<Arc<Held>> = self.state.lock().held.values().map(Arc::clone).collect();
        let mut next = interval;
        for held in all {
            let times = *held.times.lock();
            if let (Some(started), Some(timeout)) = (times.started, self.options.timeout) {
                let until = started.time.saturating_add(timeout);
                if until <= now {
                    self.time_out(&held, started.in_worker, timeout, now);
                    continue;
                }
                next = next.min(until - now);
            }
            let until = times.extended.saturating_add(interval);
            if until > now {
                next = next.min(until - now);
                continue;
            }
            let mut lease = held.lease.lock();
            let Some(extended) = lease.as_ref().map(|lease| guarded(|| lease.extend(lease_len))) else { continue };
            held.times.lock().extended = now;
            if matches!(extended, Ok(Settled::Lost)) {
                drop(held.take_from_handler(&mut lease, Taken::Lost));
            }
            drop(lease);
            self.report(&held, extended);
        }
        // In place of those that handlers keep. One that could not be started is tried again at the next tick.
        if let Err(Error::Thread(error)) = self.spawn_missing() {
            self.core.fault(&Fault::Thread { subscriber: self.name.clone(), error });
        }
        self.options.timeout.map_or(next, |timeout| next.min(timeout))
    }

    /// Ends the attempt of a handler that takes too long.
    fn time_out(&self, held: &Held, in_worker: bool, timeout: Duration, now: Duration) {
        let mut state = self.state.lock();
        let Some(lease) = held.take_from_handler(&mut held.lease.lock(), Taken::TimedOut) else { return };
        state.running -= 1;
        state.stuck += 1;
        state.stuck_threads += usize::from(in_worker);
        state.stats.timed_out += 1;
        state.stats.note(Status::Retried);
        state.leave(held);
        self.note(state, Ending::Failure, now);
        let (event_type, status, age) = (held.event_type(), Status::Retried, lease.age());
        observe::processed(&Attempt { event_type, status, error: "timeout", took: timeout, age });
        self.report(held, guarded(|| lease.retry(None, &format!("timed out after {timeout:?}"))));
        self.core.fault(&Fault::TimedOut { subscriber: self.name.clone(), event: held.event_id() });
    }

    /// Lets it stop receiving, and gives back what no handler has begun. Returns how many events were given back before.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = self.state.lock();
        let released_before = state.stats.released;
        state.stopping = true;
        let waiting = state.take_waiting();
        state.stats.released += waiting.len() as u64;
        drop(state);
        self.work.notify_all();
        self.progress.notify_all();
        self.source.wake();
        self.release(waiting);
        released_before
    }

    /// Waits for the handlers in progress, but for those that shut down themselves, and gives back the rest.
    pub(crate) fn finish(&self, until: Duration, released_before: u64) -> ShutdownReport {
        let (inside, own_number) = INSIDE.get();
        let mut state = self.state.lock();
        if let Some(own) = state.held.get(&own_number).filter(|_| std::ptr::eq(inside, self)) {
            own.times.lock().shuts_down = true;
            // Another one that waits for this handler waits no longer.
            self.progress.notify_all();
        }
        let shuts_down = |held: &&Arc<Held>| held.times.lock().shuts_down;
        let callers = loop {
            let now = self.core.clock.monotonic();
            let callers = state.held.values().filter(shuts_down).count();
            let is_done = state.running <= callers && state.threads <= callers + state.stuck;
            if is_done || now >= until || self.progress.wait_for(&mut state, until - now).timed_out() {
                break callers;
            }
        };
        let rest: Vec<_> = state.held.values().filter(|held| !shuts_down(held)).map(Arc::clone).collect();
        // Without a lease they are no part of the subscriber any more, whenever their handlers return.
        for held in &rest {
            state.held.remove(&held.number);
        }
        state.stats.released += rest.len() as u64;
        let released = state.stats.released - released_before;
        let unfinished = (state.running + state.stuck).saturating_sub(callers);
        drop(state);
        self.release(rest);
        self.leave_bus_if_over();
        ShutdownReport { released, unfinished }
    }

    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.running == 0 && state.held.is_empty()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.state.lock().numbers()
    }

    /// Waits until the numbers are such.
    pub(crate) fn wait(&self, limit: Duration, mut is_met: impl FnMut(&Stats) -> bool) -> bool {
        let mut state = self.state.lock();
        loop {
            let numbers = state.numbers();
            // The caller's code runs without the lock.
            if MutexGuard::unlocked(&mut state, || is_met(&numbers)) {
                return true;
            }
            if state.numbers() == numbers && self.progress.wait_for(&mut state, limit).timed_out() {
                let numbers = state.numbers();
                drop(state);
                return is_met(&numbers);
            }
        }
    }
}
