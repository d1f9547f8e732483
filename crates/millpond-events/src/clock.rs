//! The only place of this crate that reads time.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// The clock of a bus.
pub trait Clock: Debug + Send + Sync {
    /// The time of day, for the times of events.
    fn wall(&self) -> SystemTime;
    /// The time since some beginning, which only goes forward: for timeouts, leases and breakers.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        wall()
    }

    fn monotonic(&self) -> Duration {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        BEGAN.get_or_init(now).elapsed()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that reads time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the place that reads time")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
