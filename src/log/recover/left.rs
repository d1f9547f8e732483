//! What proves itself of a damaged log, behind the checkpoint.
//!
//! As the walk of an open, but a frame that does not validate ends nothing: the search goes on behind it. Reads only. Never here: where the
//! log ends, what becomes of the files.

use crate::ids::Lsn;
use crate::log::error::{Corruption, OpenError};
use crate::log::format::control::ControlFrame;
use crate::log::format::name::FileName;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::Handles;
use crate::log::recover::chain::{Candidate, Piece};
use crate::log::recover::repair::LostRange;

/// What is left of the log behind the checkpoint.
pub(super) struct Left {
    pub(super) pieces: Vec<Piece>,
    /// Stretches of valid frames, and the end of the last frame of each that says something.
    stretches: Vec<(Lsn, Lsn, Lsn)>,
    pub(super) holes: Vec<LostRange>,
    pub(super) changes: Vec<(Lsn, ControlFrame)>,
    pub(super) watermark: Lsn,
}

impl Piece {
    pub(super) fn is_of(&self, candidate: &Candidate) -> bool {
        self.number == candidate.info.number
    }
}

impl Left {
    pub(super) fn of(candidates: &[Candidate], handles: &Handles, from: Lsn) -> Result<Self, OpenError> {
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
        let live = || candidates.iter().filter(is_live).filter(unvisited);
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
                    // seam: a repair ends at the first damage
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
    pub(super) fn end(&self, watermark: Lsn) -> Lsn {
        let around = self.stretches.iter().find(|(from, to, _)| *from <= watermark && watermark <= *to);
        around.map_or(watermark, |(_, _, facts_end)| watermark.max(*facts_end))
    }

    /// Nothing behind `end` counts.
    pub(super) fn cut(&mut self, end: Lsn) {
        self.pieces.retain(|piece| piece.from < end);
        self.pieces.iter_mut().for_each(|piece| piece.to = piece.to.min(end));
        self.holes.retain(|hole| hole.from < end);
        self.holes.iter_mut().for_each(|hole| hole.to = hole.to.min(end));
    }
}
