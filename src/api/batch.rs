//! Batches: the deliveries of one receive together.
//!
//! A batch keeps what was received as the engine gave it, and makes deliveries that stand alone only for a caller that wants them: each has to
//! hold on to what it shares with the others. Never here: what becomes of one delivery.

use super::delivery::Delivery;
use super::group::GroupInner;
use crate::engine::{FailureCounts, HeldRun, Received};
use crate::error::{Error, Result};
use crate::ids::MessageId;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Several deliveries of one receive. Read them with [`Batch::iter`]. Ack them all in one write with [`Batch::ack`], or iterate by
/// value to settle each.
///
/// Dropping it nacks the deliveries that were read and releases the others as if they had never been delivered. So if a handler
/// panics, only the attempts of what it has read are counted.
pub struct Batch {
    group: Arc<GroupInner>,
    /// What is not settled yet: all, and nothing afterwards.
    received: Vec<Received>,
    len: usize,
    /// How many of the first deliveries somebody has looked at.
    looked_at: AtomicUsize,
    unreadable: Vec<Error>,
    /// Whether a transaction has settled all.
    settled: AtomicBool,
}

/// Which deliveries of a batch were not acknowledged, since another consumer has their messages or has settled them. Empty if all were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "these messages were not acknowledged: another consumer works on them, or did"]
pub struct LostLeases {
    /// The ids of their messages, in the order of the batch.
    pub ids: Vec<MessageId>,
}

impl LostLeases {
    /// Whether all deliveries were acknowledged.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many were not.
    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

/// The deliveries of a [`Batch`], one after another. Those that are left when it is dropped are given back as if they had never been
/// delivered, but for those that were read before.
#[derive(Debug)]
pub struct BatchIntoIter {
    batch: Batch,
    deliveries: std::vec::IntoIter<Delivery>,
    /// How many of the first deliveries were taken.
    taken: usize,
}

/// A look at a [`Delivery`], or at one of a [`Batch`].
#[derive(Clone, Copy)]
pub struct DeliveryRef<'a> {
    group: &'a GroupInner,
    received: &'a Received,
    nth: u32,
}

/// Looks at the deliveries of a [`Batch`], in their order.
#[derive(Clone)]
pub struct BatchIter<'a> {
    group: &'a GroupInner,
    /// Where it is noted how many were looked at, unless nobody shall know.
    looked_at: Option<&'a AtomicUsize>,
    /// The number of the next one.
    number: usize,
    rest: std::slice::Iter<'a, Received>,
    /// What is looked at, and its next message.
    at: Option<(&'a Received, u32)>,
    len: usize,
}

impl Batch {
    pub(super) fn new(group: &Arc<GroupInner>, received: Vec<Received>, unreadable: Vec<Error>) -> Self {
        let len = received.iter().map(|received| received.stored.count() as usize).sum();
        Self {
            group: Arc::clone(group),
            received,
            len,
            looked_at: AtomicUsize::new(0),
            unreadable,
            settled: AtomicBool::new(false),
        }
    }

    /// Why further messages could not be read; they are not in the batch. Those whose bytes are wrong were put back, their attempts not counted, with
    /// the group's longest backoff; where the trouble is passing ([`ErrorKind::Retry`](crate::ErrorKind::Retry)) all that was not read
    /// is ready again at once.
    #[must_use]
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// How many deliveries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Looks at the deliveries.
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter { looked_at: Some(&self.looked_at), ..self.iter_unseen() }
    }

    /// Its group, and what was received.
    pub(super) fn parts(&self) -> (&GroupInner, &[Received]) {
        (&self.group, &self.received)
    }

    pub(super) const fn settled(&self) -> &AtomicBool {
        &self.settled
    }

    /// The ID of the message of this number.
    pub(super) fn id(&self, number: u32) -> Option<MessageId> {
        self.iter_unseen().nth(number as usize).map(|delivery| delivery.id())
    }

    /// As [`Batch::iter`], but what it passes does not count as looked at.
    fn iter_unseen(&self) -> BatchIter<'_> {
        BatchIter {
            group: &self.group,
            looked_at: None,
            number: 0,
            rest: self.received.iter(),
            at: None,
            len: self.len,
        }
    }

    /// Acknowledges all, in one frame. Returns those whose lease was lost; the others are done.
    ///
    /// # Errors
    /// `Removed`: the group was removed, and wants no message any more. The store's: nothing was acknowledged, and the messages come back
    /// when their leases end.
    pub fn ack(self) -> Result<LostLeases> {
        self.acknowledge(false)
    }

    /// As [`Batch::ack`], and on return it survives power loss.
    ///
    /// # Errors
    /// As [`Batch::ack`], and `OutcomeUnknown` where the sync failed.
    pub fn ack_durable(self) -> Result<LostLeases> {
        self.acknowledge(true)
    }

    fn acknowledge(mut self, durable: bool) -> Result<LostLeases> {
        if self.is_empty() {
            return Ok(LostLeases::default());
        }
        let held: Vec<HeldRun> = self.received.iter().map(Received::held_run).collect();
        let acked = self.group.topic.shared.engine.ack(self.group.info.id, &held);
        let (end, lost) = acked.inspect_err(|_| self.received.clear())?;
        // Their numbers rise.
        let mut lost = lost.into_iter().peekable();
        let mut ids = Vec::new();
        if lost.peek().is_some() {
            let all = self.iter_unseen().zip(0u32..);
            ids.extend(all.filter(|(_, number)| lost.next_if_eq(number).is_some()).map(|(delivery, _)| delivery.id()));
        }
        self.received.clear();
        if durable {
            self.group.topic.shared.engine.wait_durable(end)?;
        }
        Ok(LostLeases { ids })
    }

    /// The deliveries, each for itself. The batch holds none afterwards.
    fn separate(&mut self) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(self.len);
        for received in self.received.drain(..) {
            Delivery::each(Arc::clone(&self.group), received, |delivery| deliveries.push(delivery));
        }
        if self.settled.load(Ordering::Relaxed) {
            deliveries.iter().for_each(|delivery| delivery.settled().store(true, Ordering::Relaxed));
        }
        self.len = 0;
        deliveries
    }

    /// Ends the leases from the delivery `first` on: of those that were looked at as by a drop of each, of the others unused.
    fn give_back(&mut self, deliveries: Vec<Delivery>, first: usize) {
        // seam: a dropped batch charges what nobody saw
        let seen = self.looked_at.load(Ordering::Relaxed).saturating_sub(first).min(deliveries.len());
        let mut deliveries = deliveries.into_iter();
        deliveries.by_ref().take(seen).for_each(drop);
        let unseen: Vec<HeldRun> = deliveries.filter_map(Delivery::forget).collect();
        if !unseen.is_empty() {
            let engine = &self.group.topic.shared.engine;
            // Nothing depends on it: what cannot be given back now comes back when its lease ends.
            let _ = engine.release(self.group.info.id, &unseen);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let deliveries = self.separate();
        self.give_back(deliveries, 0);
    }
}

