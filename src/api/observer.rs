//! Looking into a store without opening it: another process may have it open, or nobody.

use super::dead_letter::Failure;
use super::log_reader::LogMessage;
use super::{Store, StoreOptions};
use crate::clock::SystemClock;
use crate::engine::{
    BackupReport, DumpEntry, LogScan, LogStart, MessageState, PeekedMessage, PeekedPlace, Stats, StoreObserver,
    TopicInfo, VerifyProgress, VerifyReport,
};
use crate::error::Result;
use crate::ids::{Lsn, MessageId, Position};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::vec;

/// Looks into a store and changes nothing: it takes no lock, writes no byte, and needs nothing of the process that has the store open, if
/// there is one. See [`Store::open_read_only`].
///
/// It sees the state at one LSN: what is durable, as far as the files say. That is all that was synced, up to about a second after the last
/// sync. What a process that crashed had not synced yet is seen once the store was opened again. [`Observer::refresh`] moves on to what
/// became durable since. Leases are judged by this machine's clock; those of a process that crashed count as live until their time is over
/// or the store is opened.
///
/// A clone looks at the same state. All methods may be called from any thread. In a forked child they fail with `Forked`.
///
/// ```
/// # use millpond::{MessageState, Store};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("data");
/// let store = Store::open(&path)?;
/// let orders = store.topic("orders").open()?;
/// orders.group("kitchen").open()?;
/// orders.publish("two pizzas")?;
/// # store.close()?;
///
/// let observer = Store::open_read_only(&path)?; // in any process
/// assert_eq!(observer.stats()?.topics[0].groups[0].lag, 1);
/// for message in observer.peek("orders", "kitchen", MessageState::Ready, 10)? {
///     println!("{}", String::from_utf8_lossy(message?.payload()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Observer {
    inner: Arc<StoreObserver>,
}

/// Where an [`ObservedLog`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFrom {
    /// At the first message that is there.
    Start,
    /// Behind all that is known.
    End,
    /// At exactly the message after this position.
    After(Position),
}

/// Reads a topic as a log, as [`LogReader`](super::LogReader) does, in a store that is observed.
pub struct ObservedLog {
    pub(super) topic: Arc<str>,
    observer: Arc<StoreObserver>,
    info: TopicInfo,
    scan: LogScan,
}

/// Messages of a group in one state; see [`Observer::peek`]. Each is read when it is asked for.
pub struct Peek {
    observer: Arc<StoreObserver>,
    places: vec::IntoIter<PeekedPlace>,
}

/// A message that was looked at, and left as it is.
pub struct Peeked {
    message: PeekedMessage,
    attempts: u32,
    history: Vec<Failure>,
}

impl Store {
    /// Looks into the store in the directory `path`, which another process may have open, and changes nothing there.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `NewerFormat`, `ForeignFile`, `UnsupportedFileSystem`, `Corrupt`, `TooManyOpenFiles`, `OutOfMemory`,
    /// `Io`: of the kind `Retry` where the store changes too fast to be read.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Observer> {
        Self::options().open_read_only(path)
    }
}

impl Store {
    /// Copies the store to the directory `to` while it is in use: the state of one moment, with all that was published or settled before
    /// this call. Blocks for as long as copying takes; other calls go on.
    ///
    /// The directory is made if it is missing. If it holds an earlier backup of this store that was never opened, only what is new is
    /// copied: it stays the earlier one until the new one is complete and durable. A backup is restored by opening it, or a copy of it. It
    /// then goes on as a store of its own: it gives no id that this one gives, and is no target of a backup any more. Messages that were
    /// settled after the backup are delivered again.
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// # let backups = directory.path();
    /// let orders = store.topic("orders").open()?;
    /// orders.publish("two pizzas")?;
    /// store.backup(backups.join("nightly"))?;
    ///
    /// let restored = Store::open(backups.join("nightly"))?;
    /// assert_eq!(restored.stats()?.topics[0].published, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Locked` if somebody has the backup open; `NotADirectory`, `NotAStore`; `InvalidOption` if the directory holds something else than
    /// an earlier backup of this store; `DiskFull`, `TooManyOpenFiles`, `OutOfMemory`, `Io`: an earlier backup is still there; `Corrupt`;
    /// `OutcomeUnknown` where the sync failed; the store's.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<BackupReport> {
        self.shared.engine.backup(to.as_ref())
    }

    /// Copies the store to a disk of the caller's.
    ///
    /// # Errors
    /// As [`Store::backup`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn backup_to(&self, to: &Arc<dyn crate::engine::AnyDisk>) -> Result<BackupReport> {
        self.shared.engine.backup_to((to, Path::new("")))
    }
}

