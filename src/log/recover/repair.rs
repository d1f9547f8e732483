//! What can be kept of a damaged log: everything that still proves itself.
//!
//! The same facts as an open finds, but a frame that does not validate ends nothing: the search goes on behind it, as it does below a
//! checkpoint. What no file holds is a retired range of the new list, so the log tiles again. `assess` reads only; `mend` copies each file
//! that is damaged under another name before it changes or removes it. Never here: what the records say.

use crate::disk::Disk;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::checkpoint::{Section, note_epoch};
use crate::log::format::class::{Class, Classes, merge_range};
use crate::log::format::control::ControlFrame;
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::format::store_file::Slot;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::{Handles, read_up_to};
use crate::log::recover::chain::{self, Candidate, Piece};
use crate::log::recover::directory::{DirectoryScan, SegmentSeen};
use crate::log::recover::manifest::{continue_with, is_there};
use crate::log::recover::plan::{Facts, Plan, Stretch};
use crate::log::recover::scan::{Scanned, first_facts, highest_epoch};
use crate::log::recover::tail_scan::TailScan;
use crate::log::write::slots::Slots;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// How much is copied at a time.
const CHUNK_LEN: u64 = 1 << 20;

/// A stretch of the log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostRange {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    /// The file in which it does not validate; none where no file holds it.
    pub(crate) file: Option<FileName>,
}

/// What is to be done to a file, once there is a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mend {
    /// `STORE` is laid out anew, with this slot.
    Store(Slot),
    /// The header is written again, as the checkpoint's list tells it.
    Header(FileNumber, FileHeader),
    /// It is as long as the list says again, with zeros at its end.
    Length(FileName, u64),
    /// Nothing tells what it holds, or it is not whole.
    Remove(FileName),
    /// It stays as it is: what is damaged in it lies below the new checkpoint.
    Keep(FileName),
}

impl Mend {
    const fn name(&self) -> FileName {
        match self {
            Self::Store(_) => FileName::Store,
            Self::Header(number, _) => FileName::Segment(*number),
            Self::Length(name, _) | Self::Remove(name) | Self::Keep(name) => *name,
        }
    }
}

/// What can be kept of a log, and what is lost.
#[derive(Debug)]
pub(in crate::log) struct Assessment {
    pub(in crate::log) scanned: Scanned,
    pub(in crate::log) plan: Plan,
    pub(in crate::log) lost: Vec<LostRange>,
    /// The secret of the store's hashes is gone with both slots.
    pub(in crate::log) secret_lost: bool,
    mends: Vec<Mend>,
}

