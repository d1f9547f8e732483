//! Appending: the one writing end of the log.
//!
//! Lives under the engine's lock: no system call where tails are mapped, no allocation once its scratch has grown. A refusal
//! has changed nothing. Never here: syncs (a [`SyncJob`] is run outside the lock), and the creation of files.

use crate::disk::{File, Tail};
use crate::ids::{Epoch, Lsn};
use crate::limits::{FRAME_LEN_MAX, FRAME_PARTS_MAX, HEAD_LEN_MAX, SEGMENT_LEN_MAX};
use crate::log::format::class::Classes;
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{Outline, Parts, Spot, encode_front, frame_len};
use crate::log::format::header::{FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::segment::Segment;
use crate::log::write::frame_len::{ZEROS, check_len, checked_len, padding};
use crate::log::write::reserve::Reserve;
use crate::log::write::standby::Standby;
use crate::log::write::sync::SyncJob;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The layer that wrote a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    /// The layers above.
    Records,
    /// The log's own, and whether it says nothing but the watermark: such a frame causes no sync.
    Control { mark: bool },
}

/// Where a frame went.
#[derive(Debug)]
pub(crate) struct Appended<'a> {
    pub(crate) lsn: Lsn,
    /// The end of the log now.
    pub(crate) end: Lsn,
    pub(crate) segment: &'a Arc<Segment>,
    /// The frame's place in the segment.
    pub(crate) at: u32,
    /// Whether this frame began the segment, which the catalog does not know yet.
    pub(crate) rolled: bool,
}

/// Why nothing was appended, and nothing changed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The frame needs a new segment: see [`Appender::add_standby`]. Of this length, or where there is no room for it, of at
    /// least `len_min`.
    NeedStandby {
        len: u64,
        len_min: u64,
        reserve: Reserve,
    },
    /// A third unsynced segment would begin: first all below this LSN must be durable.
    NeedSync {
        upto: Lsn,
    },
    /// Something of the frame is longer than any may be.
    TooLarge {
        what: &'static str,
        len: usize,
        max: usize,
        unit: &'static str,
    },
    Io(io::Error),
}

#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    tail: Box<dyn Tail>,
    salt: u64,
    /// The place of the next frame.
    at: u64,
    len: u64,
    reserve: Reserve,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Appender {
    epoch: Epoch,
    /// The end of the log.
    end: Lsn,
    /// Where the last frame begins.
    newest: Lsn,
    active: Option<Active>,
    /// The segment before the active one, until it is synced.
    before: Option<Arc<Segment>>,
    standby: Option<Standby>,
    /// All below is durable.
    synced: Lsn,
    /// The end of the last frame that is worth a sync.
    wanted: Lsn,
    /// Whether room is so scarce that only appends which may use all of the reserve are taken.
    scarce: bool,
    /// Whether appending has ended.
    finished: bool,
    /// The watermark that the last frame carried which carried one.
    carried: Option<Lsn>,
    next_len: u64,
    len_max: u64,
    scratch: Vec<u8>,
    control_block: Vec<u8>,
}

/// Frames with no more bytes of parts than this are put together before they are appended.
const GATHER_LEN_MAX: usize = 256;

impl Appender {
    /// For recovery alone: continues a log that ends at `end`, all of it durable, under an epoch that nothing has used.
    pub(in crate::log) fn new(end: Lsn, epoch: Epoch, len_first: u64, len_max: u64) -> Self {
        let len_max = len_max.clamp(4096, SEGMENT_LEN_MAX);
        Self {
            epoch,
            end,
            newest: end,
            active: None,
            before: None,
            standby: None,
            synced: end,
            wanted: end,
            scarce: false,
            finished: false,
            carried: None,
            next_len: len_first.clamp(4096, len_max),
            len_max,
            scratch: Vec::with_capacity(4096),
            control_block: Vec::with_capacity(ControlFrame::LEN_MAX),
        }
    }

    /// The end of the log.
    pub(crate) const fn end(&self) -> Lsn {
        self.end
    }

    /// The epoch that this process appends under.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this process has appended.
    pub(crate) const fn begun(&self) -> bool {
        self.active.is_some() || self.finished
    }

