//! Reading a store that another process may have open.
//!
//! Never here: a lock of the directory, an append, a thread.

use super::Engine;
use super::open::{attach_error, no_store};
use crate::clock::Clock;
use crate::disk::{Disk, ReadOnlyDisk, RealDisk};
use crate::error::{Error, Result};
use crate::ids::{GroupId, Lsn, MessageId, Offset, PartitionId, Position};
use crate::record::AttemptFailure;
use crate::state::{HoldUp, KnownVerdicts, MessageState, PeekedPlace};
use crate::view::{
    BackupReport, Counters, DumpEntry, LogHolder, LogScan, LogStart, LogStep, Moment, Now, ObservedView, Stats, Stored,
    TopicInfo, VerifyProgress, VerifyReport, ViewHolder, backup, log_start,
};
use std::path::Path;
use std::sync::Arc;

/// The directory of a backup, made if it is missing. Nobody else has it.
fn attached(path: &Path) -> Result<Arc<dyn Disk>> {
    let options = crate::disk::OpenOptions { allow_network_fs: true, create: true, adopt: false };
    let disk = RealDisk::attach(path, &options).map_err(|error| attach_error(path, error))?;
    Ok(Arc::new(disk))
}

impl Engine {
    /// Copies the store as it is, and all that was published or settled before this call, to the directory `path`.
    ///
    /// # Errors
    /// `Locked`, `NotADirectory`, `NotAStore`: of the directory; `InvalidOption` if it holds something else than an earlier backup of this
    /// store; `OutcomeUnknown` if the store's sync failed; `Corrupt`; what reading or writing says; the store's.
    pub(crate) fn backup(&self, path: &Path) -> Result<BackupReport> {
        self.enter()?;
        self.backup_to((&attached(path)?, path))
    }

    /// Copies the store to a disk.
    ///
    /// # Errors
    /// As [`Engine::backup`].
    pub(crate) fn backup_to(&self, to: (&Arc<dyn Disk>, &Path)) -> Result<BackupReport> {
        // Files stay where they are until it is done.
        let _pin = self.maintenance.keep_files();
        self.sync()?;
        // seam: a backup goes by the files alone
        let known = self.watermark();
        backup((&self.disk, known), to, |_, _| ())?.ok_or_else(|| no_store(self.dir()))
    }
}

/// What an observer is.
#[derive(Debug)]
pub(crate) struct StoreObserver {
    view: ObservedView,
    clock: Arc<dyn Clock>,
}

/// A message that was looked at.
#[derive(Debug)]
pub(crate) struct PeekedMessage {
    pub(crate) id: MessageId,
    pub(crate) stored: Stored,
    pub(crate) attempts: u32,
    pub(crate) history: Vec<AttemptFailure>,
}

impl StoreObserver {
    /// Observes the store in the directory `path`.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `UnsupportedFileSystem`, `Corrupt`, `NewerFormat`, `ForeignFile`, `Io`.
    pub(crate) fn open(path: &Path, allow_network_fs: bool, clock: Arc<dyn Clock>) -> Result<Self> {
        let disk = ReadOnlyDisk::open(path, allow_network_fs).map_err(|error| attach_error(path, error))?;
        Self::open_at(Arc::new(disk), path, clock).map_err(|error| error.at(path))
    }

    /// Observes the store on `disk`, which errors call `dir`.
    ///
    /// # Errors
    /// As [`StoreObserver::open`].
    pub(crate) fn open_at(disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let view = ObservedView::open(disk, dir)?.ok_or_else(|| no_store(dir))?;
        Ok(Self { view, clock })
    }

    /// Fails in a forked child: a thread that is not there may have held a lock at the fork.
    fn enter(&self) -> Result<()> {
        if self.view.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Takes in what became durable since. Whether anything did.
    ///
    /// # Errors
    /// As [`StoreObserver::open`]; `Forked`, as each call that follows.
    pub(crate) fn refresh(&self) -> Result<bool> {
        self.enter()?;
        self.view.refresh().map_err(|error| error.at(&self.view.caches().dir))
    }

    /// The end of what it knows.
    pub(crate) fn end(&self) -> Lsn {
        self.view.end()
    }

    fn now(&self, end: Lsn) -> Now {
        let (mono, wall) = (self.clock.monotonic(), self.clock.wall());
        Now { mono, wall, steady: wall, watermark: end, slack_ms: self.clock.slack_ms() }
    }

    /// The store in numbers.
    ///
    /// # Errors
    /// `Forked`.
    pub(crate) fn stats(&self) -> Result<Stats> {
        self.enter()?;
        let moment = self.view.with_state(|view, end| Moment {
            now: self.now(end),
            state: view.state.snapshot(),
            visible: view.visible.snapshot(),
            verdicts: KnownVerdicts::default(),
            counters: Counters::new(&view.state),
            catalog: view.catalog.clone(),
            end,
            last_sync: None,
            cleaned: (0, 0),
        });
        Ok(moment.stats(&self.view, self.clock.wall()))
    }

    /// The names of all cursors, in order.
    ///
    /// # Errors
    /// `Forked`.
    pub(crate) fn cursors(&self) -> Result<Vec<Arc<str>>> {
        self.enter()?;
        Ok(self.view.with_view(|view| view.state.cursors()).names())
    }

    /// Where a cursor stands.
    ///
    /// # Errors
    /// `Forked`.
    pub(crate) fn cursor(&self, name: &str) -> Result<Option<Arc<[u8]>>> {
        self.enter()?;
        Ok(self.view.with_view(|view| view.state.cursor(name).map(|cursor| Arc::clone(&cursor.value))))
    }

    /// Finds the topic.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn find_topic(&self, name: &str) -> Result<TopicInfo> {
        self.enter()?;
        let found = self.view.with_view(|view| view.topic_info(name));
        found.ok_or_else(|| Error::NotFound { what: "topic", name: name.to_owned() })
    }

