//! The bytes of a frame: an opaque head and opaque parts, bound to their place.
//!
//! ```text
//! u32 checksum | u32 length and flags | [u64 LSN] | [u64 epoch] | [varint distance to the watermark]
//! | table of parts | head | parts | zeros up to a multiple of 8
//! ```
//! The *prefix* is all before the head, and the *front* all before the parts. The checksum covers the front without itself, from
//! a seed made of the file's salt and the frame's place in the file. Each part has a check of its own in the table: its CRC masked
//! with the frame's place and LSN. So the front proves what the parts must be, and with it one part proves itself without the
//! bytes of the others. A frame is valid when its checksum and the checks of all parts agree. The length counts everything
//! but the padding; bytes of padding mean nothing. Never here: I/O, and what heads and parts mean.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(crate) use decode::{Claim, Covered, Frame, Probe, front_proves_itself};
pub(crate) use encode::{Outline, Parts, encode_front, frame_len};

use crate::ids::Lsn;
use crate::log::format::checksum;

/// Frames begin and end at multiples of this, in LSNs and in files.
pub(crate) const ALIGN: u64 = 8;
/// Checksum, length and flags.
pub(crate) const FIXED_LEN: usize = 8;
/// The longest prefix that has no table, or a table for one part.
pub(crate) const PREFIX_LEN_MAX: usize = FIXED_LEN + 8 + 8 + 10 + 5 + 4;
/// An entry of the table where there are several parts: u32 end counted from the first part's start, u32 check.
pub(crate) const ENTRY_LEN: usize = 8;

pub(crate) const LEN_MASK: u32 = (1 << 26) - 1;
const HAS_LSN: u32 = 1 << 26;
const HAS_EPOCH: u32 = 1 << 27;
const HAS_WATERMARK: u32 = 1 << 28;
const IS_LOG: u32 = 1 << 29;
/// Two bits: no part, one (varint length, u32 check), or many (varint count, entries).
const PARTS_SHIFT: u32 = 30;
const PARTS_NONE: u32 = 0;
const PARTS_ONE: u32 = 1;
const PARTS_MANY: u32 = 2;

/// Where a frame stands: what seeds its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The salt of the file.
    pub(crate) salt: u64,
    /// The frame's first byte in the file.
    pub(crate) at: u32,
}

impl Spot {
    /// The checksum of a frame: of all before its parts but the checksum itself.
    ///
    /// One CRC over bytes that stand together. A CRC of CRCs would not do: they are linear, so that equal changes in two places,
    /// as a torn write makes that zeroes both, can cancel each other.
    #[inline]
    pub(crate) fn checksum(self, covered: &[u8]) -> u32 {
        // seam: the checksum does not cover the length
        // seam: no seed in the checksum
        let place = checksum::position_seed(self.salt, self.at as u64);
        // seam: checksums that cancel
        checksum::crc(checksum::low(place), covered)
    }

    /// What turns the CRCs of the frame's parts into their checks, and back: one is the other with this added by bits.
    #[inline]
    pub(crate) const fn mask(self, lsn: Lsn) -> u32 {
        checksum::low(checksum::step(checksum::position_seed(self.salt, self.at as u64) ^ lsn.0))
    }
}
