//! What a publish gives back, and which of its messages stands where.
//!
//! Never here: publishing.

use super::Durability;
#[cfg(feature = "async")]
use super::futures::Durable;
use super::outcome::Outcome;
use super::store::StoreShared;
#[cfg(feature = "async")]
use crate::engine::DurableWait;
use crate::engine::{Outgoing, PublishedRun, Repeat};
use crate::error::Result;
use crate::ids::{Epoch, Lsn, MessageId};
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::{Poll, Waker};

/// The IDs of messages that are published together, while it is found out where each of them stands.
pub(super) struct Places {
    /// In the order given; epoch and offset are not known at first.
    ids: Vec<MessageId>,
    /// Which message comes where in the frame, if not in the order given.
    order: Option<Vec<u32>>,
    /// Messages that are not in the frame, since an earlier one of the batch is the same: its number, and that of the earlier one.
    doubles: Vec<(u32, u32)>,
    /// Messages that are not in the frame, since they were accepted before.
    repeats: Vec<u32>,
    last_repeat: Lsn,
}

/// The IDs of messages in the order given, and the numbers of those that were published before, in order.
#[derive(Clone, Default)]
pub(super) struct Placed {
    pub(super) ids: Vec<MessageId>,
    pub(super) repeats: Vec<u32>,
}

impl Places {
    /// Puts the messages of each partition together, each once.
    pub(super) fn new(ids: Vec<MessageId>, outgoing: &mut Outgoing) -> Result<Self> {
        let doubles = outgoing.doubles()?;
        let mut places = Self { ids, order: None, doubles, repeats: Vec::new(), last_repeat: Lsn(0) };
        let parts: Vec<u32> = places.doubles.iter().map(|(double, _)| *double).collect();
        places.take_out(outgoing, &parts);
        outgoing.check_unique_keys()?;
        if let Some(grouped) = outgoing.group_by_partition() {
            let order = places.order.take();
            let given = |place: u32| order.as_ref().map_or(place, |order| order[place as usize]);
            places.order = Some(grouped.into_iter().map(given).collect());
        }
        Ok(places)
    }

    fn take_out(&mut self, outgoing: &mut Outgoing, parts: &[u32]) {
        if parts.is_empty() {
            return;
        }
        let order = self.order.take().unwrap_or_else(|| (0..self.ids.len() as u32).collect());
        let mut out = parts.iter().peekable();
        let is_kept = |place: &u32| out.next_if_eq(&place).is_none();
        let places: Vec<u32> = (0..order.len() as u32).filter(is_kept).collect();
        self.order = Some(places.into_iter().map(|place| order[place as usize]).collect());
        outgoing.leave_out(parts);
    }

    /// Takes out what was accepted before.
    pub(super) fn leave_out(&mut self, outgoing: &mut Outgoing, repeats: &[Repeat]) {
        for repeat in repeats {
            let given = self.order.as_ref().map_or(repeat.part, |order| order[repeat.part as usize]);
            self.ids[given as usize] = repeat.id;
            self.repeats.push(given);
            self.last_repeat = self.last_repeat.max(repeat.lsn);
        }
        let parts: Vec<u32> = repeats.iter().map(|repeat| repeat.part).collect();
        self.take_out(outgoing, &parts);
    }

    /// The newest frame with a message that was accepted before.
    pub(super) fn last_repeat(&self) -> Lsn {
        self.last_repeat
    }

    /// All are published, as these runs.
    pub(super) fn published(mut self, runs: &[PublishedRun], epoch: Epoch) -> Placed {
        set_ids(&mut self.ids, self.order.as_deref(), runs, epoch);
        for (double, first) in &self.doubles {
            self.ids[*double as usize] = self.ids[*first as usize];
            self.repeats.push(*double);
        }
        self.repeats.sort_unstable();
        Placed { ids: self.ids, repeats: self.repeats }
    }
}

