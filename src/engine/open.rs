//! Opening and closing: recover the log, replay it into the state, take up work; and leave it so that opening is quick.
//!
//! Opening writes nothing, except where recovery had to copy an unsynced end of the log to fresh blocks, or where more than
//! four index files are missing: those are written again. The first append
//! of the process raises the epoch. Never here: threads.

use super::Engine;
#[cfg(feature = "async")]
use super::Futures;
use super::core::{CheckpointNote, Core, Isolation};
use super::dedup::DedupHasher;
use super::health::Health;
use super::maintenance::jobs::Jobs;
use super::maintenance::{Maintenance, finish_segments, shrink_to_close};
use super::rates::Rates;
use super::reserve::KEPT_LEN_MIN;
use super::schedule::DueTimes;
use super::stream::stream_index::StreamIndex;
use super::write::commit::Commit;
use crate::clock::Clock;
use crate::disk::{Access, AttachError, Disk, RealDisk};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn};
#[cfg(test)]
use crate::index::SimIndexHome;
use crate::index::{IndexDirectory, IndexHome, IndexKind};
use crate::limits;
use crate::log::{self, Contents, Dropped, FileManager, FileName, Recovered, Settings};
use crate::record::Record;
use crate::state::{Command, HoldUp, Inputs, ParkedMax, Visible};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::view::{Counters, Fold, ReadCaches, View, contradiction, open_error, share_of};
use crate::wait::WaitList;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The state has seen an epoch that no slot and no segment tells of.
const OTHER_EPOCH: &str = "an epoch above that of every slot and segment";

/// The folder of the index of streams, in the directory of the store.
pub(in crate::engine) const INDEX_DIR: &str = "index";

/// How a store is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Whether the store was opened at `Disk`: only durable messages are delivered.
    pub(crate) durable_only: bool,
    pub(crate) sync_interval: Duration,
    pub(crate) segment_bytes_max: u64,
    pub(crate) message_bytes_max: usize,
    /// How many bytes the files may take together.
    pub(crate) max_bytes: Option<u64>,
    pub(crate) allow_network_fs: bool,
    /// How long an exclusive lease may hold up all others, the wait for it included.
    pub(crate) isolation_limit_ms: u64,
    /// What holds the index of streams, in the directory.
    pub(crate) index: IndexKind,
    /// How many messages groups in order of keys keep one by one.
    pub(crate) parked_max: ParkedMax,
}

impl Setup {
    /// The sizes of the log's segments, and how it is synced.
    pub(in crate::engine) fn log_settings(&self) -> Settings {
        Settings {
            segment_len_first: limits::SEGMENT_LEN_FIRST.min(self.segment_bytes_max),
            segment_len_max: self.segment_bytes_max,
            access: if self.durable_only { Access::SyncOften } else { Access::SyncSeldom },
        }
    }
}

#[cfg(test)]
impl Setup {
    /// That of a store opened at `Os` with segments of this size, in which no job runs by itself.
    pub(crate) fn quiet(segment_bytes_max: u64) -> Self {
        Self {
            durable_only: false,
            sync_interval: Duration::from_secs(3600),
            segment_bytes_max,
            message_bytes_max: 1 << 20,
            max_bytes: None,
            allow_network_fs: false,
            isolation_limit_ms: 5_000,
            index: IndexKind::default(),
            parked_max: ParkedMax::default(),
        }
    }
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
    /// Whether this open created the store: there was none in the directory.
    pub created: bool,
    /// Whether the last process closed the store, so that nothing had to be recovered. A created store is clean.
    pub was_clean: bool,
    /// The epoch under which this process appends.
    pub epoch: Epoch,
    /// The end of the log after recovery: everything below it is durable now, and nothing above it was kept.
    pub end: Lsn,
    /// Up to where the log was proven durable before recovery.
    pub watermark: Lsn,
    /// What the checkpoint covers that was used: the log from here on was read. Zero where there was none.
    pub checkpoint: Lsn,
    /// Records replayed from the log after the checkpoint.
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
    pub(crate) fn open(path: &Path, setup: Setup, create: bool, clock: Arc<dyn Clock>) -> Result<Self> {
        let options = crate::disk::OpenOptions { allow_network_fs: setup.allow_network_fs, create, adopt: false };
        let disk = RealDisk::attach(path, &options).map_err(|error| attach_error(path, error))?;
        let disk = Arc::new(disk);
        let home = Box::new(IndexDirectory::new(setup.index, path.join(INDEX_DIR)));
        let opened = Self::open_at((Arc::clone(&disk) as Arc<dyn Disk>, home), path, setup, create, clock);
        let engine = opened.map_err(|error| error.at(path))?;
        disk.note_owner();
        Ok(engine)
    }

