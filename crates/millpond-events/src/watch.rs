//! What watches over workers: leases that are extended, handlers that take too long, and the end.

use crate::breaker::Ending;
use crate::error::Error;
use crate::fault::Fault;
use crate::held::{Held, Taken};
use crate::observe::{self, Attempt, Status};
use crate::subscriber::{ShutdownReport, Stats};
use crate::transport::Settled;
use crate::worker::{INSIDE, Inner, STUCK_MAX};
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
                let until = started.saturating_add(timeout);
                if until <= now {
                    self.time_out(&held, timeout, now);
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
            let Some(extended) = lease.as_ref().map(|lease| lease.extend(lease_len)) else { continue };
            held.times.lock().extended = now;
            if matches!(extended, Ok(Settled::Lost)) {
                drop(held.take_from_handler(&mut lease, Taken::Lost));
            }
            drop(lease);
            self.report(&held, extended);
        }
        self.options.timeout.map_or(next, |timeout| next.min(timeout))
    }

    /// Ends the attempt of a handler that takes too long. Its thread is replaced, and ends when the handler returns.
    fn time_out(self: &Arc<Self>, held: &Arc<Held>, timeout: Duration, now: Duration) {
        let mut state = self.state.lock();
        let is_replaced = state.threads > 0 && state.stuck < STUCK_MAX && !state.stopping;
        let taken = Taken::TimedOut { is_replaced };
        let Some(lease) = held.take_from_handler(&mut held.lease.lock(), taken) else { return };
        state.running -= 1;
        state.stuck += 1;
        state.stats.timed_out += 1;
        state.stats.note(Status::Retried);
        state.leave(held);
        self.note(state, Ending::Failure, now);
        let (event_type, status, age) = (held.event_type(), Status::Retried, lease.age());
        observe::processed(&Attempt { event_type, status, error: "timeout", took: timeout, age });
        self.report(held, lease.retry(None, &format!("timed out after {timeout:?}")));
        self.core.fault(&Fault::TimedOut { subscriber: self.name.clone(), event: held.event_id() });
        if is_replaced && let Err(Error::Thread(error)) = self.spawn() {
            held.times.lock().taken = Some(Taken::TimedOut { is_replaced: false });
            self.core.fault(&Fault::Thread { subscriber: self.name.clone(), error });
        }
    }

    /// Lets it stop receiving, and gives back what no handler has begun.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let waiting = state.take_waiting();
        state.stats.released += waiting.len() as u64;
        drop(state);
        self.work.notify_all();
        self.progress.notify_all();
        self.source.wake();
        self.release(waiting);
    }

    /// Waits for the handlers in progress, but for one of this thread, and gives back the rest.
    pub(crate) fn finish(&self, until: Duration) -> ShutdownReport {
        let (inside, own_number) = INSIDE.get();
        let is_own = |held: &Held| std::ptr::eq(inside, self) && held.number == own_number;
        let own = usize::from(std::ptr::eq(inside, self));
        let mut state = self.state.lock();
        loop {
            let now = self.core.clock.monotonic();
            let is_done = state.running <= own && state.threads <= own + state.stuck;
            if is_done || now >= until || self.progress.wait_for(&mut state, until - now).timed_out() {
                break;
            }
        }
        let rest: Vec<_> = state.held.values().filter(|held| !is_own(held)).map(Arc::clone).collect();
        let released = state.stats.released + rest.len() as u64;
        let unfinished = (state.running + state.stuck).saturating_sub(own);
        drop(state);
        self.release(rest);
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
                return false;
            }
        }
    }
}
