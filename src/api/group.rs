//! Groups: durable subscriptions, and receiving from them.

use super::batch::Batch;
use super::dead_letter::{DeadLetter, DeadLetters};
use super::delivery::Delivery;
use super::group_options::{Given, GroupChange};
use super::subscription::Subscription;
use super::topic::TopicInner;
use super::{Backoff, Start, Topic, check_name};
use crate::engine::{Begin, GroupInfo, Ordering, Reader, Received, Request, Wait};
use crate::error::{Error, Result};
use crate::ids::{Epoch, MessageId, Offset, PartitionId, WallMs, hidden_index};
use crate::limits;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Opens a group, or creates it.
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct GroupBuilder {
    pub(super) topic: Arc<TopicInner>,
    pub(super) name: String,
    given: Given,
    start: Start,
    create: bool,
}

/// A named, durable subscription to a topic. Every group of a topic gets every message; the consumers that receive from
/// one group (clones of this handle, in any threads) share them.
#[derive(Clone)]
pub struct Group {
    pub(super) inner: Arc<GroupInner>,
}

pub(super) struct GroupInner {
    pub(super) topic: Arc<TopicInner>,
    pub(super) name: String,
    pub(super) info: GroupInfo,
    /// What the consumers of this handle have read last.
    pub(super) reader: Mutex<Reader>,
}

impl GroupBuilder {
    pub(super) fn new(topic: Arc<TopicInner>, name: String) -> Self {
        Self { topic, name, given: Given::default(), start: Start::default(), create: true }
    }

