//! One thread for all subscribers of a bus: it extends leases, and ends handlers that take too long.

use crate::bus::Core;
use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Timer {
    /// Whether there is a thread for it at all: not with a clock of the application's.
    enabled: bool,
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TimerState {
    runs: bool,
    /// Something may be due earlier than the thread knows.
    woken: bool,
}

impl Timer {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    /// Starts the thread unless it runs.
    pub(crate) fn start(core: &Arc<Core>) -> Result<()> {
        let timer = &core.timer;
        let mut state = timer.state.lock();
        if !timer.enabled || state.runs {
            return Ok(());
        }
        let weak = Arc::downgrade(core);
        let builder = std::thread::Builder::new().name("events-timer".to_owned());
        builder.spawn(move || run(&weak)).map_err(Error::Thread)?;
        state.runs = true;
        Ok(())
    }
}

/// Ticks until the bus is gone or over.
fn run(core: &Weak<Core>) {
    while let Some(core) = core.upgrade() {
        let next = core.tick();
        // Asked without the lock: what it drops may end the bus, which wakes this thread.
        let is_over = core.is_over();
        let mut state = core.timer.state.lock();
        if !std::mem::take(&mut state.woken) {
            if is_over {
                state.runs = false;
                return;
            }
            // A subscriber that is added wakes the thread; so does the end of the bus.
            core.timer.changed.wait_for(&mut state, next.min(Duration::from_secs(3600)));
            state.woken = false;
        }
    }
}
