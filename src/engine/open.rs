//! Opening and closing: recover the log, fold it into the state, take up work; and leave it so that opening is quick.
//!
//! Opening writes nothing, except where recovery had to copy an unproven end of the log to fresh blocks. The first append
//! of the process raises the epoch. Never here: threads.

use super::commit::Commit;
use super::core::{CheckpointNote, Core, take_in};
use super::health::Health;
use super::jobs::Jobs;
use super::positions::{Entry, Positions};
use super::visible::VisibleEnds;
use super::waiters::Waiters;
use super::Engine;
use crate::clock::Clock;
use crate::disk::{Access, AttachError, Disk, RealDisk};
use crate::error::{Corruption, Error, Result};
use crate::ids::{Epoch, Lsn};
use crate::limits;
use crate::log::{self, Catalog, Keeper, OpenError, ReadError, Recovered, Segment, Settings};
use crate::record::{Record, codec};
use crate::state::{Command, Inputs, State, Visible};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

/// What opening a store found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the last process closed the store, so that nothing had to be recovered.
    pub was_clean: bool,
    /// The epoch under which this process appends.
    pub epoch: Epoch,
    /// The end of the log after recovery.
    pub end: Lsn,
    /// Up to where the log was proven durable before recovery.
    pub watermark: Lsn,
    /// What the checkpoint used covers.
    pub checkpoint: Lsn,
    /// Records folded from the log after the checkpoint.
    pub replayed_records: u64,
    /// Bytes of valid log above the watermark that were copied to fresh blocks.
    pub copied_bytes: u64,
    /// Bytes of a torn tail that were dropped: nothing that had been promised to survive. Damage in exactly this range
    /// cannot be told from a torn write.
    pub dropped_bytes: u64,
    /// A fingerprint of the state that the log told: the same log gives the same one.
    pub state_hash: u64,
    /// Files in the directory that are not the store's.
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
        fold.replay(&recovered.catalog)?;
        fold.positions.seal();
        index_old_segments(&mut recovered.keeper, &recovered.catalog, &mut fold.positions)?;
        let report = report(&recovered, &fold);
        let opened = fold.open(recovered.appender.epoch(), recovered.previous.clean, clock.as_ref())?;
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
            checkpoint,
            records: Vec::new(),
            head: Vec::new(),
        };
        Ok(Self {
            keeper: Mutex::new(recovered.keeper),
            core: Mutex::new(core),
            commit: Commit::new(end),
            health: Health::default(),
            disk,
            clock,
            setup,
            report,
            jobs: Jobs::default(),
        })
    }

    /// Closes the store: everything appended becomes durable, and a checkpoint makes the next open quick. Every later call
    /// fails with `Closed`. A store that appended nothing writes nothing. Threads must have ended.
    ///
    /// # Errors
    /// The store's; what had been promised still holds, and the next open recovers.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.health.close() {
            return if self.health.is_poisoned() { self.health.check() } else { Ok(()) };
        }
        self.lock_core().waiters.wake_all();
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
            Some((covers, bytes)) => (*covers, State::decode(bytes).map_err(|_| contradiction("a checkpoint"))?),
            None => (Lsn(0), State::new()),
        };
        Ok(Self { state, positions: Positions::default(), from, records: 0 })
    }

    /// Folds every frame above the checkpoint into the state, and notes where messages stand that no index file tells of.
    fn replay(&mut self, catalog: &Catalog) -> Result<()> {
        for segment in catalog.segments() {
            self.replay_segment(segment)?;
        }
        Ok(())
    }

    fn replay_segment(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let mut records = Vec::new();
        log::for_each_frame::<Failure>(segment, segment.base(), &mut |frame| {
            if frame.is_log() { Ok(()) } else { self.take_frame(segment, frame, &mut records).map_err(Failure) }
        })
        .map_err(|failure| failure.0)
    }

    fn take_frame(&mut self, segment: &Segment, frame: &log::Frame<'_>, records: &mut Vec<Record>) -> Result<()> {
        records.clear();
        for record in codec::decode(frame.head()) {
            records.push(record.map_err(|_| undecodable(segment, frame, "a record that cannot be decoded"))?);
        }
        if frame.lsn < self.from {
            let mut part = 0;
            for record in records.iter() {
                super::core::place(&mut self.positions, record, segment.number(), frame.at, &mut part);
            }
            return Ok(());
        }
        self.records += records.len() as u64;
        take_in(&mut self.state, &mut self.positions, records, frame.lsn, segment.number(), frame.at)
            .map_err(|_| undecodable(segment, frame, "a record that contradicts those before it"))
    }

    /// Begins this process's epoch in memory. The record is appended before any other.
    fn open(&mut self, epoch: Epoch, clean: bool, clock: &dyn Clock) -> Result<Record> {
        let inputs = Inputs { mono: clock.monotonic(), wall: clock.wall(), visible: Visible::All };
        let mut records = Vec::new();
        let decided = self.state.decide(&Command::Open { epoch, clean }, &inputs, &mut records);
        match (decided, records.pop()) {
            (Ok(_), Some(record)) => {
                self.state.apply(&record, Lsn(0)).map_err(|_| contradiction("an epoch"))?;
                Ok(record)
            }
            _ => Err(contradiction("an epoch")),
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
        dropped_bytes: found.dropped.map_or(0, |dropped| dropped.bytes),
        state_hash: fold.state.hash(),
        files_ignored: found.files_ignored,
    }
}

/// Writes the index files that are missing for all but the newest segments, so that their rows need no memory.
fn index_old_segments(keeper: &mut Keeper, catalog: &Catalog, positions: &mut Positions) -> Result<()> {
    Ok(())
}

/// Whatever ends a replay.
struct Failure(Error);

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self(super::read::read_error(error))
    }
}

fn undecodable(segment: &Segment, frame: &log::Frame<'_>, reason: &'static str) -> Error {
    let end = frame.lsn.saturating_add(u64::from(frame.padded()));
    Error::Corrupt(Corruption {
        file: segment.name().to_string(),
        offset: Some(u64::from(frame.at)),
        lsns: Some((frame.lsn, end)),
        reason,
    })
}

fn contradiction(what: &'static str) -> Error {
    Error::Corrupt(Corruption { file: "the log".to_owned(), offset: None, lsns: None, reason: what })
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
