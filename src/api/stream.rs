//! Streams of events: append with an expected version, read, truncate.
//!
//! Never here: what an event means, and the numbering itself.

use super::message::Bytes;
use super::place::Place;
use super::receipt::PublishedFrame;
use super::topic::TopicInner;
use super::{Durability, Message, Topic};
use crate::engine::{Direction, Outgoing, Stored, StreamAppended, StreamAt, StreamId};
use crate::error::{Error, Result};
use crate::ids::{Expected, Lsn, MessageId, Offset, PartitionId};
use crate::limits::KEY_LEN_MAX;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The events of one key of a topic: a log of its own, whose events have the versions 0, 1, 2 and so on, without holes or repeats.
///
/// An append is the publication of its events: groups of the topic get them as any message, in order, and a
/// [`LogReader`](crate::LogReader) reads them all. So there is no moment in which an event is stored and not published.
///
/// ```
/// use millpond::{Error, Expected, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// let orders = store.topic("orders").streams().open()?;
/// let order = orders.stream("order-42")?;
/// order.append(Expected::NoStream, ["placed", "paid"])?;
///
/// // Two who decided by the same version: one of them wins.
/// let appended = order.append(Expected::Version(1), ["shipped"])?;
/// assert_eq!(appended.last_version(), 2);
/// let late = order.append(Expected::Version(1), ["cancelled"]);
/// assert!(matches!(late, Err(Error::WrongVersion { actual: Some(2), .. })));
///
/// let events = order.read(0, 100)?;
/// assert_eq!(events.iter().map(|event| event.payload()).collect::<Vec<_>>(), [&b"placed"[..], b"paid", b"shipped"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Stream {
    pub(super) topic: Topic,
    key: Arc<[u8]>,
    id: StreamId,
}

/// An event of a [`Stream`], as it was read.
pub struct Event {
    topic: Arc<TopicInner>,
    version: u64,
    stored: Stored,
}

/// Says that events were appended.
#[derive(Clone)]
pub struct StreamReceipt {
    first: u64,
    count: u64,
    ids: Vec<MessageId>,
    frame: PublishedFrame,
    repeat: bool,
}

impl Topic {
    /// The stream of this key: 1 byte to 64 KiB. It exists once an event was appended.
    ///
    /// # Errors
    /// `InvalidOption` where the topic was not opened with [`TopicBuilder::streams`](crate::TopicBuilder::streams), or the key is empty;
    /// `TooLarge`.
    pub fn stream(&self, key: impl AsRef<[u8]>) -> Result<Stream> {
        let key = key.as_ref();
        let inner = self.inner();
        if !inner.info.options.streams {
            let expected = "true for a topic of streams: open it with `streams()`";
            return Err(Error::InvalidOption { option: "streams", value: "false".to_owned(), expected });
        }
        if key.is_empty() {
            return Err(Error::InvalidOption {
                option: "key",
                value: "empty".to_owned(),
                expected: "at least one byte",
            });
        }
        if key.len() > KEY_LEN_MAX {
            let (len, max) = (key.len() as u64, KEY_LEN_MAX as u64);
            return Err(Error::TooLarge { what: "key", len, max, unit: "bytes" });
        }
        let partition = inner.info.first.nth(inner.partition_of_key(key));
        let id = inner.shared.engine.stream_id(inner.info.id, partition, key);
        Ok(Stream { topic: self.clone(), key: key.into(), id })
    }
}

