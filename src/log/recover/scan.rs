//! Finding the facts: the directory, the newest checkpoint, and every frame behind it.
//!
//! Reads only. A read that fails fails the scan: it never means that something is not valid. Never here: the verdict.

use crate::disk::Disk;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::checkpoint::{Section, note_epoch};
use crate::log::format::class::Retired;
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::format::store_file::Slot;
use crate::log::read::handles::Handles;
use crate::log::recover::chain::{self, Candidate, Walk};
use crate::log::recover::directory::{CheckpointLoaded, DirectoryScan};
use crate::log::recover::manifest::continue_with;
use crate::log::recover::plan::{Conditions, Facts};
use crate::log::recover::tail_scan::{self, TailScan};

/// What a scan found.
#[derive(Debug)]
pub(in crate::log) struct Scanned {
    pub(in crate::log) directory: DirectoryScan,
    pub(in crate::log) slot: Slot,
    pub(in crate::log) checkpoint: Option<CheckpointLoaded>,
    pub(in crate::log) facts: Facts,
    pub(in crate::log) tail_scan: TailScan,
    /// A slot says that the log was closed at its end, and nothing contradicts.
    pub(in crate::log) clean: bool,
}

/// What a directory holds. An observer, whose log is durable at least below `observed`, goes by what is certain: the slot that counts may
/// not be durable itself, and a recovery's copy rests on it.
pub(in crate::log) fn scan(disk: &dyn Disk, handles: &Handles, observed: Option<Lsn>) -> Result<Scanned, OpenError> {
    let mut directory = DirectoryScan::read(disk, handles)?;
    let checkpoint = directory.load_checkpoint(handles)?;
    let slot = directory.slot().unwrap_or_default();
    let facts = first_facts(&directory, slot, checkpoint.is_some());
    let mut scanned = Scanned { directory, slot, checkpoint, facts, tail_scan: TailScan::default(), clean: false };
    let Conditions { identified, slotted, headed, checkpointed, .. } = scanned.facts.conditions;
    if identified && slotted && headed && checkpointed {
        scanned.read_log(handles, observed)?;
    }
    Ok(scanned)
}

/// What is known before any frame is read; the rest as if there were no frame.
pub(in crate::log) fn first_facts(directory: &DirectoryScan, slot: Slot, checkpoint_whole: bool) -> Facts {
    // seam: a lost header goes unnoticed
    let headless = directory.headless().filter(|number| *number <= slot.newest_segment);
    let newest = slot.newest_segment == FileNumber(0) || directory.segment(slot.newest_segment).is_some();
    let conditions = Conditions {
        identified: directory.uuid.is_some(),
        others: !directory.names.is_empty(),
        slotted: directory.slot().is_some(),
        headed: newest && headless.is_none(),
        checkpointed: slot.newest_checkpoint == FileNumber(0) || checkpoint_whole,
        listed: false,
        intact: false,
        unproven: false,
    };
    Facts {
        conditions,
        newest_segment: slot.newest_segment,
        headless,
        newest_checkpoint: slot.newest_checkpoint,
        list_fault: None,
        valid_end: Lsn(0),
        watermark: slot.watermark,
        stop: None,
        proven: Vec::new(),
        suffix: Vec::new(),
        end: Lsn(0),
        retired: Retired::default(),
        epochs: Vec::new(),
        epoch: Epoch(0),
    }
}