/// Finds out. Changes nothing.
///
/// # Errors
/// Reads that fail, a newer format, a file of another store; a directory in which no file says which store it is.
pub(in crate::log) fn assess(disk: &dyn Disk, handles: &Handles) -> Result<Assessment, OpenError> {
    let mut directory = DirectoryScan::read(disk, handles)?;
    let mut mends = Vec::new();
    if directory.uuid.is_none() {
        directory.read_as_told(disk, handles)?;
    }
    let secret_lost = directory.slot().is_none();
    let newest = slot_as_told(&directory, disk);
    if secret_lost || !directory.is_identified {
        mends.push(Mend::Store(newest));
    }
    directory.slots = [Some(newest), None];
    let checkpoint = directory.load_checkpoint(handles)?;
    let (covers, section) = match &checkpoint {
        Some(checkpoint) => (checkpoint.covers, checkpoint.section.clone()),
        None => (Lsn(0), Section::default()),
    };
    let mut lost = Vec::new();
    mend_headers(&mut directory, handles, &section, (&mut mends, &mut lost))?;
    mend_checkpoints(&directory, newest.newest_checkpoint, &mut mends);

    let starts = directory.segments.iter().filter_map(|seen| seen.start.as_ref()).map(|start| start.watermark);
    let told = starts.max().unwrap_or(Lsn(0)).max(newest.watermark).max(covers);
    let candidates = chain::candidates(&directory, &section.files, covers, told);
    let mut left = Left::of(&candidates, handles, covers)?;
    let watermark = told.max(left.watermark);
    let end = left.end(watermark);
    left.cut(end);

    let mut manifest = section.clone();
    for (_, control) in left.changes.iter().filter(|(at, _)| *at <= watermark) {
        // What cannot be taken in is a file that is then not listed: what it holds is lost, and told so.
        drop(manifest.change(*control, &directory, covers));
    }
    manifest.files.retain(|file| is_there(file, &directory));
    lost.append(&mut left.holes);
    for file in &manifest.files {
        let len = directory.seen(file.kind, file.number).map_or(0, |seen| seen.len);
        if let Some(limit) = file.limit().filter(|limit| *limit > len) {
            mends.push(Mend::Length(file.name(), limit));
            // In a file of a class places do not tell LSNs.
            let held = if file.kind == FileKind::Appended { len.saturating_sub(HEADER_LEN as u64) } else { 0 };
            lost.push(LostRange { from: file.base.saturating_add(held), to: file.end, file: Some(file.name()) });
        }
    }
    let copies = continue_with(&mut manifest.files, &left.pieces, &candidates, watermark, end);
    // Without a checkpoint the state is made of what can be walked.
    let begins = left.pieces.first().map_or(end, |piece| piece.from);
    if checkpoint.is_none() && begins > Lsn(0) {
        lost.push(LostRange { from: Lsn(0), to: begins, file: None });
    }
    let gaps = retire_the_rest(&mut manifest, &copies, end);
    if gaps.is_empty() {
        // Segments whose place in the log nothing tells come behind all that is known.
        let removed = mends.iter().filter(|mend| matches!(mend, Mend::Remove(FileName::Segment(_))));
        lost.extend(removed.map(|mend| LostRange { from: end, to: end, file: Some(mend.name()) }));
    }
    lost.extend(gaps);
    lost.sort_by_key(|range| (range.from, range.to));
    lost.dedup();
    let damaged: BTreeSet<FileName> = lost.iter().filter_map(|range| range.file).collect();
    let known: BTreeSet<FileName> = mends.iter().map(Mend::name).collect();
    mends.extend(damaged.difference(&known).map(|name| Mend::Keep(*name)));

    let epoch = highest_epoch(&directory, &manifest.files);
    let mut epochs = manifest.epochs.clone();
    for candidate in candidates.iter().filter(|candidate| left.pieces.iter().any(|piece| piece.is_of(candidate))) {
        candidate.info.epochs.iter().filter(|(from, _)| *from < end).for_each(|epoch| note_epoch(&mut epochs, *epoch));
    }
    if epochs.first().is_none_or(|(from, _)| *from > Lsn(0)) && section.epochs.is_empty() {
        // What came before the first file that is left belongs to no later one.
        epochs.insert(0, (Lsn(0), Epoch::of(0, 1)));
    }
    let facts = Facts {
        valid_end: end,
        watermark,
        end,
        epoch,
        epochs: epochs.clone(),
        proven: manifest.files.clone(),
        ..first_facts(&directory, newest, checkpoint.is_some())
    };
    let epoch_count = epoch.count().checked_add(1);
    let epoch_count =
        epoch_count.ok_or_else(|| Corruption::of(FileName::Store, None, "its epoch is the last that there can be"))?;
    let plan = Plan::Continue { copies, segments: manifest.files, retired: manifest.retired, epochs, end, epoch_count };
    let tail_scan = TailScan::default();
    let scanned = Scanned { directory, slot: newest, checkpoint, facts, tail_scan, clean: false };
    Ok(Assessment { scanned, plan, lost, secret_lost, mends })
}

/// What slots and files tell together: a slot may be an old one, or there is none, and then another secret has to be drawn.
fn slot_as_told(directory: &DirectoryScan, disk: &dyn Disk) -> Slot {
    let slot = directory.slot().unwrap_or_else(|| Slots::drawn(disk));
    let segments = directory.segments.iter().map(|seen| seen.header.number);
    let checkpoints = directory.checkpoints.iter().map(|seen| seen.header.number);
    Slot {
        epoch: highest_epoch(directory, &[]).max(slot.epoch),
        clean: false,
        newest_segment: segments.max().unwrap_or(FileNumber(0)).max(slot.newest_segment),
        newest_checkpoint: checkpoints.max().unwrap_or(FileNumber(0)).max(slot.newest_checkpoint),
        ..slot
    }
}

