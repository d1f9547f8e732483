//! Frames of one file in order, verified, read in large chunks.
//!
//! The reader says what it meets and judges nothing: whether an invalid frame is the end of the log or damage is for the
//! caller. Never here: writes.

use super::error::ReadError;
use super::frame::{ALIGN, Covered, Frame, Probe, Spot};
use super::header::{FileKind, HEADER_LEN};
use super::segment::Segment;
use crate::disk::File;
use crate::ids::Lsn;
use std::io;
use std::sync::Arc;

/// How much is read at a time.
const CHUNK_LEN: usize = 256 << 10;
/// How much where parts are passed over: most of what is read ahead of a head is then read for nothing.
const HEADS_CHUNK_LEN: usize = 32 << 10;

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
enum Parts {
    /// They must prove themselves, or the frame is not valid.
    Verified,
    /// They are passed over unread: whoever reads one verifies it then. The file has this length.
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
    parts: Parts,
    /// The bytes of the file from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl Frames {
    /// From place `at` up to place `limit`, beyond which no byte is looked at.
    pub(crate) fn new(file: Arc<dyn File>, salt: u64, lsns: Lsns, at: u64, limit: u64) -> Self {
        Self { file, salt, lsns, at, limit, parts: Parts::Verified, chunk: Vec::new(), chunk_at: at }
    }

    /// All frames of `segment` as it is now; those of an appended one from the frame at `from` on.
    fn of(segment: &Segment, from: Lsn) -> io::Result<Self> {
        let (first, limit) = (HEADER_LEN as u64, segment.limit());
        let (lsns, at) = match segment.kind() {
            FileKind::Appended => {
                let base = segment.base();
                (Lsns::Placed { base }, first.saturating_add(from.0.saturating_sub(base.0)))
            }
            _ => (Lsns::Carried { next: segment.base(), to: segment.end() }, first),
        };
        Ok(Self::new(segment.file()?, segment.salt(), lsns, at, limit))
    }

    fn without_parts(self) -> io::Result<Self> {
        Ok(Self { parts: Parts::Unread { file_len: self.file.len()? }, ..self })
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
        let room = self.limit - self.at;
        let Ok(at) = u32::try_from(self.at) else { return Ok(Next::Invalid) };
        let spot = Spot { salt: self.salt, at };
        let covered = loop {
            match Covered::probe(self.window(), room, spot) {
                Probe::Covered(covered) => break covered,
                // seam: a bad frame is skipped
                Probe::Nothing => return Ok(Next::Invalid),
                Probe::More(wanted) => {
                    if !self.fill(wanted)? {
                        return Ok(Next::Invalid);
                    }
                }
            }
        };
        let len = covered.claim.len;
        let is_there = match self.parts {
            Parts::Verified => self.fill(len as usize)?,
            Parts::Unread { file_len } => self.at + u64::from(len) <= file_len,
        };
        if !is_there {
            return Ok(Next::Invalid);
        }
        let start = (self.at - self.chunk_at) as usize;
        let window = self.chunk.get(start..).unwrap_or(&[]);
        let told = match self.lsns {
            Lsns::Placed { base } => base.checked_add(self.at - HEADER_LEN as u64),
            Lsns::Carried { .. } => covered.claim.lsn,
        };
        let Some(told) = told else { return Ok(Next::Invalid) };
        let frame = match self.parts {
            Parts::Verified => covered.verify(window, spot, Some(told)),
            Parts::Unread { .. } => covered.without_parts(window, spot, Some(told)),
        };
        let Some(frame) = frame else { return Ok(Next::Invalid) };
        if let Lsns::Carried { next, to } = &mut self.lsns {
            if told < *next || told >= *to {
                return Ok(Next::Invalid);
            }
            *next = told.saturating_add(ALIGN);
        }
        self.at += u64::from(frame.padded());
        Ok(Next::Frame(frame))
    }

    fn window(&self) -> &[u8] {
        usize::try_from(self.at - self.chunk_at).ok().and_then(|start| self.chunk.get(start..)).unwrap_or(&[])
    }

    /// Has at least `wanted` bytes from the next frame's start on at hand, or says that the file has fewer.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        let have = self.window().len();
        if have >= wanted {
            return Ok(true);
        }
        let start = self.chunk.len() - have;
        self.chunk.drain(..start);
        self.chunk_at = self.at;
        let room = usize::try_from(self.limit - self.at).unwrap_or(usize::MAX);
        let chunk_len = if self.parts == Parts::Verified { CHUNK_LEN } else { HEADS_CHUNK_LEN };
        self.chunk.resize(wanted.max(chunk_len).min(room).max(have), 0);
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

#[cfg(any(test, feature = "simulation"))]
/// As [`for_each`], with the parts.
pub(super) fn for_each_whole<E: From<ReadError>>(
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
