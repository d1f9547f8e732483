//! The small option types.

use super::millis;
use crate::engine::{BackoffOptions, Growth, Jitter, RateOptions};
use crate::error::{Error, Result};
use crate::limits;
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
/// After attempt number n an exponential backoff waits `first * 2^(n - 1)`, a linear one `first * n`, and a list its delay number n, or
/// its last one. No delay is longer than `max`. With jitter the delay is drawn, so that messages that failed together do not come back
/// together: from the upper half of it (the default of [`Backoff::exponential`]), or from all of it ([`Backoff::full_jitter`]).
///
/// ```
/// # use millpond::{Backoff, Store};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// let webhooks = store.topic("webhooks").open()?;
/// let minutes = [1, 5, 30].map(|count| Duration::from_secs(60 * count));
/// let sender = webhooks.group("sender").backoff(Backoff::list(&minutes)).max_attempts(4).open()?;
/// assert_eq!(Backoff::list(&minutes).delay_max(9), Duration::from_secs(1800));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    growth: BackoffGrowth,
    max: Duration,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a backoff is an option: it is copied a few times in the life of a group")]
enum BackoffGrowth {
    /// By this factor, or by this delay again and again.
    Exponential(Duration),
    Linear(Duration),
    /// As many as were given, of which there may be too many.
    List([Duration; limits::BACKOFF_LIST_MAX], usize),
}

impl Backoff {
    /// Doubles from `first` up to an hour, with jitter.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        let growth = BackoffGrowth::Exponential(first);
        Self { growth, max: Duration::from_secs(3600), jitter: Jitter::UpperHalf }
    }

    /// Grows by `step` with each attempt, up to an hour: `step`, two of it, three of it.
    #[must_use]
    pub const fn linear(step: Duration) -> Self {
        Self { growth: BackoffGrowth::Linear(step), max: Duration::from_secs(3600), jitter: Jitter::None }
    }

    /// These delays, one after each attempt, and then the last of them again and again. 1 to 16; refused when the group is opened
    /// otherwise.
    #[must_use]
    pub const fn list(delays: &[Duration]) -> Self {
        let (mut kept, mut nth) = ([Duration::ZERO; limits::BACKOFF_LIST_MAX], 0);
        while nth < delays.len() && nth < kept.len() {
            kept[nth] = delays[nth];
            nth += 1;
        }
        Self { growth: BackoffGrowth::List(kept, delays.len()), max: Duration::MAX, jitter: Jitter::None }
    }

    /// Always the same delay.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self { growth: BackoffGrowth::Exponential(delay), max: delay, jitter: Jitter::None }
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

    /// Whether delays are drawn from the upper half; if not, they are not drawn at all.
    #[must_use]
    pub const fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = if jitter { Jitter::UpperHalf } else { Jitter::None };
        self
    }

    /// Delays are drawn from all of it: from none at all up to the whole delay.
    #[must_use]
    pub const fn full_jitter(mut self) -> Self {
        self.jitter = Jitter::Full;
        self
    }

    /// The delay after this attempt, from 1; with jitter, the longest that it may be.
    #[must_use]
    pub fn delay_max(self, attempt: u32) -> Duration {
        let before = attempt.saturating_sub(1);
        let delay = match &self.growth {
            BackoffGrowth::Exponential(first) => first.saturating_mul(1u32.checked_shl(before).unwrap_or(u32::MAX)),
            BackoffGrowth::Linear(step) => step.saturating_mul(attempt.max(1)),
            BackoffGrowth::List(delays, count) => {
                let nth = usize::try_from(before).unwrap_or(usize::MAX).min(count.saturating_sub(1));
                delays.get(nth).copied().unwrap_or_default()
            }
        };
        delay.min(self.max)
    }

    pub(super) fn to_record(self) -> Result<BackoffOptions> {
        let Self { growth, max, jitter } = self;
        let within = |first: Duration, growth| {
            let max_ms = millis("backoff.max", max)?;
            let first_ms = millis("backoff", first)?.min(max_ms);
            Ok(BackoffOptions { first_ms, max_ms, jitter, growth })
        };
        match growth {
            BackoffGrowth::Exponential(first) => within(first, Growth::Exponential),
            BackoffGrowth::Linear(step) => within(step, Growth::Linear),
            BackoffGrowth::List(delays, count) => {
                let listed = delays.get(..count).filter(|delays| !delays.is_empty());
                let listed = listed.ok_or_else(|| Error::InvalidOption {
                    option: "backoff",
                    value: format!("a list of {count} delays"),
                    expected: "a list of 1 to 16 delays",
                })?;
                let capped = listed.iter().map(|delay| millis("backoff", (*delay).min(max)));
                let all = capped.collect::<Result<Box<[u64]>>>()?;
                let (first_ms, max_ms) = (all[0], all.iter().copied().max().unwrap_or_default());
                Ok(BackoffOptions { first_ms, max_ms, jitter, growth: Growth::List(all) })
            }
        }
    }
}

impl Default for Backoff {
    /// One second, doubling up to five minutes, with jitter. With the five attempts of a default group, the four waits between them
    /// are 15 seconds together at most, and 7.5 at least.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1)).max(Duration::from_secs(300))
    }
}

/// How many messages a group gets over time: a bucket of tokens, of which each delivery takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    messages: u32,
    per: Duration,
    burst: u32,
}

impl RateLimit {
    /// `messages` in each duration of `per`, evenly: a token comes each `per / messages`. 1 message at least, 1 ms to ten years; refused
    /// when the group is opened otherwise.
    #[must_use]
    pub const fn new(messages: u32, per: Duration) -> Self {
        Self { messages, per, burst: messages }
    }

    /// How many tokens there are at most, when none was taken for a while. 1 at least. Default: as many as come in `per`.
    #[must_use]
    pub const fn burst(mut self, messages: u32) -> Self {
        self.burst = messages;
        self
    }

    pub(super) fn to_record(self) -> Result<RateOptions> {
        let Self { messages, per, burst } = self;
        let per_ms = millis("rate_limit", per)?;
        if messages == 0 || per_ms == 0 || burst == 0 {
            let (value, expected) =
                (format!("{self:?}"), "one message at least, in 1 ms at least, and a burst of one at least");
            return Err(Error::InvalidOption { option: "rate_limit", value, expected });
        }
        Ok(RateOptions { count: messages, per_ms, burst })
    }
}

/// A rate as an error shows it.
pub(super) fn shown_rate(RateOptions { count, per_ms, burst }: RateOptions) -> String {
    if count == 0 { "none".to_owned() } else { format!("{count} in {per_ms} ms, burst {burst}") }
}

/// A backoff as an error shows it.
pub(super) fn shown(backoff: &BackoffOptions) -> String {
    let BackoffOptions { first_ms, max_ms, jitter, growth } = backoff;
    let jitter = match jitter {
        Jitter::None => "none",
        Jitter::UpperHalf => "upper half",
        Jitter::Full => "full",
    };
    match growth {
        Growth::Exponential => format!("{first_ms} to {max_ms} ms, doubled, jitter {jitter}"),
        Growth::Linear => format!("{first_ms} to {max_ms} ms, linear, jitter {jitter}"),
        Growth::List(delays) => format!("{delays:?} ms, jitter {jitter}"),
    }
}
