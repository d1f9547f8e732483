//! The arithmetic that binds bytes to their place: seeds and masks of checksums.
//!
//! A checksum that is seeded with a file's salt and a position proves more than the bytes: that they were written there, in
//! this life of the file. Never here: layouts.

use crc32fast::Hasher;
use std::sync::LazyLock;

/// The odd constant of the splitmix64 generator.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Making one looks at the processor's features, which costs as much as hashing a short message.
static FRESH: LazyLock<Hasher> = LazyLock::new(Hasher::new);

/// One round of splitmix64: every bit of `value` changes about half of the result's.
#[inline]
pub(crate) const fn step(value: u64) -> u64 {
    let value = value.wrapping_add(GAMMA);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What identifies byte `at` of the file with this salt: the generator's number `at` from there.
#[inline]
pub(crate) const fn position_seed(salt: u64, at: u64) -> u64 {
    step(salt.wrapping_add(at.wrapping_mul(GAMMA)))
}

/// The low half, for a 32-bit check.
#[inline]
pub(crate) const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// CRC-32 of `bytes`, started from `seed` instead of zero: so that `crc(crc(0, a), b)` is that of a and b together.
#[inline]
pub(crate) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = if seed == 0 { FRESH.clone() } else { Hasher::new_with_initial(seed) };
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_constants_stay() {
        assert_eq!(step(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(crc(crc(0, b"1234"), b"56789"), 0xcbf4_3926);
        assert_ne!(crc(1, b"123456789"), 0xcbf4_3926);
        assert_ne!(position_seed(7, 128), position_seed(7, 136));
        assert_ne!(position_seed(7, 128), position_seed(128, 7));
    }
}
