//! The small option types.

use super::millis;
use crate::engine::BackoffOptions;
use crate::error::Result;
use std::time::{Duration, SystemTime};

/// What an operation survives once it has returned `Ok`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Power loss, kernel crash and process crash: returns after the sync. The default. In a store opened at this
    /// level a message is delivered only once it is durable.
    #[default]
    Disk,
    /// Process crash (kill -9, abort, out of memory): returns when the kernel has the bytes. A background sync follows within
    /// the store's sync interval.
    Os,
}

/// Where a new group begins in each partition of its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the first message that there is. The default.
    #[default]
    Earliest,
    /// After the last message that was published when the group was created.
    Latest,
    /// At this offset in every partition, or at the partition's end where that comes first.
    Offset(u64),
    /// At the first message published at or after this time. Where the wall clock once jumped back, times are not in
    /// order and the place found is one of those that fit.
    Time(SystemTime),
}

/// How long a message waits after a failed attempt.
///
/// After attempt number n an exponential backoff waits `first * 2^(n - 1)`, at most `max`; with jitter (the default of
/// [`Backoff::exponential`]) the delay is drawn from the upper half of that, so that messages that failed together do not
/// come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: bool,
}

impl Backoff {
    /// Doubles from `first` up to an hour, with jitter.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self { first, max: Duration::from_secs(3600), jitter: true }
    }

    /// Always the same delay.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self { first: delay, max: delay, jitter: false }
    }

    /// No delay: a failed message is ready again at once.
    #[must_use]
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// The longest delay. At most ten years; one below the first delay makes every delay this long.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Whether delays are drawn from the upper half.
    #[must_use]
    pub const fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay after this attempt, from 1; with jitter, the longest that it may be.
    #[must_use]
    pub fn delay_max(self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    pub(super) fn to_record(self) -> Result<BackoffOptions> {
        let max_ms = millis("backoff.max", self.max)?;
        let first_ms = millis("backoff", self.first)?.min(max_ms);
        Ok(BackoffOptions { first_ms, max_ms, jitter: self.jitter })
    }
}

impl Default for Backoff {
    /// One second, doubling up to five minutes, with jitter.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1)).max(Duration::from_secs(300))
    }
}
