//! The store in numbers, and what tests ask of the state.
//!
//! What is counted is a snapshot: the lock is held while pointers are copied. For the numbers see `view::stats`.

use super::Engine;
use crate::error::Result;
use crate::view::{Moment, Stats};

impl Engine {
    /// The store in numbers: of one moment, but for the ages. Holds the lock for as long as it takes to copy pointers, and counts
    /// outside it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn stats(&self) -> Result<Stats> {
        self.enter()?;
        let moment = self.moment();
        Ok(moment.stats(self, self.clock.wall()))
    }

    fn moment(&self) -> Moment {
        let now = self.now();
        let core = self.lock_core();
        Moment {
            now,
            state: core.view.state.snapshot(),
            visible: core.view.visible.snapshot(),
            verdicts: core.view.verdicts.clone(),
            counters: core.counters.clone(),
            catalog: core.view.catalog.clone(),
            end: core.appender.end(),
            last_sync: core.last_sync,
            cleaned: self.maintenance.in_numbers(),
        }
    }

    /// The fingerprint of the state, once all of it is in the log.
    ///
    /// # Errors
    /// The store's.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn state_hash(&self) -> Result<Option<u64>> {
        self.enter()?;
        let core = self.lock_core();
        Ok(core.unwritten_open.is_none().then(|| core.view.state.hash()))
    }

    /// What the state keeps twice and does not agree upon: nothing, unless this code is wrong.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn violations(&self) -> Vec<String> {
        if self.is_forked() {
            return Vec::new();
        }
        self.lock_core().view.state.check().iter().map(|violation| format!("{violation:?}")).collect()
    }
}
