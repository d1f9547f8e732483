//! Topics and publishing.

use super::group_builder::GroupBuilder;
use super::log_reader::LogReaderBuilder;
use super::receipt::{BatchReceipt, Placed, Places, PublishedFrame, Receipt};
use super::store::StoreShared;
use super::{Durability, Message, check_name, millis};
use crate::engine::{Engine, Outgoing, Published, Repeat, Retention, TopicInfo, TopicOptions};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, MessageId, Offset};
use crate::limits::{DEDUP_IDS_MAX, FRAME_PARTS_MAX, SNAPSHOTS_KEPT_MAX, TOPIC_PARTITIONS_MAX};
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::thread_local;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    /// Encoded messages of this thread's publish in progress: reused, so that a publish allocates nothing.
    static OUTGOING: RefCell<Outgoing> = RefCell::default();
}

/// Lets `publish` use this thread's memory for messages, emptied.
#[inline]
fn with_outgoing<T>(publish: impl FnOnce(&mut Outgoing) -> T) -> T {
    // A destructor of another thread-local may publish when this one is gone.
    if OUTGOING.try_with(|_| ()).is_err() {
        return publish(&mut Outgoing::default());
    }
    OUTGOING.with(|outgoing| {
        let mut outgoing = outgoing.borrow_mut();
        outgoing.clear();
        publish(&mut outgoing)
    })
}

/// Opens a topic, or creates it.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct TopicBuilder {
    shared: Arc<StoreShared>,
    pub(super) name: String,
    partitions: Option<u32>,
    retention: Option<Retention>,
    dedup_ids: Option<u32>,
    dedup_window: Option<Duration>,
    streams: bool,
    snapshots_kept: Option<u32>,
    create: bool,
}

/// An ordered, partitioned set of messages. Clones are cheap; all methods may be called from any thread.
#[derive(Clone)]
pub struct Topic {
    inner: Arc<TopicInner>,
    level: Durability,
}

pub(super) struct TopicInner {
    pub(super) shared: Arc<StoreShared>,
    pub(super) name: String,
    pub(super) info: TopicInfo,
    /// Where the next message without a key goes.
    pub(super) turn: AtomicU32,
    /// The hidden partition of messages for later; the greatest number while it is not known.
    pub(super) schedule: AtomicU64,
}

impl TopicBuilder {
    pub(super) fn new(shared: Arc<StoreShared>, name: String) -> Self {
        Self {
            shared,
            name,
            partitions: None,
            retention: None,
            dedup_ids: None,
            dedup_window: None,
            streams: false,
            snapshots_kept: None,
            create: true,
        }
    }

    /// The number of partitions: 1 to 65,536, fixed when the topic is created. Default: what is stored, or 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// For how long its messages stay, fixed when the topic is created. Default: what is stored, or [`Retention::UntilSettled`].
    /// Beyond it messages stay as long as a group of the topic has not settled them.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// How many ids of its messages ([`Message::dedup_id`](crate::Message::dedup_id)) the topic remembers: 1 to 1,048,576, fixed when the
    /// topic is created. Default: what is stored, or 16,384. Beyond that the oldest goes. All topics of a store that have seen an id may
    /// remember 1,048,576 together.
    pub fn dedup_ids(mut self, ids: u32) -> Self {
        self.dedup_ids = Some(ids);
        self
    }

