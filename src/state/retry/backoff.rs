//! How long a failed message waits.
//!
//! Never here: randomness. Jitter is drawn from what identifies the attempt, so that the same log gives the same times.

use crate::ids::{Offset, PartitionId};
use crate::record::BackoffOptions;
use crate::record::message::splitmix;

/// The shortest wait of a message that cannot be read or moved: nothing about it changes at once.
const DEFERRAL_MS_MIN: u64 = 1_000;

/// The delay after attempt number `attempt` (from 1): `first * 2^(attempt - 1)`, at most `max`; with jitter, somewhere in
/// the upper half of that.
pub(in crate::state) fn delay_ms(options: BackoffOptions, partition: PartitionId, offset: Offset, attempt: u32) -> u64 {
    // seam: a backoff does not double
    let factor = 1u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
    let full = options.first_ms.saturating_mul(factor).min(options.max_ms);
    if !options.jitter {
        return full;
    }
    let draw = splitmix(splitmix(splitmix(partition.0) ^ offset.0) ^ u64::from(attempt));
    let least = full.div_ceil(2);
    least + draw % (full - least).saturating_add(1)
}

/// The delay of a message that cannot be read, or moved to the dead letters: the longest, not charged.
pub(in crate::state) fn deferral_ms(options: BackoffOptions) -> u64 {
    options.max_ms.max(DEFERRAL_MS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(options: BackoffOptions) -> Vec<u64> {
        (1..=6).map(|attempt| delay_ms(options, PartitionId(1), Offset(2), attempt)).collect()
    }

    #[test]
    fn it_doubles_up_to_the_greatest() {
        let options = BackoffOptions { first_ms: 100, max_ms: 900, jitter: false };
        assert_eq!(delays(options), [100, 200, 400, 800, 900, 900]);
        for attempt in [64, 65, 66, u32::MAX] {
            assert_eq!(delay_ms(options, PartitionId(0), Offset(0), attempt), 900);
        }
        assert_eq!(delays(BackoffOptions { first_ms: 0, max_ms: 900, jitter: true }), [0; 6]);
    }

    #[test]
    fn jitter_stays_in_the_upper_half_and_differs() {
        let options = BackoffOptions { first_ms: 1001, max_ms: 1001, jitter: true };
        let drawn: Vec<_> = (0..1000).map(|offset| delay_ms(options, PartitionId(1), Offset(offset), 1)).collect();
        assert!(drawn.iter().all(|delay| (501..=1001).contains(delay)));
        assert!(drawn.iter().any(|&delay| delay < 560) && drawn.iter().any(|&delay| delay > 940));
        let again: Vec<_> = (0..1000).map(|offset| delay_ms(options, PartitionId(1), Offset(offset), 1)).collect();
        assert_eq!(drawn, again);
        let full = BackoffOptions { first_ms: u64::MAX, max_ms: u64::MAX, jitter: true };
        assert!(delay_ms(full, PartitionId(0), Offset(0), 9) >= u64::MAX / 2);
    }
}
