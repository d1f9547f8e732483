//! Unique keys: of the messages of a topic that were published under one key, one is pending, and others that it replaced.
//!
//! A message is pending until every group of its topic has settled it, while the topic has no group, and while it waits for its time.
//! What is known here is each pending message with a key. One that was replaced is acked as soon as a group leases it, in the same frame,
//! so that no consumer gets it. Never here: hashing keys.

mod decide;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use snapshot::{PendingKeys, decode, encode};

use super::kit::prehashed::Prehashed;
use super::kit::tree::Tree;
use super::message::{Applied, require};
use super::{Inconsistent, Rejection, Role, State};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, TopicId};
use crate::limits::UNIQUE_KEYS_MAX;
use crate::record::Record;

/// The unique key under which message number `part` of a frame is published, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UniqueKey {
    pub(crate) part: u32,
    pub(crate) key: u128,
    pub(crate) while_pending: WhilePending,
}

/// What a publish does under a unique key ([`Message::unique_key`](crate::Message::unique_key)) while a message of the topic that has the key
/// is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhilePending {
    /// It fails with [`Error::KeyPending`](crate::Error::KeyPending), which names that message.
    Reject,
    /// It takes the place of that message, which is not delivered any more; one for later is cancelled. While a consumer works on it, the
    /// publish fails as with `Reject`.
    Replace,
    /// It publishes nothing and gives the receipt of that message.
    ReturnExisting,
}

/// Where a message stands.
type KeyPlace = (PartitionId, Offset);

/// A pending message with a unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct PendingKey {
    key: u128,
    /// A newer one has the key.
    is_replaced: bool,
    /// That of its frame.
    epoch: Epoch,
    /// The frame that put it there.
    lsn: Lsn,
}

/// The pending messages of all topics that have a unique key.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct UniqueKeys {
    pending: Tree<KeyPlace, PendingKey>,
    /// Which of them has the key: the newest.
    owners: Prehashed<u128, KeyPlace>,
    /// How many were replaced.
    replaced: usize,
}

impl UniqueKeys {
    fn owner(&self, key: u128) -> Option<(KeyPlace, &PendingKey)> {
        let place = *self.owners.get(&key)?;
        Some((place, self.pending.get(&place)?))
    }

    fn insert(&mut self, place: KeyPlace, pending: PendingKey) {
        self.pending.insert(place, pending);
        if pending.is_replaced {
            self.replaced += 1;
        } else {
            self.owners.insert(pending.key, place);
        }
    }

    fn remove(&mut self, place: KeyPlace) -> Option<PendingKey> {
        let pending = self.pending.remove(&place)?;
        if pending.is_replaced {
            self.replaced -= 1;
        } else {
            self.owners.remove(&pending.key);
        }
        Some(pending)
    }

    /// Those of a partition from `first` on and below `end`.
    fn within(
        &self,
        partition: PartitionId,
        (first, end): (Offset, Offset),
    ) -> impl Iterator<Item = (KeyPlace, &PendingKey)> {
        let from = self.pending.from((partition, first)).map(|(place, pending)| (*place, pending));
        from.take_while(move |(place, _)| *place < (partition, end))
    }

    fn has_room_for(&self, more: usize) -> bool {
        self.pending.len() + more <= UNIQUE_KEYS_MAX
    }
}

