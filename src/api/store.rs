//! The store's handle and its options.

use super::outcome::Outcome;
use super::subscription::Subscriptions;
use super::topic_builder::TopicBuilder;
use super::{Durability, millis};
#[cfg(any(test, feature = "simulation"))]
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::engine::{Engine, IndexKind, OpenReport, Setup, Stats, Threads};
use crate::error::{Error, Result};
use crate::limits;
use crate::sync::Mutex;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An open store: one directory, held by one process at a time. Clones are cheap and share it.
///
/// Dropping the last handle (topics, groups and deliveries are handles too) stops the background threads and lets go of
/// the directory; nothing that was promised depends on it. [`Store::close`] does more: it makes everything durable and leaves a
/// checkpoint, so that the next open has nothing to recover and no lease counts as ended by a crash.
///
/// ```
/// use millpond::{Durability, Store};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("data");
/// let store = Store::options().durability(Durability::Os).sync_interval(Duration::from_millis(20)).open(&path)?;
/// let orders = store.topic("orders").open()?;
/// let kitchen = orders.group("kitchen").open()?;
/// orders.publish("two pizzas")?;
/// store.close()?;
///
/// let store = Store::open(&path)?; // options are not stored; topics, groups and messages are
/// assert!(store.report().was_clean);
/// let kitchen = store.topic("orders").open()?.group("kitchen").open()?;
/// let delivery = kitchen.receive(Duration::ZERO)?.expect("it is still there");
/// assert_eq!(delivery.payload(), b"two pizzas");
/// delivery.ack()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<StoreShared>,
}

/// What all handles of a store share. Its drop ends the threads.
pub(super) struct StoreShared {
    pub(super) engine: Arc<Engine>,
    pub(super) level: Durability,
    pub(super) outcome: Arc<Outcome>,
    pub(super) subscriptions: Mutex<Subscriptions>,
    threads: Mutex<Threads>,
}

impl Drop for StoreShared {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // All of it is the parent's: locks that its threads may hold, threads that cannot be joined here, files.
            let subscriptions = std::mem::take(self.subscriptions.get_mut());
            let threads = std::mem::take(self.threads.get_mut());
            std::mem::forget((Arc::clone(&self.engine), subscriptions, threads));
            return;
        }
        #[cfg(feature = "async")]
        self.engine.stop_asks();
        self.threads.get_mut().stop(&self.engine);
        self.engine.abandon();
        // seam: a receipt forgets what was durable
        self.outcome.ended(self.engine.watermark());
    }
}

impl Store {
    /// Opens the store in the directory `path` with default options, creating the directory (readable by its owner
    /// only) and its parents where they are missing.
    ///
    /// # Errors
    /// `Locked`, `NotADirectory`, `NotAStore`, `NewerFormat`, `ForeignFile`, `UnsupportedFileSystem`, `Corrupt`, `DiskFull`,
    /// `TooManyOpenFiles`, `OutOfMemory`, `InvalidOption`, `Io`. No byte of the log is changed then. Directories may have been made, an
    /// unsynced end copied, and index files written, which the next open finds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Options for opening a store.
    #[must_use]
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        self.shared.engine.report()
    }

    /// The topic of this name, to be opened or created.
    pub fn topic(&self, name: impl Into<String>) -> TopicBuilder {
        TopicBuilder::new(Arc::clone(&self.shared), name.into())
    }

    /// The store in numbers.
    ///
    /// Holds the store's lock only while pointers are copied, however much is outstanding. Without the lock it then visits every partition
    /// and every outstanding message, and reads at most 4,096 messages for their ages. Beyond those an age is an upper bound.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, `Forked`.
    pub fn stats(&self) -> Result<Stats> {
        self.shared.engine.stats()
    }

    /// Returns once everything that was published or settled before this call survives a power failure.
    ///
    /// # Errors
    /// `OutcomeUnknown` where the sync failed; `Closed`, `Poisoned`, `Forked`.
    pub fn sync(&self) -> Result<()> {
        self.shared.engine.sync()
    }

    /// Syncs the log, writes a checkpoint and closes the store: every later call on any handle fails with `Closed`. Live leases end without being counted as attempts (see
    /// [`GroupBuilder::max_closes`](super::GroupBuilder::max_closes)). After a crash inside it the next open recovers as from any
    /// other.
    ///
    /// A close that fails for want of room, descriptors or memory can be called again: it then does what was left to be done, and says
    /// so. Until one has succeeded the directory stays locked, as long as there are handles. After one that succeeded, another does
    /// nothing.
    ///
    /// # Errors
    /// `DiskFull`, `TooManyOpenFiles`, `OutOfMemory`, `Io`: nobody can use the store any more; close it again, or drop all handles,
    /// and the next open recovers. `Poisoned`: the next open recovers.
    pub fn close(&self) -> Result<()> {
        if self.shared.engine.is_forked() {
            return Err(Error::Forked);
        }
        Subscriptions::close(&self.shared.subscriptions, &self.shared.engine);
        #[cfg(feature = "async")]
        self.shared.engine.stop_asks();
        self.shared.threads.lock().stop(&self.shared.engine);
        self.shared.engine.close()
    }

    /// Removes a topic: its messages, its groups, their dead letters, and all that is in progress. A topic that is created under this
    /// name afterwards is another one.
    ///
    /// Consumers that wait get [`Error::Removed`], and so does every later call of a handle of the topic or of its groups. The room on the
    /// disk comes back as segments are unlinked. Durable on return; a crash before that leaves it whole or removed.
    ///
    /// ```
    /// # use millpond::{Error, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// store.remove_topic("orders")?;
    /// assert!(matches!(orders.publish("two pizzas"), Err(Error::Removed { what: "topic" })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub fn remove_topic(&self, name: &str) -> Result<()> {
        self.shared.engine.remove_topic(name)
    }

    /// A fingerprint of the state, equal to [`OpenReport::state_hash`] of a store opened on this log as it stands; `None` before
    /// the first append of this process.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, `Forked`.
    #[cfg(any(test, feature = "simulation"))]
    pub fn state_hash(&self) -> Result<Option<u64>> {
        self.shared.engine.state_hash()
    }

    /// Whether there are other handles of this store.
    #[cfg(feature = "testing")]
    pub(crate) fn has_other_handles(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// What the state keeps twice and does not agree upon: nothing, unless this library is wrong.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.engine.violations()
    }

    /// Which sleepers nobody wakes though there is something for them: none, unless this library is wrong.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn stuck_sleepers(&self) -> Vec<String> {
        self.shared.engine.stuck()
    }

    /// Runs every background job once, in this thread.
    ///
    /// # Errors
    /// Those of the jobs.
    #[cfg(any(test, feature = "simulation"))]
    pub fn tick(&self) -> Result<()> {
        #[cfg(feature = "async")]
        self.shared.engine.look_at_asks();
        self.shared.engine.pulse()?;
        self.shared.engine.maintain()
    }

    /// Whether the background threads rest until something is appended.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn rests(&self) -> bool {
        self.shared.engine.rests()
    }

    /// Writes a checkpoint now, if anything was appended since the last.
    ///
    /// # Errors
    /// Those of the job.
    #[cfg(any(test, feature = "simulation"))]
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.engine.checkpoint()
    }
}

