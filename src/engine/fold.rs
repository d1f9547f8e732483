//! Folding the log into state and positions when a store is opened.
//!
//! The newest checkpoint is the state, and every frame after it is applied. Below it only places are wanted, and only where no index
//! file tells of them: damage there costs the messages that it hit, and not the open. Never here: what recovery found out before.

use super::follow::{FrameAt, follow};
use super::positions::Positions;
use super::read::{Failure, MISPLACED, class_of, damaged, decode_frame, share_of};
use super::runs::Share;
use super::visible::VisibleEnds;
use crate::clock::Clock;
use crate::error::{Corruption, Error, Result};
use crate::ids::{Epoch, Lsn, PartitionId};
use crate::log::{self, Catalog, Class, FileManager, FileName, Met, Recovered, Segment};
use crate::record::Record;
use crate::record::wire::DecodeError;
use crate::state::{Command, HoldUp, Inputs, State, Visible};
use std::sync::Arc;

/// The state has seen an epoch that no slot and no segment tells of.
const OTHER_EPOCH: &str = "an epoch above that of every slot and segment";

/// The state and positions while the log is folded into them.
pub(super) struct Fold {
    pub(super) state: State,
    pub(super) positions: Positions,
    pub(super) visible: VisibleEnds,
    /// What the checkpoint covers.
    pub(super) from: Lsn,
    /// How many records were folded after it.
    pub(super) records: u64,
}

impl Fold {
    /// The whole log folded; index files that are missing are written where that leaves `leave` bytes on the disk.
    pub(super) fn of(recovered: &mut Recovered, durable_only: bool, leave: u64) -> Result<Self> {
        let mut fold = Self::start(recovered, durable_only)?;
        fold.replay(&recovered.file_manager, &recovered.catalog)?;
        fold.positions.seal();
        fold.complete_holes(&recovered.catalog);
        fold.index_old_segments(&mut recovered.file_manager, &recovered.catalog, leave);
        Ok(fold)
    }

    /// The checkpoint's state, or an empty one.
    fn start(recovered: &Recovered, durable_only: bool) -> Result<Self> {
        let (from, state) = match &recovered.checkpoint {
            Some((covers, bytes)) => {
                let state = State::decode(bytes).map_err(|error| match error {
                    DecodeError::Newer(newer) => newer.into(),
                    DecodeError::Truncated | DecodeError::BadNumber | DecodeError::Invalid(_) => {
                        contradiction(&recovered.file_manager, "a state that cannot be decoded")
                    }
                });
                (*covers, state?)
            }
            None => (Lsn(0), State::new()),
        };
        let visible = VisibleEnds::new(durable_only, &state);
        Ok(Self { state, positions: Positions::default(), visible, from, records: 0 })
    }

    /// Folds every frame above the checkpoint into the state, and notes where messages stand that no index file tells of.
    fn replay(&mut self, file_manager: &FileManager, catalog: &Catalog) -> Result<()> {
        // seam: only the newest segment is replayed
        for segment in catalog.segments() {
            // An index file that cannot be read is as good as none: it is derived.
            let index = file_manager.open_index(segment).unwrap_or_default();
            let place = index.is_none();
            if place {
                self.positions.roll(segment.number());
            }
            let from = if place { segment.base() } else { self.from };
            if from < segment.end() {
                self.replay_segment(segment, from, self.from, place)?;
            }
            let Some(index) = index else { continue };
            let share = share_of(&self.state, segment);
            // Once its segment is folded, the state knows of every partition in it that there ever was.
            if index.keys().iter().all(|key| share(PartitionId(key.key)) != Share::Impossible) {
                self.positions.set_indexed(segment.number(), index, share);
                continue;
            }
            drop(share);
            self.positions.roll(segment.number());
            self.replay_segment(segment, segment.base(), Lsn(u64::MAX), true)?;
        }
        Ok(())
    }

