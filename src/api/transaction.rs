//! Transactions: publishing to any topics and settling deliveries of any groups, all of it or none.
//!
//! Never here: deciding; a transaction only collects what is to be done.

use super::batch::Batch;
use super::delivery::{Delivery, text_of};
use super::receipt::{Placed, Places, PublishedFrame};
use super::store::StoreShared;
use super::{Durability, Message, Store, Stream, Topic, millis};
use crate::engine::{
    CursorChange, HeldRun, LeasedMessage, NotDone, Outgoing, Received, Settlement, SnapshotSave, StreamAppend,
    StreamId, Transacted, Work,
};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, MessageId, Offset};
use crate::limits::FRAME_PARTS_MAX;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread_local;
use std::cell::Cell;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How many transactions this process has begun.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is in the body of a transaction.
    static INSIDE: Cell<bool> = Cell::default();
}

/// What one transaction is to do, all of it or none. Made by [`Store::transaction`].
pub struct Transaction<'a> {
    shared: Arc<StoreShared>,
    /// That no other transaction of this process has.
    number: u64,
    level: Durability,
    outgoing: Outgoing,
    /// Of what is published, in the order of the calls; epoch and offset are not known yet.
    ids: Vec<MessageId>,
    /// What is appended to streams, and what is saved of them.
    pub(super) appends: Vec<StreamAppend>,
    pub(super) snapshots: Vec<SnapshotSave>,
    settlements: Vec<Settlement<'a>>,
    pub(super) cursors: Vec<CursorChange>,
    /// For each settlement, whose it is.
    settled: Vec<Settled<'a>>,
    effects: usize,
    /// What the first call that failed said.
    failed: Option<String>,
}

#[derive(Clone, Copy)]
enum Settled<'a> {
    Delivery(&'a Delivery),
    Batch(&'a Batch),
}

/// A message that a transaction publishes. [`Committed::id`] gives its ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTransaction {
    /// Which transaction of this process.
    transaction: u64,
    nth: usize,
}

/// What a transaction did.
#[derive(Clone)]
pub struct Committed<T> {
    /// What the body returned.
    pub value: T,
    number: u64,
    placed: Placed,
    appended: Vec<AppendedRun>,
    frame: PublishedFrame,
}

/// The events that a transaction appended to a stream.
#[derive(Clone, Copy)]
struct AppendedRun {
    stream: StreamId,
    first: u64,
    count: u64,
}

impl Store {
    /// Carries out everything that `body` asks of the [`Transaction`], or nothing: one write, one moment for every reader and after
    /// every crash. So a message can be consumed and its results published without a gap in which a crash loses or doubles either.
    ///
    /// `body` only collects. It is carried out after `body` returned `Ok`; an error or a panic of `body` leaves the store and all
    /// deliveries as they were. If a lease was lost, nothing is published either. On return the transaction is durable at the level of
    /// the store, or that of [`Transaction::durability`].
    ///
    /// The effects are exactly once inside the store. What the body does elsewhere may happen again: the message comes back if the
    /// process dies before the transaction is durable.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let mails = store.topic("mails").open()?;
    /// let kitchen = orders.group("kitchen").open()?;
    /// orders.publish("two pizzas")?;
    ///
    /// let delivery = kitchen.receive(Duration::ZERO)?.expect("one is there");
    /// let done = store.transaction(|tx| {
    ///     tx.ack(&delivery)?;
    ///     tx.publish(&mails, "your pizzas are on their way")
    /// })?;
    /// println!("published as {}", done.id(done.value).expect("it is of this transaction"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of `body`; `LeaseLost` if another consumer has one of the messages; `DedupConflict` if an id was given to other bytes; `KeyPending`;
    /// `CursorMoved` if a cursor stands elsewhere; `WrongVersion` if a stream has another version; `NoSuchVersion` if a snapshot is newer
    /// than its stream; `IndexRebuilding`; `InvalidTransaction`, `Removed`, `TooLarge`, `LimitReached`, `TopicFull`; `DiskFull`, but not if it settles
    /// at least the bytes that it publishes and the reserve suffices; the store's. Nothing was done then.
    ///
    /// `OutcomeUnknown` if the transaction was written and a sync failed at level `Disk`. All its deliveries are settled in this process.
    /// Open the store again: the whole transaction is there, or nothing of it.
    pub fn transaction<'a, T, E: From<Error>>(
        &self,
        body: impl FnOnce(&mut Transaction<'a>) -> std::result::Result<T, E>,
    ) -> std::result::Result<Committed<T>, E> {
        transact(&self.shared, body)
    }
}