impl StoreOptions {
    /// Looks into the store in the directory `path`; see [`Store::open_read_only`]. Of the options only `allow_network_fs` counts.
    ///
    /// # Errors
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Observer> {
        StoreObserver::open(path.as_ref(), self.allow_network_fs, Arc::new(SystemClock)).map(Observer::new)
    }

    /// Looks into the store on a disk and clock of the caller's.
    ///
    /// # Errors
    /// As [`Store::open_read_only`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn open_read_only_on(
        self,
        disk: Arc<dyn crate::engine::AnyDisk>,
        clock: Arc<dyn crate::clock::Clock>,
    ) -> Result<Observer> {
        StoreObserver::open_at(disk, Path::new(""), clock).map(Observer::new)
    }
}

impl Observer {
    fn new(inner: StoreObserver) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Moves on to what became durable since it was opened or refreshed. Whether anything did.
    ///
    /// # Errors
    /// As [`Store::open_read_only`], and `Forked`: what is known stays, and the next call tries again.
    pub fn refresh(&self) -> Result<bool> {
        self.inner.refresh()
    }

    /// The end of the log that it knows.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.inner.end()
    }

    /// The store in numbers, as [`Store::stats`](Store::stats). What is counted since the store was opened is 0.
    ///
    /// # Errors
    /// `Forked`.
    pub fn stats(&self) -> Result<Stats> {
        self.inner.stats()
    }

    /// The names of all cursors, in order.
    ///
    /// # Errors
    /// `Forked`.
    pub fn cursors(&self) -> Result<Vec<String>> {
        Ok(self.inner.cursors()?.into_iter().map(|name| name.as_ref().to_owned()).collect())
    }

    /// Where a cursor stands; `None` where there is none of this name.
    ///
    /// # Errors
    /// `Forked`.
    pub fn cursor(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.cursor(name)?.map(|value| value.to_vec()))
    }

    /// Reads a topic as a log.
    ///
    /// # Errors
    /// `NotFound`; `InvalidPosition` where the position is none of this topic, or what it names was lost; `Io`.
    pub fn log(&self, topic: &str, from: ReadFrom) -> Result<ObservedLog> {
        let info = self.inner.find_topic(topic)?;
        let start = match from {
            ReadFrom::Start => LogStart::First,
            ReadFrom::End => LogStart::End,
            ReadFrom::After(position) => LogStart::After(position),
        };
        let scan = self.inner.open_log(info, start)?;
        Ok(ObservedLog { topic: topic.into(), observer: Arc::clone(&self.inner), info, scan })
    }

    /// Verifies all that it knows: every frame, with every byte of every message; that index files say what their files say; that the
    /// newest checkpoint is what the log makes of the one before it; and that all that the state counts is right when it is counted again.
    /// Reads the whole log. `progress` is called before each file and at the end.
    ///
    /// A store that is damaged so that it cannot be opened is not observed either: the error says what is wrong.
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("data");
    /// # Store::open(&path)?.close()?;
    /// let report = Store::open_read_only(&path)?.verify(|_| ())?;
    /// assert!(report.findings.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Io`, `TooManyOpenFiles`, `OutOfMemory`, `NewerFormat`, `Forked`. What is damaged is no error: see [`VerifyReport::findings`].
    pub fn verify(&self, mut progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport> {
        self.inner.verify(&mut progress)
    }

    /// Copies the store, as it is durable now, to the directory `to`: see [`Store::backup`]. `progress` gets the bytes done, and all.
    ///
    /// # Errors
    /// As [`Store::backup`], and `Forked`.
    pub fn backup(&self, to: impl AsRef<Path>, progress: impl Fn(u64, u64)) -> Result<BackupReport> {
        self.inner.backup(to.as_ref(), progress)
    }

    /// Copies the store to a disk of the caller's.
    ///
    /// # Errors
    /// As [`Store::backup`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn backup_to(&self, to: &Arc<dyn crate::engine::AnyDisk>) -> Result<BackupReport> {
        self.inner.backup_to((to, Path::new("")), |_, _| ())
    }

    /// Shows `each` what the log says from the LSN `from` on, frame by frame, until it returns `false`. A kind of record that this version
    /// does not know is shown as such. No bytes of messages are shown.
    ///
    /// # Errors
    /// `Io`, `TooManyOpenFiles`, `OutOfMemory`, `Forked`.
    pub fn dump(&self, from: Lsn, mut each: impl FnMut(DumpEntry) -> bool) -> Result<()> {
        self.inner.dump(from, &mut each)
    }

    /// The messages of a group that are in this state, by partition and offset, at most `max` of them. Which they are is known on return;
    /// each is read when the iterator comes to it. One that has left the group by then may be left out. Messages that a group in order of
    /// keys only counts are left out.
    ///
    /// # Errors
    /// `NotFound`. Of the iterator: `Unreadable` for one that is damaged, and it goes on behind; `Io`.
    pub fn peek(&self, topic: &str, group: &str, state: MessageState, max: usize) -> Result<Peek> {
        let group = self.inner.find_group(topic, group)?;
        let places = self.inner.peek(group, state, max)?.into_iter();
        Ok(Peek { observer: Arc::clone(&self.inner), places })
    }
}