    /// Reads a segment from `from` on: folds the frames from `fold_from` on, and notes where all messages stand if `place`. Below
    /// the checkpoint only places are wanted: what does not prove itself there is passed over, as where an index file tells them.
    fn replay_segment(&mut self, segment: &Arc<Segment>, from: Lsn, fold_from: Lsn, place: bool) -> Result<()> {
        let mut records = Vec::new();
        let needed_from = self.from;
        log::for_each_left::<Failure>(segment, from, needed_from, &mut |met| {
            let frame = match met {
                Met::Frame(frame) => frame,
                Met::Hole(at) => {
                    if place {
                        self.positions.note_hole(at);
                    }
                    return Ok(());
                }
            };
            if frame.is_log() {
                return Ok(());
            }
            match self.replay_frame(segment, frame, fold_from, place, &mut records) {
                Err(_) if place && frame.lsn < needed_from => self.positions.note_hole(frame.at),
                other => other?,
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
    ) -> Result<(), Failure> {
        decode_frame(segment, frame, records)?;
        // seam: replay from before the checkpoint
        if frame.lsn >= fold_from {
            self.records += records.len() as u64;
            // Positions are checked below, as those of older frames are.
            let at = FrameAt { lsn: frame.lsn, end: frame.lsn.saturating_add(frame.padded().into()), place: None };
            let followed = follow(&mut self.state, &mut self.positions, &mut self.visible, records, &at);
            followed.map_err(|what| Failure(damaged(segment, frame, what.0)))?;
            // What recovery kept is durable.
            self.visible.advance(at.end, |_| ());
            drop(self.state.take_removed());
        }
        let share = share_of(&self.state, segment);
        if place && !self.positions.try_push_all(records, segment.number(), frame.at, &share) {
            return Err(Failure(damaged(segment, frame, MISPLACED)));
        }
        Ok(())
    }

    /// Once all is folded: what is missing stands in what could not be read, or was retired.
    fn complete_holes(&mut self, catalog: &Catalog) {
        for class in Class::EACH {
            let mut segments = Vec::new();
            let (mut before, mut was_cleaned) = (Lsn(0), false);
            for segment in catalog.segments().iter().filter(|segment| segment.serves().contains(class)) {
                // A file of a class lacks what was cleaned away, also before its first message and after its last.
                let is_cleaned = segment.kind().class().is_some();
                segments.push((segment.number(), segment.base() > before || is_cleaned || was_cleaned));
                (before, was_cleaned) = (segment.end(), is_cleaned);
            }
            let state = &self.state;
            let ends = |partition| (state.settled_before(partition), state.partition_end(partition));
            let all = state.partitions().map(|(partition, _)| partition);
            let of_class = all.filter(|partition| class_of(state, *partition) == Some(class));
            self.positions.complete_holes(&segments, of_class, ends);
        }
    }

    /// Writes the index files that are missing for all but the newest segments, so that their rows need no memory.
    fn index_old_segments(&mut self, file_manager: &mut FileManager, catalog: &Catalog, leave: u64) {
        const IN_MEMORY_MAX: usize = 4;
        while self.positions.unindexed().count() > IN_MEMORY_MAX {
            let Some(runs) = self.positions.unindexed().next().map(Arc::clone) else { return };
            let Some(segment) = catalog.segment(runs.segment) else { return };
            let written = file_manager
                .write_index(segment, &runs.key_rows(), leave)
                .and_then(|()| file_manager.open_index(segment));
            // Where one cannot be written its rows stay in memory: chores try again, and say what is wrong.
            let Ok(Some(index)) = written else { return };
            self.positions.set_indexed(runs.segment, index, share_of(&self.state, segment));
        }
    }

    /// Begins this process's epoch in memory. The record is appended before any other.
    pub(super) fn open(
        &mut self,
        file_manager: &FileManager,
        (epoch, clean): (Epoch, bool),
        clock: &dyn Clock,
    ) -> Result<Record> {
        let inputs = Inputs {
            mono: clock.monotonic(),
            wall: clock.wall(),
            slack_ms: 0,
            hold_up: HoldUp(0),
            visible: Visible::All,
        };
        let mut records = Vec::new();
        let decided = self.state.decide(&Command::Open { epoch, clean }, &inputs, &mut records);
        match (decided, records.pop()) {
            (Ok(_), Some(record)) => {
                self.state.apply(&record, Lsn(0)).map_err(|_| contradiction(file_manager, OTHER_EPOCH))?;
                Ok(record)
            }
            _ => Err(contradiction(file_manager, OTHER_EPOCH)),
        }
    }
}

/// The log's checksums agree, and what they cover cannot be: what it rests on is named, the newest checkpoint, or `STORE` where there
/// is none.
fn contradiction(file_manager: &FileManager, reason: &'static str) -> Error {
    let checkpoint = file_manager.checkpoints().last().map(|newest| FileName::Checkpoint(newest.number));
    Error::Corrupt(Corruption::of(checkpoint.unwrap_or(FileName::Store), None, reason))
}

#[cfg(test)]
mod tests {
    use super::super::{Engine, Outgoing, Setup};
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::ids::{Offset, WallMs};
    use crate::log::{Parts, Reserve};
    use crate::record::codec;

    /// A record of kind 99 with a body of two bytes.
    const NEWER: [u8; 4] = [99, 2, 7, 7];

    fn open(disk: &SimDisk) -> Result<Engine> {
        let setup = Setup::quiet(64 << 10);
        Engine::open_on(Arc::new(disk.attach().unwrap()), setup, Arc::new(SimClock::new(WallMs(1))))
    }

    fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
        let names = disk.files().into_iter().map(|file| file.name);
        names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
    }

    /// Appends a frame of `head` with one message, as a newer version would.
    fn append(engine: &Engine, head: &[u8], records: &[Record]) {
        let mut outgoing = Outgoing::default();
        outgoing.add(PartitionId(0), None, std::iter::empty(), b"hi", 1 << 20).unwrap();
        let (core, now) = (&mut *engine.lock_core(), engine.now());
        let parts = if records.is_empty() { Parts::default() } else { outgoing.parts() };
        let frame = core.appender.append(head, parts, now.watermark, Reserve::Keep).unwrap();
        let (segment, at, lsn, end) = (frame.segment.number(), frame.at, frame.lsn, frame.end);
        records.iter().for_each(|record| core.state.apply(record, lsn).unwrap());
        core.positions.push_all(records, segment, at);
        core.visible.appended(records, end);
    }

    /// A store with a topic of one partition and one message.
    fn engine(disk: &SimDisk) -> Engine {
        let engine = open(disk).unwrap();
        let topic = engine.open_topic("t", 1).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), b"hi", 1 << 20).unwrap();
        engine.publish(&outgoing, |_, _, _| ()).unwrap();
        engine
    }