    /// For how long the topic remembers an id, from its first publish on: a millisecond to ten years, fixed when the topic is created.
    /// Default: what is stored, or two minutes. Jumps of the clock do not count while the store is open; while it is closed time goes by
    /// the wall clock.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.dedup_window = Some(window);
        self
    }

    /// Whether events can be appended to [streams](crate::Stream) in it, fixed when the topic is created. Its messages stay for ever.
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// How many [snapshots](crate::Stream::save_snapshot) of a stream are found, those of the highest versions: 1 to 1,000, fixed when the topic
    /// is created. Given only together with [`TopicBuilder::streams`]. Default: what is stored, or 1.
    pub fn snapshots_kept(mut self, snapshots: u32) -> Self {
        self.snapshots_kept = Some(snapshots);
        self
    }

    /// Whether the topic is created where it does not exist. Default: `true`.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the topic, creating it where it does not exist. A created topic is durable on return.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOption`; `OptionMismatch` where it exists with another value of an option that is given here;
    /// `LimitReached`; `NotFound` where it does not exist and was not to be created; the store's.
    pub fn open(self) -> Result<Topic> {
        check_name("topic", &self.name)?;
        if let Some(partitions) = self.partitions.filter(|count| !(1..=TOPIC_PARTITIONS_MAX).contains(count)) {
            return Err(Error::InvalidOption {
                option: "partitions",
                value: partitions.to_string(),
                expected: "from 1 to 65,536",
            });
        }
        if let Some(ids) = self.dedup_ids.filter(|ids| !(1..=DEDUP_IDS_MAX).contains(ids)) {
            let expected = "from 1 to 1,048,576";
            return Err(Error::InvalidOption { option: "dedup_ids", value: ids.to_string(), expected });
        }
        if let Some(kept) = self.snapshots_kept.filter(|kept| !(1..=SNAPSHOTS_KEPT_MAX).contains(kept)) {
            let expected = "from 1 to 1,000";
            return Err(Error::InvalidOption { option: "snapshots_kept", value: kept.to_string(), expected });
        }
        // seam: snapshots are kept of no stream
        if let Some(kept) = self.snapshots_kept.filter(|_| !self.streams) {
            let expected = "left out, or given together with streams";
            return Err(Error::InvalidOption { option: "snapshots_kept", value: kept.to_string(), expected });
        }
        let window = self.dedup_window.map(|window| millis("dedup_window", window)).transpose()?;
        if window == Some(0) {
            let expected = "more than nothing, and at most ten years";
            return Err(Error::InvalidOption { option: "dedup_window", value: "0ns".to_owned(), expected });
        }
        if self.streams && self.retention.is_some_and(|retention| retention != Retention::Forever) {
            let expected = "forever, or left out, for a topic of streams";
            let value = self.retention.unwrap_or_default().to_string();
            return Err(Error::InvalidOption { option: "retention", value, expected });
        }
        if let Some(retention) = self.retention.filter(|retention| !is_possible(*retention)) {
            let expected = "for an age from one second to ten years, or for at least one message";
            return Err(Error::InvalidOption { option: "retention", value: retention.to_string(), expected });
        }
        let retention = if self.streams { Some(Retention::Forever) } else { self.retention };
        let engine = &self.shared.engine;
        let info = if self.create {
            let left_out = TopicOptions::LEFT_OUT;
            let options = TopicOptions {
                retention: retention.unwrap_or_default(),
                dedup_ids: self.dedup_ids.unwrap_or(left_out.dedup_ids),
                dedup_window_ms: window.unwrap_or(left_out.dedup_window_ms),
                streams: self.streams,
                snapshots_kept: self.snapshots_kept.unwrap_or(left_out.snapshots_kept),
            };
            engine.open_topic(&self.name, self.partitions.unwrap_or(1), options)?
        } else {
            engine.find_topic(&self.name)?
        };
        self.check_same("partitions", self.partitions, info.partitions)?;
        self.check_same("streams", self.streams.then_some(true), info.options.streams)?;
        self.check_same("retention", retention, info.options.retention)?;
        self.check_same("snapshots_kept", self.snapshots_kept, info.options.snapshots_kept)?;
        self.check_same("dedup_ids", self.dedup_ids, info.options.dedup_ids)?;
        self.check_same("dedup_window in milliseconds", window, info.options.dedup_window_ms)?;
        let level = self.shared.level;
        let inner = TopicInner {
            shared: self.shared,
            name: self.name,
            info,
            turn: AtomicU32::new(0),
            schedule: AtomicU64::new(u64::MAX),
        };
        Ok(Topic { inner: Arc::new(inner), level })
    }

    fn check_same<T: PartialEq + ToString>(&self, option: &'static str, asked: Option<T>, stored: T) -> Result<()> {
        let Some(asked) = asked.filter(|asked| *asked != stored) else { return Ok(()) };
        Err(Error::OptionMismatch {
            what: "topic",
            name: self.name.clone(),
            option,
            stored: stored.to_string(),
            asked: asked.to_string(),
        })
    }
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The number of its partitions.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.inner.info.partitions
    }

    pub(super) const fn level(&self) -> Durability {
        self.level
    }

    /// A handle whose publishes are at this level instead of the store's.
    #[must_use]
    pub fn with_durability(&self, level: Durability) -> Self {
        Self { inner: Arc::clone(&self.inner), level }
    }

    /// Publishes one message to the partition of its key, or round-robin without one. On return it is durable at the handle's level. A
    /// crash before that leaves it whole or not at all.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidName`, `InvalidOption`, `DedupConflict`, `KeyPending`, `LimitReached`, `DiskFull`, `TooManyOpenFiles`, `OutOfMemory`: nothing
    /// was published. `OutcomeUnknown`: it is there after reopening, or it is not. `Closed`, `Poisoned`, `Forked`, `Removed`: nothing was
    /// published.
    #[inline]
    pub fn publish<'a>(&self, message: impl Into<Message<'a>>) -> Result<Receipt> {
        let published = self.publish_one(&message.into(), Engine::publish)?;
        published.or_else(|repeats| self.repeated(&repeats))
    }

    /// The receipt of the one message, which was accepted before.
    #[cold]
    fn repeated(&self, repeats: &[Repeat]) -> Result<Receipt> {
        let [Repeat { id, lsn, .. }] = repeats else {
            unreachable!("internal error: one message was accepted before more than once; please report this")
        };
        let engine = &self.inner.shared.engine;
        let end = engine.end();
        if self.level == Durability::Disk {
            engine.wait_durable(end)?;
        }
        Ok(Receipt::repeat(*id, PublishedFrame::new(&self.inner.shared, *lsn, end, self.level)))
    }

    /// Publishes by `append`, and waits as the handle's level asks.
    #[inline]
    pub(super) fn publish_one<N>(
        &self,
        message: &Message<'_>,
        append: impl FnOnce(&Engine, &Outgoing) -> Result<Result<Published, N>>,
    ) -> Result<Result<Receipt, N>> {
        message.check()?;
        let place = self.place(message)?;
        let published = with_outgoing(|outgoing| {
            self.add(outgoing, place, message)?;
            append(&self.inner.shared.engine, outgoing)
        })?;
        let published = match published {
            Ok(published) => published,
            Err(why) => return Ok(Err(why)),
        };
        self.wait(&published)?;
        let Published { epoch, runs, .. } = &published;
        let offset = runs.first().map_or(Offset(0), |run| run.first);
        let id = MessageId { topic: self.inner.info.id, partition: place.index(), epoch: *epoch, offset };
        Ok(Ok(Receipt::new(id, self.frame(&published))))
    }

    /// Publishes the messages as one frame: after any crash, and for every consumer, all of them are there or none. At
    /// most 65,536 messages and about 28 MiB; none at all is allowed and does nothing. Messages of one partition keep their
    /// order.
    ///
    /// ```
    /// # use millpond::{Durability, Message, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let receipt = orders.publish_batch(["two pizzas", "one soup"])?;
    /// assert_eq!(receipt.ids().len(), 2);
    ///
    /// // Or many batches with one wait at the end.
    /// let quick = orders.with_durability(Durability::Os);
    /// let mut last = receipt;
    /// for customer in ["ann", "bob"] {
    ///     last = quick.publish_batch((0..100u32).map(|n| Message::new(n.to_le_bytes()).key(customer)))?;
    /// }
    /// last.wait_durable()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Topic::publish`], for the batch as a whole.
    pub fn publish_batch<'a, M: Into<Message<'a>>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<BatchReceipt> {
        // The iterator is the caller's code, and may publish too: it finds another, empty one in this one's place.
        let mut outgoing = OUTGOING.try_with(RefCell::take).unwrap_or_default();
        outgoing.clear();
        let receipt = self.publish_all(&mut outgoing, messages.into_iter().map(Into::into));
        // Where the thread ends there is nobody to keep it for.
        let _ = OUTGOING.try_with(|kept| kept.replace(outgoing));
        receipt
    }

    fn publish_all<'a>(
        &self,
        outgoing: &mut Outgoing,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> Result<BatchReceipt> {
        let topic = self.inner.info;
        let mut ids = Vec::with_capacity(messages.size_hint().0.min(FRAME_PARTS_MAX));
        for message in messages {
            message.check()?;
            let place = self.place(&message)?;
            self.add(outgoing, place, &message)?;
            ids.push(MessageId { topic: topic.id, partition: place.index(), epoch: Epoch(0), offset: Offset(0) });
        }
        let engine = &self.inner.shared.engine;
        if ids.is_empty() {
            engine.enter()?;
            return Ok(BatchReceipt::new(Placed::default(), self.frame_at(Lsn(0), Lsn(0))));
        }
        let mut places = Places::new(ids, outgoing)?;
        loop {
            match engine.publish(outgoing)? {
                Ok(published) => {
                    self.wait(&published)?;
                    let frame = self.frame(&published);
                    return Ok(BatchReceipt::new(places.published(&published.runs, published.epoch), frame));
                }
                Err(repeats) => places.leave_out(outgoing, &repeats),
            }
            if outgoing.len() == 0 {
                let end = engine.end();
                if self.level == Durability::Disk {
                    engine.wait_durable(end)?;
                }
                let lsn = places.last_repeat();
                return Ok(BatchReceipt::new(places.published(&[], Epoch(0)), self.frame_at(lsn, end)));
            }
        }
    }

    /// The group of this name, to be opened or created.
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(Arc::clone(&self.inner), name.into())
    }

    /// A reader of the topic as a log, to be opened.
    pub fn reader(&self) -> LogReaderBuilder {
        LogReaderBuilder::new(Arc::clone(&self.inner))
    }

    /// Removes a group: its progress, its dead letters, and all that it has in progress. A group that is created under this name
    /// afterwards begins anew.
    ///
    /// Consumers that wait get [`Error::Removed`], and so does every later call of a handle of the group. Messages that only this group
    /// wanted are unlinked. Durable on return; a crash before that leaves it whole or removed.
    ///
    /// # Errors
    /// `NotFound`; the store's; `Removed` where the topic was.
    pub fn remove_group(&self, name: &str) -> Result<()> {
        self.inner.shared.engine.remove_group(self.inner.info.id, name)
    }

    pub(super) fn inner(&self) -> &Arc<TopicInner> {
        &self.inner
    }

    #[inline]
    fn wait(&self, published: &Published) -> Result<()> {
        // seam: publish does not wait
        if self.level == Durability::Disk { self.inner.shared.engine.wait_durable(published.end) } else { Ok(()) }
    }

    fn frame(&self, published: &Published) -> PublishedFrame {
        self.frame_at(published.lsn, published.end)
    }

    fn frame_at(&self, lsn: Lsn, end: Lsn) -> PublishedFrame {
        PublishedFrame::new(&self.inner.shared, lsn, end, self.level)
    }
}

/// Whether a topic may keep its messages so.
fn is_possible(retention: Retention) -> bool {
    match retention {
        Retention::UntilSettled | Retention::Forever => true,
        Retention::Age(age) => age >= Duration::from_secs(1) && millis("retention", age).is_ok(),
        Retention::Count(count) => count > 0,
    }
}
