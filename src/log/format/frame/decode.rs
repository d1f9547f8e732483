//! Reading frames, from bytes that may be anything.
//!
//! A [`Claim`] is what the first bytes say; [`Covered`] is what the frame's checksum has proven; a [`Frame`] is valid whole.
//! No length is believed, and no buffer grows by one, before the checksum that covers it agrees.

use super::{
    ALIGN, ENTRY_LEN, FIXED_LEN, HAS_EPOCH, HAS_LSN, HAS_WATERMARK, IS_LOG, LEN_MASK, PARTS_MANY, PARTS_NONE,
    PARTS_ONE, PARTS_SHIFT, PREFIX_LEN_MAX, Spot,
};
use crate::ids::{Epoch, Lsn};
use crate::limits::{FRAME_PARTS_MAX, HEAD_LEN_MAX};
use crate::log::format::bytes::{ByteCursor, padded, u32_at};
use crate::log::format::checksum::crc;
use std::ops::Range;

/// What the first bytes of a frame say. All lengths and places count from the frame's start and lie within `len`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The length before padding.
    pub(crate) len: u32,
    pub(crate) lsn: Option<Lsn>,
    pub(crate) epoch: Option<Epoch>,
    distance: Option<u64>,
    pub(crate) log: bool,
    /// How many parts.
    pub(crate) parts: u32,
    /// The length of the part where there is one.
    only_len: u32,
    /// Where the check of the only part, or the first entry of the table, stands.
    table_at: u32,
    pub(crate) head_at: u32,
}

impl Claim {
    /// `None` where no frame begins with `bytes`, or where they are too few to tell.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = u32_at(bytes, 4)?;
        let len = word & LEN_MASK;
        if (len as usize) < FIXED_LEN {
            return None;
        }
        let mut cursor = ByteCursor::new(bytes.get(..bytes.len().min(len as usize).min(PREFIX_LEN_MAX))?);
        cursor.take(FIXED_LEN)?;
        let lsn = if word & HAS_LSN == 0 { None } else { Some(Lsn(cursor.u64()?)) };
        let epoch = if word & HAS_EPOCH == 0 { None } else { Some(Epoch(cursor.u64()?)) };
        let distance = if word & HAS_WATERMARK == 0 { None } else { Some(cursor.varint()?) };
        let (parts, only_len, table_at, head_at) = match word >> PARTS_SHIFT {
            PARTS_NONE => (0, 0, cursor.at(), cursor.at()),
            PARTS_ONE => {
                let only_len = cursor.varint_u32()?;
                let table_at = cursor.at();
                cursor.u32()?;
                (1, only_len, table_at, cursor.at())
            }
            PARTS_MANY => {
                let parts = cursor.varint_u32()?;
                if parts < 2 || parts as usize > FRAME_PARTS_MAX {
                    return None;
                }
                (parts, 0, cursor.at(), cursor.at() + ENTRY_LEN * parts as usize)
            }
            _ => return None,
        };
        if head_at > len as usize {
            return None;
        }
        let (table_at, head_at) = (table_at as u32, head_at as u32);
        Some(Self { len, lsn, epoch, distance, log: word & IS_LOG != 0, parts, only_len, table_at, head_at })
    }

    /// The length with padding.
    #[inline]
    pub(crate) fn padded(&self) -> u32 {
        padded(self.len).unwrap_or(u32::MAX)
    }

    /// Where the entry of part `index` stands in the table of a frame of several parts.
    #[inline]
    pub(crate) fn entry_at(&self, index: u32) -> usize {
        self.table_at as usize + ENTRY_LEN * index as usize
    }

    /// Where the check of part `index` stands.
    #[inline]
    pub(crate) fn check_at(&self, index: u32) -> usize {
        if self.parts == 1 { self.table_at as usize } else { self.entry_at(index) + 4 }
    }

    /// Where the parts begin, given the end of the last one; `None` where that cannot be.
    #[inline]
    pub(crate) fn parts_at(&self, last_end: u32) -> Option<u32> {
        let parts_len = match self.parts {
            0 => 0,
            1 => self.only_len,
            _ => last_end,
        };
        let parts_at = self.len.checked_sub(parts_len)?;
        let head_len = parts_at.checked_sub(self.head_at)?;
        (head_len as usize <= HEAD_LEN_MAX).then_some(parts_at)
    }

    /// The range of part `index`, counted from the first part's start, given its table entries.
    #[inline]
    pub(crate) fn part_range(&self, index: u32, table: impl Fn(usize) -> Option<u32>) -> Option<Range<u32>> {
        if self.parts == 1 {
            return (index == 0).then_some(0..self.only_len);
        }
        if index >= self.parts {
            return None;
        }
        let start = if index == 0 { 0 } else { table(self.entry_at(index - 1))? };
        let end = table(self.entry_at(index))?;
        (start <= end).then_some(start..end)
    }

    /// The watermark that the frame carries, given its LSN; the outer `None` where that cannot be.
    fn watermark(&self, lsn: Lsn) -> Option<Option<Lsn>> {
        let Some(distance) = self.distance else { return Some(None) };
        lsn.0.checked_sub(distance.checked_mul(ALIGN)?).map(|watermark| Some(Lsn(watermark)))
    }
}