    #[cfg(any(test, feature = "simulation"))]
    /// All below is durable.
    pub(crate) const fn durable(&self) -> Lsn {
        self.synced
    }

    /// The segment that is appended to.
    pub(crate) fn active(&self) -> Option<&Arc<Segment>> {
        self.active.as_ref().map(|active| &active.segment)
    }

    /// Where bytes will be appended soon: the rest of the segment that grows, and then the standby segment, by name and range.
    pub(crate) fn ahead(&self) -> [Option<(FileName, Range<u64>)>; 2] {
        let active = self.active.as_ref().map(|active| (active.segment.name(), active.at..active.len));
        let standby =
            self.standby.as_ref().map(|standby| (FileName::Segment(standby.number), HEADER_LEN as u64..standby.len));
        [active, standby]
    }

    /// The length of the segment to create ahead, once this process appends and where there is none.
    pub(crate) fn standby_wanted(&self) -> Option<u64> {
        (self.begun() && self.standby.is_none()).then_some(self.next_len)
    }

    /// Whether there is a standby segment of at least this length for a command that may use that much of the reserve.
    pub(crate) fn has_standby(&self, len_min: u64, reserve: Reserve) -> bool {
        self.standby.as_ref().is_some_and(|standby| standby.len >= len_min && standby.reserve <= reserve)
    }

    /// How long the standby segment is; zero where there is none.
    pub(crate) fn standby_len(&self) -> u64 {
        self.standby.as_ref().map_or(0, |standby| standby.len)
    }

    /// Says whether room is so scarce that only appends which may use all of the reserve are to be taken. Returns whether it was.
    pub(crate) const fn set_scarce(&mut self, scarce: bool) -> bool {
        std::mem::replace(&mut self.scarce, scarce)
    }

    /// Whether only appends that may use all of the reserve are taken.
    pub(crate) const fn is_scarce(&self) -> bool {
        self.scarce
    }

    /// The files that are appended to, will be, or were and are not synced.
    pub(crate) fn files(&self) -> impl Iterator<Item = (FileName, Arc<dyn File>)> {
        let segments = self.before.iter().chain(self.active());
        let written = segments.filter_map(|segment| Some((segment.name(), Arc::clone(segment.open_file()?))));
        let standby =
            self.standby.iter().map(|standby| (FileName::Segment(standby.number), Arc::clone(standby.tail.file())));
        written.chain(standby)
    }

    /// Appends no more to the file of this name. A standby segment comes back, for removal.
    pub(crate) fn leave(&mut self, name: FileName) -> Option<Standby> {
        if let Some(active) = self.active.as_mut().filter(|active| active.segment.name() == name) {
            // seam: a linked segment is appended to
            active.len = active.at;
        }
        self.standby.take_if(|standby| FileName::Segment(standby.number) == name)
    }

    /// Lets the next append begin a segment of `len` bytes, and those after it grow from there. A standby segment that is longer comes back, for
    /// removal.
    pub(crate) fn begin_small(&mut self, len: u64) -> Option<Standby> {
        if let Some(active) = &mut self.active {
            active.len = active.at;
        }
        self.next_len = len.min(self.len_max);
        self.standby.take_if(|standby| standby.len > len)
    }

