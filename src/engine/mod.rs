//! The glue: one lock over log and state, group commit, reading, and the background jobs.
//!
//! A publish goes `api::Topic::publish` -> [`Engine::publish`](publish) -> [`Core::commit`](core::Core::commit) (decide,
//! append, apply under the lock) -> [`Engine::wait_durable`](commit). A receive goes `api::Group::receive` ->
//! [`Engine::receive`](deliver) -> `Core::commit` (lease) -> [`Reading`](leased) outside the lock.
//!
//! Locks, in the order in which they may be taken: `closed` (while a close saves), that of the index of streams (while the index is
//! asked, written and filled from the log), a handle's `reader` (while messages are read), `file_manager` (creates and removes files),
//! `core` (log end and state). Then come those that are held for moments, inside their own calls: of the block cache, the front cache, group
//! commit, maintenance, `jobs`, kept leases and futures (`asks`, `durable`). Threads are started here, but for one that opens a sled index;
//! each runs a plain function that a simulator calls as well. Never here: public handles.

mod core;
mod dedup;
mod deliver;
mod follow;
mod health;
mod maintenance;
mod observer;
mod open;
mod outgoing;
mod rates;
mod refusal;
mod repair;
mod reserve;
mod room;
mod schedule;
mod seek;
mod stats;
mod stream;
mod threads;
mod topics;
mod write;

/// What handles need of the layers below, so that they know the engine alone.
#[cfg(any(test, feature = "simulation"))]
pub(crate) use crate::disk::Disk as AnyDisk;
pub(crate) use crate::index::Direction;
pub use crate::index::IndexKind;
#[cfg(any(test, feature = "simulation"))]
pub use crate::index::{IndexOutcome, SimIndexHome};
pub(crate) use crate::record::Hold;
pub(crate) use crate::record::StreamId;
pub(crate) use crate::record::message::key_hash;
pub(crate) use crate::record::{
    AttemptFailure, BackoffOptions, FailureCause, Filter, FilterFault, GroupOptions, Growth, Jitter, RateOptions,
    TopicOptions,
};
pub use crate::record::{FailureCounts, Ordering, Retention, WhenFull};
pub use crate::state::MessageState;
pub(crate) use crate::state::PeekedPlace;
pub use crate::state::WhilePending;
pub(crate) use crate::state::{GroupChanges, HeldRun, Later, ParkedMax, Repeat, Sequence};
pub use crate::view::{BackupReport, DumpEntry, DumpedFrame, DumpedRecord, VerifyProgress, VerifyReport};
pub use crate::view::{GroupCounters, GroupPartitionStats, GroupStats, LogStats, PartitionStats, Stats, TopicStats};
pub(crate) use crate::view::{LogScan, LogStart, Reader, Stored, TopicInfo};
pub use crate::view::{LostLog, LostMessages, RepairReport};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use crate::wait::Ticket;
#[cfg(feature = "async")]
pub(crate) use deliver::asks::{Answer, Ask};

pub(crate) use dedup::DedupHasher;
pub(crate) use deliver::leased::{LeasedMessage, Received};
pub(crate) use deliver::receive::{Request, Wait};
pub(crate) use follow::log_reader::LogCursor;
pub(crate) use observer::{PeekedMessage, StoreObserver};
pub(crate) use open::Setup;
pub use open::{DroppedTail, OpenReport};
pub(crate) use outgoing::{Outgoing, Published, PublishedRun};
pub(crate) use repair::RepairMode;
pub(crate) use schedule::ScheduledAt;
pub use seek::Sought;
pub(crate) use stream::streams::{StreamAppended, StreamAt, shown};
pub(crate) use threads::{Threads, spawn_subscription};
pub(crate) use topics::{Begin, GroupInfo};
#[cfg(feature = "async")]
pub(crate) use write::durable::DurableWait;
pub(crate) use write::transaction::{CursorChange, NotDone, Settlement, SnapshotSave, StreamAppend, Transacted, Work};

use self::core::{CommitOutcome, Core};
use self::health::Health;
use self::maintenance::Maintenance;
use self::refusal::{Refusal, Refused};
use self::stream::stream_index::StreamIndex;
use self::write::commit::Commit;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::{FileManager, Parts};
use crate::state::{Command, Rejection};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, MutexGuard, UnwindWatch};
use crate::view::{Now, ReadCaches, View, ViewHolder};
use crate::wait::DueWakers;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

