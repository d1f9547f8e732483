//! Which segment holds the log at an LSN, and the walk from frame to frame up to the first that does not validate.
//!
//! Two rules decide between segments that claim the same LSNs: where an epoch begins, every segment of an earlier epoch ends; and of
//! one epoch the one that begins later counts, or else has the higher number, as a copy has. Files of a class are never walked.
//! Reads only. Never here: what to do about the end.

use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::control::ControlFrame;
use crate::log::format::header::{FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::Handles;
use crate::log::recover::directory::DirectoryScan;
use std::collections::BTreeMap;

/// A segment that may hold part of the log. `info.end` is where it must end at the latest.
#[derive(Clone, Debug)]
pub(in crate::log) struct Candidate {
    pub(in crate::log) info: SegmentInfo,
    /// The length of the file, as far as it may hold frames.
    pub(in crate::log) len: u64,
}

impl Candidate {
    pub(in crate::log) const fn name(&self) -> FileName {
        self.info.name()
    }

    fn holds(&self, lsn: Lsn) -> bool {
        self.info.base <= lsn && lsn < self.info.end
    }

    /// The place of the frame at `lsn`.
    pub(in crate::log) fn place(&self, lsn: Lsn) -> u64 {
        (HEADER_LEN as u64).saturating_add(lsn.0.saturating_sub(self.info.base.0))
    }
}

/// The segments that may hold the log from `from` on. `listed` are the files that the checkpoint lists. Another copy counts only if
/// it begins there and ends below `proven`: a slot or a segment tells of it then, and before that it may lie in the page cache alone,
/// so that nothing may depend on it and its source is still whole.
pub(in crate::log) fn candidates(
    directory: &DirectoryScan,
    listed: &[SegmentInfo],
    from: Lsn,
    proven: Lsn,
) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let appended = listed.iter().filter(|info| info.kind == FileKind::Appended);
    let listings: BTreeMap<FileNumber, &SegmentInfo> = appended.map(|info| (info.number, info)).collect();
    for seen in &directory.segments {
        let manifest = listings.get(&seen.header.number).copied();
        let info = match (manifest, seen.info()) {
            // A listed segment needs no first frame: the list has what that would tell.
            // Only the segment that was appended to when the checkpoint was taken goes on behind it.
            (Some(manifest), _) if manifest.end == from => SegmentInfo { end: seen.end_max(), ..manifest.clone() },
            (Some(manifest), _) => manifest.clone(),
            // seam: an unproven copy counts
            (None, Some(info)) if seen.header.is_copy() && (info.base < from || info.end > proven) => continue,
            (None, Some(info)) => info,
            (None, None) => continue,
        };
        let frames_end = (HEADER_LEN as u64).saturating_add(seen.end_max().0.saturating_sub(info.base.0));
        candidates.push(Candidate { info, len: seen.len.min(frames_end) });
    }
    cut_at_epochs(&mut candidates, listed);
    candidates
}

/// The base LSN of the first segment of an epoch ends all segments of earlier epochs.
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
pub(in crate::log) struct Piece {
    pub(in crate::log) number: FileNumber,
    pub(in crate::log) from: Lsn,
    pub(in crate::log) to: Lsn,
}

/// What the walk met.
#[derive(Debug)]
pub(in crate::log) struct Walk {
    pub(in crate::log) pieces: Vec<Piece>,
    /// The first LSN that does not validate.
    pub(in crate::log) end: Lsn,
    /// The end of the last frame that says something.
    pub(in crate::log) facts_end: Lsn,
    /// The ends of the frames behind that one.
    idle_ends: Vec<Lsn>,
    /// The highest watermark in a valid frame.
    pub(in crate::log) watermark: Lsn,
    /// Control frames that change which files belong to it, with their ends.
    pub(in crate::log) changes: Vec<(Lsn, ControlFrame)>,
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
    pub(in crate::log) fn can_end_from(&self, watermark: Lsn) -> bool {
        watermark <= self.facts_end || watermark > self.end || self.idle_ends.contains(&watermark)
    }
}

/// Walks the log from `from` on.
pub(in crate::log) fn walk(candidates: &[Candidate], handles: &Handles, from: Lsn) -> Result<Walk, OpenError> {
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

/// The segment that holds the log at the walk's end, and the LSN at which the choice must be made anew. A segment that the walk
/// has left is not entered again, and none is entered in its middle, but where the walk begins: what it holds before that would be taken
/// in a second time.
fn choose<'a>(candidates: &'a [Candidate], walk: &Walk) -> Option<(&'a Candidate, Lsn)> {
    let at = walk.end;
    let unvisited = |candidate: &&Candidate| !walk.pieces.iter().any(|piece| piece.number == candidate.info.number);
    // seam: a segment is entered in its middle
    let is_first = walk.pieces.is_empty();
    let enters = |candidate: &&Candidate| is_first || candidate.info.base == at;
    let holding = candidates.iter().filter(|candidate| candidate.holds(at)).filter(unvisited).filter(enters);
    // seam: the source counts, and not its copy
    let chosen = holding.max_by_key(|held| (held.info.last_epoch(), held.info.base, held.info.number))?;
    let overrides = |other: &&Candidate| {
        let info = &other.info;
        info.base > at && info.end > info.base && info.last_epoch() == chosen.info.last_epoch()
    };
    let next = candidates.iter().filter(overrides).map(|other| other.info.base).min();
    Some((chosen, chosen.info.end.min(next.unwrap_or(Lsn(u64::MAX)))))
}

/// Walks one segment from the walk's end up to `stop` or to the first frame that does not validate.
fn read_piece(candidate: &Candidate, handles: &Handles, stop: Lsn, walk: &mut Walk) -> Result<(), OpenError> {
    let name = candidate.name();
    let file = handles.get(name).map_err(OpenError::io("open", name))?;
    let info = &candidate.info;
    let lsns = Lsns::Placed { base: info.base };
    let mut frames = Frames::new(file, info.salt, lsns, candidate.place(walk.end), candidate.len);
    while let Next::Frame(frame) = frames.next().map_err(OpenError::io("read", name))? {
        let end = frame.lsn.saturating_add(u64::from(frame.padded()));
        if end > stop {
            break;
        }
        walk.watermark = walk.watermark.max(frame.watermark.unwrap_or(Lsn(0)));
        let idle = frame.is_log() && note_control(end, frame.head(), &name, frame.at, walk)?;
        walk.reach(end, !idle);
    }
    Ok(())
}

/// Takes note of a control frame; says whether it could as well not be there.
fn note_control(end: Lsn, head: &[u8], name: &FileName, at: u32, walk: &mut Walk) -> Result<bool, Corruption> {
    let control = ControlFrame::decode(head)
        .ok_or_else(|| Corruption::of(*name, Some(u64::from(at)), "a control frame that this version does not know"))?;
    if !control.is_idle() {
        walk.changes.push((end, control));
    }
    Ok(control.is_idle())
}
