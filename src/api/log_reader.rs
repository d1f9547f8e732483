//! Reading a topic as a log: without a group, from any position on.

use super::topic::TopicInner;
use crate::engine::{LogCursor, LogStart, Stored, TopicInfo, Wait};
use crate::error::Result;
use crate::ids::{MessageId, Position};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Opens a reader of a topic.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct LogReaderBuilder {
    pub(super) topic: Arc<TopicInner>,
    start: LogStart,
}

/// Reads a topic as a log: all its messages, those of all partitions, in the order of the log, and what comes after them. It leases
/// nothing, and no group knows of it; so it holds no message either (see [`Retention`](crate::Retention)).
///
/// A reader sees what groups may get: in a store opened at `Durability::Disk` what is durable. At `Os` a power failure can take back what
/// it has read; a position of that is refused later. Messages come in the order of their
/// frames, and within a frame (a batch, a transaction) by partition and offset. Nothing comes into sight before what stands before it.
///
/// Each message has a [`Position`]. A reader that is opened there goes on at exactly the next message, in this process or a later one.
///
/// ```
/// # use millpond::{Retention, Store};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// let audit = store.topic("audit").retention(Retention::Forever).open()?;
/// audit.publish_batch(["opened", "paid", "closed"])?;
///
/// let mut reader = audit.reader().open()?;
/// let first = reader.try_next()?.expect("three were published");
/// assert_eq!(first.payload(), b"opened");
/// let position = first.position().to_string(); // to be stored somewhere
///
/// let mut reader = audit.reader().from(position.parse()?).open()?;
/// assert_eq!(reader.try_next()?.map(|message| message.payload().to_vec()), Some(b"paid".to_vec()));
/// # Ok(())
/// # }
/// ```
pub struct LogReader {
    pub(super) topic: Arc<TopicInner>,
    name: Arc<str>,
    cursor: LogCursor,
}

/// A message that a [`LogReader`] has read.
pub struct LogMessage {
    topic: Arc<str>,
    info: TopicInfo,
    stored: Stored,
    position: Position,
}

impl LogReaderBuilder {
    pub(super) fn new(topic: Arc<TopicInner>) -> Self {
        Self { topic, start: LogStart::First }
    }

    /// Begin at the first message that is there. The default.
    pub fn from_start(mut self) -> Self {
        self.start = LogStart::First;
        self
    }

    /// Begin behind all that may be seen when it is opened.
    pub fn from_end(mut self) -> Self {
        self.start = LogStart::End;
        self
    }

    /// Begin at exactly the message after this position.
    pub fn from(mut self, position: Position) -> Self {
        self.start = LogStart::After(position);
        self
    }

    /// Opens the reader.
    ///
    /// # Errors
    /// `InvalidPosition` where the position is none of this topic, or what it names was lost; `Removed` where the topic was; the store's.
    pub fn open(self) -> Result<LogReader> {
        let cursor = self.topic.shared.engine.open_log(self.topic.info, self.start)?;
        let name = self.topic.name.as_str().into();
        Ok(LogReader { topic: self.topic, name, cursor })
    }
}

impl LogReader {
    /// The next message, waiting for it up to `timeout`; `None` where none came.
    ///
    /// # Errors
    /// `Gap` where messages were removed before they were read, and `Unreadable` for one that is damaged: each once, and the next call
    /// goes on behind. `Removed` where the topic was. What the system lacks for a while: the next call tries again. The store's.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<LogMessage>> {
        let engine = &self.topic.shared.engine;
        let next = engine.read_log(&mut self.cursor, Wait::new(engine, timeout))?;
        let of = || (Arc::clone(&self.name), self.topic.info);
        Ok(next.map(|(stored, position)| LogMessage::new(of(), stored, position)))
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// As [`LogReader::next`].
    pub fn try_next(&mut self) -> Result<Option<LogMessage>> {
        self.next(Duration::ZERO)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.topic.shared.engine.leave_log(&self.cursor);
    }
}

impl LogMessage {
    pub(super) fn new((topic, info): (Arc<str>, TopicInfo), stored: Stored, position: Position) -> Self {
        Self { topic, info, stored, position }
    }

    /// Where a reader stands that has read this message: give it to [`LogReaderBuilder::from`].
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let Position { epoch, partition, offset, .. } = self.position;
        let info = &self.info;
        MessageId { topic: info.id, partition: partition.0.saturating_sub(info.first.0), epoch, offset }
    }

    /// The id of its first publish: its own, unless it was redriven from dead letters.
    #[must_use]
    pub fn origin(&self) -> MessageId {
        self.stored.provenance.as_ref().map_or_else(|| self.id(), |provenance| provenance.origin.id)
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.stored.view(0).payload()
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.stored.view(0).key()
    }

    /// The headers, in the order given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.stored.view(0).headers()
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// When it was published first, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.stored.published().0)
    }
}