    /// Finds the group.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn find_group(&self, topic: &str, name: &str) -> Result<GroupId> {
        let topic = self.find_topic(topic)?;
        let found = self.view.with_view(|view| view.state.group_by_name(topic.id, name));
        found.ok_or_else(|| Error::NotFound { what: "group", name: name.to_owned() })
    }

    /// Begins to read a topic as a log.
    ///
    /// # Errors
    /// `InvalidPosition`; what reading an index says.
    pub(crate) fn open_log(&self, topic: TopicInfo, start: LogStart) -> Result<LogScan> {
        Ok(LogScan::new(topic, log_start::nexts(&self.view, topic, start)?))
    }

    /// The next message that is known, with its place in the log.
    ///
    /// # Errors
    /// `Gap` and `Unreadable`, each once, and reading goes on behind; `Removed`; what the system lacks for a while.
    pub(crate) fn read_log(&self, scan: &mut LogScan) -> Result<Option<(Stored, Position)>> {
        self.enter()?;
        scan.note_all();
        loop {
            let look = self.view.with_view(|view| scan.look(view))?;
            match scan.step(&self.view, look)? {
                LogStep::Again => {}
                LogStep::Nothing => return Ok(None),
                LogStep::Message(stored, position) => return Ok(Some((stored, position))),
            }
        }
    }

    /// Verifies all that is known.
    ///
    /// # Errors
    /// What the system lacks for a while, or fails to read; `Forked`.
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.enter()?;
        self.view.verify(progress)
    }

    /// Copies the store to the directory `path`.
    ///
    /// # Errors
    /// As [`Engine::backup`].
    pub(crate) fn backup(&self, path: &Path, progress: impl Fn(u64, u64)) -> Result<BackupReport> {
        self.enter()?;
        self.backup_to((&attached(path)?, path), progress)
    }

    /// Copies the store to a disk.
    ///
    /// # Errors
    /// As [`Engine::backup`].
    pub(crate) fn backup_to(&self, to: (&Arc<dyn Disk>, &Path), progress: impl Fn(u64, u64)) -> Result<BackupReport> {
        let dir = &self.view.caches().dir;
        backup((self.view.disk(), self.end()), to, progress)?.ok_or_else(|| no_store(dir))
    }

    /// Shows `each` what the log says from `from` on, until that says `false`.
    ///
    /// # Errors
    /// What the system lacks for a while, or fails to read; `Forked`.
    pub(crate) fn dump(&self, from: Lsn, each: &mut dyn FnMut(DumpEntry) -> bool) -> Result<()> {
        self.enter()?;
        self.view.dump(from, each)
    }

    /// Where the first `max` messages of the group are that are in this state.
    ///
    /// # Errors
    /// `Removed`.
    pub(crate) fn peek(&self, group: GroupId, wanted: MessageState, max: usize) -> Result<Vec<PeekedPlace>> {
        let (snapshot, visible, end) =
            self.view.with_state(|view, end| (view.state.snapshot(), view.visible.snapshot(), end));
        let streams = crate::state::StreamTails::default();
        let verdicts = KnownVerdicts::default();
        let inputs = self.now(end).inputs(HoldUp(0), &visible, (&streams, &verdicts));
        snapshot.peek(group, wanted, max, &inputs).ok_or(Error::Removed { what: "group" })
    }

    /// Reads a message that was looked for. `None` where it has left its group since, or does not pass its filter.
    ///
    /// # Errors
    /// `Unreadable`; what the system lacks for a while.
    pub(crate) fn read_peeked(&self, place: PeekedPlace) -> Result<Option<PeekedMessage>> {
        self.enter()?;
        let PeekedPlace { partition, offset, attempts, history, filter } = place;
        let stored = match self.view.fetch(partition, offset) {
            Ok(stored) => stored,
            // Its file may have gone since, with it or without.
            Err(error) => {
                let at = self.view.with_view(|view| view.locate(partition, offset));
                let is_there = at.is_some_and(|at| self.view.is_there(at.segment.number()));
                if self.has_left(partition, offset) {
                    return Ok(None);
                }
                let again = self.view.fetch(partition, offset);
                again.map_err(|newer| if is_there { error } else { newer })?
            }
        };
        if filter.is_some_and(|filter| !filter.passes(&stored.view(0))) {
            return Ok(None);
        }
        let public = self.view.with_view(|view| view.state.public_place(partition));
        let Some((topic, index)) = public else { return Ok(None) };
        let id = MessageId { topic, partition: index, epoch: stored.about.epoch, offset };
        Ok(Some(PeekedMessage { id, stored, attempts, history }))
    }

    /// Whether nobody wants a message any more.
    fn has_left(&self, partition: PartitionId, offset: Offset) -> bool {
        self.view.with_view(|view| {
            let state = &view.state;
            state.partition_role(partition).is_none() || state.is_settled(partition, offset, offset.saturating_add(1))
        })
    }
}