    /// Opens the store on `disk`, creating it as needed.
    ///
    /// # Errors
    /// As [`Engine::open`].
    #[cfg(test)]
    pub(crate) fn open_on(disk: Arc<dyn Disk>, setup: Setup, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_at((disk, Box::<SimIndexHome>::default()), Path::new(""), setup, true, clock)
    }

    /// Opens the store on `disk`, which errors call `dir`.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub(crate) fn open_at(
        (disk, index_home): (Arc<dyn Disk>, Box<dyn IndexHome>),
        dir: &Path,
        setup: Setup,
        create: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let settings = setup.log_settings();
        let recovered = if create {
            log::open(Arc::clone(&disk), settings).map(Some)
        } else {
            log::open_existing(Arc::clone(&disk), settings)
        };
        let Some(recovered) = recovered.map_err(open_error)? else { return Err(no_store(dir)) };
        let fold = Fold::of(&recovered.contents, setup.durable_only)?;
        Self::begin((disk, index_home), dir, setup, clock, (recovered, fold))
    }

    /// Takes up work on a log that was recovered and replayed.
    ///
    /// # Errors
    /// Those of making its files ready.
    pub(in crate::engine) fn begin(
        (disk, index_home): (Arc<dyn Disk>, Box<dyn IndexHome>),
        dir: &Path,
        setup: Setup,
        clock: Arc<dyn Clock>,
        (mut recovered, mut fold): (Recovered, Fold),
    ) -> Result<Self> {
        recovered.file_manager.limit(setup.max_bytes);
        // Index files take nothing of what is kept back, as far as that is known by now.
        let leave = KEPT_LEN_MIN.saturating_add(setup.message_bytes_max as u64);
        index_old_segments(&mut fold.view, &mut recovered.file_manager, leave);
        leave_links(&mut recovered.file_manager)?;
        let report = report(&recovered, &fold);
        let epoch = (recovered.appender.epoch(), recovered.previous.clean);
        let opened = begin_epoch(&mut fold.view, &recovered.contents, epoch, clock.as_ref())?;
        let checkpoint = checkpoint_note(&recovered.file_manager, fold.outstanding_len);
        let counters = Counters::new(&fold.view.state);
        let dedup = DedupHasher::new(*recovered.file_manager.secret());
        let index = StreamIndex::new(index_home, *recovered.file_manager.instance());
        let core = Core {
            view: fold.view,
            appender: recovered.appender,
            waiters: WaitList::default(),
            unwritten_open: Some(opened),
            last_sync: None,
            wake_beyond: Lsn(u64::MAX),
            standby_asked: false,
            // The first append needs a segment, and who creates it looks at the room.
            leases_left: u64::MAX,
            again_left: 0,
            new_left: 0,
            texts_fit: true,
            checkpoint,
            counters,
            rates: Rates::new(clock.monotonic()),
            isolation: Isolation::new(setup.isolation_limit_ms),
            records: Vec::new(),
            head: Vec::new(),
        };
        Ok(Self {
            file_manager: Mutex::new(recovered.file_manager),
            core: Mutex::new(core),
            commit: Commit::new(recovered.contents.end),
            dedup,
            index,
            health: Health::default(),
            caches: ReadCaches::new(dir.to_path_buf()),
            disk,
            jobs: Jobs::new(clock.as_ref()),
            #[cfg(feature = "async")]
            futures: Futures::default(),
            maintenance: Maintenance::default(),
            clock,
            setup,
            report,
            moves_rest_until: AtomicU64::new(0),
            kept: Default::default(),
            due_times: DueTimes::default(),
            closed: Mutex::new(false),
        })
    }

    /// Closes the store: everything appended becomes durable, a checkpoint makes the next open quick, and the directory is
    /// let go of, whatever handles are left. Every later call
    /// fails with `Closed`. A store that appended nothing writes nothing. Threads must have ended.
    ///
    /// # Errors
    /// The store's; what had been promised still holds, and the next open recovers. Where that has not stopped the store, the
    /// directory is not let go of yet, and a second close tries again.
    pub(crate) fn close(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        if self.health.check().is_ok() {
            // What stops the store is told below, and a close does without what lacks for a while.
            drop(shrink_to_close(self));
        }
        if self.health.close() {
            self.lock_core().waiters.wake_all();
        }
        let closed = self.close_once();
        #[cfg(feature = "async")]
        self.wake_durable();
        closed
    }

    fn close_once(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        if *closed {
            return if self.health.is_poisoned() { self.health.check() } else { Ok(()) };
        }
        // seam: a close saves nothing
        let saved = if self.health.is_poisoned() { self.health.check() } else { self.save() };
        // seam: a second close does nothing
        if saved.is_err() && !self.health.is_poisoned() {
            return saved;
        }
        self.detach();
        *closed = true;
        saved
    }

    /// What a close leaves for the next open, if this process appended anything. May be called again after it failed.
    fn save(&self) -> Result<()> {
        let (begun, end) = {
            let core = self.lock_core();
            (core.appender.begun(), core.appender.end())
        };
        if !begun {
            return Ok(());
        }
        self.wait_durable(end)?;
        let standby = {
            let mut core = self.lock_core();
            core.view.positions.seal();
            core.appender.finish()
        };
        let cut = standby.map_or(Ok(()), |standby| {
            let mut file_manager = self.file_manager.lock();
            file_manager.cut_standby(standby).map_err(|error| self.file_manager_error(&file_manager, error))
        });
        for done in [cut, finish_segments(self)] {
            // A standby segment that is not cut takes room until the next process removes it, and that does without index files.
            if self.health.is_poisoned() {
                done?;
            }
        }
        self.checkpoint()?;
        // What it does not follow the next process reads again.
        drop(self.advance_index());
        self.index.close();
        let mut file_manager = self.file_manager.lock();
        file_manager.close(self.commit.watermark()).map_err(|error| self.file_manager_error(&file_manager, error))
    }
}

