//! Parts of a frame, by their place, verified on the bytes that are delivered.
//!
//! This is the path of every delivery. A [`PartReader`] caches what it read last: the parts of one frame share the work on
//! their head, and frames in order share their blocks. Fronts of many parts are shared by all readers (see `fronts`). Never
//! here: whole frames.

use crate::ids::{Epoch, Lsn};
use crate::limits::FRAME_LEN_MAX;
use crate::log::error::ReadError;
use crate::log::format::checksum;
use crate::log::format::frame::{ALIGN, Claim, Spot, front_proves_itself};
use crate::log::format::header::HEADER_LEN;
use crate::log::read::cache::BlockCache;
use crate::log::read::fronts::{FrontCache, SharedFront, WIDE_PARTS};
use crate::log::read::segment::Segment;
use crate::log::read::window::ReadBuffer;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Several parts are read at once only if they take no more than this together.
pub(crate) const RUN_LEN_MAX: usize = 1 << 10;
/// How many parts are read at once.
const RUN_PARTS_MAX: usize = 16;

/// Parts that stand next to each other, and what stands with them. They have proven themselves, their head, and their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartRun<'a, T> {
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) head: &'a [u8],
    /// What the caller makes of the head, kept with it.
    pub(crate) note: &'a OnceLock<T>,
    pub(crate) bytes: &'a [u8],
    pub(crate) cuts: Cuts,
}

/// Where bytes are cut into parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cuts {
    count: u8,
    at: [u16; RUN_PARTS_MAX - 1],
}

impl Cuts {
    /// How many parts there are: one more than cuts.
    #[inline]
    pub(crate) const fn parts(&self) -> u32 {
        self.count as u32 + 1
    }

    /// Where part `nth` of `len` bytes lies.
    #[inline]
    pub(crate) fn range(&self, nth: u32, len: usize) -> Range<usize> {
        let cuts = self.at.get(..usize::from(self.count)).unwrap_or(&[]);
        let cut = |nth: u32| cuts.get(nth as usize).map(|&cut| usize::from(cut));
        let start = nth.checked_sub(1).map_or(0, |before| cut(before).unwrap_or(len));
        start..cut(nth).unwrap_or(len)
    }

    /// Adds a cut at the end of `len` bytes, and those of the parts that come behind. `false` where there is no room for all.
    pub(crate) fn append(&mut self, len: usize, more: &Self) -> bool {
        let before = self.count;
        let more = more.at.get(..usize::from(more.count)).unwrap_or(&[]);
        let fits = self.push(len) && more.iter().all(|&cut| self.push(len + usize::from(cut)));
        if !fits {
            self.count = before;
        }
        fits
    }

    /// Adds a cut behind the others. `false` where there is no room for it.
    #[inline]
    fn push(&mut self, at: usize) -> bool {
        match (self.at.get_mut(usize::from(self.count)), u16::try_from(at)) {
            (Some(place), Ok(at)) => {
                *place = at;
                self.count += 1;
                true
            }
            _ => false,
        }
    }
}

impl<T> PartRun<'_, T> {
    /// Leaves the first `parts`, at least one.
    pub(crate) fn keep(&mut self, parts: u32) {
        if parts < self.cuts.parts() {
            let end = self.cuts.range(parts.saturating_sub(1), self.bytes.len()).end;
            self.bytes = self.bytes.get(..end).unwrap_or(&[]);
            self.cuts.count = parts.saturating_sub(1) as u8;
        }
    }
}

/// Reads parts, and remembers where it was.
#[derive(Debug)]
pub(crate) struct PartReader<T> {
    window: ReadBuffer,
    /// The frame that was read last.
    seen: Option<Arc<SharedFront<T>>>,
}

/// What stands in a frame before its parts. It has proven itself.
#[derive(Clone, Debug)]
pub(in crate::log) struct Front {
    salt: u64,
    at: u32,
    claim: Claim,
    /// The head ends and the parts begin here.
    parts_at: u32,
    lsn: Lsn,
    epoch: Epoch,
    mask: u32,
    /// Prefix, table and head.
    bytes: Vec<u8>,
}

/// The least that is asked for at a frame's place: it suffices for what stands before any table.
const FIRST_LEN: usize = 64;
/// A front that is larger is not kept between reads, but where all readers share it.
const KEPT_LEN_MAX: usize = 16 << 10;