/// How to open a store. Options are not stored: each open may choose others.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    level: Durability,
    sync_interval: Duration,
    segment_bytes_max: u64,
    message_bytes_max: usize,
    max_bytes: Option<u64>,
    pub(super) allow_network_fs: bool,
    isolation_limit: Duration,
    index: IndexKind,
    #[cfg(any(test, feature = "simulation"))]
    index_home: crate::engine::SimIndexHome,
    #[cfg(any(test, feature = "simulation"))]
    parked_max: crate::engine::ParkedMax,
    create: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            level: Durability::Disk,
            sync_interval: Duration::from_millis(50),
            segment_bytes_max: limits::SEGMENT_LEN_DEFAULT,
            message_bytes_max: limits::MESSAGE_LEN_DEFAULT,
            max_bytes: None,
            allow_network_fs: false,
            isolation_limit: Duration::from_secs(5),
            index: IndexKind::default(),
            #[cfg(any(test, feature = "simulation"))]
            index_home: crate::engine::SimIndexHome::default(),
            #[cfg(any(test, feature = "simulation"))]
            parked_max: crate::engine::ParkedMax::default(),
            create: true,
        }
    }
}

impl StoreOptions {
    /// What a publish survives unless its handle says otherwise, and whether messages are delivered before they are
    /// durable (`Os`) or only after (`Disk`). Default: `Disk`.
    #[must_use]
    pub fn durability(mut self, level: Durability) -> Self {
        self.level = level;
        self
    }

    /// How long after it was appended something may stay unsynced; a sync begins earlier after 16 MiB of log. 1 ms to one hour; default
    /// 50 ms.
    #[must_use]
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// The size in bytes up to which segments double from 1 MiB. 64 KiB to 1 GiB; default 64 MiB. A frame that is larger
    /// gets a larger segment.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// The largest message, encoded, in bytes. 1 to 16 MiB; default 1 MiB.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// The most bytes that the files of the store may take together, but for the folder of the index. At least 8 MiB and eight of the largest
    /// message. Beyond it the disk counts as full: what adds to the store is refused with [`Error::DiskFull`], and what is kept back lets
    /// consumers go on, so that room comes back. An open may go beyond it, to copy the end of the log. A
    /// store that takes more already when it is opened can be emptied with a larger bound only. Default: as much as the disk has.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Accepts a network or user-space file system, whose promises of durability and locking this library cannot know.
    /// Default: refuse it.
    #[must_use]
    pub fn allow_network_fs(mut self, allow: bool) -> Self {
        self.allow_network_fs = allow;
        self
    }