/// As [`Store::transaction`].
pub(super) fn transact<'a, T, E: From<Error>>(
    shared: &Arc<StoreShared>,
    body: impl FnOnce(&mut Transaction<'a>) -> std::result::Result<T, E>,
) -> std::result::Result<Committed<T>, E> {
    let mut transaction = Transaction::new(shared)?;
    let value = {
        let _inside = Inside;
        body(&mut transaction)?
    };
    let number = transaction.number;
    let (placed, appended, frame) = transaction.commit()?;
    Ok(Committed { value, number, placed, appended, frame })
}

/// Ends the mark that this thread is in a body, also if that panics.
struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        // Where the thread ends there is nobody to mark it for.
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

impl<'a> Transaction<'a> {
    fn new(shared: &Arc<StoreShared>) -> Result<Self> {
        shared.engine.enter()?;
        if INSIDE.try_with(|inside| inside.replace(true)).unwrap_or(false) {
            return Err(Error::InvalidTransaction { reason: "a transaction within another one".to_owned() });
        }
        Ok(Self {
            shared: Arc::clone(shared),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            level: shared.level,
            outgoing: Outgoing::default(),
            ids: Vec::new(),
            appends: Vec::new(),
            snapshots: Vec::new(),
            settlements: Vec::new(),
            cursors: Vec::new(),
            settled: Vec::new(),
            effects: 0,
            failed: None,
        })
    }

    /// Makes the transaction durable at this level on return, whatever the store's is.
    pub fn durability(&mut self, level: Durability) {
        self.level = level;
    }

