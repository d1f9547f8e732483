//! Which file holds the log at an LSN, and the walk from frame to frame up to the first that does not validate.
//!
//! Two rules decide between files that claim the same LSNs: of built files the higher generation wins, and over appended
//! ones; and where an epoch begins, every file of an earlier epoch ends. Reads only. Never here: what to do about the end.

use super::error::{Corruption, OpenError};
use super::frames::{Frames, Lsns, Next};
use super::handles::Handles;
use super::header::{FileKind, HEADER_LEN};
use super::name::FileName;
use super::own::OwnFrame;
use super::segment::SegmentInfo;
use super::survey::Survey;
use crate::ids::{Epoch, FileNumber, Lsn};
use std::collections::BTreeMap;

/// A file that may hold part of the log. `info.end` is where it must end at the latest.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) info: SegmentInfo,
    /// The length of the file.
    pub(super) len: u64,
}

impl Candidate {
    pub(super) const fn name(&self) -> FileName {
        FileName::Segment(self.info.number)
    }

    pub(super) fn is_built(&self) -> bool {
        self.info.kind == FileKind::Built
    }

    fn holds(&self, lsn: Lsn) -> bool {
        self.info.base <= lsn && lsn < self.info.end
    }

    /// The place of the frame at `lsn` in an appended segment.
    pub(super) fn place(&self, lsn: Lsn) -> u64 {
        (HEADER_LEN as u64).saturating_add(lsn.0.saturating_sub(self.info.base.0))
    }
}

/// The files that may hold the log from `from` on. `listed` are those that the checkpoint lists. Another built file counts
/// only if it begins there and ends below `proven`: a slot or a segment tells of it then, and before that it may lie in the
/// page cache alone, so that nothing may depend on it and its sources are still whole.
pub(super) fn candidates(survey: &Survey, listed: &[SegmentInfo], from: Lsn, proven: Lsn) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let listings: BTreeMap<FileNumber, &SegmentInfo> = listed.iter().map(|info| (info.number, info)).collect();
    for seen in &survey.segments {
        let listing = listings.get(&seen.header.number).copied();
        let info = match (seen.header.kind, listing, seen.info()) {
            // A listed segment needs no first frame: the list has what that would tell.
            // Only the file that was appended to when the checkpoint was taken goes on behind it.
            (FileKind::Appended, Some(listing), _) if listing.end == from => {
                SegmentInfo { end: Lsn(u64::MAX), ..listing.clone() }
            }
            (FileKind::Appended, Some(listing), _) => listing.clone(),
            // A built file that was left early for another one ends there.
            (FileKind::Built, Some(listing), Some(_)) if listing.end < from => listing.clone(),
            // seam: an unproven copy counts
            (FileKind::Built, None, Some(info)) if info.base < from || info.end > proven => continue,
            (_, _, Some(info)) => info,
            (_, _, None) => continue,
        };
        candidates.push(Candidate { info, len: seen.len });
    }
    cut_at_epochs(&mut candidates, listed);
    candidates
}

/// The base LSN of the first segment of an epoch ends all files of earlier epochs.
fn cut_at_epochs(candidates: &mut [Candidate], listed: &[SegmentInfo]) {
    let of_candidates = candidates.iter().map(|candidate| &candidate.info);
    let mut starts: Vec<(Epoch, Lsn)> =
        of_candidates.chain(listed).flat_map(|info| &info.epochs).map(|(lsn, epoch)| (*epoch, *lsn)).collect();
    starts.sort_unstable();
    // From the last epoch down: each start becomes the least LSN at which it or a later epoch begins.
    let mut least = Lsn(u64::MAX);
    for (_, lsn) in starts.iter_mut().rev() {
        least = least.min(*lsn);
        *lsn = least;
    }
    for candidate in candidates {
        let last = candidate.info.last_epoch();
        let later = starts.partition_point(|(epoch, _)| *epoch <= last);
        let cut = starts.get(later).map_or(Lsn(u64::MAX), |(_, lsn)| *lsn);
        // seam: a stale segment is valid
        candidate.info.end = candidate.info.end.min(cut);
    }
}

/// A stretch of the log in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) number: FileNumber,
    pub(super) from: Lsn,
    pub(super) to: Lsn,
}

/// What the walk met.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) pieces: Vec<Piece>,
    /// The first LSN that does not validate.
    pub(super) end: Lsn,
    /// The end of the last frame that says something.
    pub(super) facts_end: Lsn,
    /// The ends of the frames behind that one.
    idle_ends: Vec<Lsn>,
    /// The highest watermark in a valid frame.
    pub(super) watermark: Lsn,
    /// The log's own frames that change which files belong to it, with their LSNs.
    pub(super) changes: Vec<(Lsn, OwnFrame)>,
}

impl Walk {
    /// Goes on to `end`. Whether what ends there `says` something decides what may be dropped.
    fn reach(&mut self, end: Lsn, says: bool) {
        self.end = end;
        if says {
            self.facts_end = end;
            self.idle_ends.clear();
        } else {
            self.idle_ends.push(end);
        }
    }

