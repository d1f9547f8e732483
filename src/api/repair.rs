//! Repairing a store that does not open. Never here: what is kept.

use super::StoreOptions;
use crate::clock::SystemClock;
use crate::engine::{Engine, RepairMode, RepairReport};
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;

impl StoreOptions {
    /// Repairs the store in the directory `path`, which does not open for damage ([`Error::Corrupt`](crate::Error::Corrupt)), to what is
    /// left, and says what was lost. Try [`StoreOptions::plan_repair`] first. It is never done by itself: a damaged disk may still hold
    /// what a backup lacks.
    ///
    /// All that proves itself is kept: messages, with their ids, progress of groups, dead letters. What is lost stays told: a message that
    /// is known to be missing is [`Error::Unreadable`](crate::Error::Unreadable). Where acks are lost, their messages are delivered again.
    /// Each damaged file is first copied under a name that ends in `.damaged`, so the directory needs as much room again as the damaged
    /// files take. Nothing else is removed that could still be read.
    ///
    /// After a crash in the middle the store does not open, and the repair is begun again; or it opens, with as much as the repair would
    /// have kept, and what is lost is not told again. So keep what the plan said. Where the store opens, nothing is done
    /// ([`RepairReport::damage`] is `None`).
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("data");
    /// # Store::open(&path)?.close()?;
    /// let plan = Store::options().plan_repair(&path)?;
    /// if let Some(damage) = &plan.damage {
    ///     println!("{damage}: {} stretches of the log are lost", plan.lost.len());
    ///     Store::options().repair(&path)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of opening, but for damage. `Corrupt`: no file says which store it is of, or what is left contradicts itself, and nothing was
    /// changed. `DiskFull`: the copies that were made by then are left.
    pub fn repair(self, path: impl AsRef<Path>) -> Result<RepairReport> {
        self.repaired(path.as_ref(), RepairMode::Repair)
    }

    /// What a repair of the store in the directory `path` would do; see [`StoreOptions::repair`]. Changes nothing, and takes the store's
    /// lock meanwhile.
    ///
    /// # Errors
    /// As [`StoreOptions::repair`].
    pub fn plan_repair(self, path: impl AsRef<Path>) -> Result<RepairReport> {
        self.repaired(path.as_ref(), RepairMode::Plan)
    }

    fn repaired(self, path: &Path, mode: RepairMode) -> Result<RepairReport> {
        Engine::repair(path, self.setup()?, mode, Arc::new(SystemClock))
    }

    /// Repairs the store on a disk and clock of the caller's.
    ///
    /// # Errors
    /// As [`StoreOptions::repair`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn repair_on(
        self,
        disk: Arc<dyn crate::engine::AnyDisk>,
        clock: Arc<dyn crate::clock::Clock>,
    ) -> Result<RepairReport> {
        let home = Box::<crate::engine::SimIndexHome>::default();
        Engine::repair_at((disk, home), Path::new(""), self.setup()?, RepairMode::Repair, clock)
    }
}