    /// How long a delivery may take before its message goes to another consumer. 1 ms to ten years; default 30 seconds.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.given.visibility_timeout = Some(timeout);
        self
    }

    /// How many attempts a message gets before it becomes a dead letter; 0 for no limit. Default 5.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.given.max_attempts = Some(attempts);
        self
    }

    /// How long a message waits after a failed attempt: after a nack without a delay of its own, and from the second attempt on
    /// after an expired lease or a crash too. Default [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.given.backoff = Some(backoff);
        self
    }

    /// How many messages may be leased, waiting or due for a retry at once; at that number the group gets no new ones. 1 to
    /// 1,048,576; default 65,536.
    pub fn max_outstanding(mut self, messages: u32) -> Self {
        self.given.max_outstanding = Some(messages);
        self
    }

    /// At how many orderly closes in a row a message may be leased before each further one counts as an attempt: an orderly close
    /// by itself does not. Any other end of a delivery begins the count anew. 0 to 255; default 20.
    pub fn max_closes(mut self, closes: u32) -> Self {
        self.given.max_closes = Some(closes);
        self
    }

    /// To which topic of the store a notice goes for each message that becomes a dead letter; `None` for no notices, which is the
    /// default.
    ///
    /// The notice is published in one step with the move to the dead letters. Its payload is the error's text, its key that of the
    /// message. Its headers are `dead-letter-id` (the id under which the message was published first), `dead-letter-topic`,
    /// `dead-letter-group`, `dead-letter-cause` (`nacked`, `rejected`, `expired`, `crashed` or `closed`), `dead-letter-attempts` and
    /// `dead-letter-time-ms`. A message with the first of these headers is a notice itself, and causes no other one. If the topic is
    /// removed, messages become dead letters without a notice.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let alerts = store.topic("alerts").open()?;
    /// let orders = store.topic("orders").open()?;
    /// let kitchen = orders.group("kitchen").dead_letter_notices(&alerts).open()?;
    /// let on_call = alerts.group("on-call").open()?;
    ///
    /// orders.publish("a pizza with everything")?;
    /// kitchen.receive(Duration::ZERO)?.expect("one is there").reject("no such dish")?;
    /// # store.sync()?;
    /// let notice = on_call.receive(Duration::ZERO)?.expect("the notice of it");
    /// assert_eq!(notice.header("dead-letter-group"), Some(&b"kitchen"[..]));
    /// assert_eq!(notice.payload(), b"no such dish");
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letter_notices<'t>(mut self, topic: impl Into<Option<&'t Topic>>) -> Self {
        self.given.notices = Some(topic.into().cloned());
        self
    }

    /// Which messages of the group wait for each other: none, which is the default, those with the same key, or those of the same
    /// partition. The next one is delivered once the one before it is acked, rejected or a dead letter, whatever happens until then: a
    /// nack, an expired lease, a crash. Fixed when the group is created; by a number that is no cryptographic hash of the key, so that two
    /// keys may rarely wait for each other.
    ///
    /// ```
    /// # use millpond::{Message, Ordering, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").partitions(4).open()?;
    /// let ledger = orders.group("ledger").ordering(Ordering::Key).open()?;
    ///
    /// orders.publish(Message::new("paid").key("order-1"))?;
    /// orders.publish(Message::new("shipped").key("order-1"))?;
    /// # store.sync()?;
    /// let paid = ledger.receive(Duration::ZERO)?.expect("the first of its key");
    /// assert!(ledger.receive(Duration::ZERO)?.is_none(), "the next one waits for it");
    /// paid.ack()?;
    /// assert_eq!(ledger.receive(Duration::ZERO)?.expect("its turn").payload(), b"shipped");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.given.ordering = Some(ordering);
        self
    }

    /// How many messages of a key, or of a partition, may be out at once: leased, waiting, or due for a retry. Default: 1, which keeps
    /// them strictly in order. Range: 1 to 65,536. Fixed when the group is created, and only for one with an [`Ordering`].
    pub fn max_in_flight_per_key(mut self, messages: u32) -> Self {
        self.given.max_in_flight_per_key = Some(messages);
        self
    }

    /// Where the group begins if it is created now. A group that exists stays where it is.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Whether the group is created where it does not exist. Default: `true`.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the group, creating it where it does not exist. A created group is durable on return, and every message
    /// published after that is for it.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOption`; `OptionMismatch` where it exists and an option given here differs from what is stored;
    /// `LimitReached`; `NotFound` where it does not exist and was not to be created; `Removed` if the topic was, or that for notices; with
    /// [`Start::Time`](crate::Start::Time) `Unreadable` if a message cannot be read for its time; the store's.
    pub fn open(self) -> Result<Group> {
        check_name("group", &self.name)?;
        let shared = &self.topic.shared;
        let engine = &shared.engine;
        let stored = engine.stored_ordering(self.topic.info.id, &self.name)?;
        let options = self.given.with_defaults(shared, stored)?;
        let info = if self.create {
            engine.open_group(self.topic.info, &self.name, &options, self.begin())?
        } else {
            engine.find_group(self.topic.info.id, &self.name)?
        };
        self.given.check_stored(shared, &self.name, &info.options)?;
        Ok(Group { inner: Arc::new(GroupInner { topic: self.topic, name: self.name, info, reader: Mutex::default() }) })
    }

    fn begin(&self) -> Begin {
        match self.start {
            Start::Earliest => Begin::Earliest,
            Start::Latest => Begin::Latest,
            Start::Offset(offset) => Begin::Offset(Offset(offset)),
            Start::Time(time) => {
                let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
                Begin::Time(WallMs(u64::try_from(ms).unwrap_or(u64::MAX)))
            }
        }
    }
}