impl Stream {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The topic that it is in.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Appends events behind the last one, if that is as `expected`: all in one frame, or none. On return they survive what the level of
    /// the topic's handle says. At most 65,536 events and about 28 MiB.
    ///
    /// Events with a [`dedup_id`](Message::dedup_id) are appended once within the topic's window: an append of which all events were
    /// appended before changes nothing, whatever it expects, and gives the versions that they have. So an append whose outcome is not known
    /// can be made again.
    ///
    /// # Errors
    /// `WrongVersion`; `DedupConflict` where an id was given to another event, or only some of the events were appended before;
    /// `InvalidOption` where an event has a key or partition of its own, or there is none; `TooLarge`, `InvalidName`, `LimitReached`,
    /// `IndexRebuilding`, `DiskFull`, `TooManyOpenFiles`, `OutOfMemory`, `Closed`, `Poisoned`, `Forked`, `Removed`: nothing was appended.
    /// `OutcomeUnknown`: it is there after reopening, or it is not.
    pub fn append<'a, M: Into<Message<'a>>>(
        &self,
        expected: Expected,
        events: impl IntoIterator<Item = M>,
    ) -> Result<StreamReceipt> {
        let outgoing = self.outgoing(events)?;
        let engine = &self.inner().shared.engine;
        let level = self.topic.level();
        let count = outgoing.len() as u64;
        match engine.append(self.at(), expected, &outgoing)? {
            StreamAppended::Now { published, version, base } => {
                // seam: an append does not wait
                if level == Durability::Disk {
                    engine.wait_durable(published.end)?;
                }
                let id = |nth: u64| MessageId { epoch: published.epoch, ..self.message_id(base.saturating_add(nth)) };
                let frame = PublishedFrame::new(&self.inner().shared, published.lsn, published.end, level);
                Ok(StreamReceipt { first: version, count, ids: (0..count).map(id).collect(), frame, repeat: false })
            }
            StreamAppended::Before(repeats) => {
                let end = engine.end();
                if level == Durability::Disk {
                    engine.wait_durable(end)?;
                }
                let ids: Vec<_> = repeats.iter().map(|repeat| repeat.id).collect();
                let Some(&first_id) = ids.first() else { return Err(Error::Closed) };
                // A publish may have had the id.
                let version = engine.version_at(self.id, first_id.offset)?;
                let first = version.ok_or_else(|| engine.dedup_conflict(first_id, Some(self.at().refused(0))))?;
                let lsn = repeats.first().map_or(Lsn(0), |repeat| repeat.lsn);
                let frame = PublishedFrame::new(&self.inner().shared, lsn, end, level);
                Ok(StreamReceipt { first, count, ids, frame, repeat: true })
            }
        }
    }

    /// The events encoded, all for this stream.
    pub(super) fn outgoing<'a, M: Into<Message<'a>>>(&self, events: impl IntoIterator<Item = M>) -> Result<Outgoing> {
        let mut outgoing = Outgoing::default();
        let index = self.id.partition.0.saturating_sub(self.inner().info.first.0) as u32;
        for event in events {
            let mut event = event.into();
            event.check()?;
            if event.key.is_some() || event.partition.is_some() {
                let expected = "left out: an event has those of its stream";
                return Err(Error::InvalidOption { option: "key or partition", value: "given".to_owned(), expected });
            }
            event.key = Some(Bytes::from(&self.key[..]));
            if event.wanted.is_some() {
                let expected = "left out: an event is appended now";
                return Err(Error::InvalidOption { option: "delay", value: "given".to_owned(), expected });
            }
            if event.unique_key.is_some() {
                let expected = "left out: an event stays for ever";
                return Err(Error::InvalidOption { option: "unique_key", value: "given".to_owned(), expected });
            }
            self.topic.add(&mut outgoing, Place::now(index), &event)?;
        }
        if outgoing.len() == 0 {
            return Err(Error::InvalidOption { option: "events", value: "none".to_owned(), expected: "at least one" });
        }
        if !outgoing.doubles()?.is_empty() {
            let value = "given to two events of an append".to_owned();
            let expected = "another one for another event";
            return Err(Error::InvalidOption { option: "dedup_id", value, expected });
        }
        Ok(outgoing)
    }

