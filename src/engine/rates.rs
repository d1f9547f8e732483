//! How fast groups with a rate may lease: a bucket of tokens for each.
//!
//! A bucket goes by the monotonic clock of this process and is in no record: each process begins with empty ones, so that a restart never
//! gives a burst. Tokens come one after another, each in its share of the time. Never here: leases.

use crate::ids::{GroupId, MonoMs};
use crate::record::RateOptions;
use std::collections::BTreeMap;

/// The buckets of groups that asked while they had a rate.
#[derive(Debug)]
pub(in crate::engine) struct Rates {
    /// Since when tokens have been coming.
    since: MonoMs,
    buckets: BTreeMap<GroupId, Bucket>,
}

/// In units of which one token is `per_ms`, and as many as `count` come in a millisecond.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    options: RateOptions,
    units: u128,
    at: MonoMs,
}

impl Bucket {
    /// Adds what has come since the last time, as far as there is room.
    fn fill(&mut self, mono: MonoMs) {
        let RateOptions { count, per_ms, burst } = self.options;
        let elapsed = mono.0.saturating_sub(self.at.0);
        let come = u128::from(elapsed) * u128::from(count);
        // seam: a bucket has no end
        let most = u128::from(burst) * u128::from(per_ms);
        self.units = (self.units + come).min(most);
        self.at = self.at.max(mono);
    }

    /// Goes on by other options: what is there stays, tokens and parts of one, as far as it fits.
    fn change(&mut self, options: RateOptions, mono: MonoMs) {
        self.fill(mono);
        let before = u128::from(self.options.per_ms.max(1));
        let (tokens, part) = (self.units / before, self.units % before);
        let per_ms = u128::from(options.per_ms);
        *self = Self { options, units: tokens * per_ms + part * per_ms / before, at: self.at };
        self.fill(mono);
    }

    fn tokens(&self) -> u32 {
        u32::try_from(self.units / u128::from(self.options.per_ms.max(1))).unwrap_or(u32::MAX)
    }

    /// In how many milliseconds the next token is there, at the latest.
    fn next_in(&self) -> u64 {
        let missing = u128::from(self.options.per_ms) - self.units % u128::from(self.options.per_ms.max(1));
        u64::try_from(missing.div_ceil(u128::from(self.options.count.max(1)))).unwrap_or(u64::MAX)
    }
}

impl Rates {
    pub(in crate::engine) fn new(since: MonoMs) -> Self {
        Self { since, buckets: BTreeMap::new() }
    }

    fn bucket(&self, group: GroupId, options: RateOptions, mono: MonoMs) -> Bucket {
        // seam: a restart gives a burst
        let fresh = Bucket { options, units: 0, at: self.since };
        let mut bucket = self.buckets.get(&group).copied().unwrap_or(fresh);
        if bucket.options == options {
            bucket.fill(mono);
        } else {
            bucket.change(options, mono);
        }
        bucket
    }

    /// The group goes on by another rate, or by none, from now on. A rate where there was none begins without tokens.
    pub(in crate::engine) fn change(&mut self, group: GroupId, rate: Option<RateOptions>, mono: MonoMs) {
        let Some(options) = rate else {
            self.buckets.remove(&group);
            return;
        };
        let bucket = self.buckets.entry(group).or_insert(Bucket { options, units: 0, at: mono });
        // seam: another rate holds from the next lease on
        bucket.change(options, mono);
    }

    /// How many messages the group may be leased now.
    pub(in crate::engine) fn tokens(&self, group: GroupId, options: RateOptions, mono: MonoMs) -> u32 {
        self.bucket(group, options, mono).tokens()
    }

    /// In how many milliseconds the group may be leased another message; `None` where it may now.
    pub(in crate::engine) fn wait(&self, group: GroupId, options: RateOptions, mono: MonoMs) -> Option<u64> {
        let bucket = self.bucket(group, options, mono);
        // seam: nobody waits for a token
        (bucket.tokens() == 0).then(|| bucket.next_in())
    }

    /// So many were leased.
    pub(in crate::engine) fn take(&mut self, group: GroupId, options: RateOptions, count: u32, mono: MonoMs) {
        let mut bucket = self.bucket(group, options, mono);
        // seam: leases take no tokens
        bucket.units = bucket.units.saturating_sub(u128::from(count) * u128::from(options.per_ms));
        self.buckets.insert(group, bucket);
    }

