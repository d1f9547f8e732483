//! Deliveries: leased messages, and what becomes of them.

use super::batch::DeliveryRef;
use super::group::GroupInner;
use super::millis;
use crate::engine::{Engine, FailureCounts, HeldRun, LeasedMessage, Received};
use crate::error::{Error, Result};
use crate::ids::{GroupId, MessageId};
use crate::sync::atomic::{AtomicBool, Ordering};
use std::fmt::{Display, Write as _};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A message under a lease. Settle it with [`ack`](Self::ack), [`nack`](Self::nack), [`nack_after`](Self::nack_after) or
/// [`reject`](Self::reject); dropping it is a nack.
///
/// If the process dies, the message comes back with its attempt counted. After the visibility timeout another consumer may lease it;
/// settling this delivery then fails with `LeaseLost`. Until one does, this delivery can still be settled.
///
/// How it is settled survives a process crash. A power failure within the sync interval may take it back: the message is
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
pub struct Delivery {
    parcel: ParcelRef,
    /// Which message of the buffer.
    nth: u32,
    settled: AtomicBool,
}

/// A delivery buffer, owned or shared with other deliveries. Most are owned, and then no references are counted.
enum ParcelRef {
    Alone(Box<Parcel>),
    StoreShared(Arc<Parcel>),
}

impl Deref for ParcelRef {
    type Target = Parcel;
    fn deref(&self) -> &Parcel {
        match self {
            Self::Alone(parcel) => parcel,
            Self::StoreShared(parcel) => parcel,
        }
    }
}

/// Messages of one receive that share what is known of them: one of any size, or a few small ones.
struct Parcel {
    group: Arc<GroupInner>,
    received: Received,
}

impl Delivery {
    /// The only message of what was received.
    pub(super) fn alone(group: Arc<GroupInner>, received: Received) -> Self {
        Self { parcel: ParcelRef::Alone(Box::new(Parcel { group, received })), nth: 0, settled: AtomicBool::new(false) }
    }

    /// Each message of what was received.
    pub(super) fn each(group: Arc<GroupInner>, received: Received, mut each: impl FnMut(Self)) {
        let last = received.stored.count() - 1;
        if last == 0 {
            return each(Self::alone(group, received));
        }
        let parcel = Arc::new(Parcel { group, received });
        (0..=last).for_each(|nth| {
            each(Self { parcel: ParcelRef::StoreShared(Arc::clone(&parcel)), nth, settled: AtomicBool::new(false) })
        });
    }

    /// Whether nothing is to be done when it is dropped.
    pub(super) fn settled(&self) -> &AtomicBool {
        &self.settled
    }

