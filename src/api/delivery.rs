//! Deliveries: leased messages, and what becomes of them.

use super::group::GroupInner;
use super::millis;
use crate::engine::{Engine, HeldRun, Received, Stored};
use crate::error::{Error, Result};
use crate::ids::{GroupId, MessageId};
use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message under a lease. Settle it with [`ack`](Self::ack), [`nack`](Self::nack), [`nack_after`](Self::nack_after) or
/// [`reject`](Self::reject); dropping it is a nack.
///
/// If the process dies, the message comes back with its attempt counted. If the visibility timeout passes, it goes to
/// another consumer, and settling this delivery then fails with `LeaseLost`; until it has, it may still be settled.
///
/// How it is settled survives the death of the process. A power cut within the sync interval may take it back: the message is
/// then delivered again, which is why handlers must be able to see a message twice.
///
/// ```
/// # use millpond::{Backoff, Delivery, Store};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// # let orders = store.topic("orders").open()?;
/// # let kitchen = orders.group("kitchen").max_attempts(2).backoff(Backoff::none()).open()?;
/// fn cook(delivery: Delivery) -> millpond::Result<()> {
///     match delivery.payload() {
///         b"pizza" => delivery.ack(),
///         b"" => delivery.reject("an order of nothing"), // a dead letter now
///         _ => delivery.nack("no such dish"), // again later, a dead letter in the end
///     }
/// }
/// orders.publish_batch(["pizza", "", "soup"])?;
/// while let Some(delivery) = kitchen.receive(Duration::ZERO)? {
///     cook(delivery)?;
/// }
/// # store.sync()?;
/// assert_eq!(kitchen.dead_letters()?.count(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Delivery {
    parcel: Holding,
    /// Which message of the parcel.
    nth: u32,
    settled: bool,
}

/// A parcel of one's own, or one that others hold as well. Most are alone, and then nobody need count.
#[derive(Debug)]
enum Holding {
    Alone(Box<Parcel>),
    Shared(Arc<Parcel>),
}

impl Deref for Holding {
    type Target = Parcel;
    fn deref(&self) -> &Parcel {
        match self {
            Self::Alone(parcel) => parcel,
            Self::Shared(parcel) => parcel,
        }
    }
}

/// Messages of one receive that share what is known of them: one of any size, or a few small ones.
#[derive(Debug)]
struct Parcel {
    group: Arc<GroupInner>,
    received: Received,
}

impl Delivery {
    /// The only message of what was received.
    pub(super) fn alone(group: Arc<GroupInner>, received: Received) -> Self {
        Self { parcel: Holding::Alone(Box::new(Parcel { group, received })), nth: 0, settled: false }
    }

    fn engine(&self) -> &Engine {
        &self.parcel.group.topic.shared.engine
    }

    fn group_id(&self) -> GroupId {
        self.parcel.group.info.id
    }

    fn stored(&self) -> &Stored {
        &self.parcel.received.stored
    }

    /// The message's id. That of a redriven message is its new one; see [`Delivery::origin`].
    #[must_use]
    pub fn id(&self) -> MessageId {
        let stored = self.stored();
        self.parcel.group.message_id(stored.about.partition, stored.about.epoch, stored.offset(self.nth))
    }

    /// The id that the message was first published under.
    #[must_use]
    pub fn origin(&self) -> MessageId {
        let origin = self.stored().origin(self.nth);
        self.parcel.group.message_id(origin.partition, origin.epoch, origin.offset)
    }