    /// Whether a log that is valid up to `watermark` can end at it or behind it: no frame is cut then.
    pub(super) fn can_end_from(&self, watermark: Lsn) -> bool {
        watermark <= self.facts_end || watermark > self.end || self.idle_ends.contains(&watermark)
    }
}

/// Walks the log from `from` on.
pub(super) fn walk(candidates: &[Candidate], handles: &Handles, from: Lsn) -> Result<Walk, OpenError> {
    let mut walk = Walk {
        pieces: Vec::new(),
        end: from,
        facts_end: from,
        idle_ends: Vec::new(),
        watermark: Lsn(0),
        changes: Vec::new(),
    };
    while let Some((candidate, stop)) = choose(candidates, &walk) {
        let start = walk.end;
        read_piece(candidate, handles, stop, &mut walk)?;
        if walk.end == start {
            break;
        }
        walk.pieces.push(Piece { number: candidate.info.number, from: start, to: walk.end });
    }
    Ok(walk)
}

/// The file that holds the log at the walk's end, and the LSN at which the choice must be made anew. A file that the walk
/// has left is not entered again.
fn choose<'a>(candidates: &'a [Candidate], walk: &Walk) -> Option<(&'a Candidate, Lsn)> {
    let at = walk.end;
    let unvisited = |candidate: &&Candidate| !walk.pieces.iter().any(|piece| piece.number == candidate.info.number);
    let holding = candidates.iter().filter(|candidate| candidate.holds(at)).filter(unvisited);
    let chosen = holding.max_by_key(|candidate| {
        let info = &candidate.info;
        (candidate.is_built(), info.generation, info.last_epoch(), info.base, info.number)
    })?;
    let (built, generation) = (chosen.is_built(), chosen.info.generation);
    let overrides = |other: &&Candidate| {
        other.info.base > at
            && other.info.end > other.info.base
            && match (other.is_built(), built) {
                (true, true) => other.info.generation > generation,
                (true, false) => true,
                (false, true) => false,
                (false, false) => other.info.last_epoch() == chosen.info.last_epoch(),
            }
    };
    let next = candidates.iter().filter(overrides).map(|other| other.info.base).min();
    Some((chosen, chosen.info.end.min(next.unwrap_or(Lsn(u64::MAX)))))
}

/// Walks one file from the walk's end up to `stop` or to the first frame that does not validate.
fn read_piece(candidate: &Candidate, handles: &Handles, stop: Lsn, walk: &mut Walk) -> Result<(), OpenError> {
    let name = candidate.name();
    let file = handles.get(name).map_err(OpenError::io("open", name))?;
    let info = &candidate.info;
    let start = walk.end;
    let built = candidate.is_built();
    let (lsns, at, limit) = if built {
        let limit = (HEADER_LEN as u64).saturating_add(info.body_len).min(candidate.len);
        (Lsns::Carried { next: info.base, to: info.end }, HEADER_LEN as u64, limit)
    } else {
        (Lsns::Placed { base: info.base }, candidate.place(start), candidate.len)
    };
    let mut frames = Frames::new(file, info.salt, lsns, at, limit);
    loop {
        match frames.next().map_err(OpenError::io("read", name))? {
            // A built file proves its own end, and whatever it holds was worth a copy.
            Next::End => {
                if built && limit >= (HEADER_LEN as u64).saturating_add(info.body_len) {
                    walk.reach(stop, true);
                }
                return Ok(());
            }
            Next::Invalid => return Ok(()),
            // The frame before this one reached to `stop`: in a built file nothing else tells where it ended.
            Next::Frame(frame) if frame.lsn >= stop => {
                walk.reach(walk.end.max(stop), built);
                return Ok(());
            }
            Next::Frame(frame) if frame.lsn < start => {}
            Next::Frame(frame) => {
                // In a built file the next frame tells where this one ended in the log.
                let end = if built { frame.lsn } else { frame.lsn.saturating_add(u64::from(frame.padded())) };
                if end > stop {
                    return Ok(());
                }
                walk.watermark = walk.watermark.max(frame.watermark.unwrap_or(Lsn(0)));
                let idle = frame.is_log() && note_own(frame.lsn, frame.head(), &candidate.name(), frame.at, walk)?;
                walk.reach(end, built || !idle);
            }
        }
    }
}

/// Takes note of a frame of the log's own; says whether it could as well not be there.
fn note_own(lsn: Lsn, head: &[u8], name: &FileName, at: u32, walk: &mut Walk) -> Result<bool, Corruption> {
    let own = OwnFrame::decode(head).ok_or_else(|| {
        Corruption::of(*name, Some(u64::from(at)), "a frame of the log's own that this version does not know")
    })?;
    if matches!(own, OwnFrame::FileAdded { .. } | OwnFrame::RangeRetired { .. }) {
        walk.changes.push((lsn, own));
    }
    Ok(own.is_idle())
}
