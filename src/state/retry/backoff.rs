//! How long a failed message waits.
//!
//! Never here: randomness. Jitter is drawn from what identifies the attempt, so that the same log gives the same times.

use crate::ids::{Epoch, Offset, PartitionId};
use crate::record::message::splitmix;
use crate::record::{BackoffOptions, Growth, Jitter};

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

/// The delay after an attempt: what the growth says, at most `max_ms`; with jitter, somewhere in the upper half of that or in all of it.
pub(in crate::state) fn delay_ms(options: &BackoffOptions, attempt: Attempt) -> u64 {
    let full = longest_ms(options, attempt.number);
    let least = match options.jitter {
        Jitter::None => return full,
        Jitter::UpperHalf => full.div_ceil(2),
        // seam: full jitter is half of it
        Jitter::Full => 0,
    };
    let Attempt { epoch, partition, offset, number } = attempt;
    let draw = [partition.0, offset.0, u64::from(number)].iter().fold(splitmix(epoch.0), |draw, n| splitmix(draw ^ n));
    let span = full - least;
    least + span.checked_add(1).map_or(draw, |count| draw % count)
}

/// The delay after attempt number `number`, from 1, but for jitter.
fn longest_ms(options: &BackoffOptions, number: u32) -> u64 {
    let before = number.saturating_sub(1);
    let full = match &options.growth {
        Growth::Exponential => {
            // seam: a backoff does not double
            let factor = 1u64.checked_shl(before).unwrap_or(u64::MAX);
            options.first_ms.saturating_mul(factor)
        }
        // seam: a linear backoff stays the same
        Growth::Linear => options.first_ms.saturating_mul(u64::from(number)),
        Growth::List(delays) => {
            let nth = usize::try_from(before).ok();
            // seam: a list of delays begins anew
            nth.and_then(|nth| delays.get(nth)).or(delays.last()).copied().unwrap_or(options.max_ms)
        }
    };
    full.min(options.max_ms)
}

/// The delay after an attempt that ended without its consumer: by its timeout, a crash or a close. The first is followed at once.
pub(in crate::state) fn delay_unattended_ms(options: &BackoffOptions, attempt: Attempt) -> u64 {
    if attempt.number < 2 { 0 } else { delay_ms(options, attempt) }
}

/// The delay of a message that cannot be read, or moved to the dead letters: the longest, not counted.
pub(in crate::state) fn deferral_ms(options: &BackoffOptions) -> u64 {
    options.max_ms.max(DEFERRAL_MS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::GroupOptions;

    fn attempt(offset: u64, number: u32) -> Attempt {
        Attempt { epoch: Epoch(3), partition: PartitionId(1), offset: Offset(offset), number }
    }

    fn growing(first_ms: u64, max_ms: u64, jitter: Jitter) -> BackoffOptions {
        BackoffOptions { first_ms, max_ms, jitter, growth: Growth::Exponential }
    }

    fn delays(options: &BackoffOptions) -> Vec<u64> {
        (1..=6).map(|number| delay_ms(options, attempt(2, number))).collect()
    }

    #[test]
    fn it_doubles_up_to_the_greatest() {
        let options = growing(100, 900, Jitter::None);
        assert_eq!(delays(&options), [100, 200, 400, 800, 900, 900]);
        for number in [64, 65, 66, u32::MAX] {
            assert_eq!(delay_ms(&options, attempt(0, number)), 900);
        }
        assert_eq!(delays(&growing(0, 900, Jitter::UpperHalf)), [0; 6]);
        let unattended = |number| delay_unattended_ms(&options, attempt(2, number));
        assert_eq!([unattended(1), unattended(2), unattended(3)], [0, 200, 400]);
    }

    #[test]
    fn a_linear_one_adds_the_first_and_a_list_ends_with_its_last() {
        let linear = BackoffOptions { growth: Growth::Linear, ..growing(100, 350, Jitter::None) };
        assert_eq!(delays(&linear), [100, 200, 300, 350, 350, 350]);
        assert_eq!(delay_ms(&linear, attempt(0, u32::MAX)), 350);
        let list = |delays: &[u64]| BackoffOptions {
            growth: Growth::List(delays.into()),
            ..growing(delays[0], delays.iter().copied().max().unwrap(), Jitter::None)
        };
        assert_eq!(delays(&list(&[7, 90, 20])), [7, 90, 20, 20, 20, 20]);
        assert_eq!(delays(&list(&[7])), [7; 6]);
        assert_eq!(delay_ms(&list(&[7, 9]), attempt(0, u32::MAX)), 9);
    }

    /// What the documentation says of the default: five attempts, and in all 7.5 to 15 seconds of waiting between them.
    #[test]
    fn the_default_waits_fifteen_seconds_in_all_at_most() {
        let GroupOptions { backoff, max_attempts, .. } = GroupOptions::LEFT_OUT;
        assert_eq!(max_attempts, 5);
        let longest: u64 = (1..max_attempts).map(|number| longest_ms(&backoff, number)).sum();
        assert_eq!(longest, 15_000);
        for offset in 0..1000 {
            let waited: u64 = (1..max_attempts).map(|number| delay_ms(&backoff, attempt(offset, number))).sum();
            assert!((7_500..=15_000).contains(&waited), "{waited}");
        }
    }

    #[test]
    fn jitter_stays_in_its_part_and_differs() {
        for (jitter, least) in [(Jitter::UpperHalf, 501), (Jitter::Full, 0)] {
            let options = growing(1001, 1001, jitter);
            let draw = || (0..1000).map(|offset| delay_ms(&options, attempt(offset, 1))).collect::<Vec<_>>();
            let drawn = draw();
            assert!(drawn.iter().all(|delay| (least..=1001).contains(delay)));
            assert!(drawn.iter().any(|&delay| delay < least + 60) && drawn.iter().any(|&delay| delay > 940));
            assert_eq!(drawn, draw());
            // Each part of an attempt's identity matters.
            let base = attempt(7, 1);
            let others = [
                Attempt { epoch: Epoch(4), ..base },
                Attempt { partition: PartitionId(2), ..base },
                Attempt { offset: Offset(8), ..base },
                Attempt { number: 2, ..base },
            ];
            assert!(others.iter().all(|other| delay_ms(&options, *other) != delay_ms(&options, base)));
        }
        assert!(delay_ms(&growing(u64::MAX, u64::MAX, Jitter::UpperHalf), attempt(0, 9)) >= u64::MAX / 2);
        delay_ms(&growing(u64::MAX, u64::MAX, Jitter::Full), attempt(0, 9));
    }
}
