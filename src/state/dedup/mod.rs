//! What was published before: ids of messages within the window of their topic, and how far each producer has come.
//!
//! A topic remembers as many ids as it was made for, each for as long as it was made for; what leaves has exceeded one of the two. Ids
//! are hashes by a secret of the store, and so are the bytes of messages. Producers number their messages themselves. Never here:
//! hashing, clocks.

mod decide;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;

pub(super) use snapshot::{Ids, decode, encode};
pub(crate) use window::Acceptance;

use super::kit::named::Named;
use super::message::{Applied, require};
use super::topic::check_name;
use super::{Rejection, Role, State};
use crate::ids::{Lsn, Offset, PartitionId, StoreMs, TopicId};
use crate::limits::{DEDUP_IDS_MAX, PRODUCERS_MAX};
use std::collections::BTreeMap;
use window::Window;

/// How far a producer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) sequence: u64,
    /// The frame that said so; 0 if that lies below the checkpoint that was read, and so is durable.
    pub(crate) at: Lsn,
}

/// Ids and producers of all topics.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Dedup {
    windows: BTreeMap<TopicId, Window>,
    /// For how many ids all windows have room.
    reserved: u64,
    producers: BTreeMap<TopicId, Named<Produced>>,
    producers_len: usize,
}

/// What a topic that is removed remembered.
#[derive(Clone, Debug)]
pub(in crate::state) struct Forgotten {
    _window: Option<Window>,
    _producers: Option<Named<Produced>>,
}

impl Dedup {
    /// Takes out what a topic remembers, to be freed elsewhere.
    pub(in crate::state) fn forget(&mut self, topic: TopicId) -> Forgotten {
        let (window, producers) = (self.windows.remove(&topic), self.producers.remove(&topic));
        self.reserved -= window.as_ref().map_or(0, Window::capacity);
        self.producers_len -= producers.as_ref().map_or(0, Named::len);
        Forgotten { _window: window, _producers: producers }
    }

    /// Lets go of what is older than its topic remembers.
    pub(in crate::state) fn expire(&mut self, now: StoreMs) {
        self.windows.values_mut().for_each(|window| window.expire(now, usize::MAX));
    }

    /// Whether a topic remembers anything whose age counts.
    pub(in crate::state) fn is_counting(&self) -> bool {
        self.windows.values().any(|window| !window.is_empty())
    }

    /// Whether what is kept beside the truth agrees with it.
    pub(in crate::state) fn check(&self, fault: &mut impl FnMut(&'static str)) {
        if self.windows.values().map(Window::capacity).sum::<u64>() != self.reserved {
            fault("the room for ids is not the sum of the windows");
        }
        if self.producers.values().map(Named::len).sum::<usize>() != self.producers_len {
            fault("the number of producers is not that of all topics");
        }
        if self.reserved > u64::from(DEDUP_IDS_MAX) || self.producers_len > PRODUCERS_MAX {
            fault("more ids or producers than a store has");
        }
        if !self.windows.values().all(Window::is_sound) {
            fault("ids are found that are not there, or not found");
        }
    }
}

impl State {
    /// What a topic remembers of an id that was accepted, if it does at `now`.
    #[inline]
    fn accepted(&self, topic: TopicId, id: u128, now: StoreMs) -> Option<&Acceptance> {
        self.dedup.windows.get(&topic)?.find(id, now)
    }

    /// The topic that remembers the ids of this partition's messages.
    #[inline]
    pub(in crate::state) fn accepting(&self, partition: PartitionId) -> Result<TopicId, Rejection> {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, .. } | Role::Schedule { topic }) => Ok(topic),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) | None => {
                Err(Rejection::UnknownPartition)
            }
        }
    }

    /// How far a producer of a topic has come.
    pub(crate) fn produced(&self, topic: TopicId, producer: &str) -> Option<Produced> {
        self.dedup.producers.get(&topic)?.get(producer).copied()
    }

    /// Whether these topics have room for ids, or can get it all together. No topic comes twice.
    fn check_windows(&self, topics: &[TopicId]) -> Result<(), Rejection> {
        let mut reserved = self.dedup.reserved;
        for topic in topics {
            let options = self.catalog.topic(*topic).ok_or(Rejection::UnknownTopic)?.options;
            let has_window = self.dedup.windows.contains_key(topic);
            reserved += if has_window { 0 } else { u64::from(options.dedup_ids) };
        }
        // seam: ids have no bound
        let fits = reserved <= u64::from(DEDUP_IDS_MAX);
        if fits { Ok(()) } else { Err(Rejection::LimitReached("remembered message ids (option dedup_ids of a topic)")) }
    }

    fn check_sequenced(&self, topic: TopicId, producer: &str, sequence: u64) -> Result<(), Rejection> {
        check_name(producer)?;
        self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        match self.produced(topic, producer) {
            // seam: a repeated sequence is published again
            Some(produced) if sequence <= produced.sequence => Err(Rejection::SequenceRepeated),
            // seam: a gap in a sequence is passed over
            Some(produced) if produced.sequence.checked_add(1) != Some(sequence) => {
                Err(Rejection::SequenceGap { expected: produced.sequence.saturating_add(1) })
            }
            None if sequence != 0 => Err(Rejection::SequenceGap { expected: 0 }),
            None if self.dedup.producers_len >= PRODUCERS_MAX => Err(Rejection::LimitReached("producers")),
            Some(_) | None => Ok(()),
        }
    }

    pub(in crate::state) fn apply_accepted(
        &mut self,
        (partition, offset): (PartitionId, Offset),
        (id, body): (u128, u64),
        time: StoreMs,
        lsn: Lsn,
    ) -> Applied {
        let topic = self.accepting(partition)?;
        self.check_windows(&[topic])?;
        require(offset < self.catalog.end(partition), "an id of a message that is not there")?;
        let options = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?.options;
        let Dedup { windows, reserved, .. } = &mut self.dedup;
        let window = windows.entry(topic).or_insert_with(|| {
            *reserved += u64::from(options.dedup_ids);
            Window::new(options.dedup_ids, options.dedup_window_ms)
        });
        let epoch = self.epoch;
        let is_new = window.accept(Acceptance { id, body, partition, offset, epoch, lsn, time });
        // seam: an id is accepted twice
        require(is_new, "an id is accepted twice")?;
        Ok(())
    }

    pub(in crate::state) fn apply_sequenced(
        &mut self,
        topic: TopicId,
        producer: &str,
        sequence: u64,
        lsn: Lsn,
    ) -> Applied {
        self.check_sequenced(topic, producer, sequence)?;
        let Dedup { producers, producers_len, .. } = &mut self.dedup;
        let before = producers.entry(topic).or_default().set(producer, Produced { sequence, at: lsn });
        *producers_len += usize::from(before.is_none());
        Ok(())
    }
}