    /// The events from version `from` on, in order: at most `max`, and fewer only at the end of the stream. What was truncated is
    /// skipped.
    ///
    /// A store opened at `Durability::Disk` shows what is durable.
    ///
    /// # Errors
    /// `Unreadable` where an event is damaged; `IndexRebuilding`; `Removed`; the store's.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<Event>> {
        self.read_some(from, Direction::Ascending, max)
    }

    /// The events from version `from` back to the first one, the newest first: at most `max`. `u64::MAX` begins at the last event.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn read_back(&self, from: u64, max: usize) -> Result<Vec<Event>> {
        self.read_some(from, Direction::Descending, max)
    }

    fn read_some(&self, from: u64, direction: Direction, max: usize) -> Result<Vec<Event>> {
        let events = self.inner().shared.engine.read_stream(self.at(), from, direction, max)?;
        let event = |(version, stored)| Event { topic: Arc::clone(self.inner()), version, stored };
        Ok(events.into_iter().map(event).collect())
    }

    /// The version of the last event; `None` where there is none.
    ///
    /// # Errors
    /// `IndexRebuilding`; the store's.
    pub fn last_version(&self) -> Result<Option<u64>> {
        Ok(self.inner().shared.engine.stream_head(self.id)?.last())
    }

    /// The version of the first event that is there; `None` where there is none.
    ///
    /// # Errors
    /// As [`Stream::last_version`].
    pub fn first_version(&self) -> Result<Option<u64>> {
        let head = self.inner().shared.engine.stream_head(self.id)?;
        Ok(head.last().map(|_| head.first))
    }

    /// Takes all events below `version` from those who read the stream. Groups still get those that they have not settled. Versions go on
    /// as before, and snapshots stay while an event does. Durable on return.
    ///
    /// # Errors
    /// `IndexRebuilding`, `Removed`, `DiskFull`; the store's. Nothing was changed then, except by `OutcomeUnknown`.
    pub fn truncate_before(&self, version: u64) -> Result<()> {
        let engine = &self.inner().shared.engine;
        let end = engine.truncate_stream(self.id, version, &self.note(&[])?)?;
        engine.wait_durable(end)
    }

    /// Takes all events from those who read the stream, as [`Stream::truncate_before`], and all snapshots. It does not exist then, for those
    /// who append; an event that comes later has the version behind the last.
    ///
    /// # Errors
    /// As [`Stream::truncate_before`].
    pub fn delete(&self) -> Result<()> {
        self.truncate_before(u64::MAX)
    }

    pub(super) const fn id(&self) -> StreamId {
        self.id
    }

    pub(super) fn id_and_key(&self) -> (StreamId, Arc<[u8]>) {
        (self.id, Arc::clone(&self.key))
    }

    pub(super) fn at(&self) -> StreamAt<'_> {
        StreamAt { id: self.id, key: &self.key }
    }

    pub(super) fn inner(&self) -> &Arc<TopicInner> {
        self.topic.inner()
    }

    fn message_id(&self, offset: Offset) -> MessageId {
        message_id(self.inner(), self.id.partition, offset)
    }
}

fn message_id(topic: &TopicInner, partition: PartitionId, offset: Offset) -> MessageId {
    let partition = partition.0.saturating_sub(topic.info.first.0);
    MessageId { topic: topic.info.id, partition, offset, epoch: Default::default() }
}

impl Event {
    /// Its place in the stream, from 0.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The id that it has as a message of the topic.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let about = self.stored.about;
        MessageId { epoch: about.epoch, ..message_id(&self.topic, about.partition, about.first) }
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.stored.view(0).payload()
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

    /// When it was appended, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.stored.published().0)
    }
}

impl StreamReceipt {
    /// The version of the first event that was appended.
    #[must_use]
    pub fn first_version(&self) -> u64 {
        self.first
    }

    /// The version of the last one: what the next append expects, if nobody else appends.
    #[must_use]
    pub fn last_version(&self) -> u64 {
        self.first.saturating_add(self.count.saturating_sub(1))
    }

    /// Whether nothing was appended, since all of the events had been before. All else is then of that append.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.repeat
    }

    /// The ids of the events as messages of the topic, in order.
    #[must_use]
    pub fn ids(&self) -> &[MessageId] {
        &self.ids
    }

    /// Where in the log they stand.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.frame.lsn()
    }

    /// Returns once the events survive a power failure.
    ///
    /// # Errors
    /// As [`Receipt::wait_durable`](crate::Receipt::wait_durable).
    pub fn wait_durable(&self) -> Result<()> {
        self.frame.wait_durable()
    }
}