    /// The message's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.stored().view(self.nth).payload()
    }

    /// The message's key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.stored().view(self.nth).key()
    }

    /// The message's headers, in the order given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.stored().view(self.nth).headers()
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.parcel.received.attempt
    }

    /// When the message was first published, by the wall clock, to the millisecond.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.stored().origin(self.nth).time.0)
    }

    /// The work is done. On return that survives the death of the process; a power cut within the sync interval may bring
    /// the message back.
    ///
    /// # Errors
    /// `LeaseLost`: another consumer has the message or has settled it. The store's: the message comes back.
    pub fn ack(self) -> Result<()> {
        self.acknowledge(false)
    }

    /// The work is done, and on return that survives power loss.
    ///
    /// # Errors
    /// As [`Delivery::ack`], and `OutcomeUnknown` where the sync failed.
    pub fn ack_durable(self) -> Result<()> {
        self.acknowledge(true)
    }

    fn acknowledge(mut self, durable: bool) -> Result<()> {
        self.settled = true;
        let engine = self.engine();
        let (end, lost) = engine.ack(self.group_id(), &[self.parcel.received.held(self.nth).into()])?;
        if !lost.is_empty() {
            return Err(Error::LeaseLost { id: self.id() });
        }
        if durable { engine.wait_durable(end) } else { Ok(()) }
    }

    /// The work failed: the message waits as the group's backoff says and is tried again, or becomes a dead letter if this was
    /// its last attempt. Of the error's text 120 bytes are kept in the message's history.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn nack(mut self, error: impl Display) -> Result<()> {
        self.settled = true;
        self.give_back(None, &error.to_string())
    }

    /// As [`Delivery::nack`], with a delay of the caller's, of at most ten years, rounded up to whole milliseconds. Zero: ready
    /// at once.
    ///
    /// # Errors
    /// As [`Delivery::ack`], and `InvalidOption`, in which case the message is given back as by a drop.
    pub fn nack_after(mut self, delay: Duration, error: impl Display) -> Result<()> {
        let delay_ms = millis("delay", delay)?;
        self.settled = true;
        self.give_back(Some(delay_ms), &error.to_string())
    }

    fn give_back(&self, delay_ms: Option<u64>, text: &str) -> Result<()> {
        let held = self.engine().nack(self.group_id(), (&self.parcel.received, self.nth), delay_ms, text)?;
        self.lost_unless(held)
    }

    /// The message cannot be worked on at all: it becomes a dead letter now, in one step whatever crashes. Of the reason 120
    /// bytes are kept in its history.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn reject(mut self, reason: impl Display) -> Result<()> {
        self.settled = true;
        let text = reason.to_string();
        let held = self.engine().reject(self.group_id(), (&self.parcel.received, self.nth), &text)?;
        self.lost_unless(held)
    }

    /// Lets the lease last `duration` from now, at most ten years, rounded up to whole milliseconds. A lease that lasts longer
    /// already stays as it is. One that has run out goes on if nobody else has taken the message. No lease outlives its process.
    ///
    /// # Errors
    /// `LeaseLost`: another consumer has the message or has settled it; or the lease is a *lone* one (the last attempt of a message
    /// in whose hands a process died before, for which the whole store waits), which is extended only once, and may still be
    /// settled. `InvalidOption`: more than ten years. The store's.
    pub fn extend(&self, duration: Duration) -> Result<()> {
        let for_ms = millis("duration", duration)?;
        self.lost_unless(self.engine().extend(self.group_id(), self.parcel.received.held(self.nth), for_ms)?)
    }

    fn lost_unless(&self, held: bool) -> Result<()> {
        if held { Ok(()) } else { Err(Error::LeaseLost { id: self.id() }) }
    }

    /// Gives the message back as if it had never been handed out.
    pub(super) fn release(mut self) -> Result<()> {
        self.settled = true;
        self.engine().release(self.group_id(), self.parcel.received.held(self.nth)).map(drop)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            // Nothing depends on it: a message that cannot be given back now comes back when its lease expires.
            let _ = self.give_back(None, "dropped");
        }
    }
}

/// Several deliveries of one receive. Iterate over it to settle each in its own way, or settle all in one frame.
#[derive(Debug)]
pub struct Batch {
    group: Arc<GroupInner>,
    deliveries: Vec<Delivery>,
    unreadable: Vec<Error>,
}

impl Batch {
    pub(super) fn new(group: &Arc<GroupInner>, received: Vec<Received>, unreadable: Vec<Error>) -> Self {
        let count = received.iter().map(|received| received.stored.count() as usize).sum();
        let mut deliveries = Vec::with_capacity(count);
        for received in received {
            let last = received.stored.count() - 1;
            let parcel = Arc::new(Parcel { group: Arc::clone(group), received });
            let shared = |nth, parcel| Delivery { parcel: Holding::Shared(parcel), nth, settled: false };
            deliveries.extend((0..last).map(|nth| shared(nth, Arc::clone(&parcel))));
            deliveries.push(shared(last, parcel));
        }
        Self { group: Arc::clone(group), deliveries, unreadable }
    }

    /// Why further messages could not be read: they were put back uncharged, with the group's longest backoff, and are
    /// not in the batch.
    #[must_use]
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// How many deliveries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Looks at the deliveries.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivery> {
        self.deliveries.iter()
    }

    /// Acknowledges all, in one frame. Returns the ids of those whose lease was lost; the others are done.
    ///
    /// # Errors
    /// The store's: nothing was acknowledged, and the messages come back.
    pub fn ack(self) -> Result<Vec<MessageId>> {
        self.acknowledge(false)
    }

    /// As [`Batch::ack`], and on return it survives power loss.
    ///
    /// # Errors
    /// As [`Batch::ack`], and `OutcomeUnknown` where the sync failed.
    pub fn ack_durable(self) -> Result<Vec<MessageId>> {
        self.acknowledge(true)
    }

    fn acknowledge(mut self, durable: bool) -> Result<Vec<MessageId>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        // All deliveries of a parcel are here, one after another.
        let first_of_parcel = |delivery: &&Delivery| delivery.nth == 0;
        let parcels = self.deliveries.iter().filter(first_of_parcel).map(|delivery| &delivery.parcel);
        let held: Vec<HeldRun> = parcels.map(|parcel| parcel.received.held_run()).collect();
        let engine = &self.group.topic.shared.engine;
        let (end, lost) = engine.ack(self.group.info.id, &held)?;
        let lost = lost.into_iter().filter_map(|index| self.deliveries.get(index as usize)).map(Delivery::id).collect();
        self.deliveries.iter_mut().for_each(|delivery| delivery.settled = true);
        if durable {
            engine.wait_durable(end)?;
        }
        Ok(lost)
    }
}

impl IntoIterator for Batch {
    type Item = Delivery;
    type IntoIter = std::vec::IntoIter<Delivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.deliveries.into_iter()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Delivery;
    type IntoIter = std::slice::Iter<'a, Delivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