/// What an open store is.
#[derive(Debug)]
pub(crate) struct Engine {
    file_manager: Mutex<FileManager>,
    core: Mutex<Core>,
    commit: Commit,
    dedup: DedupHasher,
    index: StreamIndex,
    health: Health,
    caches: ReadCaches,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    setup: Setup,
    report: OpenReport,
    jobs: maintenance::jobs::Jobs,
    #[cfg(feature = "async")]
    futures: Futures,
    /// No exhausted message is moved to the dead letters before this monotonic time, in milliseconds.
    moves_rest_until: AtomicU64,
    /// Leases that are extended by themselves.
    kept: deliver::kept::KeptAlive,
    /// When scheduled messages are looked at.
    due_times: schedule::DueTimes,
    maintenance: Maintenance,
    /// Whether a close has come to its end, well or not. Taken before any other lock.
    closed: Mutex<bool>,
}

/// What futures wait by.
#[cfg(feature = "async")]
#[derive(Debug, Default)]
struct Futures {
    asks: deliver::asks::Asks,
    durable: write::durable::DurableFutures,
}

/// The lock on the core. A panic while it is held poisons the store, for log and state may then differ.
pub(crate) struct CoreGuard<'a> {
    engine: &'a Engine,
    guard: MutexGuard<'a, Core>,
    watch: UnwindWatch,
    /// Dropped, and thereby called, after the lock is.
    due: DueWakers,
}

impl Deref for CoreGuard<'_> {
    type Target = Core;
    fn deref(&self) -> &Core {
        &self.guard
    }
}

impl DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.guard
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        if self.watch.has_panicked() {
            self.engine.health.poison("a panic under the store's lock");
            self.guard.waiters.wake_all();
            self.engine.commit.wake_all();
            // Futures may not be woken under the lock. The flusher does it.
            self.engine.jobs.wake();
        }
        let core = &mut *self.guard;
        self.due = core.waiters.take_due();
        let moved = core.appender.end() > core.wake_beyond;
        let took_standby = core.appender.standby_wanted().is_some() && !core.standby_asked;
        if moved || took_standby {
            core.wake_beyond = Lsn(u64::MAX);
            core.standby_asked |= took_standby;
            self.engine.jobs.wake();
        }
    }
}

