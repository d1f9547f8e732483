//! Opening and closing: recover the log, fold it into the state, take up work; and leave it so that opening is quick.
//!
//! Opening writes nothing, except where recovery had to copy an unproven end of the log to fresh blocks, or where more than
//! four index files are missing: those are written again. The first append
//! of the process raises the epoch. Never here: threads.

use super::Engine;
use super::commit::Commit;
use super::core::{CheckpointNote, Core};
use super::health::Health;
use super::jobs::Jobs;
use super::positions::Positions;
use super::read::{Failure, MISPLACED, damaged, decode_frame};
use super::visible::VisibleEnds;
use super::waiters::Waiters;
use crate::clock::Clock;
use crate::disk::{Access, AttachError, Disk, RealDisk};
use crate::error::{Corruption, Error, Result};
use crate::ids::{Epoch, Lsn};
use crate::limits;
use crate::log::{
    self, BlockCache, Catalog, Dropped, FileName, FrontCache, Keeper, Met, OpenError, Recovered, Segment, Settings,
};
use crate::record::Record;
use crate::state::{Command, Inputs, State, Visible};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How much of sealed segments and their indexes is kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// How much is kept in memory of what stands before the messages of frames that hold many.
const FRONTS_BYTES: usize = 16 << 20;

/// How a store is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Whether the store was opened at `Disk`: only durable messages are delivered.
    pub(crate) durable_only: bool,
    pub(crate) sync_interval: Duration,
    pub(crate) segment_bytes_max: u64,
    pub(crate) message_bytes_max: usize,
    pub(crate) allow_network_fs: bool,
}

/// Bytes behind the end of the log that nothing proves to have been durable. Damage in exactly this range cannot be told from a
/// torn write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedTail {
    /// The file in which the log ended.
    pub file: String,
    /// The first byte there that is no part of the log.
    pub offset: u64,
    /// How many bytes, from the first to the last that was written, over this file and all that were begun later.
    pub bytes: u64,
}

/// What opening a store found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the last process closed the store, so that nothing had to be recovered.
    pub was_clean: bool,
    /// The epoch under which this process appends.
    pub epoch: Epoch,
    /// The end of the log after recovery: everything below it is durable now, and nothing above it was kept.
    pub end: Lsn,
    /// Up to where the log was proven durable before recovery.
    pub watermark: Lsn,
    /// What the checkpoint covers that was used: the log from here on was read. Zero where there was none.
    pub checkpoint: Lsn,
    /// Records folded from the log after the checkpoint.
    pub replayed_records: u64,
    /// Bytes of valid log above the watermark that were copied to fresh blocks.
    pub copied_bytes: u64,
    /// The torn tail that was dropped, if there was one: nothing that had been promised to survive.
    pub dropped: Option<DroppedTail>,
    /// A fingerprint of the state that the log told: the same log gives the same one.
    pub state_hash: u64,
    /// Files in the directory that are not the store's, by their names. They are left alone.
    pub files_ignored: usize,
}

impl Engine {
    /// Opens the store in the directory `path`, creating both as needed.
    ///
    /// # Errors
    /// Every variant that [`Error`] has for opening.
    pub(crate) fn open(path: &Path, setup: Setup, clock: Arc<dyn Clock>) -> Result<Self> {
        let options = crate::disk::OpenOptions { allow_network_fs: setup.allow_network_fs, create: true };
        let disk = RealDisk::attach(path, &options).map_err(|error| attach_error(path, error))?;
        let disk = Arc::new(disk);
        let engine = Self::open_on(Arc::clone(&disk) as Arc<dyn Disk>, setup, clock)?;
        disk.note_owner();
        Ok(engine)
    }

