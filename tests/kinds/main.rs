//! Kinds of faults: each module holds one kind as a whole, over all places where it could live.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod charging;
mod fairness;
mod keeping;
mod passing;
mod telling;
mod unwinding;
mod waking;

use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Store, StoreOptions};
use std::sync::Arc;

/// A machine in memory.
struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
}

impl Machine {
    fn new() -> Self {
        Self { disk: SimDisk::new(1), clock: Arc::new(SimClock::new(WallMs(1_800_000_000_000))) }
    }

    fn open(&self) -> Store {
        self.open_with(Store::options().durability(Durability::Os))
    }

    fn open_with(&self, options: StoreOptions) -> Store {
        let handle = Arc::new(self.disk.attach().unwrap());
        options.open_on(handle, self.clock.clone()).unwrap()
    }

    /// The process dies with all that it holds.
    fn crash<T>(&self, held: T) {
        self.disk.crash_process();
        drop(held);
    }
}
