//! Whether all that a store holds is what was written, and agrees with itself.
//!
//! Looks at every byte of the files that make up the log, as an observer: a file that is unlinked meanwhile is of no interest any more.
//! Never here: mending.

use super::observer::{ObservedView, until_it_holds};
use super::read::{ReplayError, decode_frame, newer_format};
use super::runs::SegmentRuns;
use super::share::{Share, share_of};
use super::{ViewHolder, open_error};
use crate::error::{Corruption, Error, Result};
use crate::ids::{Lsn, PartitionId};
use crate::log::{self, Checkpoint, Index, Met, Segment};
use crate::record::Record;
use crate::record::wire::DecodeError;
use crate::state::State;
use std::io;
use std::sync::Arc;

/// What was verified, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The end of the log that was verified.
    pub end: Lsn,
    /// Files of frames.
    pub files: usize,
    /// Bytes of frames.
    pub bytes: u64,
    /// Frames that are valid, with every byte of their messages.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Index files that were compared with the files that they are of.
    pub indexes: usize,
    /// Whether the newest checkpoint was compared with what the log makes of the one before it.
    pub checkpoint_replayed: bool,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Corruption>,
}

/// How far a verification has come, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes that were read.
    pub done: u64,
    /// All that there are to be read.
    pub of: u64,
}

/// What an index file is, against the file that it is of.
enum Compared {
    Equal,
    Different(&'static str),
    /// A row of it does not prove itself: a power failure may have taken it, since index files are not synced. So there is none.
    Unproven,
}

impl ObservedView {
    /// Verifies all that the observer knows of.
    ///
    /// # Errors
    /// What the system lacks for a while, or fails to read.
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(VerifyProgress)) -> Result<VerifyReport> {
        let (segments, end) = self.with_state(|view, end| (view.catalog.segments().to_vec(), end));
        let mut report = VerifyReport { end, ..VerifyReport::default() };
        let of = segments.iter().map(|segment| segment.limit()).sum();
        let mut done = 0;
        for segment in &segments {
            progress(VerifyProgress { done, of });
            let found = self.verify_file(segment, &mut report);
            match found {
                Err(error) if is_missing(&error) && !super::LogHolder::is_there(self, segment.number()) => {}
                other => other?,
            }
            done += segment.limit();
        }
        self.verify_checkpoints(&segments, &mut report)?;
        let violations = self.with_view(|view| view.state.check());
        let of_state = violations.into_iter().map(|violation| Corruption {
            file: "the state".to_owned(),
            offset: None,
            lsns: Some((end, end)),
            reason: violation.what,
        });
        report.findings.extend(of_state);
        progress(VerifyProgress { done: of, of });
        Ok(report)
    }

    /// Every frame of a file, and its index file.
    fn verify_file(&self, segment: &Arc<Segment>, report: &mut VerifyReport) -> Result<()> {
        let mut runs = SegmentRuns::new(segment.number());
        let mut records = Vec::new();
        let (mut hole, mut found) = (None::<(u32, Option<Lsn>)>, Vec::new());
        let (mut frames, mut count) = (0, 0);
        log::for_each_proven::<ReplayError>(segment, &mut |met| {
            let frame = match met {
                Met::Hole(at) => {
                    hole = Some((at, segment.lsn_at(at)));
                    runs.note_hole(at);
                    return Ok(());
                }
                Met::Frame(frame) => frame,
            };
            found.extend(hole.take().map(|hole| damage(segment, hole, frame.lsn)));
            frames += 1;
            if frame.is_log() {
                return Ok(());
            }
            match decode_frame(segment, frame, &mut records) {
                Ok(()) => {}
                Err(ReplayError(Error::Corrupt(corruption))) => found.push(corruption),
                Err(other) => return Err(other),
            }
            count += records.len() as u64;
            if !runs.try_push_all(&records, frame.at, &|_| Share::Wanted) {
                let at = Some(u64::from(frame.at));
                found.push(Corruption::of(segment.name(), at, "a message of no partition, or out of order"));
            }
            Ok(())
        })
        .map_err(|failure| failure.0)?;
        found.extend(hole.take().map(|hole| damage(segment, hole, segment.end())));
        let is_whole = found.is_empty();
        report.findings.append(&mut found);
        (report.files, report.bytes) = (report.files + 1, report.bytes + segment.limit());
        (report.frames, report.records) = (report.frames + frames, report.records + count);
        let index = self.with_view(|view| view.positions.index(segment.number()));
        // Where frames are missing an index file may know of more.
        if let Some(index) = index.filter(|_| is_whole) {
            let compared = self.compare(segment, &index, &runs);
            match compared.map_err(|error| Error::io("read an index file", error))? {
                Compared::Unproven => {}
                Compared::Equal => report.indexes += 1,
                Compared::Different(reason) => {
                    report.indexes += 1;
                    report.findings.push(Corruption::of(index.name(), None, reason));
                }
            }
        }
        Ok(())
    }

