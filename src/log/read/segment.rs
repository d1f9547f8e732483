//! One file of frames: what is known of it, and where its frames end.
//!
//! Never here: the bytes of frames.

use crate::disk::File;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::class::Classes;
use crate::log::format::header::{FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::handles::Handles;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug)]
enum Home {
    /// Being appended to, or not yet reopened after that.
    Open(Arc<dyn File>),
    /// Complete; opened when it is read.
    Closed(Arc<Handles>),
}

/// A segment, or a file of a class, that belongs to the log.
#[derive(Debug)]
pub(crate) struct Segment {
    info: SegmentInfo,
    /// Moves while the segment is appended to; frames below it are complete.
    end: AtomicU64,
    home: Home,
}

impl Segment {
    /// The segment that is appended to.
    pub(crate) fn open(info: SegmentInfo, file: Arc<dyn File>) -> Self {
        Self { end: AtomicU64::new(info.end.0), info, home: Home::Open(file) }
    }

    /// A complete segment.
    pub(crate) fn closed(info: SegmentInfo, handles: Arc<Handles>) -> Self {
        Self { end: AtomicU64::new(info.end.0), info, home: Home::Closed(handles) }
    }

    pub(crate) const fn number(&self) -> FileNumber {
        self.info.number
    }

    pub(crate) const fn name(&self) -> FileName {
        self.info.name()
    }

    /// The same segment where it serves only these classes. It does not grow.
    pub(crate) fn serving(&self, serves: Classes) -> Self {
        let info = SegmentInfo { serves, ..self.info() };
        Self { end: AtomicU64::new(info.end.0), info, home: self.home.clone() }
    }

    pub(crate) const fn serves(&self) -> Classes {
        self.info.serves
    }

    pub(crate) const fn kind(&self) -> FileKind {
        self.info.kind
    }

    pub(crate) const fn salt(&self) -> u64 {
        self.info.salt
    }

    /// Its first LSN.
    pub(crate) const fn base(&self) -> Lsn {
        self.info.base
    }

    /// The LSN after its last frame, as of now.
    #[inline]
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Acquire))
    }

    /// For the appender alone: frames below `end` are complete.
    #[inline]
    pub(crate) fn publish(&self, end: Lsn) {
        self.end.store(end.0, Ordering::Release);
    }

    /// What is known of it, as of now.
    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo { end: self.end(), ..self.info.clone() }
    }

    /// The epoch in which the frame at `lsn` was appended.
    pub(crate) fn epoch_at(&self, lsn: Lsn) -> Epoch {
        self.info.epoch_at(lsn)
    }

    /// Whether it is closed: its bytes and its length stay as they are.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.home, Home::Closed(_))
    }

    /// The length of its frames, as of now.
    #[inline]
    pub(crate) fn frames_len(&self) -> u64 {
        match self.info.kind {
            FileKind::Appended => self.end().0.saturating_sub(self.info.base.0),
            FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => self.info.body_len,
        }
    }

    /// The place after the last frame, as of now.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.frames_len().saturating_add(HEADER_LEN as u64)
    }

    /// The LSN of the frame at this place, where the place tells it.
    #[inline]
    pub(crate) fn lsn_at(&self, place: u32) -> Option<Lsn> {
        match self.info.kind {
            FileKind::Appended => self.info.base.checked_add(u64::from(place).checked_sub(HEADER_LEN as u64)?),
            FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => None,
        }
    }

    /// The file, while it is kept open for appends.
    #[inline]
    pub(crate) const fn open_file(&self) -> Option<&Arc<dyn File>> {
        match &self.home {
            Home::Open(file) => Some(file),
            Home::Closed(_) => None,
        }
    }

    /// The file.
    ///
    /// # Errors
    /// Whatever opening it says.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn File>> {
        match &self.home {
            Home::Open(file) => Ok(Arc::clone(file)),
            Home::Closed(handles) => handles.get(self.name()),
        }
    }
}