    /// Publishes a message to a topic of this store.
    ///
    /// # Errors
    /// As [`Topic::publish`]; `InvalidTransaction` if the topic is of another store.
    pub fn publish<'m>(&mut self, topic: &Topic, message: impl Into<Message<'m>>) -> Result<InTransaction> {
        let published = self.add(topic, &message.into());
        self.noted(published)
    }

    fn add(&mut self, topic: &Topic, message: &Message<'_>) -> Result<InTransaction> {
        self.check_store(&topic.inner().shared, || format!("topic {:?}", topic.name()))?;
        message.check()?;
        self.count(1)?;
        let (place, info) = (topic.place(message)?, topic.inner().info);
        topic.add(&mut self.outgoing, place, message)?;
        self.ids.push(MessageId { topic: info.id, partition: place.index(), epoch: Epoch(0), offset: Offset(0) });
        Ok(InTransaction { transaction: self.number, nth: self.ids.len() - 1 })
    }

    /// A call that failed keeps all of the transaction from being carried out.
    pub(super) fn noted<T>(&mut self, done: Result<T>) -> Result<T> {
        if let (Err(error), None) = (&done, &self.failed) {
            self.failed = Some(error.to_string());
        }
        done
    }

    /// Acknowledges a delivery. It is settled once the transaction is carried out, and as it was if that fails.
    ///
    /// # Errors
    /// `InvalidTransaction` if it is of another store; `TooLarge`.
    pub fn ack(&mut self, delivery: &'a Delivery) -> Result<()> {
        let (group, received, nth) = delivery.parts();
        let (held, len) = (vec![received.held(nth).into()], received.stored.part(nth).len() as u64);
        let ack = Settlement::Ack { group: group.info.id, held, len };
        self.settle(ack, Settled::Delivery(delivery), &group.topic.shared)
    }

    /// Acknowledges all deliveries of a batch. If one of the leases is lost the whole transaction fails.
    ///
    /// # Errors
    /// As [`Transaction::ack`].
    pub fn ack_batch(&mut self, batch: &'a Batch) -> Result<()> {
        let (group, received) = batch.parts();
        if received.is_empty() {
            let done = self.check_store(&group.topic.shared, || "an empty batch".to_owned());
            return self.noted(done);
        }
        let held: Vec<HeldRun> = received.iter().map(Received::held_run).collect();
        let len = received.iter().map(|received| received.stored.len() as u64).sum();
        let ack = Settlement::Ack { group: group.info.id, held, len };
        self.settle(ack, Settled::Batch(batch), &group.topic.shared)
    }

    /// Gives a delivery back for another attempt, after the backoff of its group; to the dead letters at its last attempt.
    ///
    /// # Errors
    /// As [`Transaction::ack`].
    pub fn nack(&mut self, delivery: &'a Delivery, error: impl Display) -> Result<()> {
        self.give_back(delivery, None, error)
    }

    /// Gives a delivery back for another attempt, after `delay`; to the dead letters at its last attempt.
    ///
    /// # Errors
    /// As [`Transaction::ack`]; `InvalidOption` if the delay is more than ten years.
    pub fn nack_after(&mut self, delivery: &'a Delivery, delay: Duration, error: impl Display) -> Result<()> {
        let delay_ms = millis("delay", delay);
        let delay_ms = self.noted(delay_ms)?;
        self.give_back(delivery, Some(delay_ms), error)
    }

    fn give_back(&mut self, delivery: &'a Delivery, delay_ms: Option<u64>, error: impl Display) -> Result<()> {
        let (message, shared) = leased(delivery);
        self.settle(Settlement::Nack { message, delay_ms, text: text_of(error) }, Settled::Delivery(delivery), shared)
    }

    /// Sends a delivery to the dead letters.
    ///
    /// # Errors
    /// As [`Transaction::ack`].
    pub fn reject(&mut self, delivery: &'a Delivery, reason: impl Display) -> Result<()> {
        let (message, shared) = leased(delivery);
        self.settle(Settlement::Reject { message, text: text_of(reason) }, Settled::Delivery(delivery), shared)
    }

    /// How many messages it publishes, and how many settlements it has.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.ids.len(), self.settlements.len())
    }

    /// Fails where a handle is of another store; `which` names it.
    pub(super) fn check_store(&self, shared: &Arc<StoreShared>, which: impl FnOnce() -> String) -> Result<()> {
        if Arc::ptr_eq(&self.shared, shared) {
            return Ok(());
        }
        Err(Error::InvalidTransaction { reason: format!("{} is of another store", which()) })
    }

    fn settle(&mut self, settlement: Settlement<'a>, settled: Settled<'a>, shared: &Arc<StoreShared>) -> Result<()> {
        let done = self.check_store(shared, || settled.name());
        let done = done.and_then(|()| self.count(settlement.count()));
        self.noted(done)?;
        self.settlements.push(settlement);
        self.settled.push(settled);
        Ok(())
    }

    /// Counts what the transaction does, up to a bound.
    pub(super) fn count(&mut self, effects: usize) -> Result<()> {
        self.effects = self.effects.saturating_add(effects);
        if self.effects <= FRAME_PARTS_MAX {
            return Ok(());
        }
        let (len, max) = (self.effects as u64, FRAME_PARTS_MAX as u64);
        Err(Error::TooLarge { what: "transaction", len, max, unit: "effects" })
    }

    fn commit(mut self) -> Result<(Placed, Vec<AppendedRun>, PublishedFrame)> {
        if let Some(error) = self.failed {
            return Err(Error::InvalidTransaction { reason: format!("the error of a call was passed over: {error}") });
        }
        let engine = &self.shared.engine;
        if self.effects == 0 {
            engine.enter()?;
            let frame = PublishedFrame::new(&self.shared, Lsn(0), Lsn(0), self.level);
            return Ok((Placed::default(), Vec::new(), frame));
        }
        let mut places = Places::new(std::mem::take(&mut self.ids), &mut self.outgoing)?;
        let (Transacted { published, appended }, placed) = loop {
            let Self { outgoing, appends, snapshots, settlements, cursors, .. } = &self;
            match engine.transact(&Work { outgoing, appends, snapshots, settlements, cursors })? {
                Ok(done) => {
                    let placed = places.published(&done.published.runs, done.published.epoch);
                    break (done, placed);
                }
                Err(NotDone::Repeated(repeats)) => places.leave_out(&mut self.outgoing, &repeats),
                Err(NotDone::Twice { settlement, number, reason }) => {
                    let id = self.settled[settlement].id(number);
                    return Err(Error::InvalidTransaction { reason: format!("{reason}: {id}") });
                }
                Err(NotDone::LeaseLost { settlement, number }) => {
                    return Err(Error::LeaseLost { id: self.settled[settlement].id(number) });
                }
            }
        };
        self.settled.iter().for_each(Settled::note);
        // seam: a transaction does not wait
        if self.level == Durability::Disk {
            engine.wait_durable(published.end)?;
        }
        let runs = self.appends.iter().zip(appended).map(|(append, first)| AppendedRun {
            stream: append.stream,
            first,
            count: append.outgoing.len() as u64,
        });
        let frame = PublishedFrame::new(&self.shared, published.lsn, published.end, self.level);
        Ok((placed, runs.collect(), frame))
    }
}

