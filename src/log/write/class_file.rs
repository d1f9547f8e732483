//! Writing a file of a class: frames of segments, and of other files of the class, with some of their parts.
//!
//! The body is written and synced by the thread that copies, without the file manager, which others may need; header and name follow. No fact rests
//! on such a file until a frame of the log tells of it, so one that cannot be finished is removed. Never here: which parts are kept.

use crate::disk::File;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::limits::{FRAME_LEN_MAX, HEAD_LEN_MAX};
use crate::log::format::checkpoint::encode_epochs;
use crate::log::format::checksum::crc;
use crate::log::format::class::{Class, Classes};
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{ALIGN, Frame, Outline, Parts, Spot, encode_front, frame_len};
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::segment::Segment;
use crate::log::write::file_manager::FileManager;
use std::io;
use std::sync::Arc;

/// How much is written at a time.
const SLICE_LEN: usize = 256 << 10;
/// How much is written between syncs: the syncs of others wait for no more than that.
const SYNC_LEN: u64 = 4 << 20;
/// How many epochs the table of a file may have.
const EPOCHS_MAX: usize = 65_535;

/// A file of a class that is being written.
#[derive(Debug)]
pub(crate) struct ClassFile {
    class: Class,
    header: FileHeader,
    file: Arc<dyn File>,
    epochs: Vec<(Lsn, Epoch)>,
    /// Bytes that are not written yet, and where they go.
    pending: Vec<u8>,
    pending_at: u64,
    synced_to: u64,
    parts: KeptParts,
}

/// The parts of a frame that are kept.
#[derive(Debug, Default)]
struct KeptParts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    crcs: Vec<u32>,
}

impl KeptParts {
    /// Puts those of a frame in place of what was there, each with the checksum that its frame's table proves. `None` where the frame lacks one.
    fn fill(&mut self, frame: &Frame<'_>, kept: &[u32]) -> Option<()> {
        self.bytes.clear();
        self.ends.clear();
        self.crcs.clear();
        for index in kept {
            self.bytes.extend_from_slice(frame.part(*index)?);
            self.ends.push(u32::try_from(self.bytes.len()).ok()?);
            self.crcs.push(frame.part_crc(*index)?);
        }
        Some(())
    }

    fn parts(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, ends: &self.ends, crcs: &self.crcs }
    }
}

const fn outline(lsn: Lsn) -> Outline {
    Outline { lsn, carries_lsn: true, epoch: None, watermark: None, log: false }
}

/// The length with padding that a frame has in a file of a class, which has a head of `head_len` bytes and of another frame these parts.
pub(crate) fn class_frame_len(head_len: usize, frame: &Frame<'_>, kept: &[u32]) -> u64 {
    let len = |index: &u32| frame.part_range(*index).map_or(0, |range| range.end - range.start);
    let mut end = 0u32;
    let ends: Vec<u32> = kept
        .iter()
        .map(|index| {
            end = end.saturating_add(len(index));
            end
        })
        .collect();
    let front = frame_len(&outline(frame.lsn), head_len, &Parts { bytes: &[], ends: &ends, crcs: &[] });
    (front as u64 + u64::from(end)).next_multiple_of(ALIGN)
}

impl ClassFile {
    /// Copies from `frame`, which is valid with its parts, the parts of the numbers `kept`, under the new `head`. Returns where the copy stands.
    ///
    /// # Errors
    /// Whatever writing says; `InvalidInput` where the file would be too long, or `frame` lacks a part.
    pub(crate) fn add(&mut self, frame: &Frame<'_>, epoch: Epoch, head: &[u8], kept: &[u32]) -> io::Result<u32> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        self.parts.fill(frame, kept).ok_or_else(invalid)?;
        let (outline, parts) = (outline(frame.lsn), self.parts.parts());
        let len = frame_len(&outline, head.len(), &parts);
        if len > FRAME_LEN_MAX || head.len() > HEAD_LEN_MAX {
            return Err(invalid());
        }
        let at = u32::try_from(self.pending_at + self.pending.len() as u64).map_err(|_| invalid())?;
        let spot = Spot { salt: self.header.salt, at };
        encode_front(&mut self.pending, spot, &outline, len as u32, head, &parts);
        self.pending.extend_from_slice(parts.bytes);
        self.pending.resize(self.pending.len().next_multiple_of(ALIGN as usize), 0);
        if self.epochs.last().is_none_or(|(_, last)| *last < epoch) {
            let from = if self.epochs.is_empty() { self.header.from } else { frame.lsn };
            self.epochs.push((from, epoch));
        }
        if self.pending.len() >= SLICE_LEN {
            self.write_pending()?;
            if self.pending_at - self.synced_to >= SYNC_LEN {
                self.file.sync()?;
                self.synced_to = self.pending_at;
            }
        }
        Ok(at)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.file.write_at(self.pending_at, &self.pending)?;
        self.pending_at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Ends the body: what was added is durable, but for the header that makes it a file.
    ///
    /// # Errors
    /// As [`ClassFile::add`].
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        self.write_pending()?;
        self.header.body_len = self.pending_at.saturating_sub(HEADER_LEN as u64);
        let mut table = Vec::new();
        encode_epochs(&mut table, &self.epochs);
        (self.header.table_len, self.header.table_crc) = (table.len() as u64, crc(0, &table));
        if self.epochs.len() > EPOCHS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_at(self.pending_at, &table)?;
        self.file.sync()
    }