/// Takes segments without a header for what the checkpoint's list says of them. Of others nothing is known.
fn mend_headers(
    directory: &mut DirectoryScan,
    handles: &Handles,
    section: &Section,
    (mends, lost): (&mut Vec<Mend>, &mut Vec<LostRange>),
) -> Result<(), OpenError> {
    let Some(uuid) = directory.uuid else { return Ok(()) };
    let names: Vec<FileName> = directory.names.clone();
    for name in names {
        let (FileName::Segment(number) | FileName::Messages(number) | FileName::DeadLetters(number)) = name else {
            continue;
        };
        let is_seen = |seen: &SegmentSeen| seen.name() == name;
        if directory.segments.iter().chain(&directory.of_classes).any(is_seen) {
            continue;
        }
        let file = handles.get(name).map_err(OpenError::io("open", name))?;
        let len = file.len().map_err(OpenError::io("read", name))?;
        let listed = section.files.iter().find(|file| file.name() == name && file.kind == FileKind::Appended);
        let first_frame = |listed: &SegmentInfo| -> io::Result<Option<Lsn>> {
            let lsns = Lsns::Placed { base: listed.base };
            let mut frames = Frames::new(Arc::clone(&file), listed.salt, lsns, HEADER_LEN as u64, len);
            if matches!(frames.next()?, Next::Invalid) {
                frames.pass_over(len)?;
                return Ok(match frames.next()? {
                    Next::Frame(frame) => Some(frame.lsn),
                    Next::Invalid | Next::End => None,
                });
            }
            Ok(Some(listed.base))
        };
        let first = listed.map_or(Ok(None), first_frame).map_err(OpenError::io("read", name))?;
        let (Some(listed), Some(first)) = (listed, first) else {
            // Another file may have taken its name.
            mends.push(Mend::Remove(name));
            continue;
        };
        if first > listed.base {
            lost.push(LostRange { from: listed.base, to: first, file: Some(name) });
        }
        let header = FileHeader::appended(uuid, number, listed.salt);
        mends.push(Mend::Header(number, header.clone()));
        directory.segments.push(SegmentSeen { header, len, start: None });
    }
    directory.segments.sort_by_key(|seen| seen.header.number);
    Ok(())
}

/// Checkpoints up to the newest that are not whole.
fn mend_checkpoints(directory: &DirectoryScan, newest: FileNumber, mends: &mut Vec<Mend>) {
    let is_whole = |number| directory.checkpoints.iter().any(|seen| seen.header.number == number);
    let damaged = directory.names.iter().filter(|name| match name {
        FileName::Checkpoint(number) => *number <= newest && !is_whole(*number),
        FileName::Store
        | FileName::Segment(_)
        | FileName::Messages(_)
        | FileName::DeadLetters(_)
        | FileName::Index(_) => false,
    });
    mends.extend(damaged.map(|name| Mend::Remove(*name)));
}

/// Retires what no file of a class holds below `end`, and says what that is.
fn retire_the_rest(manifest: &mut Section, copies: &[Stretch], end: Lsn) -> Vec<LostRange> {
    let mut lost = Vec::new();
    for class in Class::EACH {
        let mut held = manifest.retired.of(class).to_vec();
        manifest.serving(class).for_each(|file| merge_range(&mut held, file.base, file.end));
        copies.iter().for_each(|copy| merge_range(&mut held, copy.from, copy.to));
        let mut at = Lsn(0);
        for (from, to) in held.into_iter().chain([(end, end)]) {
            if at < from.min(end) {
                let to = from.min(end);
                lost.push(LostRange { from: at, to, file: None });
                manifest.retired.add(Classes::of(class), at, to);
            }
            at = at.max(to);
        }
    }
    lost
}

/// What is left of the log behind the checkpoint.
struct Left {
    pieces: Vec<Piece>,
    /// Stretches of valid frames, and the end of the last frame of each that says something.
    stretches: Vec<(Lsn, Lsn, Lsn)>,
    holes: Vec<LostRange>,
    changes: Vec<(Lsn, ControlFrame)>,
    watermark: Lsn,
}

