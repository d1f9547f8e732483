//! Topics and publishing.

use super::group::GroupBuilder;
use super::message::Bytes;
use super::store::{Outcome, StoreShared};
use super::{Durability, Message, check_name};
use crate::engine::{Outgoing, Published, TopicInfo, key_hash};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, MessageId, Offset, PartitionId};
use crate::limits::{FRAME_PARTS_MAX, TOPIC_PARTITIONS_MAX};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::thread_local;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// Encoded messages of this thread's publish in progress: reused, so that a publish allocates nothing.
    static OUTGOING: RefCell<Outgoing> = RefCell::default();
}

/// Opens a topic, or creates it.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct TopicBuilder {
    shared: Arc<StoreShared>,
    pub(super) name: String,
    partitions: Option<u32>,
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
    turn: AtomicU32,
}

impl TopicBuilder {
    pub(super) fn new(shared: Arc<StoreShared>, name: String) -> Self {
        Self { shared, name, partitions: None, create: true }
    }

    /// The number of partitions: 1 to 65,536, fixed when the topic is created. Default: what is stored, or 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
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
    /// `InvalidName`, `InvalidOption`; `OptionMismatch` where it exists with another number of partitions;
    /// `LimitReached`; `NotFound` where it does not exist and was not to be created; the store's.
    pub fn open(self) -> Result<Topic> {
        check_name("topic", &self.name)?;
        let asked = self.partitions;
        if let Some(partitions) = asked.filter(|count| !(1..=TOPIC_PARTITIONS_MAX).contains(count)) {
            return Err(Error::InvalidOption {
                option: "partitions",
                value: partitions.to_string(),
                expected: "from 1 to 65,536",
            });
        }
        let engine = &self.shared.engine;
        let info = if self.create {
            engine.open_topic(&self.name, asked.unwrap_or(1))?
        } else {
            engine.find_topic(&self.name)?
        };
        if let Some(asked) = asked.filter(|asked| *asked != info.partitions) {
            return Err(Error::OptionMismatch {
                what: "topic",
                name: self.name,
                option: "partitions",
                stored: info.partitions.to_string(),
                asked: asked.to_string(),
            });
        }
        let level = self.shared.level;
        let inner = TopicInner { shared: self.shared, name: self.name, info, turn: AtomicU32::new(0) };
        Ok(Topic { inner: Arc::new(inner), level })
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

    /// A handle whose publishes are at this level instead of the store's.
    #[must_use]
    pub fn with_durability(&self, level: Durability) -> Self {
        Self { inner: Arc::clone(&self.inner), level }
    }

    /// Publishes one message, to the partition of its key, or without a key to each in turn. On return it survives what the
    /// handle's level says. A crash before that leaves it whole or not at all.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidName`, `InvalidOption`, `DiskFull`, `TooManyOpenFiles`: nothing was published. `OutcomeUnknown`: it is
    /// there after reopening, or it is not. `Closed`, `Poisoned`, `Forked`, `Removed`: nothing was published.
    #[inline]
    pub fn publish<'a>(&self, message: impl Into<Message<'a>>) -> Result<Receipt> {
        self.publish_one(&message.into())
    }

    fn publish_one(&self, message: &Message<'_>) -> Result<Receipt> {
        message.check()?;
        let index = self.choose(message)?;
        let mut offset = Offset(0);
        let mut publish = |outgoing: &mut Outgoing| {
            outgoing.clear();
            self.add(outgoing, index, message)?;
            self.append(outgoing, |_, base, _| offset = base)
        };
        // A destructor of another thread-local may publish when this one is gone.
        let published = if OUTGOING.try_with(|_| ()).is_ok() {
            OUTGOING.with(|outgoing| publish(&mut outgoing.borrow_mut()))?
        } else {
            publish(&mut Outgoing::default())?
        };
        let id = MessageId { topic: self.inner.info.id, partition: index.into(), epoch: published.epoch, offset };
        Ok(Receipt { id, frame: self.frame(published) })
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
            let partition = self.choose(&message)?;
            self.add(outgoing, partition, &message)?;
            ids.push(MessageId { topic: topic.id, partition: partition.into(), epoch: Epoch(0), offset: Offset(0) });
        }
        if ids.is_empty() {
            self.inner.shared.engine.enter()?;
            let outcome = Arc::clone(&self.inner.shared.outcome);
            return Ok(BatchReceipt {
                ids,
                frame: PublishedFrame { outcome, lsn: Lsn(0), end: Lsn(0), level: self.level },
            });
        }
        let order = outgoing.group_by_partition();
        let mut bases = Vec::new();
        let published = self.append(outgoing, |_, base, count| bases.push((base, count)))?;
        set_ids(&mut ids, order.as_deref(), bases, published.epoch);
        Ok(BatchReceipt { ids, frame: self.frame(published) })
    }

    /// The group of this name, to be opened or created.
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(Arc::clone(&self.inner), name.into())
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

    /// The partition, by index, for a message.
    #[inline]
    pub(super) fn choose(&self, message: &Message<'_>) -> Result<u32> {
        let count = self.inner.info.partitions;
        match (message.partition, &message.key) {
            (Some(partition), _) if partition < count => Ok(partition),
            (Some(partition), _) => Err(Error::InvalidOption {
                option: "partition",
                value: partition.to_string(),
                expected: "below the topic's number of partitions",
            }),
            (None, _) if count == 1 => Ok(0),
            // seam: a key is ignored
            (None, Some(key)) => Ok(self.inner.partition_of_key(key.as_slice())),
            (None, None) => Ok(self.inner.next_in_turn()),
        }
    }

    #[inline]
    pub(super) fn add(&self, outgoing: &mut Outgoing, index: u32, message: &Message<'_>) -> Result<()> {
        let partition = self.inner.info.first.nth(index);
        let headers = message.headers.iter().map(|(name, value)| (&**name, value.as_slice()));
        let max = self.inner.shared.engine.setup().message_bytes_max;
        let key = message.key.as_ref().map(Bytes::as_slice);
        outgoing.add(partition, key, headers, message.payload.as_slice(), max)
    }

    fn append(&self, outgoing: &Outgoing, each: impl FnMut(PartitionId, Offset, u32)) -> Result<Published> {
        let engine = &self.inner.shared.engine;
        let published = engine.publish(outgoing, each)?;
        // seam: publish does not wait
        if self.level == Durability::Disk {
            engine.wait_durable(published.end)?;
        }
        Ok(published)
    }

    fn frame(&self, published: Published) -> PublishedFrame {
        let outcome = Arc::clone(&self.inner.shared.outcome);
        PublishedFrame { outcome, lsn: published.lsn, end: published.end, level: self.level }
    }
}