    pub(crate) const fn number(&self) -> FileNumber {
        self.header.number
    }

    fn name(&self) -> FileName {
        self.header.kind.name(self.header.number)
    }

    /// What the log knows of it.
    fn info(&self) -> SegmentInfo {
        let FileHeader { number, kind, salt, generation, from, to, body_len, .. } = self.header;
        let (epochs, serves) = (self.epochs.clone(), Classes::of(self.class));
        SegmentInfo { number, kind, salt, generation, base: from, end: to, body_len, epochs, serves }
    }

    fn added(&self) -> ControlFrame {
        let FileHeader { number, from, to, generation, salt, .. } = self.header;
        ControlFrame::FileAdded { number, from, to, generation, salt, class: self.class }
    }
}

/// What the files have in common of which a file of a class takes the place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleanedRange {
    pub(crate) class: Class,
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    /// The highest of them.
    pub(crate) generation: u32,
}

impl FileManager {
    /// Creates a file of a class whose frames take `body_len` bytes.
    ///
    /// # Errors
    /// `StorageFull` where less than `leave` bytes would remain on the disk; whatever creating says. There is no such file then.
    pub(crate) fn create_class_file(
        &mut self,
        range: CleanedRange,
        body_len: u64,
        leave: u64,
    ) -> io::Result<ClassFile> {
        let CleanedRange { class, from, to, generation } = range;
        let len = body_len.saturating_add(HEADER_LEN as u64);
        self.check_room(len, leave)?;
        let (number, salt, kind) = (self.next_number()?, self.disk().random(), FileKind::of(class));
        let generation = generation.checked_add(1).ok_or(io::ErrorKind::InvalidInput)?;
        let header = FileHeader { kind, from, to, generation, ..FileHeader::appended(*self.uuid(), number, salt) };
        let name = kind.name(number);
        let created = self.disk().create(&name.to_string(), len);
        // What a failed creation may have left is nobody's.
        let file = created.inspect_err(|_| self.remove_or_leave(name))?;
        let pending_at = HEADER_LEN as u64;
        let (pending, parts) = (Vec::with_capacity(SLICE_LEN), KeptParts::default());
        Ok(ClassFile { class, header, file, epochs: Vec::new(), pending, pending_at, synced_to: pending_at, parts })
    }

    /// Makes it a file, durably, once it is sealed: returns it with the control frame that will make it a part of the log.
    ///
    /// # Errors
    /// Whatever writing and syncing says, and then there is no such file; what [`FileManager::is_failed`] tells of.
    pub(crate) fn finish_class_file(&mut self, file: &ClassFile) -> io::Result<(Arc<Segment>, ControlFrame)> {
        let header = file.header.encode();
        // seam: a cleaned file is told of before it is durable
        let written = file.file.write_at(0, &header).and_then(|()| file.file.sync());
        if let Err(error) = written {
            self.remove_or_leave(file.name());
            return Err(error);
        }
        self.sync_names()?;
        let segment = Segment::closed(file.info(), Arc::clone(self.handles()));
        Ok((Arc::new(segment), file.added()))
    }

    /// Gives up a file that no frame tells of.
    pub(crate) fn abandon_class_file(&mut self, file: &ClassFile) {
        self.remove_or_leave(file.name());
    }
}