/// Whether the checksum agrees of a frame of which `front` is all before the parts.
pub(crate) fn front_proves_itself(front: &[u8], spot: Spot) -> bool {
    front.split_first_chunk().is_some_and(|(sum, covered)| u32::from_le_bytes(*sum) == spot.checksum(covered))
}

/// What [`Covered::probe`] makes of some bytes.
#[derive(Debug)]
pub(crate) enum Probe {
    /// The frame's checksum agrees.
    Covered(Covered),
    /// So many bytes from the frame's start are needed to tell.
    More(usize),
    /// No frame begins here.
    Nothing,
}

/// A frame whose checksum has proven its prefix and head, and with them its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    pub(crate) claim: Claim,
    parts_at: u32,
}

impl Covered {
    /// Looks for a frame at `spot`; `bytes` are those that are buffered from there on, and `room` is how many there could be.
    pub(crate) fn probe(bytes: &[u8], room: u64, spot: Spot) -> Probe {
        let more = |wanted: usize| match wanted as u64 <= room && wanted > bytes.len() {
            true => Probe::More(wanted),
            false => Probe::Nothing,
        };
        let Some(claim) = Claim::parse(bytes) else {
            let wanted = u64::min(PREFIX_LEN_MAX as u64, room) as usize;
            return more(wanted);
        };
        if u64::from(claim.padded()) > room {
            return Probe::Nothing;
        }
        if bytes.len() < claim.head_at as usize {
            return more(claim.head_at as usize);
        }
        let last_end = match claim.parts {
            0 | 1 => 0,
            parts => u32_at(bytes, claim.entry_at(parts - 1)).unwrap_or(u32::MAX),
        };
        let Some(parts_at) = claim.parts_at(last_end) else { return Probe::Nothing };
        let Some(front) = bytes.get(..parts_at as usize) else { return more(parts_at as usize) };
        match front_proves_itself(front, spot) {
            true => Probe::Covered(Self { claim, parts_at }),
            false => Probe::Nothing,
        }
    }

