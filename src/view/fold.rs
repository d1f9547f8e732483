//! Replaying the log into a view when a store is opened or observed.
//!
//! The newest checkpoint is the state, and every frame after it is applied. Below it only places are wanted, and only where no index
//! file tells of them: damage there costs the messages that it hit, and not the open. Never here: what recovery found out before.

use super::follow::FrameAt;
use super::read::{MISPLACED, ReplayError, damaged, decode_frame, newer_format};
use super::share::{Share, class_of, share_of};
use super::visible::VisibleEnds;
use super::{Positions, View};
use crate::error::{Corruption, Error, Result};
use crate::ids::{Lsn, PartitionId, WallMs};
use crate::log::{self, Class, Contents, FileName, Met, OpenError, Segment};
use crate::record::Record;
use crate::record::wire::DecodeError;
use crate::state::{KnownVerdicts, LostRun, State, StreamTails};
use std::path::Path;
use std::sync::Arc;

/// The view while the log is replayed into it.
#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) view: View,
    /// What the checkpoint covers.
    pub(crate) from: Lsn,
    /// What the outstanding messages took at most in the checkpoint.
    pub(crate) outstanding_len: u64,
    /// How many records were replayed after it.
    pub(crate) records: u64,
    /// Of a damaged log what is left is replayed, and this is missing.
    missing: Option<Missing>,
}

/// What a damaged log does not tell any more.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Messages that are lost: partition, the first, and how many.
    pub(crate) messages: Vec<LostRun>,
    /// Records that say something of what is lost.
    pub(crate) records: u64,
    /// The latest time that a record told.
    wall: WallMs,
}

impl Fold {
    /// The whole log replayed. Changes nothing.
    ///
    /// # Errors
    /// `Corrupt`, `NewerFormat`, `Io`.
    pub(crate) fn of(contents: &Contents, durable_only: bool) -> Result<Self> {
        let mut fold = Self::start(contents, durable_only)?;
        fold.replay(contents)?;
        fold.view.positions.seal();
        fold.complete_holes();
        Ok(fold)
    }

    /// What is left of a damaged log replayed: what cannot be read is skipped, messages that are missing count as there, and a record
    /// that does not follow from what is left says nothing. Changes nothing.
    ///
    /// # Errors
    /// `NewerFormat`, `Io`; `Corrupt` where what is left contradicts itself.
    pub(crate) fn of_left(contents: &Contents, durable_only: bool) -> Result<(Self, Missing)> {
        let mut fold = Self { missing: Some(Missing::default()), ..Self::start(contents, durable_only)? };
        fold.replay(contents)?;
        fold.view.positions.seal();
        fold.complete_holes();
        let mut encoded = Vec::new();
        fold.view.state.snapshot().encode(&mut encoded);
        if !fold.view.state.check().is_empty() || State::decode(&encoded).is_err() {
            return Err(contradiction(contents, "what is left of the log contradicts itself"));
        }
        let missing = fold.missing.take().unwrap_or_default();
        Ok((fold, missing))
    }

    /// The checkpoint's state, or an empty one.
    fn start(contents: &Contents, durable_only: bool) -> Result<Self> {
        let (from, state) = match &contents.checkpoint {
            Some(checkpoint) => {
                let state = State::decode(&checkpoint.state).map_err(|error| match error {
                    DecodeError::Newer(newer) => newer_format(newer),
                    DecodeError::Truncated | DecodeError::BadNumber | DecodeError::Invalid(_) => {
                        contradiction(contents, "a state that cannot be decoded")
                    }
                });
                (checkpoint.covers, state?)
            }
            None => (Lsn(0), State::new()),
        };
        let (visible, outstanding_len) = (VisibleEnds::new(durable_only, &state), state.outstanding_len());
        // What this process does not append itself, the index tells.
        let streams = StreamTails::new(contents.end);
        let catalog = contents.catalog.clone();
        let view = View {
            state,
            catalog,
            positions: Positions::default(),
            visible,
            streams,
            verdicts: KnownVerdicts::default(),
        };
        Ok(Self { view, from, outstanding_len, records: 0, missing: None })
    }

    /// Applies every frame above the checkpoint to the state, and notes where messages stand that no index file tells of.
    fn replay(&mut self, contents: &Contents) -> Result<()> {
        // seam: only the newest segment is replayed
        for segment in contents.catalog.segments() {
            // An index file that cannot be read is as good as none: it is derived.
            let index = contents.indexes.open(segment).unwrap_or_default();
            let place = index.is_none();
            if place {
                self.view.positions.roll(segment.number());
            }
            let from = if place { segment.base() } else { self.from };
            if from < segment.end() {
                self.replay_segment(segment, from, self.from, place)?;
            }
            let Some(index) = index else { continue };
            let share = share_of(&self.view.state, segment);
            // Once its segment is replayed, the state knows of every partition in it that there ever was.
            if index.keys().iter().all(|key| share(PartitionId(key.key)) != Share::Impossible) {
                self.view.positions.set_indexed(segment.number(), index, share);
                continue;
            }
            drop(share);
            self.view.positions.roll(segment.number());
            self.replay_segment(segment, segment.base(), Lsn(u64::MAX), true)?;
        }
        Ok(())
    }