    /// How many bytes the files take that are appended to, or will be.
    pub(crate) fn allocated(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.len) + self.standby_len()
    }

    /// The end of the last frame that is worth a sync.
    pub(crate) const fn wanted(&self) -> Lsn {
        self.wanted
    }

    /// Whether a mark would tell a watermark that no frame of this process has told.
    pub(crate) fn mark_wanted(&self, watermark: Lsn) -> bool {
        self.begun() && self.carried.is_none_or(|carried| watermark > carried)
    }

    /// Takes the next segment. A standby segment that is thereby superseded comes back, for removal.
    pub(crate) fn add_standby(&mut self, standby: Standby) -> Option<Standby> {
        match &self.standby {
            Some(held) if held.len >= standby.len && held.reserve <= standby.reserve => Some(standby),
            _ => self.standby.replace(standby),
        }
    }

    /// Appends a frame of the layers above: head and parts as they are. `watermark` is what the caller knows to be durable;
    /// `reserve` is what the frame is worth where room is scarce.
    ///
    /// # Errors
    /// See [`AppendError`].
    #[inline(always)]
    pub(crate) fn append(
        &mut self,
        head: &[u8],
        parts: Parts<'_>,
        watermark: Lsn,
        reserve: Reserve,
    ) -> Result<Appended<'_>, AppendError> {
        let rolled = self.place(FrameKind::Records, head, parts, watermark, reserve)?;
        self.appended(rolled)
    }

    /// Appends a control frame, which may use all of the reserve.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub(crate) fn append_control(
        &mut self,
        control: ControlFrame,
        watermark: Lsn,
    ) -> Result<Appended<'_>, AppendError> {
        let mut head = std::mem::take(&mut self.control_block);
        control.encode(&mut head);
        let mark = control == ControlFrame::Mark;
        let rolled = self.place(FrameKind::Control { mark }, &head, Parts::default(), watermark, Reserve::Use);
        self.control_block = head;
        self.appended(rolled?)
    }

    /// Ends appending, once all is durable: the last segment may be cut then. Gives up the standby segment, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Standby> {
        self.finished = self.begun();
        self.active = None;
        self.standby.take()
    }

    /// What to sync next so that more is durable; `None` where all is that was appended. The watermark enters a segment only when
    /// the one before is durable, so each has a job of its own.
    pub(crate) fn sync_job(&self) -> Option<SyncJob> {
        if self.synced >= self.end {
            return None;
        }
        // seam: the segment before is not synced
        SyncJob::new(self.before.as_ref().or(self.active())?)
    }

    /// Takes note that all below `upto` is durable.
    pub(crate) fn synced(&mut self, upto: Lsn) {
        self.synced = self.synced.max(upto.min(self.end));
        if self.before.as_ref().is_some_and(|before| before.end() <= self.synced) {
            self.before = None;
        }
    }

    #[inline]
    fn appended(&self, rolled: bool) -> Result<Appended<'_>, AppendError> {
        let Some(active) = &self.active else { return Err(AppendError::Io(io::Error::other("no segment"))) };
        // A place in a segment has 32 bits.
        let at = (active.at - (self.end.0 - self.newest.0)) as u32;
        Ok(Appended { lsn: self.newest, end: self.end, segment: &active.segment, at, rolled })
    }

    /// Appends a frame, and says whether it began a segment. What else is to be said of it is said by [`Self::appended`]: more in
    /// this result would be stored, and waited for when it is loaded again.
    fn place(
        &mut self,
        kind: FrameKind,
        head: &[u8],
        parts: Parts<'_>,
        watermark: Lsn,
        reserve: Reserve,
    ) -> Result<bool, AppendError> {
        let ends_agree = parts.ends.last().map_or(0, |end| *end as usize) == parts.bytes.len();
        check_len("batch or transaction, without its messages,", head.len(), HEAD_LEN_MAX, "bytes")?;
        check_len("batch", parts.ends.len(), FRAME_PARTS_MAX, "messages")?;
        check_len("batch", parts.bytes.len(), FRAME_LEN_MAX, "bytes")?;
        if !ends_agree || parts.ends.len() != parts.crcs.len() || !parts.ends.is_sorted() {
            return Err(AppendError::Io(io::ErrorKind::InvalidInput.into()));
        }
        // seam: frames claim too high a watermark
        let watermark = watermark.min(self.end);
        let moved = self.carried.is_none_or(|carried| watermark > carried);
        let outline = Outline {
            lsn: self.end,
            carries_lsn: false,
            epoch: None,
            watermark: moved.then_some(watermark),
            log: matches!(kind, FrameKind::Control { .. }),
        };
        let len = checked_len(frame_len(&outline, head.len(), &parts))?;
        let taken = !self.scarce || reserve == Reserve::Use;
        let fits = |active: &&mut Active| {
            active.at + u64::from(len.padded) <= active.len && active.reserve <= reserve && taken
        };
        let Some(active) = self.active.as_mut().filter(fits) else {
            return self.roll(Outline { watermark: None, ..outline }, watermark, head, parts, reserve);
        };
        let at = active.at as u32;
        self.scratch.clear();
        encode_front(&mut self.scratch, Spot { salt: active.salt, at }, &outline, len.plain, head, &parts);
        // One copy more costs less than one piece more where there is little to copy.
        let appended = if parts.bytes.len() <= GATHER_LEN_MAX {
            self.scratch.extend_from_slice(parts.bytes);
            self.scratch.extend_from_slice(&ZEROS);
            self.scratch.truncate(len.padded as usize);
            active.tail.append(active.at, &[&self.scratch])
        } else {
            active.tail.append(active.at, &[&self.scratch, parts.bytes, padding(&len)])
        };
        appended.map_err(AppendError::Io)?;
        active.at += u64::from(len.padded);
        let end = self.end.saturating_add(u64::from(len.padded));
        active.segment.publish(end);
        (self.newest, self.end) = (outline.lsn, end);
        if moved {
            self.carried = Some(watermark);
        }
        if kind != (FrameKind::Control { mark: true }) {
            self.wanted = end;
        }
        Ok(false)
    }

    /// Begins the next segment with its start frame and this frame, in one append.
    #[cold]
    fn roll(
        &mut self,
        outline: Outline,
        watermark: Lsn,
        head: &[u8],
        parts: Parts<'_>,
        reserve: Reserve,
    ) -> Result<bool, AppendError> {
        let (base, start_at) = (self.end, HEADER_LEN as u32);
        let start =
            Outline { lsn: base, carries_lsn: true, epoch: Some(self.epoch), watermark: Some(watermark), log: true };
        let start_head = ControlFrame::START_HEAD;
        let start_len = checked_len(frame_len(&start, start_head.len(), &Parts::default()))?;
        let outline = Outline { lsn: base.saturating_add(u64::from(start_len.padded)), ..outline };
        let len = checked_len(frame_len(&outline, head.len(), &parts))?;
        let needed = u64::from(start_at) + u64::from(start_len.padded) + u64::from(len.padded);
        // seam: a third unsynced segment
        if let Some(before) = &self.before {
            return Err(AppendError::NeedSync { upto: before.end() });
        }
        let taken = !self.scarce || reserve == Reserve::Use;
        let fits = |standby: &mut Standby| standby.len >= needed && standby.reserve <= reserve && taken;
        let Some(mut standby) = self.standby.take_if(fits) else {
            let len_min = needed.next_multiple_of(4096);
            return Err(AppendError::NeedStandby { len: self.next_len.max(len_min), len_min, reserve });
        };
        let at = start_at + start_len.padded;
        self.scratch.clear();
        let spot = Spot { salt: standby.salt, at: start_at };
        encode_front(&mut self.scratch, spot, &start, start_len.plain, &start_head, &Parts::default());
        self.scratch.extend_from_slice(padding(&start_len));
        let spot = Spot { salt: standby.salt, at };
        encode_front(&mut self.scratch, spot, &outline, len.plain, head, &parts);
        if let Err(error) = standby.tail.append(u64::from(start_at), &[&self.scratch, parts.bytes, padding(&len)]) {
            self.standby = Some(standby);
            return Err(AppendError::Io(error));
        }
        self.begin(standby, base, outline.lsn.saturating_add(u64::from(len.padded)), needed);
        self.newest = outline.lsn;
        self.carried = Some(watermark);
        Ok(true)
    }

    fn begin(&mut self, standby: Standby, base: Lsn, end: Lsn, at: u64) {
        let info = SegmentInfo {
            number: standby.number,
            kind: FileKind::Appended,
            salt: standby.salt,
            generation: 0,
            base,
            end,
            body_len: 0,
            epochs: vec![(base, self.epoch)],
            serves: Classes::BOTH,
        };
        let segment = Arc::new(Segment::open(info, Arc::clone(standby.tail.file())));
        let Standby { salt, len, tail, reserve, .. } = standby;
        let previous = self.active.replace(Active { segment, tail, salt, at, len, reserve });
        self.before = previous.map(|active| active.segment).filter(|segment| segment.end() > self.synced);
        self.end = end;
        self.wanted = end;
        self.next_len = self.next_len.saturating_mul(2).min(self.len_max);
    }
}