    /// Only these groups are still there.
    pub(in crate::engine) fn keep(&mut self, is_there: impl Fn(GroupId) -> bool) {
        self.buckets.retain(|group, _| is_there(*group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn rate(count: u32, per_ms: u64, burst: u32) -> RateOptions {
        RateOptions { count, per_ms, burst }
    }

    #[test]
    fn tokens_come_one_after_another_up_to_a_burst() {
        let (mut rates, three) = (Rates::new(MonoMs(1_000)), rate(3, 1_000, 2));
        assert_eq!(
            (rates.tokens(GROUP, three, MonoMs(1_000)), rates.wait(GROUP, three, MonoMs(1_000))),
            (0, Some(334))
        );
        assert_eq!((rates.tokens(GROUP, three, MonoMs(1_333)), rates.wait(GROUP, three, MonoMs(1_333))), (0, Some(1)));
        assert_eq!((rates.tokens(GROUP, three, MonoMs(1_334)), rates.wait(GROUP, three, MonoMs(1_334))), (1, None));
        assert_eq!(rates.tokens(GROUP, three, MonoMs(1 << 60)), 2);
        rates.take(GROUP, three, 2, MonoMs(1 << 60));
        assert_eq!(rates.tokens(GROUP, three, MonoMs(1 << 60)), 0);
        // A clock that is behind gives none, and takes none.
        assert_eq!(rates.tokens(GROUP, three, MonoMs(5)), 0);
        assert_eq!(rates.tokens(GROUP, three, MonoMs((1 << 60) + 667)), 2);
    }

    #[test]
    fn in_a_long_time_as_many_are_leased_as_the_rate_says() {
        let (mut rates, options) = (Rates::new(MonoMs(0)), rate(7, 1_000, 1));
        let mut leased = 0;
        let mut mono = 0;
        while mono < 60_000 {
            match rates.wait(GROUP, options, MonoMs(mono)) {
                Some(ms) => mono += ms,
                None => {
                    rates.take(GROUP, options, 1, MonoMs(mono));
                    leased += 1;
                }
            }
        }
        assert!((410..=420).contains(&leased), "{leased}");
    }

    #[test]
    fn another_rate_keeps_the_tokens_that_fit() {
        let (mut rates, slow) = (Rates::new(MonoMs(0)), rate(1, 1_000, 5));
        rates.take(GROUP, slow, 1, MonoMs(4_000));
        assert_eq!(rates.tokens(GROUP, slow, MonoMs(4_000)), 3);
        assert_eq!(rates.tokens(GROUP, rate(1, 10, 2), MonoMs(4_000)), 2);
        assert_eq!(rates.tokens(GROUP, rate(u32::MAX, u64::MAX >> 20, u32::MAX), MonoMs(4_000)), 3);
        rates.keep(|group| group != GROUP);
        assert_eq!(rates.tokens(GROUP, slow, MonoMs(4_000)), 4);
    }

    /// A rate that was altered holds from then on, whenever the last lease was.
    #[test]
    fn another_rate_holds_at_once() {
        let (mut rates, slow, fast) = (Rates::new(MonoMs(0)), rate(1, 3_600_000, 1), rate(100, 1_000, 10));
        rates.take(GROUP, slow, 1, MonoMs(3_600_000));
        rates.change(GROUP, Some(fast), MonoMs(3_601_000));
        assert_eq!(rates.tokens(GROUP, fast, MonoMs(3_601_100)), 10);
        let drained = rate(1_000, 1_000, 1_000);
        rates.take(GROUP, drained, 1_000, MonoMs(5_000_000));
        rates.change(GROUP, Some(rate(1_000, 1_000_000, 1_000)), MonoMs(5_000_000));
        assert_eq!(rates.tokens(GROUP, rate(1_000, 1_000_000, 1_000), MonoMs(5_001_000)), 1);
        // Off, and on again: no tokens have gathered.
        rates.change(GROUP, None, MonoMs(6_000_000));
        rates.change(GROUP, Some(fast), MonoMs(9_000_000));
        assert_eq!(rates.tokens(GROUP, fast, MonoMs(9_000_000)), 0);
    }
}