/// Writes the index files that are missing for all but the newest segments, so that their rows need no memory.
fn index_old_segments(view: &mut View, file_manager: &mut FileManager, leave: u64) {
    const IN_MEMORY_MAX: usize = 4;
    while view.positions.unindexed().count() > IN_MEMORY_MAX {
        let Some(runs) = view.positions.unindexed().next().map(Arc::clone) else { return };
        let Some(segment) = view.catalog.segment(runs.segment) else { return };
        let written = file_manager
            .write_index(segment, &runs.key_rows(), leave)
            .and_then(|()| file_manager.indexes().open(segment));
        // Where one cannot be written its rows stay in memory: maintenance tries again, and says what is wrong.
        let Ok(Some(index)) = written else { return };
        view.positions.set_indexed(runs.segment, index, share_of(&view.state, segment));
    }
}

/// Leaves a `STORE` that others have links to.
fn leave_links(file_manager: &mut FileManager) -> Result<()> {
    match file_manager.leave_links() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::io("find STORE", std::io::ErrorKind::NotFound.into())),
        // Before the first slot is written it is tried again.
        Err(error) if Error::lack(&error).is_some() => Ok(()),
        Err(error) => Err(Error::io("take STORE from those who have links to it", error)),
    }
}

/// Begins this process's epoch in memory. The record is appended before any other.
fn begin_epoch(
    view: &mut View,
    contents: &Contents,
    (epoch, clean): (Epoch, bool),
    clock: &dyn Clock,
) -> Result<Record> {
    let (mono, wall) = (clock.monotonic(), clock.wall());
    let inputs = Inputs {
        mono,
        wall,
        steady: wall,
        slack_ms: 0,
        hold_up: HoldUp(0),
        visible: Visible::All,
        streams: &view.streams,
        verdicts: &view.verdicts,
    };
    let mut records = Vec::new();
    let decided = view.state.decide(&Command::Open { epoch, clean }, &inputs, &mut records);
    match (decided, records.pop()) {
        (Ok(_), Some(record)) => {
            view.state.apply(&record, Lsn(0)).map_err(|_| contradiction(contents, OTHER_EPOCH))?;
            Ok(record)
        }
        (Ok(_), None) | (Err(_), _) => Err(contradiction(contents, OTHER_EPOCH)),
    }
}