impl Scanned {
    fn read_log(&mut self, handles: &Handles, observed: Option<Lsn>) -> Result<(), OpenError> {
        let (covers, section) = match &self.checkpoint {
            Some(checkpoint) => (checkpoint.covers, checkpoint.section.clone()),
            None => (Lsn(0), Section::default()),
        };
        let in_starts =
            self.directory.segments.iter().filter_map(|seen| seen.start.as_ref()).map(|start| start.watermark);
        let of_slots = |known: Lsn| Slot::certain_watermark(&self.directory.slots).max(known);
        let told = observed.map_or(self.slot.watermark, of_slots);
        // seam: the slot's watermark is not read
        let proven = in_starts.max().unwrap_or(Lsn(0)).max(told).max(covers);
        let candidates = chain::candidates(&self.directory, &section.files, covers, proven);
        let walk = chain::walk(&candidates, handles, covers)?;
        let watermark = walk.watermark.max(proven);
        self.facts.epoch = highest_epoch(&self.directory, &section.files);
        // Both slots are overwritten before a process appends: one that says clean is never an old one.
        self.clean = self.slot.clean
            && self.facts.epoch == self.slot.epoch
            && walk.end == self.slot.watermark
            && watermark == self.slot.watermark;
        if self.clean {
            self.tail_scan = tail_scan::clean(&candidates, &walk);
        } else {
            self.tail_scan = tail_scan::gather(&self.directory, &candidates, handles, &walk)?;
        }
        // seam: cut at the first bad frame
        let mut watermark = watermark.max(self.tail_scan.watermark);
        let (manifest, checked) = loop {
            // An observer goes by what is durable alone.
            let last = if observed.is_some() { watermark } else { watermark.max(walk.facts_end) };
            let (manifest, checked) = self.listed(&section, &walk, (covers, last));
            let next = walk.changes.iter().map(|(end, _)| *end).find(|end| *end > last);
            match next.filter(|_| observed.is_some() && checked.is_err()) {
                // What is missing is a file that was unlinked, which happens once the frame that takes it off the list is durable.
                Some(end) => watermark = end,
                None => break (manifest, checked),
            }
        };
        // A file that took the place of others has no epoch that the log did not have.
        let newest = self.facts.epoch;
        let beyond = manifest.files.iter().find(|file| file.epochs.iter().any(|(_, epoch)| *epoch > newest));
        let beyond =
            beyond.map(|file| Corruption::of(file.name(), None, "an epoch above that of every slot and segment"));
        self.facts.list_fault = checked.err().or(beyond);
        self.conclude(watermark, manifest, &candidates, &walk);
        Ok(())
    }

    /// The list of files as the frames that end at or below `last` change it, and whether all of them are there.
    fn listed(&self, section: &Section, walk: &Walk, (covers, last): (Lsn, Lsn)) -> (Section, Result<(), Corruption>) {
        let mut manifest = section.clone();
        let changes = walk.changes.iter().filter(|(end, _)| *end <= last);
        let changed =
            changes.map(|(_, control)| manifest.change(*control, &self.directory, covers)).fold(Ok(()), Result::and);
        let checked = changed.and_then(|()| manifest.check(&self.directory, covers));
        (manifest, checked)
    }

    fn conclude(&mut self, watermark: Lsn, manifest: Section, candidates: &[Candidate], walk: &Walk) {
        let facts = &mut self.facts;
        if !walk.can_end_from(watermark) {
            facts.list_fault = Some(Corruption::of(FileName::Store, None, "the watermark lies within a frame"));
        }
        facts.conditions.listed = facts.list_fault.is_none();
        facts.conditions.intact = walk.end >= watermark;
        facts.conditions.unproven = facts.conditions.intact && walk.facts_end > watermark;
        facts.valid_end = walk.end;
        facts.watermark = watermark;
        facts.end = watermark.max(walk.facts_end);
        facts.stop = self.tail_scan.stop;
        facts.proven = manifest.files;
        facts.retired = manifest.retired;
        facts.epochs = manifest.epochs;
        // What a segment holds beyond the end is dropped, and with it an epoch that said nothing.
        // seam: epochs behind the checkpoint are forgotten
        for piece in walk.pieces.iter().filter(|piece| piece.from < facts.end) {
            let begun = candidates.iter().find(|candidate| candidate.info.number == piece.number);
            begun
                .into_iter()
                .flat_map(|begun| &begun.info.epochs)
                .for_each(|epoch| note_epoch(&mut facts.epochs, *epoch));
        }
        facts.suffix = continue_with(&mut facts.proven, &walk.pieces, candidates, watermark, facts.end);
    }
}

/// The highest epoch that slots, segments and a checkpoint's list tell of.
pub(in crate::log) fn highest_epoch(directory: &DirectoryScan, listed: &[SegmentInfo]) -> Epoch {
    let of_slots = directory.slots.iter().flatten().map(|slot| slot.epoch);
    let of_files = directory.segments.iter().filter_map(|seen| seen.start.as_ref()).flat_map(|start| &start.epochs);
    let of_list = listed.iter().flat_map(|file| &file.epochs);
    of_slots.chain(of_files.chain(of_list).map(|(_, epoch)| *epoch)).max().unwrap_or(Epoch(0))
}
