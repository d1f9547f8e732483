//! Writing frames. Nothing here can fail: the caller has checked the limits.

use super::{
    ALIGN, ENTRY_LEN, FIXED_LEN, HAS_EPOCH, HAS_LSN, HAS_WATERMARK, IS_LOG, LEN_MASK, PARTS_MANY, PARTS_NONE,
    PARTS_ONE, PARTS_SHIFT, Spot,
};
use crate::ids::{Epoch, Lsn};
use crate::log::format::bytes::{put_varint, varint_len};

/// The parts of a frame, with what could be computed before the lock was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts<'a> {
    /// All parts one after another.
    pub(crate) bytes: &'a [u8],
    /// Where each part ends in `bytes`.
    pub(crate) ends: &'a [u32],
    /// The plain CRC-32 of each part.
    pub(crate) crcs: &'a [u32],
}

/// What a frame says of itself besides head and parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) lsn: Lsn,
    /// Whether the LSN is written down; otherwise the place in the segment tells it.
    pub(crate) carries_lsn: bool,
    pub(crate) epoch: Option<Epoch>,
    /// At most `lsn`.
    pub(crate) watermark: Option<Lsn>,
    /// Whether the head is the log's own.
    pub(crate) log: bool,
}

impl Outline {
    #[inline]
    const fn distance(&self) -> Option<u64> {
        match self.watermark {
            Some(watermark) => Some(self.lsn.0.saturating_sub(watermark.0) / ALIGN),
            None => None,
        }
    }

    #[inline]
    const fn flags(&self) -> u32 {
        (if self.carries_lsn { HAS_LSN } else { 0 })
            | (if self.epoch.is_some() { HAS_EPOCH } else { 0 })
            | (if self.watermark.is_some() { HAS_WATERMARK } else { 0 })
            | (if self.log { IS_LOG } else { 0 })
    }
}

/// The length of the frame before padding.
#[inline(always)]
pub(crate) fn frame_len(outline: &Outline, head_len: usize, parts: &Parts<'_>) -> usize {
    let fields = if outline.carries_lsn { 8 } else { 0 }
        + if outline.epoch.is_some() { 8 } else { 0 }
        + outline.distance().map_or(0, varint_len);
    let table = match parts.ends {
        [] => 0,
        [len] => varint_len(u64::from(*len)) + 4,
        many => varint_len(many.len() as u64) + ENTRY_LEN * many.len(),
    };
    FIXED_LEN + fields + table + head_len + parts.bytes.len()
}

/// Appends to `out` what stands before the parts of a frame that is `len` bytes long, which [`frame_len`] said.
#[inline(always)]
pub(crate) fn encode_front(out: &mut Vec<u8>, spot: Spot, outline: &Outline, len: u32, head: &[u8], parts: &Parts<'_>) {
    debug_assert!((len & LEN_MASK) == len && parts.ends.len() == parts.crcs.len());
    debug_assert_eq!(parts.ends.last().copied().unwrap_or(0) as usize, parts.bytes.len());
    let start = out.len();
    let mask = spot.mask(outline.lsn);
    let shape = match parts.ends.len() {
        0 => PARTS_NONE,
        1 => PARTS_ONE,
        _ => PARTS_MANY,
    };
    // The checksum's place, and the word.
    let word = len | outline.flags() | (shape << PARTS_SHIFT);
    out.extend_from_slice(&(u64::from(word) << 32).to_le_bytes());
    if outline.carries_lsn {
        out.extend_from_slice(&outline.lsn.0.to_le_bytes());
    }
    if let Some(epoch) = outline.epoch {
        out.extend_from_slice(&epoch.0.to_le_bytes());
    }
    if let Some(distance) = outline.distance() {
        put_varint(out, distance);
    }
    if let ([len], [sum]) = (parts.ends, parts.crcs) {
        put_varint(out, u64::from(*len));
        out.extend_from_slice(&(sum ^ mask).to_le_bytes());
    } else if shape == PARTS_MANY {
        put_varint(out, parts.ends.len() as u64);
        for (end, sum) in parts.ends.iter().zip(parts.crcs) {
            out.extend_from_slice(&end.to_le_bytes());
            out.extend_from_slice(&(sum ^ mask).to_le_bytes());
        }
    }
    out.extend_from_slice(head);
    if let Some((sum, covered)) = out.get_mut(start..).and_then(|front| front.split_first_chunk_mut()) {
        *sum = spot.checksum(covered).to_le_bytes();
    }
}