impl ObservedLog {
    /// The next message that the observer knows, if there is one. After a [`refresh`](Observer::refresh) of the observer there may be more.
    ///
    /// # Errors
    /// As [`LogReader::next`](super::LogReader::next).
    pub fn try_next(&mut self) -> Result<Option<LogMessage>> {
        let next = self.observer.read_log(&mut self.scan)?;
        Ok(next.map(|(stored, position)| LogMessage::new((Arc::clone(&self.topic), self.info), stored, position)))
    }
}

impl Iterator for Peek {
    type Item = Result<Peeked>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.observer.read_peeked(self.places.next()?) {
                Ok(Some(message)) => return Some(Ok(Peeked::new(message))),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Peeked {
    fn new(message: PeekedMessage) -> Self {
        // A dead letter says itself what it went through, and another copy what it went through before.
        let copied =
            message.stored.provenance.as_deref().filter(|_| message.history.is_empty() && message.attempts == 0);
        let attempts = copied.map_or(message.attempts, |copied| copied.attempts);
        let history = copied.map_or(&message.history, |copied| &copied.history).iter().map(Failure::from).collect();
        Self { attempts, history, message }
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// The id of its first publish: its own, unless it is a dead letter or was redriven.
    #[must_use]
    pub fn origin(&self) -> MessageId {
        self.message.stored.provenance.as_ref().map_or(self.message.id, |provenance| provenance.origin.id)
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.message.stored.view(0).payload()
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.message.stored.view(0).key()
    }

    /// The headers, in the order given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.message.stored.view(0).headers()
    }

    /// When it was published first, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.message.stored.published().0)
    }

    /// How many attempts were counted in its group since it was published or last redriven.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How the last of them ended, oldest first: at most 8.
    #[must_use]
    pub fn history(&self) -> &[Failure] {
        &self.history
    }
}
