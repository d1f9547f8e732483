//! Frames of one file in order, verified, read in large chunks.
//!
//! The reader says what it meets and judges nothing: whether an invalid frame is the end of the log or damage is for the
//! caller. Never here: writes.

use crate::disk::File;
use crate::ids::Lsn;
use crate::log::error::ReadError;
use crate::log::format::frame::{ALIGN, Claim, Covered, Frame, PREFIX_LEN_MAX, Probe, Spot};
use crate::log::format::header::{FileKind, HEADER_LEN};
use crate::log::read::segment::Segment;
use std::io;
use std::sync::Arc;

/// How much is read at a time.
const CHUNK_LEN: usize = 256 << 10;
/// How much where parts are skipped: most of what is read ahead of a head is then read for nothing.
const HEADS_CHUNK_LEN: usize = 32 << 10;
/// How much is read beyond what is wanted, in search of the next frame.
const SEARCH_CHUNK_LEN: usize = 1 << 20;
/// How many bytes of long fronts a search tries checksums on before it tries them on short ones alone: damage costs no more than
/// that, whatever stands there.
const TRIED_LEN_MAX: u64 = 1 << 30;
/// A front up to this length is always tried.
const SHORT_LEN: u64 = 4 << 10;
/// No control frame is longer.
const CONTROL_LEN_MAX: u32 = 128;

/// How the LSNs of frames are known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lsns {
    /// From their places: the first frame of the file has this one.
    Placed { base: Lsn },
    /// Each carries its own; they rise, from at least `next`, and stay below `to`.
    Carried { next: Lsn, to: Lsn },
}

/// What is asked of the parts of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartCheck {
    /// They must prove themselves, or the frame is not valid.
    Verified,
    /// They are skipped unread: a reader of one verifies it then. The file has this length.
    Unread { file_len: u64 },
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Frame(Frame<'a>),
    /// No valid frame stands at [`Frames::at`].
    Invalid,
    /// The place where the caller wanted to stop.
    End,
}

/// Walks a file from frame to frame.
#[derive(Debug)]
pub(crate) struct Frames {
    file: Arc<dyn File>,
    salt: u64,
    lsns: Lsns,
    at: u64,
    limit: u64,
    parts: PartCheck,
    /// The bytes of the file from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: u64,
    /// How much more is read than what is wanted.
    ahead: usize,
}

impl Frames {
    /// From place `at` up to place `limit`, beyond which no byte is looked at.
    pub(crate) fn new(file: Arc<dyn File>, salt: u64, lsns: Lsns, at: u64, limit: u64) -> Self {
        Self { file, salt, lsns, at, limit, parts: PartCheck::Verified, chunk: Vec::new(), chunk_at: at, ahead: 0 }
    }

    /// All frames of `segment` as it is now; those of a file of a class from the first, and others from the frame at `from` on.
    fn of(segment: &Segment, from: Lsn) -> io::Result<Self> {
        let (first, limit) = (HEADER_LEN as u64, segment.limit());
        let (lsns, at) = match segment.kind() {
            FileKind::Appended => {
                let base = segment.base();
                (Lsns::Placed { base }, first.saturating_add(from.0.saturating_sub(base.0)))
            }
            FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => {
                (Lsns::Carried { next: segment.base(), to: segment.end() }, first)
            }
        };
        Ok(Self::new(segment.file()?, segment.salt(), lsns, at, limit))
    }

    fn without_parts(self) -> io::Result<Self> {
        Ok(Self { parts: PartCheck::Unread { file_len: self.file.len()? }, ..self })
    }