    /// Reads a segment from `from` on: applies the frames from `fold_from` on, and notes where all messages stand if `place`. Below
    /// the checkpoint only places are wanted: what does not prove itself there is skipped, as where an index file tells them.
    fn replay_segment(&mut self, segment: &Arc<Segment>, from: Lsn, fold_from: Lsn, place: bool) -> Result<()> {
        let mut records = Vec::new();
        let needed_from = if self.missing.is_some() { Lsn(u64::MAX) } else { self.from };
        log::for_each_left::<ReplayError>(segment, from, needed_from, &mut |met| {
            let frame = match met {
                Met::Frame(frame) => frame,
                Met::Hole(at) => {
                    if place {
                        self.view.positions.note_hole(at);
                    }
                    return Ok(());
                }
            };
            if frame.is_log() {
                return Ok(());
            }
            match self.replay_frame(segment, frame, fold_from, place, &mut records) {
                Err(failed) if frame.lsn >= fold_from && matches!(failed.0, Error::NewerFormat { .. }) => {
                    return Err(failed);
                }
                Err(failed) => match &mut self.missing {
                    Some(missing) if frame.lsn >= fold_from => missing.records += 1,
                    None if !place || frame.lsn >= needed_from => return Err(failed),
                    Some(_) | None => {}
                },
                Ok(()) => return Ok(()),
            }
            if place {
                self.view.positions.note_hole(frame.at);
            }
            Ok(())
        })
        .map_err(|failure| failure.0)
    }

    fn replay_frame(
        &mut self,
        segment: &Segment,
        frame: &log::Frame<'_>,
        fold_from: Lsn,
        place: bool,
        records: &mut Vec<Record>,
    ) -> Result<(), ReplayError> {
        decode_frame(segment, frame, records)?;
        // seam: replay from before the checkpoint
        if frame.lsn >= fold_from {
            self.records += records.len() as u64;
            // Positions are checked below, as those of older frames are.
            let at = FrameAt { lsn: frame.lsn, end: frame.lsn.saturating_add(frame.padded().into()), place: None };
            match &mut self.missing {
                Some(missing) => {
                    let epoch = segment.epoch_at(frame.lsn);
                    for record in records.iter() {
                        let told = record.claim().map(|claim| claim.time);
                        missing.wall = missing.wall.max(told.unwrap_or_default());
                        let when = (epoch, missing.wall);
                        let followed = self.view.follow_left(record, &at, when, &mut missing.messages);
                        missing.records += u64::from(followed.is_err());
                    }
                }
                None => {
                    let followed = self.view.follow(records, &at);
                    followed.map_err(|what| ReplayError(damaged(segment, frame, what.0)))?;
                }
            }
            // What recovery kept is durable.
            self.view.visible.advance(at.end, |_| ());
            drop(self.view.state.take_removed());
        }
        let share = share_of(&self.view.state, segment);
        if place && !self.view.positions.try_push_all(records, segment.number(), frame.at, &share) {
            return Err(ReplayError(damaged(segment, frame, MISPLACED)));
        }
        Ok(())
    }

    /// Once all is replayed: what is missing stands in what could not be read, or was retired.
    fn complete_holes(&mut self) {
        for class in Class::EACH {
            let mut segments = Vec::new();
            let (mut before, mut was_cleaned) = (Lsn(0), false);
            for segment in self.view.catalog.segments().iter().filter(|segment| segment.serves().contains(class)) {
                // A file of a class lacks what was cleaned away, also before its first message and after its last.
                let is_cleaned = segment.kind().class().is_some();
                segments.push((segment.number(), segment.base() > before || is_cleaned || was_cleaned));
                (before, was_cleaned) = (segment.end(), is_cleaned);
            }
            let state = &self.view.state;
            let ends = |partition| (state.settled_before(partition), state.partition_end(partition));
            let all = state.partitions().map(|(partition, _)| partition);
            let of_class = all.filter(|partition| class_of(state, *partition) == Some(class));
            self.view.positions.complete_holes(&segments, of_class, ends);
        }
    }
}

/// The log's checksums agree, and what they cover cannot be: what it rests on is named, the newest checkpoint, or `STORE` where there
/// is none.
pub(crate) fn contradiction(contents: &Contents, reason: &'static str) -> Error {
    let checkpoint = contents.checkpoint.as_ref().map(|newest| FileName::Checkpoint(newest.number));
    Error::Corrupt(Corruption::of(checkpoint.unwrap_or(FileName::Store), None, reason))
}

/// Why a log could not be opened.
pub(crate) fn open_error(error: OpenError) -> Error {
    match error {
        OpenError::Corrupt(corruption) => Error::Corrupt(corruption),
        OpenError::ForeignFile { file } => Error::ForeignFile { file },
        OpenError::NewerFormat { file, found, supported } => {
            Error::NewerFormat { found: format!("{found} in {file}"), supported }
        }
        OpenError::Io { context, file, source } => Error::io(context, source).at(Path::new(&file)),
    }
}
