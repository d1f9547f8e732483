//! What lies in the directory: names, headers, first frames, checkpoints. Reads only, and judges as little as it can.
//!
//! One short read a file. Never here: frames beyond a segment's first, decisions about damage.

use crate::disk::{Disk, File};
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::Checkpoint;
use crate::log::error::{Corruption, OpenError};
use crate::log::format::bytes::ByteCursor;
use crate::log::format::checkpoint::{self, Section, decode_epochs};
use crate::log::format::checksum::crc;
use crate::log::format::class::Classes;
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{Covered, Probe, Spot};
use crate::log::format::header::{FORMAT, FileHeader, FileKind, HEADER_LEN, HeaderRead, Uuid};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::format::store_file::{Features, Identity, STORE_LEN, Slot};
use crate::log::read::handles::{Handles, read_up_to};
use std::io;

/// The first read of a file: header and first frame lie within.
const FIRST_READ_LEN: usize = 512;
/// A file of a class has no longer table: 65,535 epochs.
const EPOCHS_LEN_MAX: u64 = 1 << 20;

/// A segment or a file of a class with a valid header.
#[derive(Clone, Debug)]
pub(in crate::log) struct SegmentSeen {
    pub(in crate::log) header: FileHeader,
    /// The length of the file.
    pub(in crate::log) len: u64,
    pub(in crate::log) start: Option<FileStart>,
}

/// What a segment's first frame tells, a copy's header, or the header and table of a file of a class.
#[derive(Clone, Debug)]
pub(in crate::log) struct FileStart {
    pub(in crate::log) base: Lsn,
    pub(in crate::log) epochs: Vec<(Lsn, Epoch)>,
    /// The watermark in the first frame.
    pub(in crate::log) watermark: Lsn,
}

impl SegmentSeen {
    pub(in crate::log) const fn name(&self) -> FileName {
        self.header.kind.name(self.header.number)
    }

    /// Where the frames end at the latest, as far as the file tells: what was filled by appends does not.
    pub(in crate::log) fn end_max(&self) -> Lsn {
        if self.header.is_copy() { self.header.to } else { Lsn(u64::MAX) }
    }

    /// What a segment tells of itself.
    pub(in crate::log) fn info(&self) -> Option<SegmentInfo> {
        let FileStart { base, epochs, .. } = self.start.clone()?;
        Some(SegmentInfo {
            number: self.header.number,
            kind: self.header.kind,
            salt: self.header.salt,
            generation: 0,
            base,
            end: self.end_max(),
            body_len: 0,
            epochs,
            serves: Classes::BOTH,
        })
    }
}

/// A checkpoint with a valid header.
#[derive(Clone, Debug)]
pub(in crate::log) struct CheckpointSeen {
    pub(in crate::log) header: FileHeader,
    pub(in crate::log) len: u64,
}

/// The checkpoint to begin from.
#[derive(Debug)]
pub(in crate::log) struct CheckpointLoaded {
    pub(in crate::log) number: FileNumber,
    pub(in crate::log) covers: Lsn,
    pub(in crate::log) state: Vec<u8>,
    pub(in crate::log) section: Section,
}

/// The directory.
#[derive(Debug)]
pub(in crate::log) struct DirectoryScan {
    /// Our files but `STORE`.
    pub(in crate::log) names: Vec<FileName>,
    /// Files whose names are not of our grammar.
    pub(in crate::log) ignored: usize,
    pub(in crate::log) uuid: Option<Uuid>,
    /// `STORE` itself says whose store this is.
    pub(in crate::log) is_identified: bool,
    pub(in crate::log) slots: [Option<Slot>; 2],
    /// In the order of their numbers.
    pub(in crate::log) segments: Vec<SegmentSeen>,
    /// Files of classes, in the order of their numbers.
    pub(in crate::log) of_classes: Vec<SegmentSeen>,
    /// From oldest to newest.
    pub(in crate::log) checkpoints: Vec<CheckpointSeen>,
    /// Checkpoints that have a header, but are not what it says.
    pub(in crate::log) checkpoints_damaged: usize,
}

impl DirectoryScan {
    /// The slot that counts, with the features of both.
    pub(in crate::log) fn slot(&self) -> Option<Slot> {
        // seam: the older slot counts
        let counts = self.slots.iter().flatten().max_by_key(|slot| slot.sequence).copied();
        counts.map(|slot| Slot { features: self.features(), ..slot })
    }

