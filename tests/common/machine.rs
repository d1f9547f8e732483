//! A machine in memory with one store on it, whose processes come and go.

#![allow(dead_code, reason = "each test that has a machine uses a part of this")]

use millpond::simulation::{SimClock, SimDisk, WallMs};
use millpond::{Durability, Store};
use std::sync::Arc;

/// When its clock begins, in milliseconds since 1970.
pub const START: u64 = 1_800_000_000_000;

pub struct Machine {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub store: Store,
}

/// Opens the store at `Os` with the smallest segments. Its jobs run when [`Machine::pass`] runs them.
pub fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Store {
    let options = Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
    options.open_on(Arc::new(disk.attach().unwrap()), Arc::clone(clock) as _).unwrap()
}

impl Machine {
    pub fn new(seed: u64) -> Self {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::new(WallMs(START))));
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    /// The process closes the store, and another one opens it.
    pub fn reopen(self) -> Self {
        self.store.close().unwrap();
        self.next_process()
    }

    /// The process dies, and another one opens the store.
    pub fn crash(self) -> Self {
        self.disk.crash_process();
        self.next_process()
    }

    fn next_process(self) -> Self {
        let Self { disk, clock, store } = self;
        drop(store);
        let store = open(&disk, &clock);
        Self { disk, clock, store }
    }

    /// So many seconds pass, in each of which the jobs run.
    pub fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(1_000);
            self.store.tick().unwrap();
        }
    }
}
