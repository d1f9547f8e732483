//! The glue: one lock over log and state, group commit, reading, and the background jobs.
//!
//! A publish goes `api::Topic::publish` -> [`Engine::publish`](publish) -> [`Core::commit`](core::Core::commit) (decide,
//! append, apply under the lock) -> [`Engine::wait_durable`](commit). A receive goes `api::Group::receive` ->
//! [`Engine::receive`](deliver) -> `Core::commit` (lease) -> [`Engine::read`](read) outside the lock.
//!
//! Locks, in the order in which they may be taken: `keeper` (creates and removes files), `core` (log end and state), the
//! block cache's and group commit's (both held for moments, inside their own calls). Threads are started here and nowhere
//! else; each runs a plain function that a simulator calls as well. Never here: public handles.

mod checkpoint;
mod commit;
mod core;
mod deliver;
mod health;
mod jobs;
mod letters;
mod open;
mod owners;
mod positions;
mod publish;
mod read;
mod retire;
mod runs;
mod stats;
mod stored;
mod threads;
mod topics;
mod visible;
mod waiters;

/// What handles need of the layers below, so that they know the engine alone.
#[cfg(any(test, feature = "simulation"))]
pub(crate) use crate::disk::Disk as AnyDisk;
pub(crate) use crate::record::message::key_hash;
pub(crate) use crate::record::{BackoffOptions, Cause, Failure, GroupOptions};
pub(crate) use crate::state::HeldRun;
pub(crate) use deliver::{Received, Wait};
pub(crate) use letters::Letter;
pub(crate) use open::Setup;
pub use open::{DroppedTail, OpenReport};
pub(crate) use publish::{Outgoing, Published};
pub(crate) use read::Reader;
pub use stats::{GroupPartitionStats, GroupStats, LogStats, PartitionStats, Stats, TopicStats};
pub(crate) use threads::{Threads, spawn_subscription};
pub(crate) use topics::{Begin, GroupInfo, TopicInfo};

use self::commit::Commit;
use self::core::{Blocked, Committed, Core, Now};
use self::health::Health;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::{Epoch, GroupId, Lsn, MessageId, Offset, PartitionId, TopicId};
use crate::log::{AppendRefusal, BlockCache, FrontCache, Keeper, Parts, Reserve};
use crate::state::{Command, Rejection, Role};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Mutex, MutexGuard, panicking};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What an open store is.
#[derive(Debug)]
pub(crate) struct Engine {
    keeper: Mutex<Keeper>,
    core: Mutex<Core>,
    commit: Commit,
    health: Health,
    cache: BlockCache,
    fronts: FrontCache<owners::Owners>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    setup: Setup,
    report: OpenReport,
    jobs: jobs::Jobs,
    /// How many look for where a group begins: no segment is retired meanwhile.
    starts_sought: AtomicUsize,
}