    fn view(&self) -> DeliveryRef<'_> {
        self.into()
    }

    pub(super) fn parts(&self) -> (&GroupInner, &Received, u32) {
        (&self.parcel.group, &self.parcel.received, self.nth)
    }

    /// What it holds.
    pub(super) fn leased(&self) -> LeasedMessage<'_> {
        LeasedMessage { group: self.group_id(), received: &self.parcel.received, nth: self.nth }
    }

    fn engine(&self) -> &Engine {
        &self.parcel.group.topic.shared.engine
    }

    fn group_id(&self) -> GroupId {
        self.parcel.group.info.id
    }

    /// The name of the topic that it was received from.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.view().topic()
    }

    /// The name of the group that it was received for.
    #[must_use]
    pub fn group(&self) -> &str {
        self.view().group()
    }

    /// The message's id. That of a redriven message is its new one; see [`Delivery::origin`].
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.view().id()
    }

    /// The id that the message was first published under.
    #[must_use]
    pub fn origin(&self) -> MessageId {
        self.view().origin()
    }

    /// The message's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.view().payload()
    }

    /// The message's key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.view().key()
    }

    /// The message's headers, in the order given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.view().headers()
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.view().header(name)
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.view().attempt()
    }

    /// How the attempts before this one ended, since the message was published or last redriven. Attempts that the close of a store
    /// ended are in none of these counts.
    #[must_use]
    pub fn failures(&self) -> FailureCounts {
        self.view().failures()
    }

    /// When the message was first published, by the wall clock, to the millisecond.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        self.view().timestamp()
    }

    /// The work is done. On return that survives a process crash; a power failure within the sync interval may bring
    /// the message back.
    ///
    /// # Errors
    /// `LeaseLost`: another consumer has the message or has settled it. `Removed`: the group was removed, and wants no message any more.
    /// The store's: the message comes back.
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

    fn acknowledge(self, durable: bool) -> Result<()> {
        self.settled.store(true, Ordering::Relaxed);
        let engine = self.engine();
        let (end, lost) = engine.ack(self.group_id(), &[self.parcel.received.held(self.nth).into()])?;
        if !lost.is_empty() {
            return Err(Error::LeaseLost { id: self.id() });
        }
        // seam: durable ack does not wait
        if durable { engine.wait_durable(end) } else { Ok(()) }
    }

    /// The work failed: the message waits as the group's backoff says and is tried again, or becomes a dead letter if this was
    /// its last attempt. Of the error's text 120 bytes are kept in the message's history.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn nack(self, error: impl Display) -> Result<()> {
        // The caller's code: if it panics, the delivery is dropped unsettled, which gives the message back.
        // seam: settled before the reason is known
        let text = text_of(error);
        self.settled.store(true, Ordering::Relaxed);
        self.give_back(None, &text)
    }

    /// As [`Delivery::nack`], with a delay of the caller's, of at most ten years, rounded up to whole milliseconds. Zero: ready
    /// at once.
    ///
    /// # Errors
    /// As [`Delivery::ack`], and `InvalidOption`, in which case the message is given back as by a drop.
    pub fn nack_after(self, delay: Duration, error: impl Display) -> Result<()> {
        let (delay_ms, text) = (millis("delay", delay)?, text_of(error));
        self.settled.store(true, Ordering::Relaxed);
        self.give_back(Some(delay_ms), &text)
    }

    fn give_back(&self, delay_ms: Option<u64>, text: &str) -> Result<()> {
        let held = self.engine().nack(self.leased(), delay_ms, text)?;
        self.lost_unless(held)
    }

    /// The message cannot be worked on at all: it becomes a dead letter now, in one step whatever crashes. Of the reason 120
    /// bytes are kept in its history.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn reject(self, reason: impl Display) -> Result<()> {
        let text = text_of(reason);
        self.settled.store(true, Ordering::Relaxed);
        // seam: a rejected message is tried again
        let held = self.engine().reject(self.leased(), &text)?;
        self.lost_unless(held)
    }

    /// Lets the lease last `duration` from now, at most ten years, rounded up to whole milliseconds. A lease that lasts longer
    /// already stays as it is. One that has run out goes on if nobody else has taken the message. No lease outlives its process.
    ///
    /// # Errors
    /// `LeaseLost`: another consumer has the message or has settled it. A lease that has ended cannot be extended if its message was
    /// delivered alone, or while another message is delivered alone or pending (see
    /// [`isolation_limit`](crate::StoreOptions::isolation_limit)); the delivery may still be settled then. `InvalidOption`: more than
    /// ten years. The store's.
    pub fn extend(&self, duration: Duration) -> Result<()> {
        let for_ms = millis("duration", duration)?;
        self.lost_unless(self.engine().extend(self.group_id(), self.parcel.received.held(self.nth), for_ms)?)
    }

    /// For how long the lease lasts still: zero where it has ended and nobody has taken the message yet.
    ///
    /// # Errors
    /// `LeaseLost`: another consumer has the message or has settled it. `Removed`; the store's.
    pub fn expires_in(&self) -> Result<Duration> {
        let left = self.engine().lease_left_ms(self.group_id(), self.parcel.received.held(self.nth))?;
        left.map(Duration::from_millis).ok_or_else(|| Error::LeaseLost { id: self.id() })
    }

    /// Extends the lease now, and again and again by itself, by the group's visibility timeout each time, until the guard is dropped
    /// or `total` has passed, at most ten years. So a handler that hangs holds its message no longer than that. A thread of the store
    /// does it for all guards, at a third of the timeout. Drop the guard before the delivery is settled; one that is left ends by
    /// itself.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// # let videos = store.topic("videos").open()?;
    /// # let encoder = videos.group("encoder").open()?;
    /// # videos.publish("a video")?;
    /// # store.sync()?;
    /// # fn encode(_: &[u8]) {}
    /// let delivery = encoder.receive(Duration::ZERO)?.expect("one is there");
    /// let alive = delivery.keep_alive(Duration::from_secs(3600))?;
    /// encode(delivery.payload()); // however long it takes, up to an hour
    /// drop(alive);
    /// delivery.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Delivery::extend`].
    pub fn keep_alive(&self, total: Duration) -> Result<KeepAlive> {
        let (group, held) = (&self.parcel.group, self.parcel.received.held(self.nth));
        let number = self.engine().keep(group.info.id, held, millis("total", total)?)?;
        let number = number.ok_or_else(|| Error::LeaseLost { id: self.id() })?;
        Ok(KeepAlive { group: Arc::clone(group), number })
    }

    fn lost_unless(&self, held: bool) -> Result<()> {
        if held { Ok(()) } else { Err(Error::LeaseLost { id: self.id() }) }
    }

    /// Leaves the lease to the caller.
    pub(super) fn forget(self) -> Option<HeldRun> {
        let settled = self.settled.swap(true, Ordering::Relaxed);
        (!settled).then(|| self.parcel.received.held(self.nth).into())
    }

    /// Gives the message back as if it had never been delivered: its attempt is not counted, and it is ready at once.
    ///
    /// Released at its first attempt, it comes before newer messages again, in offset order. A consumer that releases the same message
    /// for ever therefore gets it for ever; use [`nack_after`](Self::nack_after) for a message that has to wait.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub fn release(self) -> Result<()> {
        self.settled.store(true, Ordering::Relaxed);
        // seam: a release counts the attempt
        let lost = self.engine().release(self.group_id(), &[self.parcel.received.held(self.nth).into()])?;
        self.lost_unless(lost.is_empty())
    }
}

/// Extends the lease of a delivery until it is dropped: see [`Delivery::keep_alive`]. It keeps the store open.
#[must_use = "the lease is extended until this is dropped"]
pub struct KeepAlive {
    group: Arc<GroupInner>,
    number: u64,
}

impl KeepAlive {
    /// Of the topic and the group.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.group.topic.name, &self.group.name)
    }

    /// Whether the lease is still extended: it was not lost, its message not settled, and the time of the guard not over. An answer
    /// of the last extension: it may be late by a third of the visibility timeout.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let engine = &self.group.topic.shared.engine;
        engine.enter().is_ok() && engine.is_kept(self.number)
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let engine = &self.group.topic.shared.engine;
        // In a forked child another thread may have held the lock.
        if !engine.is_forked() {
            engine.leave_lease(self.number);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // seam: a dropped delivery stays leased
        if !self.settled.load(Ordering::Relaxed) {
            // Nothing depends on it: a message that cannot be given back now comes back when its lease expires.
            let _ = self.give_back(None, "dropped");
        }
    }
}

/// What a reason says of itself, as far as it gets: an error of its own loses the rest.
pub(super) fn text_of(reason: impl Display) -> String {
    let mut text = String::new();
    let _ = write!(text, "{reason}");
    text
}