impl Group {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.inner.topic.name
    }

    /// Changes options of the group while it is in use: give those that change, then [`GroupChange::apply`].
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let kitchen = store.topic("orders").open()?.group("kitchen").open()?;
    /// kitchen.alter().max_attempts(8).visibility_timeout(Duration::from_secs(90)).apply()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn alter(&self) -> GroupChange {
        GroupChange { group: Arc::clone(&self.inner), given: Given::default() }
    }

    /// Leases the next message, waiting up to `wait` for it; `Duration::ZERO` does not wait. Returns `None` if none becomes ready.
    ///
    /// The lease lasts until the visibility timeout; then another consumer gets the message. The attempt is recorded before this call
    /// returns, so it counts whatever happens to the process.
    ///
    /// # Errors
    /// - `Removed` if the group or its topic was removed, also while this call waits.
    /// - `Unreadable` if the next message cannot be read: it waits for the longest backoff, its attempt is not counted, and others can be
    ///   received.
    /// - `TooManyOpenFiles`, `OutOfMemory`, and any other error of the kind [`Retry`](crate::ErrorKind::Retry), if it cannot be read just
    ///   now: the message is ready at once.
    /// - `DiskFull` if the lease cannot be recorded; nothing was leased.
    /// - `Closed`, `Poisoned`, `Forked`.
    pub fn receive(&self, wait: Duration) -> Result<Option<Delivery>> {
        self.inner.receive(Wait::new(&self.inner.topic.shared.engine, wait), &self.inner.reader)
    }

    /// Takes up to `max` messages, waiting up to `wait` for the first. They are leased in one frame. A `max` of zero gives an
    /// empty batch; more than 65,536 count as that.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// # let orders = store.topic("orders").open()?;
    /// # let kitchen = orders.group("kitchen").open()?;
    /// # orders.publish_batch(["one", "two", "three"])?;
    /// let batch = kitchen.receive_batch(100, Duration::from_millis(10))?;
    /// for delivery in &batch {
    ///     println!("{}: {} bytes", delivery.id(), delivery.payload().len());
    /// }
    /// let late = batch.ack()?; // one frame for all
    /// assert!(late.is_empty(), "nobody else had them meanwhile");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Group::receive`]; where only some messages cannot be read, [`Batch::unreadable`] says so.
    pub fn receive_batch(&self, max: usize, wait: Duration) -> Result<Batch> {
        let mut received = Vec::new();
        let mut unreadable = match max {
            0 => {
                self.inner.topic.shared.engine.enter()?;
                Vec::new()
            }
            _ => self.take(max.min(limits::RECEIVE_BATCH_MAX), wait, &mut |some| received.push(some))?,
        };
        match unreadable.pop() {
            Some(error) if received.is_empty() => Err(error),
            error => {
                unreadable.extend(error);
                Ok(Batch::new(&self.inner, received, unreadable))
            }
        }
    }

    fn take(&self, max: usize, wait: Duration, each: &mut impl FnMut(Received)) -> Result<Vec<Error>> {
        let inner = &self.inner;
        let engine = &inner.topic.shared.engine;
        engine.receive(inner.request(max, Wait::new(engine, wait)), &inner.reader, each)
    }

    /// Begins a wait for a message as [`Group::receive`] does where there is none, without blocking; `None` if there is something to
    /// do at once. For simulators: once [`Sleeper::is_awake`] says so, it is dropped, and the group received from.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, `Forked`.
    #[cfg(any(test, feature = "simulation"))]
    pub fn fall_asleep(&self, wait: Duration) -> Result<Option<Sleeper>> {
        let inner = &self.inner;
        let engine = &inner.topic.shared.engine;
        let ticket = engine.fall_asleep(inner.info.id, inner.topic.info.id, Wait::new(engine, wait))?;
        Ok(ticket.map(|ticket| Sleeper { group: Arc::clone(inner), ticket }))
    }

    /// Deliveries for a consumer that also waits for other things, as with `select!`. See [`Subscription`].
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// # let orders = store.topic("orders").open()?;
    /// # let kitchen = orders.group("kitchen").open()?;
    /// let deliveries = kitchen.subscribe()?;
    /// orders.publish("two pizzas")?;
    /// let delivery = deliveries.recv_timeout(Duration::from_secs(5))?.expect("it was just published");
    /// assert_eq!(delivery.payload(), b"two pizzas");
    /// delivery.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Io` if the system has no thread to give; `Closed`, `Poisoned`, `Forked`.
    pub fn subscribe(&self) -> Result<Subscription> {
        Subscription::start(&self.inner)
    }

    /// Iterates over the group's dead letters, oldest first. Those that are added during the iteration may or may not appear. In a store
    /// opened at `Disk` a dead letter appears once it is durable, as every message does: within the sync interval, or after
    /// [`Store::sync`](crate::Store::sync).
    ///
    /// # Errors
    /// `Removed`; `Closed`, `Poisoned`, `Forked`.
    pub fn dead_letters(&self) -> Result<DeadLetters> {
        DeadLetters::new(Arc::clone(&self.inner))
    }

    /// The dead letter of this id, or `None` if the group has none: it was redriven or discarded, or the id is another message's.
    /// In a store opened at `Disk` it is found once it is durable, as in [`Group::dead_letters`].
    ///
    /// # Errors
    /// `Unreadable`; `Removed`; `Closed`, `Poisoned`, `Forked`.
    pub fn dead_letter(&self, id: MessageId) -> Result<Option<DeadLetter>> {
        DeadLetter::find(&self.inner, id)
    }

    /// Sends every dead letter back to this group, and returns how many. Each goes in one step: a crash in the middle leaves the rest
    /// where they are. In a store opened at `Disk` it meets those that are durable, as [`Group::dead_letters`] does;
    /// [`Store::sync`](crate::Store::sync) makes the others so.
    ///
    /// # Errors
    /// `Unreadable` if dead letters cannot be read: the first such error, once all others are redriven. Those of appending; the dead
    /// letters before that are redriven.
    pub fn redrive_all(&self) -> Result<u64> {
        self.redrive_where(|_| true)
    }

    /// As [`Group::redrive_all`], for those that `wanted` accepts. Those that die again meanwhile are not met twice.
    ///
    /// # Errors
    /// As [`Group::redrive_all`].
    pub fn redrive_where(&self, mut wanted: impl FnMut(&DeadLetter) -> bool) -> Result<u64> {
        let (mut redriven, mut unreadable) = (0, None);
        for letter in DeadLetters::until_now(Arc::clone(&self.inner))? {
            let letter = match letter {
                Ok(letter) => letter,
                // The others can be redriven all the same.
                Err(error @ Error::Unreadable { .. }) => {
                    unreadable = unreadable.or(Some(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !wanted(&letter) {
                continue;
            }
            match letter.redrive() {
                Ok(()) => redriven += 1,
                // Someone else took it meanwhile.
                Err(Error::NoSuchDeadLetter { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        unreadable.map_or(Ok(redriven), Err)
    }
}

/// A consumer that waits, in a simulation.
#[cfg(any(test, feature = "simulation"))]
pub struct Sleeper {
    pub(super) group: Arc<GroupInner>,
    ticket: Arc<crate::engine::Ticket>,
}

#[cfg(any(test, feature = "simulation"))]
impl Sleeper {
    /// Whether it was woken, or its time has come.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.group.topic.shared.engine.is_awake(&self.ticket)
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Drop for Sleeper {
    fn drop(&mut self) {
        self.group.topic.shared.engine.leave_sleep(&self.ticket);
    }
}

impl GroupInner {
    /// Leases and reads one message.
    pub(super) fn receive(self: &Arc<Self>, wait: Wait<'_>, reader: &Mutex<Reader>) -> Result<Option<Delivery>> {
        let (engine, mut delivery) = (&self.topic.shared.engine, None);
        let mut each = |one| delivery = Some(Delivery::alone(Arc::clone(self), one));
        let mut unreadable = engine.receive(self.request(1, wait), reader, &mut each)?;
        match (delivery, unreadable.pop()) {
            (None, Some(error)) => Err(error),
            (delivery, _) => Ok(delivery),
        }
    }

    fn request<'a>(&self, max: usize, wait: Wait<'a>) -> Request<'a> {
        Request { group: self.info.id, topic: self.topic.info.id, max, wait }
    }

    /// The public id of a message of this group: of its topic, or of the group's hidden partitions, whose numbers continue after the
    /// topic's last partition. Takes no lock.
    pub(super) fn message_id(&self, partition: PartitionId, epoch: Epoch, offset: Offset) -> MessageId {
        let topic = self.topic.info;
        let first_hidden = hidden_index(topic.partitions, self.info.id);
        let partition = if partition == self.info.retry {
            first_hidden
        } else if partition == self.info.dead {
            first_hidden.saturating_add(1)
        } else {
            partition.0.wrapping_sub(topic.first.0)
        };
        MessageId { topic: topic.id, partition, epoch, offset }
    }
}