/// The lock on the core. A panic while it is held poisons the store, for log and state may then differ.
pub(crate) struct CoreGuard<'a> {
    engine: &'a Engine,
    guard: MutexGuard<'a, Core>,
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
        if panicking() {
            self.engine.health.poison("a panic under the store's lock");
            self.guard.waiters.wake_all();
            self.engine.commit.wake_all();
        }
        let core = &mut *self.guard;
        let moved = core.appender.end() > core.wake_beyond;
        let took_spare = core.appender.spare_wanted().is_some() && !core.spare_asked;
        if moved || took_spare {
            core.wake_beyond = Lsn(u64::MAX);
            core.spare_asked |= took_spare;
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

/// What is kept back on the disk however little is outstanding, in bytes.
const RESERVED_LEN_MIN: u64 = 128 << 10;
/// The most that the settling of one message takes in the log, but for a dead letter's copy.
const SETTLING_LEN: u64 = 64;

fn is_full(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::StorageFull
}

/// Why a submitted command was not carried out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The state does not allow it. Nothing was changed.
    Rejected(Rejection),
    /// The store could not.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Engine {
    /// Fails where no operation may begin: closed, poisoned, or in a forked child.
    #[inline]
    pub(crate) fn enter(&self) -> Result<()> {
        self.health.check()?;
        if self.disk.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    pub(crate) fn report(&self) -> &OpenReport {
        &self.report
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

    /// Refuses all further calls and wakes who waits, as when the last handle is gone.
    pub(crate) fn abandon(&self) {
        self.health.close();
        self.lock_core().waiters.wake_all();
    }

    /// The public id of any message. The hidden partitions of a topic's groups count on from its last partition.
    pub(crate) fn message_id(&self, partition: PartitionId, epoch: Epoch, offset: Offset) -> MessageId {
        let core = self.lock_core();
        let state = &core.state;
        let hidden = |group: GroupId, nth: u32| {
            let topic = state.group(group).map_or(TopicId(0), |group| group.topic);
            let count = state.topic(topic).map_or(0, |topic| topic.count);
            (topic, count.saturating_add(group.0.saturating_mul(2)).saturating_add(nth))
        };
        let (topic, index) = match state.partition_role(partition) {
            Some(Role::Topic { topic, index }) => (topic, index),
            Some(Role::Retry { group }) => hidden(group, 0),
            Some(Role::Dead { group }) => hidden(group, 1),
            None => (TopicId(u32::MAX), partition.0),
        };
        MessageId { topic, partition: index, epoch, offset }
    }

    /// Whether the background threads rest until something is appended.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn rests(&self) -> bool {
        self.jobs.rests()
    }

    fn lock_core(&self) -> CoreGuard<'_> {
        #[cfg(any(test, feature = "simulation"))]
        LOCK_HOLDS.with(|count| count.set(count.get() + 1));
        CoreGuard { engine: self, guard: self.core.lock() }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.monotonic(), wall: self.clock.wall(), watermark: self.commit.watermark() }
    }

    /// Carries out `command`, doing outside the lock what the log asks for first. `then` sees the outcome, still under the
    /// lock, with the records in `core.records`.
    fn submit<T>(
        &self,
        command: &Command<'_>,
        parts: Parts<'_>,
        then: impl FnOnce(&mut Core, &Committed) -> T,
    ) -> Result<T, Refusal> {
        loop {
            let mut core = self.lock_core();
            self.health.check()?;
            match core.commit(command, parts, self.now()) {
                Ok(committed) => return Ok(then(&mut core, &committed)),
                Err(blocked) => {
                    drop(core);
                    self.unblock(blocked)?;
                }
            }
        }
    }

    /// Outside the lock: does what a blocked commit needs, so that it may be tried again, or says why that is of no use.
    fn unblock(&self, blocked: Blocked) -> Result<(), Refusal> {
        match blocked {
            Blocked::Rejected(rejection) => Err(Refusal::Rejected(rejection)),
            Blocked::Refused(refusal) => Ok(self.make_way(refusal)?),
            Blocked::Inconsistent(what) => {
                Err(self.fail(&format!("the state contradicts its own decision: {what}")).into())
            }
        }
    }

    /// What a refusal is to the caller, where nothing the caller did can have provoked a rejection.
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Failed(error) => error,
            Refusal::Rejected(Rejection::LimitReached(what)) => Error::LimitReached { what },
            Refusal::Rejected(other) => {
                self.fail(&format!("an operation that was checked before was rejected: {other}"))
            }
        }
    }

    /// Does what an append needs and may not do under the lock.
    fn make_way(&self, refusal: AppendRefusal) -> Result<()> {
        match refusal {
            AppendRefusal::NeedSpare { len, len_min, reserve } => self.make_spare(len, len_min, reserve),
            AppendRefusal::NeedSync { upto } => {
                self.wait_durable(upto).map_err(|_| Error::Poisoned { cause: self.health.cause() })
            }
            AppendRefusal::TooLarge => Err(Error::TooLarge {
                what: "batch",
                len: crate::limits::FRAME_LEN_MAX as u64 + 1,
                max: crate::limits::FRAME_LEN_MAX as u64,
            }),
            AppendRefusal::Io(error) => match Error::io("append to the log", error) {
                Error::DiskFull => Err(Error::DiskFull),
                other => Err(self.fail(&other.to_string())),
            },
        }
    }

    /// Creates the next segment, unless another thread has meanwhile. Where there is no room for `len` bytes, one of at least
    /// `len_min` will do for who may use the reserve.
    fn make_spare(&self, len: u64, len_min: u64, reserve: Reserve) -> Result<()> {
        let mut keeper = self.keeper.lock();
        self.health.check()?;
        let leave = {
            let core = self.lock_core();
            if core.appender.has_spare(len_min, reserve) {
                return Ok(());
            }
            self.reserved_bytes(&core, reserve)
        };
        let mut len = len;
        let spare = loop {
            match keeper.create_spare(len, self.commit.watermark(), reserve, leave) {
                Ok(spare) => break spare,
                Err(error) if is_full(&error) && reserve > Reserve::Keep && len > len_min => {
                    len = (len / 2).max(len_min).next_multiple_of(4096);
                }
                Err(error) => return Err(self.keeper_error(&keeper, error)),
            }
        };
        let superseded = {
            let mut core = self.lock_core();
            core.spare_asked = false;
            core.appender.add_spare(spare)
        };
        if let Some(superseded) = superseded {
            keeper.discard_spare(superseded);
        }
        Ok(())
    }

    /// How much room must remain after a segment was created: for the settling of all leases that are out, a dead letter, two
    /// checkpoints and what the file system itself needs; and as much again before anything is added.
    fn reserved_bytes(&self, core: &Core, reserve: Reserve) -> u64 {
        let outstanding = core.state.outstanding_count().saturating_mul(SETTLING_LEN);
        let once = RESERVED_LEN_MIN
            .saturating_add(self.setup.message_bytes_max as u64)
            .saturating_add(outstanding)
            .saturating_add(core.checkpoint.len.saturating_mul(2));
        match reserve {
            Reserve::Keep => once.saturating_mul(2),
            Reserve::Share => once,
            Reserve::Use => 0,
        }
    }

    /// A failure of the keeper: where it changed nothing, it is the caller's to mend; else it stops the store.
    fn keeper_error(&self, keeper: &Keeper, error: std::io::Error) -> Error {
        let error = Error::io("keep the files of the log", error);
        if keeper.is_failed() { self.fail(&error.to_string()) } else { error }
    }

    /// Stops the store for good and wakes all who wait. Returns the error to give.
    fn fail(&self, cause: &str) -> Error {
        self.poison(cause);
        Error::Poisoned { cause: self.health.cause() }
    }

    fn poison(&self, cause: &str) {
        self.health.poison(cause);
        self.lock_core().waiters.wake_all();
        self.commit.wake_all();
        self.jobs.wake();
    }
}