    /// The frame, if its parts agree too. `bytes` are all of it, and `lsn` is what its place says, where that says one.
    pub(crate) fn verify(self, bytes: &[u8], spot: Spot, lsn: Option<Lsn>) -> Option<Frame<'_>> {
        let frame = self.placed(bytes.get(..self.claim.len as usize)?, spot, lsn)?;
        // seam: parts are not checked
        (0..self.claim.parts).all(|index| frame.proves(index)).then_some(frame)
    }

    /// The frame without its parts, whatever they are: `bytes` need not reach them. As [`Covered::verify`] but for that.
    pub(crate) fn without_parts(self, bytes: &[u8], spot: Spot, lsn: Option<Lsn>) -> Option<Frame<'_>> {
        self.placed(bytes.get(..self.parts_at as usize)?, spot, lsn)
    }

    /// The frame of which `bytes` are here, if its place is the one that it tells.
    fn placed(self, bytes: &[u8], spot: Spot, lsn: Option<Lsn>) -> Option<Frame<'_>> {
        let lsn = match (lsn, self.claim.lsn) {
            (Some(told), Some(carried)) if told != carried => return None,
            (told, carried) => carried.or(told)?,
        };
        if lsn.0 % ALIGN != 0 {
            return None;
        }
        let watermark = self.claim.watermark(lsn)?;
        let mask = spot.mask(lsn);
        Some(Frame { lsn, at: spot.at, watermark, covered: self, mask, bytes })
    }
}

/// A frame: valid, unless its maker says otherwise of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) lsn: Lsn,
    /// Its first byte in the file.
    pub(crate) at: u32,
    pub(crate) watermark: Option<Lsn>,
    covered: Covered,
    mask: u32,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Whether the head is the log's own.
    pub(crate) const fn is_log(&self) -> bool {
        self.covered.claim.log
    }

    pub(crate) const fn epoch(&self) -> Option<Epoch> {
        self.covered.claim.epoch
    }

    /// Appends to `out` the same frame as it stands at another place: the same bytes but for the checks.
    pub(crate) fn put_at(&self, spot: Spot, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        let (claim, mask) = (&self.covered.claim, spot.mask(self.lsn));
        for index in 0..claim.parts {
            let check = self.part_crc(index).map(|crc| (crc ^ mask).to_le_bytes());
            let place = out.get_mut(start..).and_then(|frame| frame.get_mut(claim.check_at(index)..));
            if let (Some(check), Some(place)) = (check, place.and_then(|place| place.first_chunk_mut())) {
                *place = check;
            }
        }
        let front = out.get_mut(start..).and_then(|frame| frame.get_mut(..self.covered.parts_at as usize));
        if let Some((sum, covered)) = front.and_then(|front| front.split_first_chunk_mut()) {
            *sum = spot.checksum(covered).to_le_bytes();
        }
        out.resize(start + self.padded() as usize, 0);
    }

    #[cfg(any(test, feature = "simulation"))]
    /// Whether the frame carries its LSN.
    pub(crate) const fn carries_lsn(&self) -> bool {
        self.covered.claim.lsn.is_some()
    }

    /// Its length with padding.
    pub(crate) fn padded(&self) -> u32 {
        self.covered.claim.padded()
    }

    pub(crate) fn head(&self) -> &'a [u8] {
        self.bytes.get(self.covered.claim.head_at as usize..self.covered.parts_at as usize).unwrap_or(&[])
    }

    /// How many parts.
    pub(crate) const fn parts(&self) -> u32 {
        self.covered.claim.parts
    }

    /// Part `index`, or `None` beyond the last.
    pub(crate) fn part(&self, index: u32) -> Option<&'a [u8]> {
        let range = self.part_range(index)?;
        self.all_parts().get(range.start as usize..range.end as usize)
    }

    /// All parts one after another.
    pub(crate) fn all_parts(&self) -> &'a [u8] {
        self.bytes.get(self.covered.parts_at as usize..).unwrap_or(&[])
    }

    /// Where part `index` lies in [`Frame::all_parts`].
    pub(crate) fn part_range(&self, index: u32) -> Option<Range<u32>> {
        self.covered.claim.part_range(index, |at| u32_at(self.bytes, at))
    }

    /// The plain CRC-32 of part `index`.
    pub(crate) fn part_crc(&self, index: u32) -> Option<u32> {
        let check = u32_at(self.bytes, self.covered.claim.check_at(index))?;
        Some(check ^ self.mask)
    }

    /// Whether part `index` proves itself.
    pub(crate) fn proves(&self, index: u32) -> bool {
        self.part(index).is_some_and(|part| self.part_crc(index) == Some(crc(0, part)))
    }
}