impl IntoIterator for Batch {
    type Item = Delivery;
    type IntoIter = BatchIntoIter;

    fn into_iter(mut self) -> Self::IntoIter {
        let deliveries = self.separate().into_iter();
        BatchIntoIter { batch: self, deliveries, taken: 0 }
    }
}

impl Iterator for BatchIntoIter {
    type Item = Delivery;

    fn next(&mut self) -> Option<Self::Item> {
        let delivery = self.deliveries.next()?;
        self.taken += 1;
        Some(delivery)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.deliveries.size_hint()
    }
}

impl ExactSizeIterator for BatchIntoIter {}

impl FusedIterator for BatchIntoIter {}

impl Drop for BatchIntoIter {
    fn drop(&mut self) {
        let rest: Vec<Delivery> = self.deliveries.by_ref().collect();
        self.batch.give_back(rest, self.taken);
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = DeliveryRef<'a>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = DeliveryRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (received, nth) = match self.at {
            Some((received, nth)) if nth < received.stored.count() => (received, nth),
            _ => (self.rest.next()?, 0),
        };
        self.at = Some((received, nth + 1));
        self.len -= 1;
        self.number += 1;
        // No exchange, for its cost: two threads that iterate at once may note less than they saw, and then fewer attempts are counted.
        if let Some(looked_at) = self.looked_at.filter(|looked_at| looked_at.load(Ordering::Relaxed) < self.number) {
            looked_at.store(self.number, Ordering::Relaxed);
        }
        Some(DeliveryRef { group: self.group, received, nth })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for BatchIter<'_> {}

impl FusedIterator for BatchIter<'_> {}

impl<'a> From<&'a Delivery> for DeliveryRef<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        let (group, received, nth) = delivery.parts();
        Self { group, received, nth }
    }
}

impl<'a> DeliveryRef<'a> {
    /// As [`Delivery::topic`].
    #[must_use]
    pub fn topic(&self) -> &'a str {
        &self.group.topic.name
    }

    /// As [`Delivery::group`].
    #[must_use]
    pub fn group(&self) -> &'a str {
        &self.group.name
    }

    /// As [`Delivery::id`].
    #[must_use]
    pub fn id(&self) -> MessageId {
        let stored = &self.received.stored;
        self.group.message_id(stored.about.partition, stored.about.epoch, stored.offset(self.nth))
    }

    /// As [`Delivery::origin`].
    #[must_use]
    pub fn origin(&self) -> MessageId {
        match &self.received.stored.provenance {
            Some(provenance) => provenance.origin.id,
            None => self.id(),
        }
    }

    /// As [`Delivery::payload`].
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.received.stored.view(self.nth).payload()
    }

    /// As [`Delivery::key`].
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.received.stored.view(self.nth).key()
    }

    /// As [`Delivery::headers`].
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.received.stored.view(self.nth).headers()
    }

    /// As [`Delivery::header`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// As [`Delivery::attempt`].
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.received.attempt
    }

    /// As [`Delivery::failures`].
    #[must_use]
    pub fn failures(&self) -> FailureCounts {
        self.received.failures
    }

    /// As [`Delivery::timestamp`].
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.received.stored.published().0)
    }
}
