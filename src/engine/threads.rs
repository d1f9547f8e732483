//! The two background threads, and their end.
//!
//! Never here: what the jobs do. A job that fails or panics poisons the store; its thread then ends.

use super::Engine;
use super::maintenance::jobs::JobThread;
use crate::error::{Error, Result};
use crate::sync::{Builder, JoinHandle, is_this_thread, panicking};
use std::sync::Arc;
use std::time::Duration;

/// How often maintenance checks for work.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(100);

/// The running threads of a store.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    handles: Vec<JoinHandle<()>>,
}

/// Poisons the store if its thread dies of a panic.
struct PoisonOnPanic<'a>(&'a Engine);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.poison("a panic in a background job");
        }
    }
}

impl Threads {
    /// Starts the flusher and maintenance.
    ///
    /// # Errors
    /// `Io` or `OutOfMemory` where the system has no thread to give; none runs then.
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Self> {
        let mut threads = Self::default();
        let interval = engine.setup().sync_interval;
        let started =
            threads.spawn(engine, ("millpond-pulse", JobThread::Flusher), interval, Engine::pulse).and_then(|()| {
                threads.spawn(
                    engine,
                    ("millpond-maint", JobThread::Maintenance),
                    MAINTENANCE_INTERVAL,
                    Engine::maintain,
                )
            });
        match started {
            Ok(()) => Ok(threads),
            Err(error) => {
                // The thread that did start holds the store, and so the directory, until it ends.
                threads.stop(engine);
                Err(error)
            }
        }
    }

    fn spawn(
        &mut self,
        engine: &Arc<Engine>,
        (name, waits_for): (&str, JobThread),
        interval: Duration,
        job: fn(&Engine) -> Result<()>,
    ) -> Result<()> {
        let engine = Arc::clone(engine);
        let run = move || {
            let guard = PoisonOnPanic(&engine);
            let mut wakes_seen = 0;
            let sleep = || match waits_for {
                JobThread::Flusher => engine.sleep_at_most(interval),
                JobThread::Maintenance => interval,
            };
            while engine.jobs.wait(waits_for, sleep(), &mut wakes_seen) {
                if let Err(error) = job(&engine) {
                    // Whatever stops a job has stopped the store; this makes sure of it.
                    engine.poison(&format!("a background job failed: {error}"));
                    break;
                }
            }
            drop(guard);
        };
        let handle =
            Builder::new().name(name.to_owned()).spawn(run).map_err(|error| Error::io("start a thread", error))?;
        self.handles.push(handle);
        Ok(())
    }

    /// Asks the threads to end and waits for that.
    pub(crate) fn stop(&mut self, engine: &Engine) {
        engine.jobs.stop();
        // A waker that a thread calls may drop the last handle: that thread ends by itself then.
        for handle in self.handles.drain(..).filter(|handle| !is_this_thread(handle)) {
            // A thread that panicked has poisoned the store; there is nothing more to learn from it.
            let _ = handle.join();
        }
    }
}

/// Runs `deliver` in a thread of its own until it returns.
///
/// # Errors
/// `Io` where the system has no thread to give.
pub(crate) fn spawn_subscription(deliver: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let started = Builder::new().name("millpond-subscription".to_owned()).spawn(deliver);
    started.map_err(|error| Error::io("start a thread", error))
}