impl Piece {
    fn is_of(&self, candidate: &Candidate) -> bool {
        self.number == candidate.info.number
    }
}

impl Left {
    fn of(candidates: &[Candidate], handles: &Handles, from: Lsn) -> Result<Self, OpenError> {
        let mut left = Self {
            pieces: Vec::new(),
            stretches: vec![(from, from, from)],
            holes: Vec::new(),
            changes: Vec::new(),
            watermark: Lsn(0),
        };
        let mut at = from;
        while let Some((candidate, stop)) = left.choose(candidates, at) {
            let start = at.max(candidate.info.base);
            let to = left.read(candidate, handles, (start, stop))?;
            left.pieces.push(Piece { number: candidate.info.number, from: start, to });
            at = if stop == Lsn(u64::MAX) { to } else { stop };
        }
        Ok(left)
    }

    /// The segment that holds the log at `at`, or the next that begins behind it; and where another takes over.
    fn choose<'a>(&self, candidates: &'a [Candidate], at: Lsn) -> Option<(&'a Candidate, Lsn)> {
        let unvisited = |candidate: &&Candidate| !self.pieces.iter().any(|piece| piece.is_of(candidate));
        let is_live = |candidate: &&Candidate| candidate.info.base < candidate.info.end && candidate.info.end > at;
        let live = || candidates.iter().filter(unvisited).filter(is_live);
        let from = live().map(|candidate| candidate.info.base.max(at)).min()?;
        let holding = live().filter(|candidate| candidate.info.base <= from);
        let chosen = holding.max_by_key(|held| (held.info.last_epoch(), held.info.base, held.info.number))?;
        let next = live().map(|other| other.info.base).filter(|base| *base > from).min();
        Some((chosen, chosen.info.end.min(next.unwrap_or(Lsn(u64::MAX)))))
    }

    /// Reads what proves itself in a segment. Returns the end of the last such frame.
    fn read(&mut self, candidate: &Candidate, handles: &Handles, (from, stop): (Lsn, Lsn)) -> Result<Lsn, OpenError> {
        let (name, info) = (candidate.name(), &candidate.info);
        let file = handles.get(name).map_err(OpenError::io("open", name))?;
        let limit = candidate.place(stop).min(candidate.len);
        let lsns = Lsns::Placed { base: info.base };
        let mut frames = Frames::new(file, info.salt, lsns, candidate.place(from), limit);
        let mut end = from;
        loop {
            let place = frames.at();
            match frames.next().map_err(OpenError::io("read", name))? {
                Next::Frame(frame) => {
                    let next = frame.lsn.saturating_add(u64::from(frame.padded()));
                    if next > stop {
                        return Ok(end);
                    }
                    if frame.lsn > end {
                        self.holes.push(LostRange { from: end, to: frame.lsn, file: Some(name) });
                    }
                    self.watermark = self.watermark.max(frame.watermark.unwrap_or(Lsn(0)));
                    let is_idle = frame.is_log() && self.note_control(next, frame.head(), (name, place))?;
                    self.reach((frame.lsn, next), !is_idle);
                    end = next;
                }
                Next::End => break,
                Next::Invalid => {
                    frames.pass_over(limit).map_err(OpenError::io("read", name))?;
                    if frames.at() >= limit {
                        break;
                    }
                }
            }
        }
        if end < stop && limit == candidate.place(stop) {
            // The file reaches to where another takes over, and its last frames are damaged.
            self.holes.push(LostRange { from: end, to: stop, file: Some(name) });
            end = stop;
        }
        Ok(end)
    }

    fn note_control(&mut self, end: Lsn, head: &[u8], (name, at): (FileName, u64)) -> Result<bool, Corruption> {
        let control = ControlFrame::decode(head)
            .ok_or_else(|| Corruption::of(name, Some(at), "a control frame that this version does not know"))?;
        if !control.is_idle() {
            self.changes.push((end, control));
        }
        Ok(control.is_idle())
    }

    fn reach(&mut self, (from, to): (Lsn, Lsn), says: bool) {
        match self.stretches.last_mut().filter(|(_, end, _)| *end == from) {
            Some((_, end, facts_end)) => {
                *end = to;
                if says {
                    *facts_end = to;
                }
            }
            None => self.stretches.push((from, to, if says { to } else { from })),
        }
    }

    /// The end of the log: what was durable, and what validates behind it without a gap.
    fn end(&self, watermark: Lsn) -> Lsn {
        let around = self.stretches.iter().find(|(from, to, _)| *from <= watermark && watermark <= *to);
        around.map_or(watermark, |(_, _, facts_end)| watermark.max(*facts_end))
    }

    /// Nothing behind `end` counts.
    fn cut(&mut self, end: Lsn) {
        self.pieces.retain(|piece| piece.from < end);
        self.pieces.iter_mut().for_each(|piece| piece.to = piece.to.min(end));
        self.holes.retain(|hole| hole.from < end);
        self.holes.iter_mut().for_each(|hole| hole.to = hole.to.min(end));
    }
}

