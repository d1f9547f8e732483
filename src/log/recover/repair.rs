//! What can be kept of a damaged log: everything that still proves itself.
//!
//! The plan of an open, from what is left (`left`) and not from what must be there. What no file holds is a retired range of the new list, so
//! the log tiles again. Reads only; `mend` carries out what is to be done to files before the plan. Never here: what the records say.

use crate::disk::Disk;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::checkpoint::{Section, note_epoch};
use crate::log::format::class::{Class, Classes, merge_range};
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::format::store_file::Slot;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::Handles;
use crate::log::recover::chain::{self, Candidate};
use crate::log::recover::directory::{DirectoryScan, SegmentSeen};
use crate::log::recover::left::Left;
use crate::log::recover::manifest::{continue_with, is_there};
use crate::log::recover::mend::Mend;
use crate::log::recover::plan::{Facts, Plan, Stretch};
use crate::log::recover::scan::{Scanned, first_facts, highest_epoch};
use crate::log::recover::tail_scan::TailScan;
use crate::log::write::slots::Slots;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// A stretch of the log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostRange {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    /// The file in which it does not validate; none where no file holds it.
    pub(crate) file: Option<FileName>,
}

/// What can be kept of a log, and what is lost.
#[derive(Debug)]
pub(in crate::log) struct Assessment {
    pub(in crate::log) scanned: Scanned,
    pub(in crate::log) plan: Plan,
    pub(in crate::log) lost: Vec<LostRange>,
    /// The secret of the store's hashes is gone with both slots.
    pub(in crate::log) secret_lost: bool,
    pub(super) mends: Vec<Mend>,
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
    let begun = directory.slot().map(|slot| slot.newest_segment);
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
    mend_headers(&mut directory, handles, (&section, begun), (&mut mends, &mut lost))?;
    mend_checkpoints(&directory, newest.newest_checkpoint, &mut mends);

    let starts = directory.segments.iter().filter_map(|seen| seen.start.as_ref()).map(|start| start.watermark);
    let told = starts.max().unwrap_or(Lsn(0)).max(newest.watermark).max(covers);
    let candidates = chain::candidates(&directory, &section.files, covers, told);
    let mut left = Left::of(&candidates, handles, covers)?;
    let watermark = told.max(left.watermark);
    let end = left.end(watermark);
    left.cut(end);

    let listed = Listed::of(&directory, (&section, covers), &left, (watermark, end), &candidates);
    let Listed { manifest, copies, lost: more } = listed;
    lost.extend(more);
    mend_lengths(&manifest, &directory, (&mut mends, &mut lost));
    // Without a checkpoint the state is made of what can be walked.
    let begins = left.pieces.first().map_or(end, |piece| piece.from);
    if checkpoint.is_none() && begins > Lsn(0) {
        lost.push(LostRange { from: Lsn(0), to: begins, file: None });
    }
    lost.append(&mut left.holes);
    lost.extend(lost_at_end(&directory, newest.newest_segment, (&mends, &lost), end));
    lost.sort_by_key(|range| (range.from, range.to));
    lost.dedup();
    keep_damaged(&lost, &mut mends);
    keep_unlisted(&directory, (&manifest, &copies), &mut mends);