    /// The place of the frame that is next.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// # Errors
    /// A read that failed: which says nothing about the frame.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        if self.at >= self.limit {
            return Ok(Next::End);
        }
        // seam: a bad frame is skipped
        let Some((spot, covered, told)) = self.look()? else { return Ok(Next::Invalid) };
        let start = (self.at - self.chunk_at) as usize;
        let window = self.chunk.get(start..).unwrap_or(&[]);
        let frame = match self.parts {
            PartCheck::Verified => covered.verify(window, spot, Some(told)),
            PartCheck::Unread { .. } => covered.without_parts(window, spot, Some(told)),
        };
        let Some(frame) = frame else { return Ok(Next::Invalid) };
        if let Lsns::Carried { next, to } = &mut self.lsns {
            if told >= *to {
                return Ok(Next::End);
            }
            if told < *next {
                return Ok(Next::Invalid);
            }
            *next = told.saturating_add(ALIGN);
        }
        self.at += u64::from(frame.padded());
        Ok(Next::Frame(frame))
    }

    /// What stands at the next place, if its front proves itself and the file reaches that far, and its LSN.
    fn look(&mut self) -> io::Result<Option<(Spot, Covered, Lsn)>> {
        let room = self.limit - self.at;
        let Ok(at) = u32::try_from(self.at) else { return Ok(None) };
        let spot = Spot { salt: self.salt, at };
        let covered = loop {
            match Covered::probe(self.window(), room, spot) {
                Probe::Covered(covered) => break covered,
                Probe::Nothing => return Ok(None),
                Probe::More(wanted) => {
                    if !self.fill(wanted)? {
                        return Ok(None);
                    }
                }
            }
        };
        let len = covered.claim.len;
        let is_there = match self.parts {
            PartCheck::Verified => self.fill(len as usize)?,
            PartCheck::Unread { file_len } => self.at + u64::from(len) <= file_len,
        };
        let told = match self.lsns {
            Lsns::Placed { base } => base.checked_add(self.at - HEADER_LEN as u64),
            Lsns::Carried { .. } => covered.claim.lsn,
        };
        Ok(told.filter(|_| is_there).map(|told| (spot, covered, told)))
    }

    /// Goes on to the next place below `stop` at which a frame proves itself, or to `stop` where there is none. A frame does not
    /// reach beyond `stop`.
    pub(in crate::log) fn pass_over(&mut self, stop: u64) -> io::Result<()> {
        let file_len = match self.parts {
            PartCheck::Verified => self.limit,
            PartCheck::Unread { file_len } => file_len,
        };
        let mut tried = 0;
        self.ahead = SEARCH_CHUNK_LEN;
        loop {
            self.at += ALIGN;
            if self.at >= stop.min(file_len) {
                self.at = stop;
                break;
            }
            if self.may_begin(stop, &mut tried)?
                && let Some((spot, covered, told)) = self.look()?
                && covered.without_parts(self.window(), spot, Some(told)).is_some()
            {
                break;
            }
        }
        self.ahead = 0;
        Ok(())
    }

    /// Whether a frame may begin at the next place that a writer can have written, and whose checksum may still be tried.
    fn may_begin(&mut self, stop: u64, tried: &mut u64) -> io::Result<bool> {
        self.fill(PREFIX_LEN_MAX)?;
        let Some(claim) = Claim::parse(self.window()) else { return Ok(false) };
        let is_control = claim.log && claim.parts == 0 && claim.len <= CONTROL_LEN_MAX;
        let is_of_records = !claim.log && claim.epoch.is_none();
        let is_placed = match self.lsns {
            Lsns::Placed { base } => {
                claim.lsn.is_none_or(|lsn| base.checked_add(self.at - HEADER_LEN as u64) == Some(lsn))
            }
            Lsns::Carried { next, to } => claim.lsn.is_some_and(|lsn| next <= lsn && lsn < to),
        };
        let fits = self.at.saturating_add(u64::from(claim.padded())) <= stop;
        if !(is_control || is_of_records) || !is_placed || !fits || !self.fill(claim.head_at as usize)? {
            return Ok(false);
        }
        let last_entry = claim.parts.checked_sub(1).map_or(0, |last| claim.entry_at(last));
        let last_end = crate::log::format::bytes::u32_at(self.window(), last_entry).unwrap_or(u32::MAX);
        let Some(front_len) = claim.parts_at(last_end).map(u64::from) else { return Ok(false) };
        if front_len > SHORT_LEN {
            *tried += front_len;
        }
        Ok(front_len <= SHORT_LEN || *tried <= TRIED_LEN_MAX)
    }

    fn window(&self) -> &[u8] {
        usize::try_from(self.at - self.chunk_at).ok().and_then(|start| self.chunk.get(start..)).unwrap_or(&[])
    }

    /// Has at least `wanted` bytes buffered from the next frame's start on, or says that the file has fewer.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        let have = self.window().len();
        if have >= wanted {
            return Ok(true);
        }
        let start = self.chunk.len() - have;
        self.chunk.drain(..start);
        self.chunk_at = self.at;
        let room = usize::try_from(self.limit - self.at).unwrap_or(usize::MAX);
        let chunk_len = if self.parts == PartCheck::Verified { CHUNK_LEN } else { HEADS_CHUNK_LEN };
        self.chunk.resize((wanted + self.ahead).max(chunk_len).min(room).max(have), 0);
        let mut filled = have;
        while filled < wanted {
            let fresh = self.chunk.get_mut(filled..).unwrap_or(&mut []);
            match self.file.read_at(self.at + filled as u64, fresh) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => {
                    self.chunk.truncate(filled);
                    return Err(error);
                }
            }
        }
        self.chunk.truncate(filled);
        Ok(self.chunk.len() >= wanted)
    }
}