    /// Recovery, which comes before, may copy what was not durable to a new file and write a slot.
    #[test]
    fn newer_record_refuses_each_open_by_name_and_changes_no_segment() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        append(&engine, &NEWER, &[]);
        engine.sync().unwrap();
        let copy = disk.snapshot();
        let before = files(&copy);
        for _ in 0..3 {
            match open(&copy) {
                Err(Error::NewerFormat { found, supported }) => {
                    assert_eq!(found, "record kind 99");
                    assert!(supported.starts_with("record kinds up to "), "{supported}");
                }
                other => panic!("{:?}", other.map(drop)),
            }
            let kept = before.iter().filter(|(name, _)| name != "STORE");
            assert!(kept.clone().count() > 0 && kept.eq(&files(&copy)[..before.len() - 1]));
        }
    }

    #[test]
    fn newer_record_before_a_message_is_named_when_that_is_read() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        let published = Record::Published { partition: PartitionId(0), base: Offset(1), count: 1, time: WallMs(1) };
        let mut head = NEWER.to_vec();
        codec::encode(std::slice::from_ref(&published), &mut head);
        append(&engine, &head, &[published]);
        assert!(engine.fetch(PartitionId(0), Offset(0)).is_ok());
        match engine.fetch(PartitionId(0), Offset(1)) {
            Err(Error::NewerFormat { found, .. }) => assert_eq!(found, "record kind 99"),
            other => panic!("{:?}", other.map(drop)),
        }
    }
}
