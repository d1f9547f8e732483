//! Leases that are extended again and again until somebody is done with them, or for as long as was said.
//!
//! The flusher does it for all of them, in time. Never here: what an extension is, public guards.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{GroupId, MonoMs};
use crate::log::Parts;
use crate::state::{Command, Held, Rejection};
use crate::sync::Mutex;
use std::collections::BTreeMap;

/// The leases that are kept.
#[derive(Debug, Default)]
pub(in crate::engine) struct KeptAlive {
    leases: Mutex<KeptLeases>,
}

#[derive(Debug, Default)]
struct KeptLeases {
    /// How many there ever were: their numbers.
    count: u64,
    /// By the time of the next extension.
    next: BTreeMap<(MonoMs, u64), KeptLease>,
    /// The time of each.
    times: BTreeMap<u64, MonoMs>,
}

#[derive(Clone, Copy, Debug)]
struct KeptLease {
    group: GroupId,
    held: Held,
    /// How long each extension makes it last.
    for_ms: u64,
    /// No extension makes it last beyond this.
    until: MonoMs,
}

impl KeptLease {
    /// When it is extended again after `mono`: in a third of its time, so that one that comes late comes in time.
    fn after(&self, mono: MonoMs) -> MonoMs {
        mono.saturating_add((self.for_ms / 3).max(1))
    }
}

impl KeptLeases {
    fn enter(&mut self, number: u64, at: MonoMs, lease: KeptLease) {
        self.next.insert((at, number), lease);
        self.times.insert(number, at);
    }

    fn remove(&mut self, number: u64) {
        if let Some(at) = self.times.remove(&number) {
            self.next.remove(&(at, number));
        }
    }
}

impl KeptAlive {
    /// When the first is extended next.
    pub(in crate::engine) fn next(&self) -> Option<MonoMs> {
        self.leases.lock().next.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Engine {
    /// Extends a lease now, and again and again until `total_ms` from now. `None` where it was lost, else its number.
    ///
    /// # Errors
    /// `Removed`; the store's.
    pub(crate) fn keep(&self, group: GroupId, held: Held, total_ms: u64) -> Result<Option<u64>> {
        self.enter()?;
        let for_ms = self.visibility_timeout_ms(group)?;
        if !self.extend(group, held, for_ms.min(total_ms))? {
            return Ok(None);
        }
        let now = self.now();
        let until = now.mono.saturating_add(now.slack_ms).saturating_add(total_ms);
        let lease = KeptLease { group, held, for_ms, until };
        let number = {
            let mut leases = self.kept.leases.lock();
            leases.count += 1;
            let number = leases.count;
            leases.enter(number, lease.after(now.mono), lease);
            number
        };
        self.jobs.wake();
        Ok(Some(number))
    }

    /// Whether a lease is still kept.
    pub(crate) fn is_kept(&self, number: u64) -> bool {
        self.kept.leases.lock().times.contains_key(&number)
    }

    /// Leaves a lease to itself.
    pub(crate) fn leave_lease(&self, number: u64) {
        self.kept.leases.lock().remove(number);
    }

    /// Extends the leases whose time has come.
    ///
    /// # Errors
    /// The store's.
    pub(in crate::engine) fn extend_kept(&self) -> Result<()> {
        let now = self.now().mono;
        loop {
            let (number, lease) = {
                let leases = self.kept.leases.lock();
                match leases.next.first_key_value() {
                    Some((&(at, number), lease)) if at <= now => (number, *lease),
                    Some(_) | None => return Ok(()),
                }
            };
            let left = lease.until.0.saturating_sub(now.0).min(lease.for_ms);
            // seam: a kept lease is not extended
            let goes_on = left > 0 && self.extend_one(lease, left)?;
            let mut leases = self.kept.leases.lock();
            // It may have been left meanwhile.
            if leases.times.contains_key(&number) {
                leases.remove(number);
                if goes_on {
                    leases.enter(number, lease.after(now), lease);
                }
            }
        }
    }

    /// Whether the lease is still held. What lacks room or memory is tried again.
    fn extend_one(&self, KeptLease { group, held, .. }: KeptLease, for_ms: u64) -> Result<bool> {
        let command = Command::Extend { group, held, for_ms };
        match self.settle(&command, Parts::default()) {
            Ok(end) => Ok(end.is_some()),
            // Its group was removed, and the lease with it.
            Err(Error::Removed { .. }) => Ok(false),
            Err(error) if error.is_passing() => Ok(true),
            // What it was that failed has not stopped the store.
            Err(Error::Io { .. }) if self.health.check().is_ok() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// For how many milliseconds a lease lasts; `None` where it was lost.
    ///
    /// # Errors
    /// `Removed`; the store's.
    pub(crate) fn lease_left_ms(&self, group: GroupId, held: Held) -> Result<Option<u64>> {
        self.enter()?;
        let now = self.now();
        let core = self.lock_core();
        match core.view.state.lease_end(group, held) {
            Ok(until) => Ok(Some(until.0.saturating_sub(now.mono.0))),
            Err(Rejection::LeaseLost) => Ok(None),
            Err(rejection) => Err(self.rejected(rejection)),
        }
    }
}