/// What a delivery holds, and the store that it is of.
fn leased(delivery: &Delivery) -> (LeasedMessage<'_>, &Arc<StoreShared>) {
    (delivery.leased(), &delivery.parts().0.topic.shared)
}

impl Settled<'_> {
    /// The ID of message `number`.
    fn id(&self, number: u32) -> MessageId {
        match self {
            Self::Delivery(delivery) => delivery.id(),
            Self::Batch(batch) => batch.id(number).unwrap_or_else(|| {
                unreachable!("internal error: a batch has as many messages as it acks; please report this")
            }),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Delivery(delivery) => format!("delivery {}", delivery.id()),
            Self::Batch(batch) => {
                format!("the batch with {}", batch.id(0).map_or_else(|| "no message".to_owned(), |id| id.to_string()))
            }
        }
    }

    fn note(&self) {
        let settled: &AtomicBool = match self {
            Self::Delivery(delivery) => delivery.settled(),
            Self::Batch(batch) => batch.settled(),
        };
        settled.store(true, Ordering::Relaxed);
    }
}

impl<T> Committed<T> {
    /// The ID of a message that the transaction published; `None` for one of another transaction.
    #[must_use]
    pub fn id(&self, message: InTransaction) -> Option<MessageId> {
        let is_own = message.transaction == self.number;
        is_own.then(|| self.placed.ids.get(message.nth).copied()).flatten()
    }

    /// Whether a message was not published, since its topic had accepted it before under its id, or an earlier one of the transaction is
    /// the same. [`Committed::id`] is then that of the first.
    #[must_use]
    pub fn is_repeat(&self, message: InTransaction) -> bool {
        let nth = u32::try_from(message.nth).ok().filter(|_| message.transaction == self.number);
        nth.is_some_and(|nth| self.placed.repeats.binary_search(&nth).is_ok())
    }

    /// The versions of the events that it appended to a stream: the first, and one beyond the last. `None` if it appended none.
    #[must_use]
    pub fn versions(&self, stream: &Stream) -> Option<Range<u64>> {
        // In the stream what a frame appends stands together.
        let mut runs = self.appended.iter().filter(|run| run.stream == stream.id());
        let first = runs.next()?;
        let last = runs.next_back().unwrap_or(first);
        Some(first.first..last.first.saturating_add(last.count))
    }

    /// The IDs of all messages that it published, in the order of the calls.
    #[must_use]
    pub fn ids(&self) -> &[MessageId] {
        &self.placed.ids
    }

    /// Where it stands in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.frame.lsn()
    }

    /// Returns once it survives a power failure: at once if it was carried out at `Disk`.
    ///
    /// # Errors
    /// As [`Receipt::wait_durable`](crate::Receipt::wait_durable).
    pub fn wait_durable(&self) -> Result<()> {
        self.frame.wait_durable()
    }
}