    /// Opens the store on `disk`.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub(crate) fn open_on(disk: Arc<dyn Disk>, setup: Setup, clock: Arc<dyn Clock>) -> Result<Self> {
        let access = if setup.durable_only { Access::SyncOften } else { Access::SyncSeldom };
        let settings = Settings {
            segment_len_first: limits::SEGMENT_LEN_FIRST.min(setup.segment_bytes_max),
            segment_len_max: setup.segment_bytes_max,
            access,
        };
        let mut recovered = log::open(Arc::clone(&disk), settings).map_err(open_error)?;
        let mut fold = Fold::start(&recovered)?;
        fold.replay(&recovered.keeper, &recovered.catalog)?;
        fold.positions.seal();
        fold.complete_holes(&recovered.catalog);
        index_old_segments(&mut recovered.keeper, &recovered.catalog, &mut fold.positions);
        let report = report(&recovered, &fold);
        let epoch = (recovered.appender.epoch(), recovered.previous.clean);
        let opened = fold.open(&recovered.keeper, epoch, clock.as_ref())?;
        let end = recovered.appender.end();
        let checkpoint = checkpoint_note(&recovered.keeper);
        let core = Core {
            visible: VisibleEnds::new(setup.durable_only, &fold.state),
            state: fold.state,
            appender: recovered.appender,
            catalog: recovered.catalog,
            positions: fold.positions,
            waiters: Waiters::default(),
            unwritten_open: Some(opened),
            last_sync: None,
            wake_beyond: Lsn(u64::MAX),
            spare_asked: false,
            checkpoint,
            records: Vec::new(),
            head: Vec::new(),
        };
        Ok(Self {
            keeper: Mutex::new(recovered.keeper),
            core: Mutex::new(core),
            commit: Commit::new(end),
            health: Health::default(),
            cache: BlockCache::new(CACHE_BYTES),
            fronts: FrontCache::new(FRONTS_BYTES),
            disk,
            jobs: Jobs::new(clock.as_ref()),
            starts_sought: AtomicUsize::new(0),
            clock,
            setup,
            report,
        })
    }

    /// Closes the store: everything appended becomes durable, a checkpoint makes the next open quick, and the directory is
    /// let go of, whatever handles are left. Every later call
    /// fails with `Closed`. A store that appended nothing writes nothing. Threads must have ended.
    ///
    /// # Errors
    /// The store's; what had been promised still holds, and the next open recovers.
    pub(crate) fn close(&self) -> Result<()> {
        let closed = if self.health.close() {
            self.lock_core().waiters.wake_all();
            self.save()
        } else if self.health.is_poisoned() {
            self.health.check()
        } else {
            return Ok(());
        };
        // Whoever was writing has left these locks, and nobody writes any more.
        let _quiet = (self.keeper.lock(), self.core.lock());
        self.disk.detach();
        closed
    }

    /// What a close leaves for the next open, if this process appended anything.
    fn save(&self) -> Result<()> {
        let (begun, end) = {
            let core = self.lock_core();
            (core.appender.begun(), core.appender.end())
        };
        if !begun {
            return Ok(());
        }
        self.wait_durable(end)?;
        let spare = {
            let mut core = self.lock_core();
            core.positions.seal();
            core.appender.finish()
        };
        self.finish_segments()?;
        self.checkpoint()?;
        let mut keeper = self.keeper.lock();
        keeper.close(spare, self.commit.watermark()).map_err(|error| self.keeper_error(&keeper, error))
    }
}

/// The state and positions while the log is folded into them.
struct Fold {
    state: State,
    positions: Positions,
    from: Lsn,
    records: u64,
}

impl Fold {
    /// The checkpoint's state, or an empty one.
    fn start(recovered: &Recovered) -> Result<Self> {
        let (from, state) = match &recovered.checkpoint {
            Some((covers, bytes)) => {
                let state = State::decode(bytes);
                (*covers, state.map_err(|_| contradiction(&recovered.keeper, "a state that cannot be decoded"))?)
            }
            None => (Lsn(0), State::new()),
        };
        Ok(Self { state, positions: Positions::default(), from, records: 0 })
    }

