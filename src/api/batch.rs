//! Batches: the deliveries of one receive together.
//!
//! A batch keeps what was received as the engine gave it, and makes deliveries that stand alone only for who wants them: each has to
//! hold on to what it shares with the others. Never here: what becomes of one delivery.

use super::delivery::Delivery;
use super::group::GroupInner;
use crate::engine::{HeldRun, Received};
use crate::error::{Error, Result};
use crate::ids::MessageId;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Several deliveries of one receive. Look at each by [`Batch::iter`]; then settle all in one frame with [`Batch::ack`], or iterate over
/// the batch itself to settle each in its own way. Dropping it is a nack of each.
pub struct Batch {
    group: Arc<GroupInner>,
    /// What is not settled yet: all, and nothing afterwards.
    received: Vec<Received>,
    len: usize,
    unreadable: Vec<Error>,
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
    rest: std::slice::Iter<'a, Received>,
    /// What is looked at, and its next message.
    at: Option<(&'a Received, u32)>,
    len: usize,
}

impl Batch {
    pub(super) fn new(group: &Arc<GroupInner>, received: Vec<Received>, unreadable: Vec<Error>) -> Self {
        let len = received.iter().map(|received| received.stored.count() as usize).sum();
        Self { group: Arc::clone(group), received, len, unreadable }
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
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Looks at the deliveries.
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter { group: &self.group, rest: self.received.iter(), at: None, len: self.len }
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
        let held: Vec<HeldRun> = self.received.iter().map(Received::held_run).collect();
        let engine = &self.group.topic.shared.engine;
        let (end, lost) = engine.ack(self.group.info.id, &held)?;
        // Their numbers rise.
        let mut lost = lost.into_iter().peekable();
        let mut ids = Vec::new();
        if lost.peek().is_some() {
            let all = self.iter().zip(0u32..);
            ids.extend(all.filter(|(_, number)| lost.next_if_eq(number).is_some()).map(|(delivery, _)| delivery.id()));
        }
        self.received.clear();
        if durable {
            self.group.topic.shared.engine.wait_durable(end)?;
        }
        Ok(ids)
    }

    /// The deliveries, each for itself. The batch holds none afterwards.
    fn separate(&mut self) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(self.len);
        for received in self.received.drain(..) {
            Delivery::each(Arc::clone(&self.group), received, |delivery| deliveries.push(delivery));
        }
        self.len = 0;
        deliveries
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Each gives itself back.
        drop(self.separate());
    }
}

impl IntoIterator for Batch {
    type Item = Delivery;
    type IntoIter = std::vec::IntoIter<Delivery>;

    fn into_iter(mut self) -> Self::IntoIter {
        self.separate().into_iter()
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
            Some(source) => source.origin_id,
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

    /// As [`Delivery::timestamp`].
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.received.stored.origin(self.nth).time.0)
    }
}
