//! The bytes of a segment that a reader has cached: a reader that continues in order needs neither a lock nor a copy for each step.
//!
//! A segment that is complete is seen through blocks of the shared cache; of one that grows, a stretch is copied, for no
//! reference to its memory may exist. Bytes that were there once never change, so nothing cached is ever stale. Never
//! here: what the bytes mean.

use crate::disk::File;
use crate::log::read::cache::{BLOCK_LEN, Block, BlockCache};
use crate::log::read::segment::Segment;
use std::io;
use std::ops::Range;

/// How much is copied at a time from a segment that grows, where that much is there.
const COPY_LEN: usize = 4 << 10;
/// A buffer that a large message made larger than this is not kept while nobody reads.
const KEPT_LEN_MAX: usize = 16 << 10;

/// A stretch of one segment.
#[derive(Debug, Default)]
pub(in crate::log) struct ReadBuffer {
    /// Of the segment's file: no other file has it.
    salt: u64,
    /// Where in the file it begins.
    from: u64,
    held: BufferBytes,
    copy: Vec<u8>,
}

#[derive(Debug, Default)]
enum BufferBytes {
    #[default]
    Nothing,
    /// A block of the cache.
    Block(Block),
    /// The first bytes of `copy`.
    Copy(usize),
}

impl ReadBuffer {
    /// Keeps nothing large. A block is shared with the cache, and no larger than a few messages.
    pub(in crate::log) fn rest(&mut self) {
        // seam: a reader keeps large messages
        if self.copy.capacity() > KEPT_LEN_MAX {
            self.copy = Vec::new();
            if matches!(self.held, BufferBytes::Copy(_)) {
                self.held = BufferBytes::Nothing;
            }
        }
    }

    /// The bytes of the segment from `at` on: at least `len`, unless the segment ends before.
    ///
    /// # Errors
    /// Whatever the disk says.
    #[inline]
    pub(in crate::log) fn bytes(
        &mut self,
        cache: &BlockCache,
        segment: &Segment,
        at: u64,
        len: usize,
    ) -> io::Result<&[u8]> {
        let range = match self.within(segment.salt(), at, len) {
            Some(range) => range,
            None => self.turn_to(cache, segment, at, len)?,
        };
        Ok(self.held().get(range).unwrap_or(&[]))
    }

    #[inline]
    fn held(&self) -> &[u8] {
        match &self.held {
            BufferBytes::Nothing => &[],
            BufferBytes::Block(block) => block,
            BufferBytes::Copy(len) => self.copy.get(..*len).unwrap_or(&[]),
        }
    }

    /// Where the bytes lie in what is cached, if `len` of them do.
    #[inline]
    fn within(&self, salt: u64, at: u64, len: usize) -> Option<Range<usize>> {
        let held = self.held();
        let skip = usize::try_from(at.checked_sub(self.from)?).ok()?;
        let is_there = self.salt == salt && skip.checked_add(len)? <= held.len();
        is_there.then_some(skip..held.len())
    }

    /// Caches another stretch, and says where in it `at` is.
    fn turn_to(&mut self, cache: &BlockCache, segment: &Segment, at: u64, len: usize) -> io::Result<Range<usize>> {
        self.held = BufferBytes::Nothing;
        self.salt = segment.salt();
        let number = at / BLOCK_LEN as u64;
        let skip = (at % BLOCK_LEN as u64) as usize;
        let room = usize::try_from(segment.limit().saturating_sub(at)).unwrap_or(usize::MAX);
        match segment.open_file() {
            Some(file) => {
                let read = File::read_at(&**file, at, self.room_for(len.max(COPY_LEN).min(room)))?;
                (self.from, self.held) = (at, BufferBytes::Copy(read));
            }
            None if skip.saturating_add(len) <= BLOCK_LEN => {
                let block = cache.block((self.salt, number), &|| segment.file())?;
                let end = block.len();
                (self.from, self.held) = (number * BLOCK_LEN as u64, BufferBytes::Block(block));
                return Ok(skip.min(end)..end);
            }
            None => {
                let open = || segment.file();
                let read = cache.read_at(segment.salt(), &open, at, self.room_for(len.min(room)))?;
                (self.from, self.held) = (at, BufferBytes::Copy(read));
            }
        }
        Ok(0..self.held().len())
    }

    /// The first `len` bytes of the buffer for copies.
    fn room_for(&mut self, len: usize) -> &mut [u8] {
        if self.copy.len() < len {
            self.copy.resize(len, 0);
        }
        self.copy.get_mut(..len).unwrap_or(&mut [])
    }
}
