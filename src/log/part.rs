//! One part of one frame, by its place, verified on the copy that is handed out.
//!
//! This is the path of every delivery: one read as a rule, and the CRC of head and part. Never here: whole frames.

use super::bytes::u32_at;
use super::error::ReadError;
use super::frame::{ALIGN, Claim, Spot, part_entry};
use super::header::HEADER_LEN;
use super::segment::Segment;
use crate::disk::File;
use crate::ids::{Epoch, Lsn};
use crate::limits::FRAME_LEN_MAX;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes by position: a file, or a cache before one.
pub(crate) trait ReadAt {
    /// Fills `buf` from position `at`; fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for Arc<dyn File> {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        File::read_at(&**self, at, buf)
    }
}

/// A part as [`read_part`] found it. The ranges lie in its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartRead {
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) head: Range<usize>,
    pub(crate) part: Range<usize>,
    /// The length of the frame, a good guess for the next.
    pub(crate) frame_len: u32,
}

/// The least that the first read asks for: it suffices for what stands before any table.
const GUESS_MIN: usize = 64;
/// Frames up to this length are read whole, longer ones piece by piece.
const WHOLE_MAX: u32 = 16 << 10;

/// Reads part `index` of the frame at place `frame_at`, with its head, into `buf`, and verifies both. `guess` is how long the
/// frame may be. `buf` only grows, so that one buffer serves many calls without being cleared.
///
/// # Errors
/// Bytes that cannot be read, or do not prove themselves.
pub(crate) fn read_part(
    segment: &Segment,
    source: &dyn ReadAt,
    frame_at: u32,
    index: u32,
    guess: usize,
    buf: &mut Vec<u8>,
) -> Result<PartRead, ReadError> {
    let wrong = |reason| ReadError::Damaged { file: segment.name(), at: u64::from(frame_at), reason };
    let io = |source| ReadError::Io { file: segment.name(), source };
    let at = u64::from(frame_at);
    if at < HEADER_LEN as u64 || at % ALIGN != 0 {
        return Err(wrong("no frame can begin here"));
    }
    let room = segment.limit().saturating_sub(at);
    let wanted = u64::min(guess.max(GUESS_MIN) as u64, room) as usize;
    let mut have = source.read_at(at, room_for(buf, wanted)).map_err(io)?;
    let claim = buf.get(..have).and_then(Claim::parse).ok_or_else(|| wrong("no frame begins here"))?;
    if u64::from(claim.padded()) > room || claim.log || index >= claim.parts {
        return Err(wrong("this frame cannot hold the message"));
    }
    let lsn = match (segment.lsn_at(frame_at), claim.lsn) {
        (Some(told), None) => told,
        (None, Some(carried)) if carried >= segment.base() && carried < segment.end() => carried,
        (Some(told), Some(carried)) if told == carried => told,
        _ => return Err(wrong("the frame is not of this place")),
    };
    let len = claim.len as usize;
    if have < len && claim.len <= WHOLE_MAX {
        let rest = room_for(buf, len).get_mut(have..).unwrap_or(&mut []);
        have += source.read_at(at + have as u64, rest).map_err(io)?;
    }
    let Located { head, part, check } = if have >= len {
        within(&claim, index, buf).ok_or_else(|| wrong("the frame's table is wrong"))?
    } else {
        gather(source, at, &claim, index, buf).map_err(io)?.ok_or_else(|| wrong("the frame's table is wrong"))?
    };
    let (Some(head_bytes), Some(part_bytes)) = (buf.get(head.clone()), buf.get(part.clone())) else {
        return Err(wrong("the frame's table is wrong"));
    };
    if part_entry(Spot { salt: segment.salt(), at: frame_at }, lsn, head_bytes, index, part_bytes) != check {
        return Err(wrong("the message's checksum does not match"));
    }
    Ok(PartRead { lsn, epoch: segment.epoch_at(lsn), head, part, frame_len: claim.len })
}

/// The first `len` bytes of `buf`, which grows where it is shorter.
fn room_for(buf: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buf.len() < len {
        buf.resize(len, 0);
    }
    buf.get_mut(..len).unwrap_or(&mut [])
}

/// Where head and part lie in the buffer, and what the part must prove.
struct Located {
    head: Range<usize>,
    part: Range<usize>,
    check: u32,
}

/// Where head and part lie in `frame`, which is whole, and the part's check.
fn within(claim: &Claim, index: u32, frame: &[u8]) -> Option<Located> {
    let table = |at| u32_at(frame, at);
    let (head, part) = ranges(claim, index, &table)?;
    let check = table(claim.check_at(index))?;
    let (head, part) = (head.start as usize..head.end as usize, part.start as usize..part.end as usize);
    Some(Located { head, part, check })
}

/// Head and part of a frame, counted from its start.
fn ranges(claim: &Claim, index: u32, table: &dyn Fn(usize) -> Option<u32>) -> Option<(Range<u32>, Range<u32>)> {
    let last_end = if claim.parts > 1 { table(claim.entry_at(claim.parts - 1))? } else { 0 };
    let parts_at = claim.parts_at(last_end)?;
    let part = claim.part_range(index, table)?;
    let part = parts_at.checked_add(part.start)?..parts_at.checked_add(part.end)?;
    (part.end <= claim.len).then_some((claim.head_at..parts_at, part))
}

/// Reads head and part of a long frame one after the other into `buf`, without the parts between.
fn gather(source: &dyn ReadAt, at: u64, claim: &Claim, index: u32, buf: &mut Vec<u8>) -> io::Result<Option<Located>> {
    let field = |field_at: usize| -> io::Result<Option<u32>> {
        let mut word = [0; 4];
        let read = source.read_at(at + field_at as u64, &mut word)?;
        Ok((read == word.len()).then_some(u32::from_le_bytes(word)))
    };
    let mut entries = Vec::with_capacity(4);
    let mut wanted = vec![claim.check_at(index)];
    if claim.parts > 1 {
        wanted.extend([
            claim.entry_at(claim.parts - 1),
            claim.entry_at(index),
            claim.entry_at(index.saturating_sub(1)),
        ]);
    }
    for field_at in wanted {
        let Some(value) = field(field_at)? else { return Ok(None) };
        entries.push((field_at, value));
    }
    let table = |field_at: usize| entries.iter().find(|(known, _)| *known == field_at).map(|(_, value)| *value);
    let (Some((head, part)), Some(check)) = (ranges(claim, index, &table), table(claim.check_at(index))) else {
        return Ok(None);
    };
    let head_len = (head.end - head.start) as usize;
    let total = head_len.saturating_add((part.end - part.start) as usize);
    if total > FRAME_LEN_MAX {
        return Ok(None);
    }
    let (head_buf, part_buf) = room_for(buf, total).split_at_mut(head_len);
    let head_read = source.read_at(at + u64::from(head.start), head_buf)?;
    let part_read = source.read_at(at + u64::from(part.start), part_buf)?;
    Ok((head_read + part_read == total).then_some(Located { head: 0..head_len, part: head_len..total, check }))
}