fn report(recovered: &Recovered, fold: &Fold) -> OpenReport {
    let found = &recovered.report;
    OpenReport {
        created: found.created,
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
        state_hash: fold.view.state.hash(),
        files_ignored: found.files_ignored,
    }
}

fn checkpoint_note(file_manager: &FileManager, outstanding_len: u64) -> CheckpointNote {
    let (newest, older) = match file_manager.checkpoints() {
        [.., older, newest] => (Some(newest), Some(older)),
        [newest] => (Some(newest), None),
        [] => (None, None),
    };
    CheckpointNote {
        covers: newest.map_or(Lsn(0), |info| info.covers),
        len: newest.map_or(0, |info| info.len),
        outstanding_len,
        older_len: older.map_or(0, |info| info.len),
        older_covers: older.map_or(Lsn(0), |info| info.covers),
        ..CheckpointNote::default()
    }
}

pub(super) fn no_store(dir: &Path) -> Error {
    Error::NotFound { what: "store", name: dir.display().to_string() }
}

pub(super) fn attach_error(path: &Path, error: AttachError) -> Error {
    let path = path.to_path_buf();
    match error {
        AttachError::Locked { pid } => Error::Locked { path, pid },
        AttachError::NotADirectory => Error::NotADirectory { path },
        AttachError::NotFound => no_store(&path),
        AttachError::NotAStore { found } => Error::NotAStore { path, found },
        AttachError::UnsupportedFileSystem { kind } => Error::UnsupportedFileSystem { kind },
        AttachError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => no_store(&path),
        AttachError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename) =>
        {
            let value: String = path.to_string_lossy().chars().take(64).collect();
            Error::InvalidOption {
                option: "path",
                value: format!("{value:?}"),
                expected: "a path that can be a directory's",
            }
        }
        AttachError::Io { context, source } => Error::io(context, source).at(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Engine, Outgoing, Setup};
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::ids::{Offset, PartitionId, WallMs};
    use crate::log::{Parts, Reserve};
    use crate::record::TopicOptions;
    use crate::record::codec;
    use crate::view::ViewHolder;

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
        records.iter().for_each(|record| core.view.state.apply(record, lsn).unwrap());
        core.view.positions.push_all(records, segment, at);
        core.view.visible.appended(records, end);
    }

    /// A store with a topic of one partition and one message.
    fn engine(disk: &SimDisk) -> Engine {
        let engine = open(disk).unwrap();
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, None, std::iter::empty(), b"hi", 1 << 20).unwrap();
        engine.publish(&outgoing).unwrap().unwrap();
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
            Err(Error::Unreadable { cause, .. }) => {
                assert!(matches!(&*cause, Error::NewerFormat { found, .. } if found == "record kind 99"), "{cause}");
            }
            other => panic!("{:?}", other.map(drop)),
        }
    }
}