/// Shows `visit` every frame of `segment` from `from` on, without its parts.
///
/// # Errors
/// The first frame that cannot be read or is not valid, or what `visit` says.
pub(crate) fn for_each<E: From<ReadError>>(
    segment: &Segment,
    from: Lsn,
    visit: &mut dyn FnMut(&Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let frames = Frames::of(segment, from).and_then(Frames::without_parts);
    walk(segment, frames, from, visit)
}

/// What a walk over a segment meets that may be damaged.
#[derive(Debug)]
pub(crate) enum Met<'a, 'b> {
    Frame(&'a Frame<'b>),
    /// From this place on nothing proves itself, up to the next frame that is met.
    Hole(u32),
}

/// As [`for_each`], but below `needed_from` what is not valid is skipped, to the next frame that proves itself: a caller that
/// looks for the places of messages needs no more. `needed_from` is the end of a frame, or beyond the segment.
///
/// # Errors
/// As [`for_each`], from `needed_from` on.
pub(crate) fn for_each_left<E: From<ReadError>>(
    segment: &Segment,
    from: Lsn,
    needed_from: Lsn,
    visit: &mut dyn FnMut(Met<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |source| ReadError::Io { file: segment.name(), source };
    let mut frames = Frames::of(segment, from).and_then(Frames::without_parts).map_err(io)?;
    let (base, end, limit) = (segment.base(), segment.end(), segment.limit());
    // Places follow LSNs in an appended segment. A file of a class lies below what is needed, or above.
    let stop = match segment.kind() {
        FileKind::Appended => (needed_from.min(end).0.saturating_sub(base.0)).saturating_add(HEADER_LEN as u64),
        FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => {
            if needed_from > base {
                limit
            } else {
                0
            }
        }
    };
    loop {
        let at = frames.at();
        match frames.next().map_err(io)? {
            Next::Frame(frame) if frame.lsn >= end => return Ok(()),
            Next::Frame(frame) if frame.lsn >= from => visit(Met::Frame(&frame))?,
            Next::Frame(_) => {}
            Next::End => return Ok(()),
            Next::Invalid => match u32::try_from(at).ok().filter(|_| at < stop) {
                Some(hole) => {
                    visit(Met::Hole(hole))?;
                    frames.pass_over(stop).map_err(io)?;
                }
                None => {
                    return Err(ReadError::Damaged { file: segment.name(), at, reason: "no valid frame" }.into());
                }
            },
        }
    }
}

/// Shows `visit` every frame of `segment`, its parts verified as well, and each place from which on nothing proves itself.
///
/// # Errors
/// A read that failed, or what `visit` says.
pub(crate) fn for_each_proven<E: From<ReadError>>(
    segment: &Segment,
    visit: &mut dyn FnMut(Met<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |source| ReadError::Io { file: segment.name(), source };
    let mut frames = Frames::of(segment, segment.base()).map_err(io)?;
    let (end, limit) = (segment.end(), segment.limit());
    loop {
        let at = frames.at();
        match frames.next().map_err(io)? {
            Next::Frame(frame) if frame.lsn >= end => return Ok(()),
            Next::Frame(frame) => visit(Met::Frame(&frame))?,
            Next::End => return Ok(()),
            Next::Invalid => {
                // A file whose places do not fit is never listed.
                visit(Met::Hole(u32::try_from(at).unwrap_or(u32::MAX)))?;
                frames.pass_over(limit).map_err(io)?;
            }
        }
    }
}

/// As [`for_each`], with the parts.
pub(crate) fn for_each_whole<E: From<ReadError>>(
    segment: &Segment,
    from: Lsn,
    visit: &mut dyn FnMut(&Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    walk(segment, Frames::of(segment, from), from, visit)
}

fn walk<E: From<ReadError>>(
    segment: &Segment,
    frames: io::Result<Frames>,
    from: Lsn,
    visit: &mut dyn FnMut(&Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let io = |source| ReadError::Io { file: segment.name(), source };
    let mut frames = frames.map_err(io)?;
    let end = segment.end();
    loop {
        let at = frames.at();
        match frames.next().map_err(io)? {
            Next::Frame(frame) if frame.lsn >= end => return Ok(()),
            Next::Frame(frame) if frame.lsn >= from => visit(&frame)?,
            Next::Frame(_) => {}
            Next::End => return Ok(()),
            Next::Invalid => {
                return Err(ReadError::Damaged { file: segment.name(), at, reason: "no valid frame" }.into());
            }
        }
    }
}