/// Puts epoch and offsets into the IDs of messages that were published: `order` says which message came where.
fn set_ids(ids: &mut [MessageId], order: Option<&[u32]>, runs: &[PublishedRun], epoch: Epoch) {
    let offsets = runs.iter().flat_map(|run| (0..u64::from(run.count)).map(move |n| run.first.saturating_add(n)));
    for (nth, offset) in offsets.enumerate() {
        let place = order.map_or(nth, |order| order[nth] as usize);
        // seam: a receipt names another message
        (ids[place].epoch, ids[place].offset) = (epoch, offset);
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
    #[inline]
    pub(super) fn new(shared: &StoreShared, lsn: Lsn, end: Lsn, level: Durability) -> Self {
        Self { outcome: Arc::clone(&shared.outcome), lsn, end, level }
    }

    pub(super) const fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub(super) fn wait_durable(&self) -> Result<()> {
        self.outcome.wait_durable(self.end, self.level)
    }

    #[cfg(feature = "async")]
    pub(super) fn poll_durable(&self, wait: &mut DurableWait, waker: &Waker) -> Poll<Result<()>> {
        self.outcome.poll_durable(self.end, self.level, wait, waker)
    }

    /// Nobody waits any more.
    #[cfg(feature = "async")]
    pub(super) fn forget(&self, wait: &mut DurableWait) {
        self.outcome.forget_durable(wait);
    }
}

/// Says that a message was published, where, and what it survives.
#[derive(Clone)]
pub struct Receipt {
    id: MessageId,
    frame: PublishedFrame,
    repeat: bool,
}

impl Receipt {
    #[inline]
    pub(super) fn new(id: MessageId, frame: PublishedFrame) -> Self {
        Self { id, frame, repeat: false }
    }

    pub(super) fn repeat(id: MessageId, frame: PublishedFrame) -> Self {
        Self { id, frame, repeat: true }
    }

    /// Whether nothing was published, since the topic had accepted the message before under its id
    /// ([`Message::dedup_id`](crate::Message::dedup_id)), or one with its unique key is pending
    /// ([`WhilePending::ReturnExisting`](crate::WhilePending::ReturnExisting)). All else is then of that publish.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.repeat
    }

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

    /// Returns once the message survives power loss. One sync serves all who wait: publish a thousand messages at `Os` and wait
    /// for the last.
    ///
    /// # Errors
    /// `OutcomeUnknown` if a sync failed before that. `Closed` if the last handle of the store was dropped before that: a receipt does
    /// not keep the store open.
    pub fn wait_durable(&self) -> Result<()> {
        self.frame.wait_durable()
    }

    /// Ready once what was published survives power loss, as [`Receipt::wait_durable`] waits without blocking the thread. Needs the
    /// feature `async`, and no runtime.
    ///
    /// # Errors
    /// The future gives those of [`Receipt::wait_durable`].
    #[cfg(feature = "async")]
    pub fn durable(&self) -> Durable {
        Durable::new(&self.frame)
    }

    #[cfg(feature = "async")]
    pub(super) fn at_level(&self, level: super::Durability) -> Self {
        Self { frame: PublishedFrame { level, ..self.frame.clone() }, ..self.clone() }
    }
}

/// Says that a batch was published.
#[derive(Clone)]
pub struct BatchReceipt {
    placed: Placed,
    frame: PublishedFrame,
}

impl BatchReceipt {
    pub(super) fn new(placed: Placed, frame: PublishedFrame) -> Self {
        Self { placed, frame }
    }

    /// Whether message number `nth` of the batch was not published, since the topic had accepted it before under its id, one with its
    /// unique key is pending, or an earlier one of the batch is the same.
    #[must_use]
    pub fn is_repeat(&self, nth: usize) -> bool {
        u32::try_from(nth).is_ok_and(|nth| self.placed.repeats.binary_search(&nth).is_ok())
    }

    /// The messages' ids, in the order given.
    #[must_use]
    pub fn ids(&self) -> &[MessageId] {
        &self.placed.ids
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

    /// Ready once what was published survives power loss, as [`BatchReceipt::wait_durable`] waits without blocking the thread. Needs the
    /// feature `async`, and no runtime.
    ///
    /// # Errors
    /// The future gives those of [`BatchReceipt::wait_durable`].
    #[cfg(feature = "async")]
    pub fn durable(&self) -> Durable {
        Durable::new(&self.frame)
    }
}
