//! How long a failed message waits.
//!
//! Never here: randomness. Jitter is drawn from what identifies the attempt, so that the same log gives the same times.

use crate::ids::{Epoch, Offset, PartitionId};
use crate::record::BackoffOptions;
use crate::record::message::splitmix;

/// The shortest wait of a message that cannot be read or moved: nothing about it changes at once.
const DEFERRAL_MS_MIN: u64 = 1_000;

/// An attempt, by what identifies it.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct Attempt {
    /// The epoch of its lease.
    pub(in crate::state) epoch: Epoch,
    pub(in crate::state) partition: PartitionId,
    pub(in crate::state) offset: Offset,
    /// From 1.
    pub(in crate::state) number: u32,
}

/// The delay after an attempt: `first * 2^(number - 1)`, at most `max`; with jitter, somewhere in the upper half of that.
pub(in crate::state) fn delay_ms(options: BackoffOptions, attempt: Attempt) -> u64 {
    // seam: a backoff does not double
    let factor = 1u64.checked_shl(attempt.number.saturating_sub(1)).unwrap_or(u64::MAX);
    let full = options.first_ms.saturating_mul(factor).min(options.max_ms);
    if !options.jitter {
        return full;
    }
    let Attempt { epoch, partition, offset, number } = attempt;
    let draw = [partition.0, offset.0, u64::from(number)].iter().fold(splitmix(epoch.0), |draw, n| splitmix(draw ^ n));
    let least = full.div_ceil(2);
    least + draw % (full - least).saturating_add(1)
}

/// The delay after an attempt that ended without its consumer: by its timeout, a crash or a close. The first is followed at once.
pub(in crate::state) fn delay_unattended_ms(options: BackoffOptions, attempt: Attempt) -> u64 {
    if attempt.number < 2 { 0 } else { delay_ms(options, attempt) }
}

/// The delay of a message that cannot be read, or moved to the dead letters: the longest, not counted.
pub(in crate::state) fn deferral_ms(options: BackoffOptions) -> u64 {
    options.max_ms.max(DEFERRAL_MS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(offset: u64, number: u32) -> Attempt {
        Attempt { epoch: Epoch(3), partition: PartitionId(1), offset: Offset(offset), number }
    }

    fn delays(options: BackoffOptions) -> Vec<u64> {
        (1..=6).map(|number| delay_ms(options, attempt(2, number))).collect()
    }

    #[test]
    fn it_doubles_up_to_the_greatest() {
        let options = BackoffOptions { first_ms: 100, max_ms: 900, jitter: false };
        assert_eq!(delays(options), [100, 200, 400, 800, 900, 900]);
        for number in [64, 65, 66, u32::MAX] {
            assert_eq!(delay_ms(options, attempt(0, number)), 900);
        }
        assert_eq!(delays(BackoffOptions { first_ms: 0, max_ms: 900, jitter: true }), [0; 6]);
        let unattended = |number| delay_unattended_ms(options, attempt(2, number));
        assert_eq!([unattended(1), unattended(2), unattended(3)], [0, 200, 400]);
    }

    #[test]
    fn jitter_stays_in_the_upper_half_and_differs() {
        let options = BackoffOptions { first_ms: 1001, max_ms: 1001, jitter: true };
        let draw = || (0..1000).map(|offset| delay_ms(options, attempt(offset, 1))).collect::<Vec<_>>();
        let drawn = draw();
        assert!(drawn.iter().all(|delay| (501..=1001).contains(delay)));
        assert!(drawn.iter().any(|&delay| delay < 560) && drawn.iter().any(|&delay| delay > 940));
        assert_eq!(drawn, draw());
        // Each part of an attempt's identity matters.
        let base = attempt(7, 1);
        let others = [
            Attempt { epoch: Epoch(4), ..base },
            Attempt { partition: PartitionId(2), ..base },
            Attempt { offset: Offset(8), ..base },
            Attempt { number: 2, ..base },
        ];
        assert!(others.iter().all(|other| delay_ms(options, *other) != delay_ms(options, base)));
        let full = BackoffOptions { first_ms: u64::MAX, max_ms: u64::MAX, jitter: true };
        assert!(delay_ms(full, attempt(0, 9)) >= u64::MAX / 2);
    }
}