    /// What an index file says otherwise than its file.
    fn compare(&self, segment: &Segment, index: &Index, runs: &SegmentRuns) -> io::Result<Compared> {
        let expected = runs.key_rows();
        let mut rows = Vec::new();
        for key in index.keys() {
            if !index.look_up_from(self.caches().blocks(), key.key, key.first, usize::MAX, &mut rows)? {
                return Ok(Compared::Unproven);
            }
            let same = expected.binary_search_by_key(&key.key, |of| of.key).ok().map(|found| &expected[found]);
            if same.is_none_or(|same| same.rows != rows || same.time_ms != key.time_ms) {
                return Ok(Compared::Different("an index file that differs from the file that it is of"));
            }
        }
        let is_missing = self.with_view(|view| {
            let share = share_of(&view.state, segment);
            let mut wanted = expected.iter().filter(|key| share(PartitionId(key.key)) == Share::Wanted);
            wanted.any(|key| index.key(key.key).is_none())
        });
        Ok(if is_missing { Compared::Different("an index file that lacks a partition") } else { Compared::Equal })
    }

    /// Whether the newest checkpoint is what the log makes of the one before it.
    fn verify_checkpoints(&self, segments: &[Arc<Segment>], report: &mut VerifyReport) -> Result<()> {
        let loaded = until_it_holds(|| log::checkpoints(self.disk()).map_err(open_error));
        let (whole, damaged) = match loaded {
            // Another one took its place.
            Err(error) if is_missing(&error) => return Ok(()),
            other => other?,
        };
        let reason = "a checkpoint that is not what its header says";
        report.findings.extend(damaged.into_iter().map(|name| Corruption::of(name, None, reason)));
        let [.., older, newest] = &whole[..] else { return Ok(()) };
        let (Some(mut state), Some(expected)) = (decoded(older, report)?, decoded(newest, report)?) else {
            return Ok(());
        };
        if newest.covers > report.end || !report.findings.is_empty() {
            // What is damaged was told.
            return Ok(());
        }
        let name = log::FileName::Checkpoint(newest.number);
        let lsns = Some((older.covers, newest.covers));
        for segment in segments.iter().filter(|segment| segment.kind().class().is_none()) {
            if segment.end() <= older.covers || segment.base() >= newest.covers {
                continue;
            }
            match replay(segment, (older.covers, newest.covers), &mut state) {
                Ok(true) => {}
                Ok(false) => {
                    let reason = "a record that does not follow from the checkpoint before it";
                    report.findings.push(Corruption { lsns, ..Corruption::of(segment.name(), None, reason) });
                    return Ok(());
                }
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        report.checkpoint_replayed = true;
        if state.hash() != expected.hash() {
            let reason = "a checkpoint that is not what the log says";
            report.findings.push(Corruption { lsns, ..Corruption::of(name, None, reason) });
        }
        Ok(())
    }
}

/// Applies the frames of a range. Whether each followed from the state.
fn replay(segment: &Segment, (from, to): (Lsn, Lsn), state: &mut State) -> Result<bool> {
    let (mut records, mut follows): (Vec<Record>, _) = (Vec::new(), true);
    log::for_each_left::<ReplayError>(segment, from.max(segment.base()), Lsn(0), &mut |met| {
        let Met::Frame(frame) = met else { return Ok(()) };
        if frame.is_log() || frame.lsn >= to || !follows {
            return Ok(());
        }
        decode_frame(segment, frame, &mut records)?;
        follows = records.iter().all(|record| state.apply(record, frame.lsn).is_ok());
        drop(state.take_removed());
        Ok(())
    })
    .map_err(|failure| failure.0)?;
    Ok(follows)
}

/// The state in a checkpoint, or a finding.
fn decoded(checkpoint: &Checkpoint, report: &mut VerifyReport) -> Result<Option<State>> {
    match State::decode(&checkpoint.state) {
        Ok(state) => Ok(Some(state)),
        Err(DecodeError::Newer(newer)) => Err(newer_format(newer)),
        Err(DecodeError::Truncated | DecodeError::BadNumber | DecodeError::Invalid(_)) => {
            let name = log::FileName::Checkpoint(checkpoint.number);
            report.findings.push(Corruption::of(name, None, "a state that cannot be decoded"));
            Ok(None)
        }
    }
}

/// From where to where nothing proves itself.
fn damage(segment: &Segment, (at, from): (u32, Option<Lsn>), to: Lsn) -> Corruption {
    let lsns = from.map(|from| (from, to));
    Corruption { lsns, ..Corruption::of(segment.name(), Some(u64::from(at)), "frames that do not prove themselves") }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