#[cfg(any(test, feature = "simulation"))]
thread_local! {
    static LOCK_HOLDS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How often this thread has taken the lock of a store.
#[cfg(any(test, feature = "simulation"))]
pub fn lock_holds() -> u64 {
    LOCK_HOLDS.with(std::cell::Cell::get)
}

impl ViewHolder for Engine {
    fn with_view<R>(&self, look: impl FnOnce(&mut View) -> R) -> R {
        look(&mut self.lock_core().view)
    }

    fn caches(&self) -> &ReadCaches {
        &self.caches
    }
}

impl Engine {
    /// Fails if no operation may begin: in a forked child, closed, or poisoned. The fork is checked first, because the other answers
    /// may need a lock, and a thread that does not exist in the child may have held it at the fork.
    #[inline]
    pub(crate) fn enter(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        self.health.check()
    }

    /// Whether this process is a forked child of the one that opened the store. Takes no lock.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.disk.is_forked()
    }

    pub(crate) fn report(&self) -> &OpenReport {
        &self.report
    }

    /// The directory, if the store was opened by a path.
    pub(crate) fn dir(&self) -> &Path {
        &self.caches.dir
    }

    /// Once this is durable, so is all that was appended before.
    pub(crate) fn end(&self) -> Lsn {
        self.lock_core().appender.wanted()
    }

    /// Hashes ids of messages.
    pub(crate) fn dedup(&self) -> &DedupHasher {
        &self.dedup
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Returns once everything appended before this call is durable.
    ///
    /// # Errors
    /// `OutcomeUnknown` where the sync failed.
    pub(crate) fn sync(&self) -> Result<()> {
        self.enter()?;
        let due = self.lock_core().appender.wanted();
        self.wait_durable(due)
    }

    /// Refuses all further calls, wakes all waiters and unlocks the directory: the last handle is gone, and the threads have ended.
    pub(crate) fn abandon(&self) {
        self.health.abandon();
        self.commit.wake_all();
        #[cfg(feature = "async")]
        self.wake_durable();
        // A receipt may still wait for a sync, and keeps files open until it returns. The directory does not wait for it.
        self.detach();
    }

    /// Unlocks the directory once no call writes to it. No later call may write: the store is closed, poisoned or abandoned.
    fn detach(&self) {
        self.index.close();
        let _quiet = (self.file_manager.lock(), self.core.lock());
        self.disk.detach();
    }

    /// Up to where the log is known to be durable. Takes no lock.
    pub(crate) fn watermark(&self) -> Lsn {
        self.commit.watermark()
    }

    /// Whether the background threads rest until something is appended.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn rests(&self) -> bool {
        !self.is_forked() && self.jobs.rests()
    }

    fn lock_core(&self) -> CoreGuard<'_> {
        #[cfg(any(test, feature = "simulation"))]
        LOCK_HOLDS.with(|count| count.set(count.get() + 1));
        CoreGuard { engine: self, watch: UnwindWatch::new(), guard: self.core.lock(), due: DueWakers::default() }
    }

    /// What the wall clock says.
    pub(crate) fn wall(&self) -> crate::ids::WallMs {
        self.clock.wall()
    }

    fn now(&self) -> Now {
        // seam: leases by the wall clock
        let mono = self.clock.monotonic();
        let steady = self.jobs.steady(mono);
        Now {
            mono,
            wall: self.clock.wall(),
            steady,
            watermark: self.commit.watermark(),
            slack_ms: self.clock.slack_ms(),
        }
    }

    /// Carries out `command`, doing outside the lock what the log asks for first. `then` sees the outcome, still under the
    /// lock, with the records in `core.records`.
    ///
    /// # Errors
    /// The store's. A rejection is no error of the store: the caller knows what it means.
    fn submit<T>(
        &self,
        command: &Command<'_>,
        parts: Parts<'_>,
        mut then: impl FnMut(&mut Core, &CommitOutcome) -> T,
    ) -> Result<Result<T, Rejection>> {
        loop {
            let refused = match self.try_submit(command, parts, &mut then)? {
                Ok(done) => return Ok(Ok(done)),
                Err(refused) => refused,
            };
            if let Err(rejection) = self.resolve(refused)? {
                return Ok(Err(rejection));
            }
        }
    }

    /// As [`Engine::submit`], but what has to be done outside the lock first is left to [`Engine::resolve`].
    ///
    /// # Errors
    /// The store's.
    fn try_submit<T>(
        &self,
        command: &Command<'_>,
        parts: Parts<'_>,
        then: impl FnOnce(&mut Core, &CommitOutcome) -> T,
    ) -> Result<std::result::Result<T, Refused>> {
        let mut core = self.lock_core();
        self.health.check()?;
        match core.commit(command, parts, self.now()) {
            Ok(committed) => Ok(Ok(then(&mut core, &committed))),
            Err(refusal) => Ok(Err(Refused { refusal, end: core.appender.wanted() })),
        }
    }

    /// Does what a command was refused for, so that it may be tried again, or returns the rejection once that may be told. Calls wakers of
    /// users where it syncs: no lock of the engine's may be held.
    ///
    /// # Errors
    /// The store's.
    fn resolve(&self, Refused { refusal, end }: Refused) -> Result<std::result::Result<(), Rejection>> {
        if matches!(&refusal, Refusal::Rejected(rejection) if rejection.tells()) {
            self.tell(end)?;
        }
        self.unblock(refusal)
    }

    /// A failure of the file manager: where it changed nothing, it is the caller's to mend; else it stops the store.
    fn file_manager_error(&self, file_manager: &FileManager, error: std::io::Error) -> Error {
        let error = Error::io("manage the files in", error).at(&self.caches.dir);
        if file_manager.is_failed() { self.fail(&error.to_string()) } else { error }
    }

    /// Stops the store for good and wakes all waiters. Returns the error to give.
    fn fail(&self, cause: &str) -> Error {
        self.poison(cause);
        Error::Poisoned { cause: self.health.cause() }
    }

    fn poison(&self, cause: &str) {
        self.health.poison(cause);
        self.lock_core().waiters.wake_all();
        self.commit.wake_all();
        // The flusher wakes futures: this may be called under a lock.
        self.jobs.wake();
    }
}