    /// The features of the store: those of all slots that are valid.
    fn features(&self) -> Features {
        self.slots.iter().flatten().fold(Features::default(), |all, slot| all.union(slot.features))
    }

    /// The segment in this file.
    pub(in crate::log) fn segment(&self, number: FileNumber) -> Option<&SegmentSeen> {
        self.seen(FileKind::Appended, number)
    }

    /// The segment, or the file of a class, of this kind and number.
    pub(in crate::log) fn seen(&self, kind: FileKind, number: FileNumber) -> Option<&SegmentSeen> {
        let all = if kind == FileKind::Appended { &self.segments } else { &self.of_classes };
        let found = all.binary_search_by_key(&number, |seen| seen.header.number).ok()?;
        all.get(found).filter(|seen| seen.header.kind == kind)
    }

    /// The first file that has a segment's name and not its header.
    pub(in crate::log) fn headless(&self) -> Option<FileNumber> {
        self.names.iter().find_map(|name| match name {
            FileName::Segment(number) if self.segment(*number).is_none() => Some(*number),
            _ => None,
        })
    }

    /// Whether this is a segment's name, and the file has not its header.
    pub(in crate::log) fn is_headless(&self, name: FileName) -> bool {
        matches!(name, FileName::Segment(number) if self.segment(number).is_none())
    }

    pub(in crate::log) fn read(disk: &dyn Disk, handles: &Handles) -> Result<Self, OpenError> {
        let entries = disk.list().map_err(OpenError::io("list", FileName::Store))?;
        let mut directory = Self {
            names: Vec::new(),
            ignored: 0,
            uuid: None,
            is_identified: false,
            slots: [None, None],
            segments: Vec::new(),
            of_classes: Vec::new(),
            checkpoints: Vec::new(),
            checkpoints_damaged: 0,
        };
        let mut files = Vec::new();
        for entry in entries {
            match FileName::parse(&entry.name) {
                Some(FileName::Store) => {}
                Some(name) => files.push((name, entry.len)),
                None => directory.ignored += 1,
            }
        }
        files.sort_unstable();
        directory.names = files.iter().map(|(name, _)| *name).collect();
        directory.read_store(disk)?;
        if let Some(uuid) = directory.uuid {
            directory.read_files(handles, &files, &uuid)?;
        }
        Ok(directory)
    }

    fn read_files(&mut self, handles: &Handles, files: &[(FileName, u64)], uuid: &Uuid) -> Result<(), OpenError> {
        for (name, len) in files {
            self.read_file(handles, *name, *len, uuid)?;
        }
        self.segments.sort_by_key(|seen| seen.header.number);
        self.of_classes.sort_by_key(|seen| seen.header.number);
        self.checkpoints.sort_by_key(|seen| seen.header.number);
        Ok(())
    }

    /// Reads the files of a store whose `STORE` does not say whose they are: as the first header tells.
    pub(in crate::log) fn read_as_told(&mut self, disk: &dyn Disk, handles: &Handles) -> Result<(), OpenError> {
        let mut files = Vec::new();
        for name in &self.names {
            let file = handles.get(*name).map_err(OpenError::io("open", *name))?;
            files.push((*name, file.len().map_err(OpenError::io("read", *name))?));
            let first = read_up_to(&*file, 0, HEADER_LEN).map_err(OpenError::io("read", *name))?;
            if let (None, HeaderRead::Valid(header)) = (self.uuid, FileHeader::decode(&first)) {
                self.uuid = Some(header.uuid);
            }
        }
        let Some(uuid) = self.uuid else {
            return Err(Corruption::of(FileName::Store, None, "no file says which store it is of").into());
        };
        if let Ok(file) = disk.open(&FileName::Store.to_string()) {
            let page = read_up_to(&*file, 0, STORE_LEN as usize).map_err(OpenError::io("read", FileName::Store))?;
            self.slots = Slot::both(&page, &uuid);
        }
        self.read_files(handles, &files, &uuid)
    }