    /// Folds every frame above the checkpoint into the state, and notes where messages stand that no index file tells of.
    fn replay(&mut self, keeper: &Keeper, catalog: &Catalog) -> Result<()> {
        for segment in catalog.segments() {
            // An index file that cannot be read is as good as none: it is derived.
            let index = keeper.open_index(segment).unwrap_or_default();
            let place = index.is_none();
            if place {
                self.positions.roll(segment.number());
            }
            let from = if place { segment.base() } else { self.from };
            if from < segment.end() {
                self.replay_segment(segment, from, self.from, place)?;
            }
            match index {
                None => {}
                // Once its segment is folded, the state knows of every partition in it. Memory is by partition.
                Some(index) if index.keys().last().is_none_or(|key| key.key < self.state.partition_count()) => {
                    self.positions.set_indexed(segment.number(), index);
                }
                Some(_) => {
                    self.positions.roll(segment.number());
                    self.replay_segment(segment, segment.base(), Lsn(u64::MAX), true)?;
                }
            }
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
        if frame.lsn >= fold_from {
            self.records += records.len() as u64;
            let apply = |record| self.state.apply(record, frame.lsn);
            let applied = records.iter().try_for_each(apply);
            applied.map_err(|what| Failure(damaged(segment, frame, what.0)))?;
        }
        let partitions = self.state.partition_count();
        if place && !self.positions.try_push_all(records, segment.number(), frame.at, partitions) {
            return Err(Failure(damaged(segment, frame, MISPLACED)));
        }
        Ok(())
    }

    /// Once all is folded: what is missing stands in what could not be read, or was retired.
    fn complete_holes(&mut self, catalog: &Catalog) {
        let mut before = Lsn(0);
        let mut segments = Vec::new();
        for segment in catalog.segments() {
            segments.push((segment.number(), segment.base() > before));
            before = segment.end();
        }
        let state = &self.state;
        let ends = |partition| (state.settled_before(partition), state.partition_end(partition));
        self.positions.complete_holes(&segments, state.partition_count(), ends);
    }

    /// Begins this process's epoch in memory. The record is appended before any other.
    fn open(&mut self, keeper: &Keeper, (epoch, clean): (Epoch, bool), clock: &dyn Clock) -> Result<Record> {
        let inputs = Inputs { mono: clock.monotonic(), wall: clock.wall(), visible: Visible::All };
        let mut records = Vec::new();
        let decided = self.state.decide(&Command::Open { epoch, clean }, &inputs, &mut records);
        match (decided, records.pop()) {
            (Ok(_), Some(record)) => {
                self.state.apply(&record, Lsn(0)).map_err(|_| contradiction(keeper, OTHER_EPOCH))?;
                Ok(record)
            }
            _ => Err(contradiction(keeper, OTHER_EPOCH)),
        }
    }
}

fn report(recovered: &Recovered, fold: &Fold) -> OpenReport {
    let found = &recovered.report;
    OpenReport {
        was_clean: found.was_clean,
        epoch: recovered.appender.epoch(),
        end: found.end,
        watermark: found.watermark,
        checkpoint: fold.from,
        replayed_records: fold.records,
        copied_bytes: found.copied_bytes,
        dropped: found.dropped.map(|Dropped { segment, offset, bytes }| {
            let file = FileName::Segment(segment).to_string();
            DroppedTail { file, offset, bytes }
        }),
        state_hash: fold.state.hash(),
        files_ignored: found.files_ignored,
    }
}

/// Writes the index files that are missing for all but the newest segments, so that their rows need no memory.
fn index_old_segments(keeper: &mut Keeper, catalog: &Catalog, positions: &mut Positions) {
    const IN_MEMORY_MAX: usize = 4;
    while positions.unindexed().count() > IN_MEMORY_MAX {
        let Some(runs) = positions.unindexed().next().map(Arc::clone) else { return };
        let Some(segment) = catalog.segment(runs.segment) else { return };
        let written = keeper.write_index(segment, &runs.key_rows()).and_then(|()| keeper.open_index(segment));
        // Where one cannot be written its rows stay in memory: chores try again, and say what is wrong.
        let Ok(Some(index)) = written else { return };
        positions.set_indexed(runs.segment, index);
    }
}

/// The state has seen an epoch that no slot and no segment tells of.
const OTHER_EPOCH: &str = "an epoch above that of every slot and segment";

/// The log's checksums agree, and what they cover cannot be: what it rests on is named, the newest checkpoint, or `STORE` where there
/// is none.
fn contradiction(keeper: &Keeper, reason: &'static str) -> Error {
    let checkpoint = keeper.checkpoints().last().map(|newest| FileName::Checkpoint(newest.number));
    Error::Corrupt(Corruption::of(checkpoint.unwrap_or(FileName::Store), None, reason))
}

fn checkpoint_note(keeper: &Keeper) -> CheckpointNote {
    let (newest, older) = match keeper.checkpoints() {
        [.., older, newest] => (Some(newest), Some(older)),
        [newest] => (Some(newest), None),
        [] => (None, None),
    };
    CheckpointNote {
        covers: newest.map_or(Lsn(0), |info| info.covers),
        len: newest.map_or(0, |info| info.len),
        older_covers: older.map_or(Lsn(0), |info| info.covers),
        ..CheckpointNote::default()
    }
}

fn attach_error(path: &Path, error: AttachError) -> Error {
    let path = path.to_path_buf();
    match error {
        AttachError::Locked { pid } => Error::Locked { path, pid },
        AttachError::NotADirectory => Error::NotADirectory { path },
        AttachError::NotFound => Error::io("open the directory", std::io::ErrorKind::NotFound.into()),
        AttachError::NotAStore { found } => Error::NotAStore { path, found },
        AttachError::UnsupportedFileSystem { kind } => Error::UnsupportedFileSystem { kind },
        AttachError::Io { context, source } => Error::io(context, source),
    }
}

fn open_error(error: OpenError) -> Error {
    match error {
        OpenError::Corrupt(corruption) => Error::Corrupt(corruption),
        OpenError::ForeignFile { file } => Error::ForeignFile { file },
        OpenError::NewerFormat { file, found, supported, features } => Error::NewerFormat {
            found: format!("format {found} with features {features:#x} in {file}"),
            supported: format!("format {supported}"),
        },
        OpenError::Io { context, source, .. } => Error::io(context, source),
    }
}