impl<T> Default for PartReader<T> {
    fn default() -> Self {
        Self { window: ReadBuffer::default(), seen: None }
    }
}

impl<T> PartReader<T> {
    /// Keeps nothing large: the next read may come much later.
    pub(crate) fn rest(&mut self) {
        self.window.rest();
        self.seen.take_if(|seen| seen.front.is_wide() || seen.front.bytes.capacity() > KEPT_LEN_MAX);
    }

    /// Reads part `first` of the frame at place `frame_at`, with its head, and verifies both; and of the parts behind it, up to
    /// `max` in all, those that are small, cached, and prove themselves.
    ///
    /// # Errors
    /// Bytes of the first part that cannot be read, or do not prove themselves.
    pub(crate) fn read(
        &mut self,
        (cache, fronts): (&BlockCache, &FrontCache<T>),
        segment: &Segment,
        frame_at: u32,
        first: u32,
        max: u32,
    ) -> Result<PartRun<'_, T>, ReadError> {
        let wrong = |reason| ReadError::Damaged { file: segment.name(), at: u64::from(frame_at), reason };
        let key = (segment.salt(), frame_at);
        let known = self.seen.take_if(|seen| seen.front.key() == key);
        let seen = match known {
            Some(seen) => seen,
            None => self.begin((cache, fronts), segment, frame_at)?,
        };
        let front = &seen.front;
        let Some((one, check)) = front.entry(first) else {
            fronts.forget(key);
            return Err(wrong("this frame cannot hold the message"));
        };
        let (at, len) = (u64::from(frame_at) + u64::from(one.start), (one.end - one.start) as usize);
        let bytes = self.window.bytes(cache, segment, at, len);
        let bytes = bytes.map_err(|source| ReadError::Io { file: segment.name(), source })?;
        let part = bytes.get(..len).ok_or_else(|| wrong("the segment ends within the message"))?;
        if !front.proves(part, check) {
            // What was read of this frame may be what is wrong, and is read again the next time.
            fronts.forget(key);
            return Err(wrong("the message's checksum does not match"));
        }
        // Of the others only what is cached: their bytes can be read when somebody wants them first.
        let (mut len, mut cuts) = (len, Cuts::default());
        let upto = first.saturating_add(max).min(front.claim.parts);
        for index in first.saturating_add(1)..upto {
            let Some((next, check)) = front.entry(index) else { break };
            let end = (next.end - one.start) as usize;
            let part = bytes.get(len..end).filter(|_| end <= RUN_LEN_MAX);
            if !part.is_some_and(|part| front.proves(part, check)) || !cuts.push(len) {
                break;
            }
            len = end;
        }
        let bytes = bytes.get(..len).unwrap_or(part);
        let SharedFront { front, note } = &**self.seen.insert(seen);
        Ok(PartRun { lsn: front.lsn, epoch: front.epoch, head: front.head(), note, bytes, cuts })
    }

    /// Looks at another frame.
    fn begin(
        &mut self,
        (cache, fronts): (&BlockCache, &FrontCache<T>),
        segment: &Segment,
        frame_at: u32,
    ) -> Result<Arc<SharedFront<T>>, ReadError> {
        let before = self.seen.take();
        let claim = self.claim(cache, segment, frame_at)?;
        let (key, is_wide) = ((segment.salt(), frame_at), claim.parts >= WIDE_PARTS);
        if is_wide && let Some(seen) = fronts.get(key) {
            return Ok(seen);
        }
        // Memory of the frame before is used again, unless others share it.
        let mut before = before.filter(|seen| !seen.front.is_wide() && !is_wide);
        let reused = before.as_mut().and_then(Arc::get_mut);
        let memory = reused.map_or_else(Vec::new, |seen| std::mem::take(&mut seen.front.bytes));
        let fresh =
            SharedFront { front: self.front(cache, segment, (frame_at, claim), memory)?, note: OnceLock::new() };
        let seen = match before {
            Some(mut seen) => {
                match Arc::get_mut(&mut seen) {
                    Some(place) => *place = fresh,
                    None => seen = Arc::new(fresh),
                }
                seen
            }
            None => Arc::new(fresh),
        };
        if is_wide {
            fronts.put(key, &seen);
        }
        Ok(seen)
    }

    /// What a frame says of itself first, which is not proven yet.
    fn claim(&mut self, cache: &BlockCache, segment: &Segment, frame_at: u32) -> Result<Claim, ReadError> {
        let at = u64::from(frame_at);
        let wrong = |reason| ReadError::Damaged { file: segment.name(), at, reason };
        let room = segment.limit().saturating_sub(at);
        if at < HEADER_LEN as u64 || at % ALIGN != 0 || room == 0 {
            return Err(wrong("no frame can begin here"));
        }
        let bytes = self.window.bytes(cache, segment, at, u64::min(FIRST_LEN as u64, room) as usize);
        let bytes = bytes.map_err(|source| ReadError::Io { file: segment.name(), source })?;
        let claim = Claim::parse(bytes).ok_or_else(|| wrong("no frame begins here"))?;
        if u64::from(claim.padded()) > room || claim.log || claim.len as usize > FRAME_LEN_MAX {
            return Err(wrong("this frame cannot hold the message"));
        }
        Ok(claim)
    }

    /// Reads the front of a frame into `memory`, and proves it.
    fn front(
        &mut self,
        cache: &BlockCache,
        segment: &Segment,
        (frame_at, claim): (u32, Claim),
        mut memory: Vec<u8>,
    ) -> Result<Front, ReadError> {
        let at = u64::from(frame_at);
        let wrong = |reason| ReadError::Damaged { file: segment.name(), at, reason };
        let io = |source| ReadError::Io { file: segment.name(), source };
        let lsn = match (segment.lsn_at(frame_at), claim.lsn) {
            (Some(told), None) => told,
            (None, Some(carried)) if carried >= segment.base() && carried < segment.end() => carried,
            (Some(told), Some(carried)) if told == carried => told,
            _ => return Err(wrong("the frame is not of this place")),
        };
        let mut field = |field_at: usize| {
            let bytes = self.window.bytes(cache, segment, at + field_at as u64, 4).map_err(io)?;
            crate::log::format::bytes::u32_at(bytes, 0).ok_or_else(|| wrong("the frame's table is wrong"))
        };
        let last_end = if claim.parts > 1 { field(claim.entry_at(claim.parts - 1))? } else { 0 };
        let parts_at = claim.parts_at(last_end).ok_or_else(|| wrong("the frame's table is wrong"))?;
        let bytes = self.window.bytes(cache, segment, at, parts_at as usize).map_err(io)?;
        let bytes = bytes.get(..parts_at as usize).ok_or_else(|| wrong("the segment ends within the frame"))?;
        let spot = Spot { salt: segment.salt(), at: frame_at };
        // seam: a message is delivered with an unchecked head
        if !front_proves_itself(bytes, spot) {
            return Err(wrong("the frame's checksum does not match"));
        }
        memory.clear();
        memory.extend_from_slice(bytes);
        let (salt, epoch, mask) = (segment.salt(), segment.epoch_at(lsn), spot.mask(lsn));
        Ok(Front { salt, at: frame_at, claim, parts_at, lsn, epoch, mask, bytes: memory })
    }
}

impl Front {
    pub(in crate::log) const fn key(&self) -> (u64, u32) {
        (self.salt, self.at)
    }

    pub(in crate::log) const fn len(&self) -> usize {
        self.bytes.len()
    }

    const fn is_wide(&self) -> bool {
        self.claim.parts >= WIDE_PARTS
    }

    fn head(&self) -> &[u8] {
        self.bytes.get(self.claim.head_at as usize..self.parts_at as usize).unwrap_or(&[])
    }

    /// Where part `index` lies in the frame, and what it must prove.
    #[inline]
    fn entry(&self, index: u32) -> Option<(Range<u32>, u32)> {
        let table = |at| crate::log::format::bytes::u32_at(&self.bytes, at);
        if index >= self.claim.parts {
            return None;
        }
        let part = self.claim.part_range(index, table)?;
        let part = self.parts_at.checked_add(part.start)?..self.parts_at.checked_add(part.end)?;
        (part.end <= self.claim.len).then_some((part, table(self.claim.check_at(index))?))
    }

    /// Whether a part proves itself.
    #[inline]
    fn proves(&self, part: &[u8], check: u32) -> bool {
        // seam: a message is delivered unchecked
        checksum::crc(0, part) ^ self.mask == check
    }
}