    fn read_store(&mut self, disk: &dyn Disk) -> Result<(), OpenError> {
        if let Some(StoreRead { uuid, slots }) = StoreRead::read(disk)? {
            (self.uuid, self.is_identified, self.slots) = (Some(uuid), true, slots);
            let refused = self.features().refused();
            if !refused.is_empty() {
                return Err(newer(FileName::Store, FORMAT, refused));
            }
        }
        Ok(())
    }

    fn read_file(&mut self, handles: &Handles, name: FileName, len: u64, uuid: &Uuid) -> Result<(), OpenError> {
        if matches!(name, FileName::Store | FileName::Index(_)) {
            return Ok(());
        }
        let file = handles.get(name).map_err(OpenError::io("open", name))?;
        let first = read_up_to(&*file, 0, FIRST_READ_LEN).map_err(OpenError::io("read", name))?;
        let header = match FileHeader::decode(&first) {
            HeaderRead::Invalid => return Ok(()),
            HeaderRead::Newer { format } => return Err(newer(name, format, Features::default())),
            HeaderRead::Valid(header) => header,
        };
        if header.kind.name(header.number) != name {
            // Renamed, or a file that was never synced and holds what its blocks held before: not this file's header.
            return Ok(());
        }
        // seam: a file of another store is taken in
        if header.uuid != *uuid {
            return Err(OpenError::ForeignFile { file: name.to_string() });
        }
        match header.kind {
            FileKind::Checkpoint => self.checkpoints.push(CheckpointSeen { header, len }),
            FileKind::Appended => self.segments.push(appended(header, len, &first)),
            FileKind::Messages | FileKind::DeadLetters => {
                let start = epochs_of(&*file, &header, len).map_err(OpenError::io("read", name))?;
                self.of_classes.push(SegmentSeen { header, len, start });
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is whole, up to the one that the slot names: a later one may not be durable. Checkpoints
    /// that are not whole are taken off the list.
    pub(in crate::log) fn load_checkpoint(&mut self, handles: &Handles) -> Result<Option<CheckpointLoaded>, OpenError> {
        let newest = self.slot().unwrap_or_default().newest_checkpoint;
        // seam: a checkpoint before its slot counts
        self.checkpoints.retain(|seen| seen.header.number <= newest);
        let named = self.checkpoints.len();
        self.checkpoints.retain(|seen| seen.header.extent().is_some_and(|(_, end)| end <= seen.len));
        self.checkpoints_damaged = named - self.checkpoints.len();
        while let Some(CheckpointSeen { header, .. }) = self.checkpoints.last() {
            let name = FileName::Checkpoint(header.number);
            let file = handles.get(name).map_err(OpenError::io("open", name))?;
            handles.forget(name);
            if let Some((state, section)) = read_checkpoint(&*file, header).map_err(OpenError::io("read", name))? {
                return Ok(Some(CheckpointLoaded { number: header.number, covers: header.to, state, section }));
            }
            self.checkpoints.pop();
            self.checkpoints_damaged += 1;
        }
        Ok(None)
    }
}

/// What `STORE` says.
#[derive(Debug)]
pub(in crate::log) struct StoreRead {
    pub(in crate::log) uuid: Uuid,
    pub(in crate::log) slots: [Option<Slot>; 2],
}

impl StoreRead {
    /// `None` where there is no such file, or not all of it.
    pub(in crate::log) fn read(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let name = FileName::Store;
        let file = match disk.open(&name.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(OpenError::io("open", name))?,
        };
        let page = read_up_to(&*file, 0, STORE_LEN as usize).map_err(OpenError::io("read", name))?;
        match Identity::decode(&page) {
            Identity::Newer { format, features } => Err(newer(name, format, features)),
            Identity::Invalid => Ok(None),
            Identity::Valid(uuid) => Ok(Some(Self { uuid, slots: Slot::both(&page, &uuid) })),
        }
    }
}

/// The segment in a file of `len` bytes; `None` where it has no header of this store's.
pub(in crate::log) fn segment_of(
    file: &dyn File,
    name: FileName,
    len: u64,
    uuid: &Uuid,
) -> io::Result<Option<SegmentSeen>> {
    let first = read_up_to(file, 0, FIRST_READ_LEN)?;
    let HeaderRead::Valid(header) = FileHeader::decode(&first) else { return Ok(None) };
    let is_segment = header.kind == FileKind::Appended && header.kind.name(header.number) == name;
    let seen = (is_segment && header.uuid == *uuid).then(|| appended(header, len, &first));
    Ok(seen)
}

/// A segment, as its header and first bytes tell.
fn appended(header: FileHeader, len: u64, first: &[u8]) -> SegmentSeen {
    let start = if header.is_copy() { Some(copied(&header)) } else { first_frame(&header, first) };
    SegmentSeen { header, len, start }
}

impl DirectoryScan {
    /// All checkpoints up to the one that the slot names, and those of them that are not whole.
    pub(in crate::log) fn load_all_checkpoints(
        &self,
        handles: &Handles,
    ) -> Result<(Vec<Checkpoint>, Vec<FileName>), OpenError> {
        let newest = self.slot().unwrap_or_default().newest_checkpoint;
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for CheckpointSeen { header, len } in self.checkpoints.iter().filter(|seen| seen.header.number <= newest) {
            let name = FileName::Checkpoint(header.number);
            let file = handles.get(name).map_err(OpenError::io("open", name))?;
            let fits = header.extent().is_some_and(|(_, end)| end <= *len);
            let read = if fits { read_checkpoint(&*file, header) } else { Ok(None) };
            match read.map_err(OpenError::io("read", name))? {
                Some((state, _)) => whole.push(Checkpoint { number: header.number, covers: header.to, state }),
                None => damaged.push(name),
            }
        }
        Ok((whole, damaged))
    }
}

fn newer(name: FileName, format: u32, features: Features) -> OpenError {
    let features = if features.is_empty() { String::new() } else { format!(" with {features}") };
    let found = format!("format {format}{features}");
    OpenError::NewerFormat { file: name.to_string(), found, supported: format!("format {FORMAT}") }
}

/// What the header of a copy tells.
fn copied(header: &FileHeader) -> FileStart {
    FileStart { base: header.from, epochs: vec![(header.from, header.epoch)], watermark: Lsn(0) }
}

/// What the first frame of a segment tells; `None` for one that was never appended to.
fn first_frame(header: &FileHeader, first: &[u8]) -> Option<FileStart> {
    let bytes = first.get(HEADER_LEN..)?;
    let spot = Spot { salt: header.salt, at: HEADER_LEN as u32 };
    let Probe::Covered(covered) = Covered::probe(bytes, bytes.len() as u64, spot) else { return None };
    let frame = covered.verify(bytes, spot, None)?;
    let is_start = frame.is_log() && ControlFrame::decode(frame.head()) == Some(ControlFrame::SegmentStart);
    let epochs = vec![(frame.lsn, frame.epoch()?)];
    is_start.then(|| FileStart { base: frame.lsn, epochs, watermark: frame.watermark.unwrap_or(Lsn(0)) })
}

/// What the table of a file of a class tells; `None` where it is damaged.
fn epochs_of(file: &dyn File, header: &FileHeader, len: u64) -> io::Result<Option<FileStart>> {
    let Some((table_at, end)) = header.extent() else { return Ok(None) };
    if end > len || header.table_len > EPOCHS_LEN_MAX || header.from >= header.to {
        return Ok(None);
    }
    let table = read_up_to(file, table_at, header.table_len as usize)?;
    if table.len() as u64 != header.table_len || crc(0, &table) != header.table_crc {
        return Ok(None);
    }
    let start = |epochs| FileStart { base: header.from, epochs, watermark: Lsn(0) };
    let epochs = decode_epochs(&mut ByteCursor::new(&table)).filter(|epochs| !epochs.is_empty());
    Ok(epochs.map(start))
}

/// State and section, or `None` where they are not what the header says. The lengths are within the file's.
fn read_checkpoint(file: &dyn File, header: &FileHeader) -> io::Result<Option<(Vec<u8>, Section)>> {
    let Some((table_at, _)) = header.extent() else { return Ok(None) };
    let (Ok(state_len), Ok(table_len)) = (usize::try_from(header.body_len), usize::try_from(header.table_len)) else {
        return Ok(None);
    };
    let state = read_up_to(file, HEADER_LEN as u64, state_len)?;
    let table = read_up_to(file, table_at, table_len)?;
    Ok(checkpoint::verify(header, &state, &table).map(|section| (state, section)))
}
