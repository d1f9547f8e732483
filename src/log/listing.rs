//! The files that make up the log: what the checkpoint lists, changed by frames behind it, continued by what the walk met.
//!
//! Pure: compares lists with what the survey saw. Never here: I/O.

use super::catalog::merge_range;
use super::chain::{Candidate, Piece};
use super::checkpoint::Section;
use super::error::Corruption;
use super::header::FileKind;
use super::name::FileName;
use super::own::OwnFrame;
use super::recovery::Stretch;
use super::segment::SegmentInfo;
use super::survey::{SegmentSeen, Survey};
use crate::ids::{Epoch, Lsn};

impl Section {
    /// Applies what a frame of the log's own says.
    pub(super) fn change(&mut self, own: OwnFrame, survey: &Survey) {
        match own {
            OwnFrame::SegmentStart | OwnFrame::Mark => {}
            OwnFrame::RangeRetired { from, to } => {
                self.files.retain(|file| file.base < from || file.end > to);
                merge_range(&mut self.retired, from, to);
            }
            OwnFrame::FileAdded { number, from, to, generation, salt } => {
                self.files.retain(|file| file.base < from || file.end > to);
                // An absent file keeps its entry, for the check to find unless it is retired later.
                let seen = survey.segment(number);
                let told = SegmentInfo {
                    number,
                    kind: FileKind::Built,
                    salt,
                    generation,
                    base: from,
                    end: to,
                    body_len: seen.map_or(0, |seen| seen.header.body_len),
                    epochs: vec![(from, Epoch(0))],
                };
                let epochs = seen.and_then(|seen| seen.start.clone()).map_or(told.epochs.clone(), |start| start.epochs);
                self.files.push(SegmentInfo { epochs, ..told });
                self.files.sort_by_key(|file| file.base);
            }
        }
    }

    /// Whether every file is there, is what the list says and long enough, and all below `covers` is accounted for.
    pub(super) fn check(&self, survey: &Survey, covers: Lsn) -> Result<(), Corruption> {
        for file in &self.files {
            let reason = match survey.segment(file.number) {
                None => Some("a listed file is absent or has no valid header"),
                Some(seen) if !is_same(file, seen) => Some("a listed file is another one"),
                Some(seen) if file.limit().is_none_or(|limit| limit > seen.len) => Some("a listed file is too short"),
                Some(_) => None,
            };
            if let Some(reason) = reason {
                let lsns = Some((file.base, file.end));
                return Err(Corruption { lsns, ..Corruption::of(FileName::Segment(file.number), None, reason) });
            }
        }
        let tiled = self.tiles(covers);
        if tiled { Ok(()) } else { Err(Corruption::of(FileName::Store, None, "the checkpoint's list leaves a gap")) }
    }
}

fn is_same(file: &SegmentInfo, seen: &SegmentSeen) -> bool {
    let header = &seen.header;
    let same = file.kind == header.kind && file.salt == header.salt && file.generation == header.generation;
    let range_agrees = match file.kind {
        FileKind::Appended => seen.start.as_ref().is_none_or(|start| start.base == file.base),
        _ => file.base == header.from && file.end <= header.to && file.body_len == header.body_len,
    };
    same && range_agrees
}

/// Adds the pieces of the walk up to `watermark` to `files`, and returns those from there to `end`, which are to be copied.
pub(super) fn continue_with(
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
            // Only the last listed file goes on behind the checkpoint.
            match files.last_mut().filter(|file| file.number == piece.number) {
                Some(file) => file.end = proven_to,
                None => files.push(SegmentInfo { end: proven_to, ..candidate.info.clone() }),
            }
        }
        let (from, to) = (piece.from.max(watermark), piece.to.min(end));
        if from < to {
            let overlapping = candidates.iter().filter(|other| other.info.base < to && from < other.info.end);
            let generation = overlapping.map(|other| other.info.generation).max().unwrap_or(0).saturating_add(1);
            suffix.push(Stretch { source: SegmentInfo { end: to, ..candidate.info.clone() }, from, to, generation });
        }
    }
    suffix
}
