//! The files that make up the log: what the checkpoint lists, changed by frames behind it, continued by what the walk met.
//!
//! Pure: compares lists with what the directory scan saw. Never here: I/O.

use crate::ids::{Epoch, Lsn};
use crate::log::error::Corruption;
use crate::log::format::checkpoint::Section;
use crate::log::format::class::Classes;
use crate::log::format::control::ControlFrame;
use crate::log::format::header::FileKind;
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::recover::chain::{Candidate, Piece};
use crate::log::recover::directory::{DirectoryScan, SegmentSeen};
use crate::log::recover::plan::Stretch;

impl Section {
    /// Applies what a control frame says. `covers` is what the checkpoint covers: what stands above is replaced by nothing.
    pub(in crate::log) fn change(
        &mut self,
        control: ControlFrame,
        directory: &DirectoryScan,
        covers: Lsn,
    ) -> Result<(), Corruption> {
        match control {
            ControlFrame::SegmentStart | ControlFrame::Mark => {}
            ControlFrame::RangeRetired { from, to, classes } => {
                self.leave(classes, from, to);
                self.retired.add(classes, from, to);
            }
            ControlFrame::FileAdded { number, from, to, generation, salt, class } => {
                let (kind, serves) = (FileKind::of(class), Classes::of(class));
                // seam: a file is added above the checkpoint
                if to > covers {
                    let reason = "a file was added for what no checkpoint covers";
                    return Err(Corruption {
                        lsns: Some((from, to)),
                        ..Corruption::of(kind.name(number), None, reason)
                    });
                }
                self.leave(serves, from, to);
                // An absent file keeps its entry, for the check to find unless it is retired later.
                let seen = directory.seen(kind, number);
                let told = seen.and_then(|seen| seen.start.as_ref()).map(|start| start.epochs.clone());
                self.files.push(SegmentInfo {
                    number,
                    kind,
                    salt,
                    generation,
                    base: from,
                    end: to,
                    body_len: seen.map_or(0, |seen| seen.header.body_len),
                    epochs: told.unwrap_or_else(|| vec![(from, UNKNOWN)]),
                    serves,
                });
                self.files.sort_by_key(|file| (file.base, file.number));
            }
        }
        Ok(())
    }

    /// Looks for these classes in no file within the range any more.
    fn leave(&mut self, classes: Classes, from: Lsn, to: Lsn) {
        for file in self.files.iter_mut().filter(|file| file.base >= from && file.end <= to) {
            file.serves = file.serves.without(classes);
        }
        self.files.retain(|file| !file.serves.is_empty());
    }

    /// Whether every file is there, is what the list says and long enough, and all below `covers` is accounted for.
    pub(in crate::log) fn check(&self, directory: &DirectoryScan, covers: Lsn) -> Result<(), Corruption> {
        let wrong = |file: &SegmentInfo, reason| {
            let lsns = Some((file.base, file.end));
            Err(Corruption { lsns, ..Corruption::of(file.name(), None, reason) })
        };
        for file in &self.files {
            match directory.seen(file.kind, file.number) {
                None => return wrong(file, "a listed file is absent or has no valid header"),
                Some(seen) if !is_same(file, seen) => return wrong(file, "a listed file is another one"),
                Some(seen) if file.limit().is_none_or(|limit| limit > seen.len) => {
                    return wrong(file, "a listed file is too short");
                }
                Some(_) if file.epochs.iter().any(|(_, epoch)| *epoch == UNKNOWN) => {
                    return wrong(file, "a file whose epochs are not known");
                }
                Some(_) => {}
            }
        }
        if let Some(file) = self.overlapping() {
            return wrong(file, "a file that lies over another of its class");
        }
        let store = |reason| Err(Corruption::of(FileName::Store, None, reason));
        match (self.tiles(covers), self.tells_epochs(covers)) {
            (true, true) => Ok(()),
            (false, _) => store("the checkpoint's list leaves a gap"),
            (true, false) => store("the checkpoint's list lacks epochs"),
        }
    }
}

/// Whether a file is there, is what the list says, and its epochs are known.
pub(in crate::log) fn is_there(file: &SegmentInfo, directory: &DirectoryScan) -> bool {
    let is_known = file.epochs.iter().all(|(_, epoch)| *epoch != UNKNOWN);
    is_known && directory.seen(file.kind, file.number).is_some_and(|seen| is_same(file, seen))
}

/// In place of what a damaged table would tell: no process has it.
const UNKNOWN: Epoch = Epoch(0);

fn is_same(file: &SegmentInfo, seen: &SegmentSeen) -> bool {
    let header = &seen.header;
    let agrees = match file.kind {
        FileKind::Appended => seen.start.as_ref().is_none_or(|start| start.base == file.base),
        FileKind::Messages | FileKind::DeadLetters | FileKind::Checkpoint => {
            let same_range = file.base == header.from && file.end == header.to;
            same_range && file.body_len == header.body_len && file.generation == header.generation
        }
    };
    file.salt == header.salt && agrees
}

/// Adds the pieces of the walk up to `watermark` to `files`, and returns those from there to `end`, which are to be copied.
pub(in crate::log) fn continue_with(
    files: &mut Vec<SegmentInfo>,
    pieces: &[Piece],
    candidates: &[Candidate],
    watermark: Lsn,
    end: Lsn,
) -> Vec<Stretch> {
    // seam: served and not durable
    let mut suffix = Vec::new();
    for piece in pieces {
        let Some(candidate) = candidates.iter().find(|candidate| candidate.info.number == piece.number) else {
            continue;
        };
        let proven_to = piece.to.min(watermark);
        if piece.from < proven_to {
            // Only the last listed segment goes on behind the checkpoint.
            let is_piece = |file: &&mut SegmentInfo| file.kind == FileKind::Appended && file.number == piece.number;
            match files.iter_mut().find(is_piece) {
                Some(file) => file.end = proven_to,
                None => files.push(SegmentInfo { end: proven_to, ..candidate.info.clone() }),
            }
        }
        let (from, to) = (piece.from.max(watermark), piece.to.min(end));
        if from < to {
            suffix.push(Stretch { source: SegmentInfo { end: to, ..candidate.info.clone() }, from, to });
        }
    }
    suffix
}
