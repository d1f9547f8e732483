//! Finding the facts: the directory, the newest checkpoint, and every frame behind it.
//!
//! Reads only. A read that fails fails the scan: it never means that something is not valid. Never here: the verdict.

use super::chain::{self, Candidate, Walk};
use super::error::OpenError;
use super::evidence::{self, Evidence};
use super::handles::Handles;
use super::header::FileKind;
use super::listing::{Listing, continue_with};
use super::name::FileName;
use super::recovery::{Conditions, Facts};
use super::store_file::Slot;
use super::survey::{CheckpointLoaded, Survey};
use crate::disk::Disk;
use crate::ids::{Epoch, FileNumber, Lsn};

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) survey: Survey,
    pub(super) slot: Slot,
    pub(super) checkpoint: Option<CheckpointLoaded>,
    /// Checkpoints that lay there but were not whole, though a slot or a header says that they had been.
    pub(super) checkpoints_damaged: usize,
    pub(super) facts: Facts,
    pub(super) evidence: Evidence,
    /// A slot says that the log was closed at its end, and nothing contradicts.
    pub(super) clean: bool,
}

pub(super) fn scan(disk: &dyn Disk, handles: &Handles) -> Result<Scanned, OpenError> {
    let mut survey = Survey::read(disk, handles)?;
    let checkpoints_seen = survey.checkpoints.len();
    let checkpoint = survey.load_checkpoint(handles)?;
    let checkpoints_damaged = checkpoints_seen - survey.checkpoints.len();
    let slot = survey.slot().unwrap_or_default();
    let facts = first_facts(&survey, slot, checkpoint.is_some());
    let mut scanned =
        Scanned { survey, slot, checkpoint, checkpoints_damaged, facts, evidence: Evidence::default(), clean: false };
    let Conditions { identified, named, slotted, newest, checkpointed, .. } = scanned.facts.conditions;
    if identified && named && slotted && newest && checkpointed {
        scanned.read_log(handles)?;
    }
    Ok(scanned)
}

/// What is known before any frame is read; the rest as if there were no frame.
fn first_facts(survey: &Survey, slot: Slot, checkpoint_whole: bool) -> Facts {
    let conditions = Conditions {
        identified: survey.uuid.is_some(),
        others: !survey.names.is_empty(),
        named: survey.misnamed.is_none(),
        slotted: survey.slot().is_some(),
        newest: slot.newest_segment == FileNumber(0) || survey.segment(slot.newest_segment).is_some(),
        checkpointed: slot.newest_checkpoint == FileNumber(0) || checkpoint_whole,
        listed: false,
        intact: false,
        unproven: false,
    };
    Facts {
        conditions,
        misnamed: survey.misnamed,
        newest_segment: slot.newest_segment,
        newest_checkpoint: slot.newest_checkpoint,
        list_fault: None,
        valid_end: Lsn(0),
        watermark: slot.watermark,
        stop: None,
        proven: Vec::new(),
        suffix: Vec::new(),
        uncertain: Vec::new(),
        end: Lsn(0),
        retired: Vec::new(),
        epoch: Epoch(0),
    }
}

impl Scanned {
    fn read_log(&mut self, handles: &Handles) -> Result<(), OpenError> {
        let (covers, section) = match &self.checkpoint {
            Some(checkpoint) => (checkpoint.covers, checkpoint.section.clone()),
            None => (Lsn(0), super::checkpoint::Section::default()),
        };
        let candidates = chain::candidates(&self.survey, &section.files, covers);
        let walk = chain::walk(&candidates, handles, covers)?;
        let built = self.survey.segments.iter().filter(|seen| seen.header.kind == FileKind::Built);
        let proven_by_files = built.map(|seen| seen.header.to).max().unwrap_or(Lsn(0)).max(covers);
        let watermark = self.slot.watermark.max(walk.watermark).max(proven_by_files);
        self.facts.epoch = self.highest_epoch(&section.files);
        self.clean = self.slot.clean
            && self.survey.slots.iter().all(Option::is_some)
            && self.facts.epoch == self.slot.epoch
            && walk.end == self.slot.watermark
            && watermark == self.slot.watermark;
        if self.clean {
            self.evidence.stop =
                evidence::last_begun(&candidates, walk.end).map(|last| (last.info.number, last.place(walk.end)));
        } else {
            self.evidence = evidence::gather(&self.survey, &candidates, handles, &walk)?;
        }
        let watermark = watermark.max(self.evidence.watermark);
        let mut listing = Listing { files: section.files, retired: section.retired };
        for (lsn, own) in &walk.changes {
            if *lsn < watermark.max(walk.facts_end) {
                listing.change(*own, &self.survey);
            }
        }
        self.conclude(watermark, covers, listing, &candidates, &walk);
        Ok(())
    }

    fn conclude(&mut self, watermark: Lsn, covers: Lsn, listing: Listing, candidates: &[Candidate], walk: &Walk) {
        let facts = &mut self.facts;
        facts.list_fault = listing.check(&self.survey, covers).err();
        facts.conditions.listed = facts.list_fault.is_none();
        facts.conditions.intact = walk.end >= watermark;
        facts.conditions.unproven = facts.conditions.intact && walk.facts_end > watermark;
        facts.valid_end = walk.end;
        facts.watermark = watermark;
        facts.end = watermark.max(walk.facts_end);
        facts.stop = self.evidence.stop;
        facts.proven = listing.files;
        facts.retired = listing.retired;
        facts.suffix = continue_with(&mut facts.proven, &walk.pieces, candidates, watermark, facts.end);
        // Until a slot tells of them, files built whole may be in the page cache alone.
        let built = facts.proven.iter().filter(|file| file.kind == FileKind::Built && file.end > self.slot.watermark);
        facts.uncertain = built.map(|file| FileName::Segment(file.number)).collect();
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(|found| found.number > self.slot.newest_checkpoint) {
            facts.uncertain.push(FileName::Checkpoint(checkpoint.number));
        }
    }

    fn highest_epoch(&self, listed: &[super::segment::SegmentInfo]) -> Epoch {
        let of_slots = self.survey.slots.iter().flatten().map(|slot| slot.epoch);
        let of_files = self.survey.segments.iter().filter_map(|seen| seen.start.as_ref()).flat_map(|(_, runs)| runs);
        let of_list = listed.iter().flat_map(|file| &file.epochs);
        of_slots.chain(of_files.chain(of_list).map(|(_, epoch)| *epoch)).max().unwrap_or(Epoch(0))
    }
}