    /// The longest time for which one exclusive lease, with the wait for it, may block all other leases. A message that was leased when
    /// the process crashed takes its last attempt under an exclusive lease, so that no other message loses an attempt by its crash.
    /// After each open such leases block others for 30 s in all; later ones are ordinary leases. Default: 5 s. Range: 0 (no lease is
    /// exclusive) to 30 s.
    #[must_use]
    pub fn isolation_limit(mut self, limit: Duration) -> Self {
        self.isolation_limit = limit;
        self
    }

    /// What holds the index of streams: a folder in the directory that is filled from the log, and filled again where it is missing,
    /// damaged or held by something else. Default: sled (with the feature `sled`, which is on by default). A store in which no topic has
    /// streams has none.
    #[must_use]
    pub fn index(mut self, kind: IndexKind) -> Self {
        self.index = kind;
        self
    }

    /// The simulated folder of the index, for stores that are opened on a disk of the caller's.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn index_home(mut self, home: crate::engine::SimIndexHome) -> Self {
        self.index_home = home;
        self
    }

    /// How many messages a group in order of keys parks in all, and of each key, before later ones are only counted.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn parked_max(mut self, of_group: u32, of_key: u32) -> Self {
        self.parked_max = crate::engine::ParkedMax { of_group, of_key };
        self
    }

    /// Whether a store is created where there is none. Without it a wrong path is `NotFound`, and nothing is created, not even a
    /// directory. Default: `true`. See also [`OpenReport::created`].
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the store in the directory `path`; see [`Store::open`].
    ///
    /// # Errors
    /// As [`Store::open`], `InvalidOption`, and `NotFound` where there is no store and none was to be created.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let engine = Engine::open(path.as_ref(), self.setup()?, self.create, Arc::new(SystemClock))?;
        let engine = Arc::new(engine);
        let threads = Threads::start(&engine)?;
        Ok(self.store(engine, threads))
    }

    /// Opens the store on a disk and clock of the caller's, without threads: [`Store::tick`] does their work.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn open_on(self, disk: Arc<dyn crate::engine::AnyDisk>, clock: Arc<dyn Clock>) -> Result<Store> {
        let home = Box::new(self.index_home.clone());
        let engine = Engine::open_at((disk, home), Path::new(""), self.setup()?, self.create, clock)?;
        Ok(self.store(Arc::new(engine), Threads::default()))
    }

    /// As [`StoreOptions::open_on`], with the background threads that [`StoreOptions::open`] starts.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn open_with_threads(self, disk: Arc<dyn crate::engine::AnyDisk>, clock: Arc<dyn Clock>) -> Result<Store> {
        let home = Box::new(self.index_home.clone());
        let engine = Engine::open_at((disk, home), Path::new(""), self.setup()?, self.create, clock)?;
        let engine = Arc::new(engine);
        let threads = Threads::start(&engine)?;
        Ok(self.store(engine, threads))
    }

    fn store(&self, engine: Arc<Engine>, threads: Threads) -> Store {
        let outcome = Outcome::new(&engine);
        let shared = StoreShared {
            engine,
            level: self.level,
            outcome: Arc::new(outcome),
            subscriptions: Mutex::default(),
            threads: Mutex::new(threads),
        };
        Store { shared: Arc::new(shared) }
    }

    pub(super) fn setup(&self) -> Result<Setup> {
        let invalid = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&self.sync_interval) {
            return invalid("sync_interval", format!("{:?}", self.sync_interval), "from 1 ms to one hour");
        }
        if !(64 << 10..=limits::SEGMENT_LEN_MAX).contains(&self.segment_bytes_max) {
            return invalid("segment_bytes_max", self.segment_bytes_max.to_string(), "from 64 KiB to 1 GiB");
        }
        if !(1..=limits::MESSAGE_LEN_MAX).contains(&self.message_bytes_max) {
            return invalid(
                "message_bytes_max",
                self.message_bytes_max.to_string(),
                "from 1 to 16777216 bytes (16 MiB)",
            );
        }
        let least = (8 << 20).max(8 * self.message_bytes_max as u64);
        if let Some(bytes) = self.max_bytes.filter(|bytes| *bytes < least) {
            return invalid("max_bytes", bytes.to_string(), "at least 8 MiB and eight times message_bytes_max");
        }
        if self.isolation_limit > Duration::from_secs(30) {
            return invalid("isolation_limit", format!("{:?}", self.isolation_limit), "at most 30 s");
        }
        Ok(Setup {
            durable_only: self.level == Durability::Disk,
            sync_interval: self.sync_interval,
            segment_bytes_max: self.segment_bytes_max,
            message_bytes_max: self.message_bytes_max,
            max_bytes: self.max_bytes,
            allow_network_fs: self.allow_network_fs,
            isolation_limit_ms: millis("isolation_limit", self.isolation_limit)?,
            index: self.index,
            #[cfg(any(test, feature = "simulation"))]
            parked_max: self.parked_max,
            #[cfg(not(any(test, feature = "simulation")))]
            parked_max: crate::engine::ParkedMax::default(),
        })
    }
}