impl Assessment {
    /// Copies what is damaged, and then makes the directory one that `plan` can be carried out in. Returns the names of the copies.
    ///
    /// # Errors
    /// Reads and writes that fail. The damage is still there then, and so are the copies that were made.
    pub(in crate::log) fn mend(&self, disk: &Arc<dyn Disk>, handles: &Handles) -> Result<Vec<String>, OpenError> {
        let mut taken: BTreeSet<String> =
            disk.list().map_err(OpenError::io("list", FileName::Store))?.into_iter().map(|entry| entry.name).collect();
        let mut copies = Vec::new();
        let names: BTreeSet<FileName> = self.mends.iter().map(Mend::name).collect();
        for name in names {
            let copy = (1..=u32::MAX).map(|number| damaged_name(name, number)).find(|name| !taken.contains(name));
            let Some(copy) = copy else { continue };
            quarantine(&**disk, name, &copy)?;
            taken.insert(copy.clone());
            copies.push(copy);
        }
        disk.sync_dir().map_err(OpenError::io("sync the directory of", FileName::Store))?;
        for mend in &self.mends {
            // seam: a damaged file is changed
            self.carry_out(mend, disk, handles).map_err(OpenError::io("mend", mend.name()))?;
        }
        Ok(copies)
    }

    fn carry_out(&self, mend: &Mend, disk: &Arc<dyn Disk>, handles: &Handles) -> io::Result<()> {
        let name = mend.name();
        handles.forget(name);
        match mend {
            Mend::Store(slot) => {
                let Some(uuid) = self.scanned.directory.uuid else { return Ok(()) };
                let file = disk.open(&name.to_string())?;
                Slots::lay_out_as(Arc::clone(disk), file, uuid, *slot).map(drop)
            }
            Mend::Header(_, header) => {
                let file = disk.open(&name.to_string())?;
                file.write_at(0, &header.encode())?;
                file.sync()
            }
            Mend::Length(_, len) => {
                let file = disk.open(&name.to_string())?;
                file.set_len(*len)?;
                file.sync()
            }
            Mend::Remove(_) => disk.remove(&name.to_string()),
            Mend::Keep(_) => Ok(()),
        }
    }
}

/// A name that is none of ours, so that the copy is left alone.
fn damaged_name(name: FileName, number: u32) -> String {
    if number == 1 { format!("{name}.damaged") } else { format!("{name}.damaged-{number}") }
}

/// A durable copy of a file under another name.
fn quarantine(disk: &dyn Disk, name: FileName, copy: &str) -> Result<(), OpenError> {
    let io = || OpenError::io("copy", name);
    let source = match disk.open(&name.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io())?,
    };
    let len = source.len().map_err(io())?;
    let target = disk.create(copy, len).map_err(io())?;
    let mut at = 0;
    while at < len {
        let bytes = read_up_to(&*source, at, CHUNK_LEN.min(len - at) as usize).map_err(io())?;
        if bytes.is_empty() {
            break;
        }
        target.write_at(at, &bytes).map_err(io())?;
        at += bytes.len() as u64;
    }
    target.sync().map_err(io())
}