    let of_list = section.epochs.iter().map(|(_, epoch)| *epoch).max();
    let epoch = highest_epoch(&directory, &section.files).max(of_list.unwrap_or(Epoch(0)));
    let epochs = epochs_of(&manifest, &candidates, &left, end);
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

/// The new list of files.
struct Listed {
    manifest: Section,
    copies: Vec<Stretch>,
    /// What no file holds.
    lost: Vec<LostRange>,
}

impl Listed {
    fn of(
        directory: &DirectoryScan,
        (section, covers): (&Section, Lsn),
        left: &Left,
        (watermark, end): (Lsn, Lsn),
        candidates: &[Candidate],
    ) -> Self {
        let mut manifest = section.clone();
        for (_, control) in left.changes.iter().filter(|(at, _)| *at <= watermark) {
            // What cannot be taken in is a file that is then not listed: what it holds is lost, and told so.
            drop(manifest.change(*control, directory, covers));
        }
        manifest.files.retain(|file| is_there(file, directory));
        let copies = continue_with(&mut manifest.files, &left.pieces, candidates, watermark, end);
        let lost = retire_the_rest(&mut manifest, &copies, end);
        Self { manifest, copies, lost }
    }
}

/// Makes files as long again as the list says.
fn mend_lengths(manifest: &Section, directory: &DirectoryScan, (mends, lost): (&mut Vec<Mend>, &mut Vec<LostRange>)) {
    for file in &manifest.files {
        let len = directory.seen(file.kind, file.number).map_or(0, |seen| seen.len);
        if let Some(limit) = file.limit().filter(|limit| *limit > len) {
            mends.push(Mend::Length(file.name(), limit));
            // In a file of a class places do not tell LSNs.
            let held = if file.kind == FileKind::Appended { len.saturating_sub(HEADER_LEN as u64) } else { 0 };
            lost.push(LostRange { from: file.base.saturating_add(held), to: file.end, file: Some(file.name()) });
        }
    }
}

/// Segments whose place in the log nothing tells: where the log has no other gap, they come behind all that is known.
fn lost_at_end(
    directory: &DirectoryScan,
    newest: FileNumber,
    (mends, lost): (&[Mend], &[LostRange]),
    end: Lsn,
) -> Vec<LostRange> {
    if lost.iter().any(|range| range.file.is_none()) {
        return Vec::new();
    }
    let removed = mends.iter().map(Mend::name).filter(|name| directory.is_headless(*name));
    let missing = FileName::Segment(newest);
    let is_missing = newest > FileNumber(0) && !directory.names.contains(&missing);
    let all = removed.chain(is_missing.then_some(missing));
    all.map(|file| LostRange { from: end, to: end, file: Some(file) }).collect()
}

/// What is damaged and not mended is copied all the same: it may be unlinked once nothing lives in it.
fn keep_damaged(lost: &[LostRange], mends: &mut Vec<Mend>) {
    let damaged: BTreeSet<FileName> = lost.iter().filter_map(|range| range.file).collect();
    let known: BTreeSet<FileName> = mends.iter().map(Mend::name).collect();
    mends.extend(damaged.difference(&known).map(|name| Mend::Keep(*name)));
}

/// What is whole and no part of the log any more is copied as well: it is unlinked.
fn keep_unlisted(directory: &DirectoryScan, (manifest, copies): (&Section, &[Stretch]), mends: &mut Vec<Mend>) {
    let listed = manifest.files.iter().chain(copies.iter().map(|copy| &copy.source));
    let known: BTreeSet<FileName> = listed.map(SegmentInfo::name).chain(mends.iter().map(Mend::name)).collect();
    let is_retired = |seen: &SegmentSeen| {
        let base = seen.start.as_ref().map(|start| start.base);
        let is_within = |(from, to): &(Lsn, Lsn)| base.is_some_and(|base| *from <= base && base < *to);
        Class::EACH.into_iter().all(|class| manifest.retired.of(class).iter().any(is_within))
    };
    let all = directory.segments.iter().chain(&directory.of_classes);
    let unlisted = all.filter(|seen| seen.start.is_some() && !is_retired(seen)).map(SegmentSeen::name);
    mends.extend(unlisted.filter(|name| !known.contains(name)).map(Mend::Keep));
}

/// Where the epochs of what is left began.
fn epochs_of(manifest: &Section, candidates: &[Candidate], left: &Left, end: Lsn) -> Vec<(Lsn, Epoch)> {
    let mut epochs = manifest.epochs.clone();
    for candidate in candidates.iter().filter(|candidate| left.pieces.iter().any(|piece| piece.is_of(candidate))) {
        candidate.info.epochs.iter().filter(|(from, _)| *from < end).for_each(|epoch| note_epoch(&mut epochs, *epoch));
    }
    if epochs.first().is_none_or(|(from, _)| *from > Lsn(0)) && manifest.epochs.is_empty() {
        // What came before the first file that is left belongs to no later one.
        epochs.insert(0, (Lsn(0), Epoch::of(0, 1)));
    }
    epochs
}

/// What slots and files tell together: a slot may be an old one, or there is none, and then another secret has to be drawn.
fn slot_as_told(directory: &DirectoryScan, disk: &dyn Disk) -> Slot {
    let told = directory.slot().map(|slot| slot.newest_segment);
    let slot = directory.slot().unwrap_or_else(|| Slots::drawn(disk));
    let segments = directory.segments.iter().map(|seen| seen.header.number);
    let checkpoints = directory.checkpoints.iter().map(|seen| seen.header.number);
    Slot {
        epoch: highest_epoch(directory, &[]).max(slot.epoch),
        clean: false,
        // What a slot does not tell of may have no header yet, and gets one from the process that goes on.
        newest_segment: told.unwrap_or_else(|| segments.max().unwrap_or(FileNumber(0))),
        newest_checkpoint: checkpoints.max().unwrap_or(FileNumber(0)).max(slot.newest_checkpoint),
        ..slot
    }
}

/// Takes segments without a header for what the checkpoint's list says of them. Of others nothing is known.
fn mend_headers(
    directory: &mut DirectoryScan,
    handles: &Handles,
    (section, begun): (&Section, Option<FileNumber>),
    (mends, lost): (&mut Vec<Mend>, &mut Vec<LostRange>),
) -> Result<(), OpenError> {
    let Some(uuid) = directory.uuid else { return Ok(()) };
    let names: Vec<FileName> = directory.names.clone();
    for name in names {
        let (FileName::Segment(number) | FileName::Messages(number) | FileName::DeadLetters(number)) = name else {
            continue;
        };
        let is_seen = |seen: &SegmentSeen| seen.name() == name;
        // What was being made when the process died has no header yet, and holds nothing.
        let is_unfinished = begun.is_some_and(|begun| number > begun);
        if is_unfinished || directory.segments.iter().chain(&directory.of_classes).any(is_seen) {
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
                // seam: what is lost is not retired
                manifest.retired.add(Classes::of(class), at, to);
            }
            at = at.max(to);
        }
    }
    lost
}