impl State {
    /// Whether a message is still to be delivered to anybody.
    fn is_pending(&self, (partition, offset): KeyPlace) -> bool {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, .. }) => {
                let groups = || self.catalog.audience(topic).into_iter().flat_map(|audience| audience.groups.values());
                let is_unsettled = |group: &super::GroupState| {
                    let cursor = group.cursor_of(partition);
                    // seam: a key is free while a group works on its message
                    cursor.is_some_and(|cursor| !group.is_settled(cursor, offset, offset.saturating_add(1)))
                };
                groups().next().is_none()
                    || groups().filter_map(|id| self.groups.get(id)).any(|group| is_unsettled(group))
            }
            Some(Role::Schedule { .. }) => self.scheduled(partition, offset).is_some(),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) | None => false,
        }
    }

    /// Whether every message here is pending, as it must be: also asked of a snapshot.
    pub(in crate::state) fn keys_fit(&self) -> bool {
        let UniqueKeys { pending, owners, replaced } = &self.uniques;
        let fits = |(&place, pending): (&KeyPlace, &PendingKey)| {
            let is_there = place.1 < self.catalog.end(place.0) && self.is_pending(place);
            let is_scheduled = matches!(self.catalog.role(place.0), Some(Role::Schedule { .. }));
            is_there && !(pending.is_replaced && is_scheduled)
        };
        self.uniques.has_room_for(0) && owners.len() + replaced == pending.len() && pending.iter().all(fits)
    }

    /// Whether what is kept beside the truth agrees with it.
    pub(in crate::state) fn check_uniques(&self, fault: &mut impl FnMut(&'static str)) {
        let mut again = UniqueKeys::default();
        self.uniques.pending.iter().for_each(|(place, pending)| again.insert(*place, *pending));
        if !self.keys_fit() {
            fault("a unique key of a message that is not pending");
        }
        if again.owners != self.uniques.owners || again.replaced != self.uniques.replaced {
            fault("a unique key is found that is not there, or not found");
        }
    }

    pub(in crate::state) fn apply_key_taken(&mut self, record: &Record, lsn: Lsn) -> Applied {
        let &Record::KeyTaken { partition, offset, key, replaced } = record else {
            return Err(Inconsistent("no unique key"));
        };
        let place = (partition, offset);
        self.accepting(place.0)?;
        let is_there = place.1 < self.catalog.end(place.0) && self.is_pending(place);
        require(is_there, "a unique key of a message that is not pending")?;
        require(self.uniques.pending.get(&place).is_none(), "a message takes a second unique key")?;
        let owner = self.uniques.owner(key).map(|(place, pending)| (place, *pending));
        // seam: a unique key is taken twice
        require(owner.map(|(place, _)| place) == replaced, "a unique key is taken from another message than has it")?;
        let replaced_to_come =
            owner.is_none_or(|((partition, _), _)| matches!(self.catalog.role(partition), Some(Role::Topic { .. })));
        require(replaced_to_come, "a message for later is replaced, and not cancelled")?;
        if !self.uniques.has_room_for(1) {
            return Err(FULL.into());
        }
        if let Some((before, pending)) = owner {
            self.uniques.remove(before);
            // seam: what was replaced is forgotten
            self.uniques.insert(before, PendingKey { is_replaced: true, ..pending });
        }
        let epoch = self.epoch;
        self.uniques.insert(place, PendingKey { key, is_replaced: false, epoch, lsn });
        Ok(())
    }

    /// A message with a key moved from where it waited for its time, or was cancelled.
    pub(in crate::state) fn move_key(&mut self, from: KeyPlace, to: Option<KeyPlace>, lsn: Lsn) {
        let Some(pending) = self.uniques.remove(from) else { return };
        let epoch = self.epoch;
        // seam: a key is free once its message is due
        if let Some(to) = to.filter(|to| self.is_pending(*to)) {
            self.uniques.insert(to, PendingKey { epoch, lsn, ..pending });
        }
    }

    /// Lets go of the keys of those of `count` messages from `first` on that every group has settled by now.
    #[inline]
    pub(in crate::state) fn let_go_settled(&mut self, partition: PartitionId, first: Offset, count: u32) {
        self.let_go_within(partition, first, first.saturating_add(count.into()));
    }

    pub(in crate::state) fn let_go_within(&mut self, partition: PartitionId, first: Offset, end: Offset) {
        if self.uniques.pending.len() == 0 {
            return;
        }
        let within = self.uniques.within(partition, (first, end)).map(|(place, _)| place);
        let settled: Vec<KeyPlace> = within.filter(|place| !self.is_pending(*place)).collect();
        // seam: a key stays taken for ever
        settled.into_iter().for_each(|place| _ = self.uniques.remove(place));
    }

    /// The same of all messages of a topic, whose groups are others now.
    pub(in crate::state) fn let_go_settled_of(&mut self, topic: TopicId) {
        let partitions: Vec<PartitionId> = self.catalog.topic(topic).map_or(Vec::new(), |of| of.partitions().collect());
        partitions.into_iter().for_each(|partition| self.let_go_within(partition, Offset(0), Offset(u64::MAX)));
    }

    /// Forgets all keys of a topic that goes.
    pub(in crate::state) fn forget_keys_of(&mut self, topic: TopicId) {
        let Some(of) = self.catalog.topic(topic) else { return };
        for partition in of.partitions().chain(of.schedule).collect::<Vec<_>>() {
            let all = self.uniques.within(partition, (Offset(0), Offset(u64::MAX)));
            let all: Vec<KeyPlace> = all.map(|(place, _)| place).collect();
            all.into_iter().for_each(|place| _ = self.uniques.remove(place));
        }
    }
}

const FULL: Rejection = Rejection::LimitReached("pending messages with a unique key");