/// Puts epoch and offsets into the IDs of messages that were published: `order` says which message came where, `bases` the first offset
/// and the count of each run.
pub(super) fn set_ids(ids: &mut [MessageId], order: Option<&[u32]>, bases: Vec<(Offset, u32)>, epoch: Epoch) {
    let offsets =
        bases.into_iter().flat_map(|(base, count)| (0..u64::from(count)).map(move |n| base.saturating_add(n)));
    for (nth, offset) in offsets.enumerate() {
        let place = order.map_or(nth, |order| order[nth] as usize);
        // seam: a receipt names another message
        (ids[place].epoch, ids[place].offset) = (epoch, offset);
    }
}

impl TopicInner {
    pub(super) fn partition_of_key(&self, key: &[u8]) -> u32 {
        (key_hash(key) % u64::from(self.info.partitions)) as u32
    }

    pub(super) fn next_in_turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.info.partitions
    }
}

/// The frame that a receipt stands for.
#[derive(Clone)]
pub(super) struct PublishedFrame {
    outcome: Arc<Outcome>,
    lsn: Lsn,
    end: Lsn,
    level: Durability,
}

impl PublishedFrame {
    pub(super) fn new(shared: &StoreShared, lsn: Lsn, end: Lsn, level: Durability) -> Self {
        Self { outcome: Arc::clone(&shared.outcome), lsn, end, level }
    }

    pub(super) const fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub(super) fn wait_durable(&self) -> Result<()> {
        self.outcome.wait_durable(self.end, self.level)
    }
}

/// Says that a message was published, where, and what it survives.
#[derive(Clone)]
pub struct Receipt {
    id: MessageId,
    frame: PublishedFrame,
}

impl Receipt {
    /// The message's id, its own for ever.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Where in the log it stands.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.frame.lsn
    }

    /// What it survived when the publish returned.
    #[must_use]
    pub fn level(&self) -> Durability {
        self.frame.level
    }

    /// Returns once the message survives power loss. One sync serves all waiters: publish a thousand messages at `Os` and wait
    /// for the last.
    ///
    /// # Errors
    /// `OutcomeUnknown` if a sync failed before that. `Closed` if the last handle of the store was dropped before that: a receipt does
    /// not keep the store open.
    pub fn wait_durable(&self) -> Result<()> {
        self.frame.wait_durable()
    }
}

/// Says that a batch was published.
#[derive(Clone)]
pub struct BatchReceipt {
    ids: Vec<MessageId>,
    frame: PublishedFrame,
}

impl BatchReceipt {
    /// The messages' ids, in the order given.
    #[must_use]
    pub fn ids(&self) -> &[MessageId] {
        &self.ids
    }

    /// Where in the log the batch stands.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.frame.lsn
    }

    /// What it survived when the publish returned.
    #[must_use]
    pub fn level(&self) -> Durability {
        self.frame.level
    }

    /// As [`Receipt::wait_durable`].
    ///
    /// # Errors
    /// `OutcomeUnknown` if a sync failed before that. `Closed` if the last handle of the store was dropped before that: a receipt does
    /// not keep the store open.
    pub fn wait_durable(&self) -> Result<()> {
        self.frame.wait_durable()
    }
}
