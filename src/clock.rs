//! The only place that reads time.
//!
//! Two clocks: a monotonic one for leases, a wall clock for timestamps and delays. Both in milliseconds, both
//! read without a system call. Never here: decisions about time.

use crate::ids::{MonoMs, WallMs};
use std::fmt::Debug;
use std::sync::OnceLock;

/// Both clocks of a store. Implementations are cheap to call: the engine reads them at every operation.
pub trait Clock: Debug + Send + Sync {
    /// Time that only goes forward; does not count while the machine is suspended.
    fn monotonic(&self) -> MonoMs;
    /// Time of day, which may jump in either direction.
    fn wall(&self) -> WallMs;
    /// By how many milliseconds both may be behind at most.
    fn slack_ms(&self) -> u64;
}

/// The machine's clocks, in their coarse forms: a few milliseconds of resolution for a few nanoseconds of cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> MonoMs {
        MonoMs(millis(rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse)))
    }

    fn wall(&self) -> WallMs {
        WallMs(millis(rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse)))
    }

    #[inline]
    fn slack_ms(&self) -> u64 {
        // A tick of the kernel is at most 10 ms, and a millisecond is lost to rounding down.
        static SLACK_MS: OnceLock<u64> = OnceLock::new();
        *SLACK_MS.get_or_init(|| {
            let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
            millis(tick).saturating_add(2)
        })
    }
}

/// A time before 1970 counts as 1970.
#[inline]
fn millis(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// A clock that stands still until it is told to move.
#[cfg(any(test, feature = "simulation"))]
#[derive(Debug)]
pub struct SimClock {
    monotonic: std::sync::atomic::AtomicU64,
    wall: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "simulation"))]
mod sim {
    use super::{Clock, MonoMs, SimClock, WallMs};
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    impl SimClock {
        /// A clock at the given wall time, one second after its boot.
        #[must_use]
        pub fn new(wall: WallMs) -> Self {
            Self { monotonic: AtomicU64::new(1_000), wall: AtomicU64::new(wall.0) }
        }

        /// Lets both clocks run on by `ms` milliseconds.
        pub fn advance(&self, ms: u64) {
            self.monotonic.fetch_add(ms, SeqCst);
            self.wall.fetch_add(ms, SeqCst);
        }

        /// Sets the wall clock, as an operator or a time server does.
        pub fn set_wall(&self, wall: WallMs) {
            self.wall.store(wall.0, SeqCst);
        }
    }

    impl Clock for SimClock {
        fn monotonic(&self) -> MonoMs {
            MonoMs(self.monotonic.load(SeqCst))
        }

        fn slack_ms(&self) -> u64 {
            0
        }

        fn wall(&self) -> WallMs {
            WallMs(self.wall.load(SeqCst))
        }
    }
}
