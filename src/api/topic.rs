//! Topics and publishing.

use super::group_builder::GroupBuilder;
use super::log_reader::LogReaderBuilder;
use super::receipt::{BatchReceipt, Placed, Places, PublishedFrame, Receipt};
use super::store::StoreShared;
use super::{Durability, Message};
use crate::engine::{Engine, Outgoing, Published, Repeat, TopicInfo};
use crate::error::Result;
use crate::ids::{Epoch, Lsn, MessageId, Offset};
use crate::limits::FRAME_PARTS_MAX;
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::thread_local;
use std::cell::RefCell;
use std::sync::Arc;

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

impl Topic {
    pub(super) fn new(inner: Arc<TopicInner>, level: Durability) -> Self {
        Self { inner, level }
    }

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
    /// `TooLarge`, `InvalidName`, `InvalidOption`, `DedupConflict`, `KeyPending`, `LimitReached`, `TopicFull`, `DiskFull`,
    /// `TooManyOpenFiles`, `OutOfMemory`: nothing was published. `OutcomeUnknown`: it is there after reopening, or it is not. `Closed`, `Poisoned`, `Forked`, `Removed`: nothing was
    /// published.
    #[inline]
    pub fn publish<'a>(&self, message: impl Into<Message<'a>>) -> Result<Receipt> {
        let published = self.publish_one(&message.into(), Engine::publish)?;
        published.or_else(|repeats| self.repeated(&repeats))
    }

    /// As [`Topic::publish`], but a full topic refuses the message at once.
    #[cfg(feature = "async")]
    pub(super) fn publish_at_once(&self, message: &Message<'_>) -> Result<Receipt> {
        let published = self.publish_one(message, Engine::publish_at_once)?;
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
    /// Consumers that wait get [`Error::Removed`](crate::Error::Removed), and so does every later call of a handle of the group. Messages that only this group
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
