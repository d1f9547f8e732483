//! Unique keys: of the messages of a topic that were published under one key, one is pending, and others that it replaced.
//!
//! A message is pending until every group of its topic has settled it, while it waits for its time, and while a topic without groups keeps
//! it. What is known here is each pending message with a key. One that is replaced is settled at once for the groups that have tried it;
//! any other group acks it as it leases it, in the same frame, so that no consumer gets it. Never here: hashing keys.

mod decide;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use snapshot::{PendingKeys, decode, encode};

use super::kit::prehashed::Prehashed;
use super::kit::tree::Tree;
use super::message::{Applied, MessageRef, require};
use super::{GroupState, Inconsistent, Rejection, Role, State};
use crate::ids::{Epoch, GroupId, Lsn, Offset, PartitionId, TopicId};
use crate::limits::UNIQUE_KEYS_MAX;
use crate::record::{KeyHash, Record};

/// The unique key under which message number `part` of a frame is published, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UniqueKey {
    pub(crate) part: u32,
    pub(crate) key: u128,
    /// The key by which its partition is chosen, if it has one.
    pub(crate) message_key: KeyHash,
    pub(crate) while_pending: WhilePending,
}

/// What a publish does under a unique key ([`Message::unique_key`](crate::Message::unique_key)) while a message of the topic that has the
/// key is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhilePending {
    /// It fails with [`Error::KeyPending`](crate::Error::KeyPending), which names that message.
    Reject,
    /// It takes the place of that message, which is not delivered any more; one for later is cancelled. While a consumer works on it, the
    /// publish fails as with `Reject`. A consumer whose lease has ended by then has lost it.
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
    message_key: KeyHash,
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
    fn is_pending(&self, (partition, offset): KeyPlace, pending: &PendingKey) -> bool {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, index }) => {
                let is_unsettled = |group: &GroupState| {
                    // seam: a key is free while a group works on its message
                    !group.has_settled(index, offset, pending.message_key)
                };
                if self.is_without_groups(partition) {
                    return self.is_kept_for_others((topic, index), offset, pending.lsn);
                }
                self.groups_of(topic).any(|(_, group)| is_unsettled(group))
            }
            Some(Role::Schedule { .. }) => self.scheduled(partition, offset).is_some(),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) | None => false,
        }
    }

    /// Whether a partition is one of a topic that has no groups.
    fn is_without_groups(&self, partition: PartitionId) -> bool {
        let Some(Role::Topic { topic, .. }) = self.catalog.role(partition) else { return false };
        self.groups_of(topic).next().is_none()
    }

    /// Whether a topic without groups keeps a message: for groups to come, for a while, or for a cursor.
    fn is_kept_for_others(&self, (topic, index): (TopicId, u32), offset: Offset, lsn: Lsn) -> bool {
        let held_from = self.cursors.held_from(topic);
        if held_from.is_none() && !self.is_for_a_while(topic) {
            return true;
        }
        // seam: a key stays taken by what nobody keeps
        offset >= self.kept_from(topic, index) || held_from.is_some_and(|from| lsn >= from)
    }

    /// The pending message that has a key.
    fn pending_owner(&self, key: u128) -> Option<(KeyPlace, &PendingKey)> {
        self.uniques.owner(key).filter(|(place, pending)| self.is_pending(*place, pending))
    }

    /// Whether the messages here are there, and pending where that is up to groups: also asked of a snapshot.
    pub(in crate::state) fn keys_fit(&self) -> bool {
        let UniqueKeys { pending, owners, replaced } = &self.uniques;
        let fits = |(&place, pending): (&KeyPlace, &PendingKey)| {
            let may_be_replaced = matches!(self.catalog.role(place.0), Some(Role::Topic { .. }));
            place.1 < self.catalog.end(place.0)
                && (may_be_replaced || !pending.is_replaced)
                && (self.is_without_groups(place.0) || self.is_pending(place, pending))
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
        let &Record::KeyTaken { partition, offset, key, message_key, replaced } = record else {
            return Err(Inconsistent("no unique key"));
        };
        let place = (partition, offset);
        self.accepting(partition)?;
        require(offset < self.catalog.end(partition), "a unique key of a message that is not there")?;
        require(self.uniques.pending.get(&place).is_none(), "a message takes a second unique key")?;
        let pending = PendingKey { key, message_key, is_replaced: false, epoch: self.epoch, lsn };
        let is_pending = self.is_pending(place, &pending);
        // Without groups a topic need not even keep the newest messages.
        let may_be_gone = self.is_without_groups(partition);
        require(is_pending || may_be_gone, "a unique key of a message that is not pending")?;
        let owner = self.pending_owner(key).map(|(place, pending)| (place, *pending));
        let is_replaced = match owner {
            Some((place, _)) => replaced == Some(place),
            // What comes before this in its frame may be why a topic without groups does not keep that message any more.
            None => replaced.is_none_or(|(partition, _)| self.is_without_groups(partition)),
        };
        // seam: a unique key is taken twice
        require(is_replaced, "a unique key is taken from another message than has it")?;
        let replaced_to_come =
            owner.is_none_or(|((partition, _), _)| matches!(self.catalog.role(partition), Some(Role::Topic { .. })));
        require(replaced_to_come, "a message for later is replaced, and not cancelled")?;
        if !self.uniques.has_room_for(1) {
            return Err(FULL.into());
        }
        if let Some((before, _)) = self.uniques.owner(key) {
            self.uniques.remove(before);
        }
        if let Some((before, owner)) = owner {
            self.settle_replaced(before);
            if self.is_pending(before, &owner) {
                // seam: what was replaced is forgotten
                self.uniques.insert(before, PendingKey { is_replaced: true, ..owner });
            }
        }
        if is_pending {
            self.uniques.insert(place, pending);
        }
        Ok(())
    }

    /// Settles a message for the groups that have tried it. No lease on it lasts.
    fn settle_replaced(&mut self, (partition, offset): KeyPlace) {
        let Some(Role::Topic { topic, index }) = self.catalog.role(partition) else { return };
        let tried = |group: &GroupState| group.entry(index, offset).is_some_and(|entry| entry.parked().is_none());
        let tried = self.groups_of(topic).filter(|(_, group)| tried(group)).map(|(id, _)| id);
        for id in tried.collect::<Vec<GroupId>>() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            // seam: what was replaced is tried again
            group.settle(index, offset, 1);
            group.tidy();
            self.exclusive.touched(MessageRef { group: id, partition, offset }, 1);
        }
    }

    /// A message with a key moved from where it waited for its time, or was cancelled.
    pub(in crate::state) fn move_key(&mut self, from: KeyPlace, to: Option<KeyPlace>, lsn: Lsn) {
        let Some(before) = self.uniques.remove(from) else { return };
        let pending = PendingKey { epoch: self.epoch, lsn, ..before };
        // seam: a key is free once its message is due
        if let Some(to) = to.filter(|to| self.is_pending(*to, &pending)) {
            self.uniques.insert(to, pending);
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
        let within = self.uniques.within(partition, (first, end));
        let settled = within.filter(|(place, pending)| !self.is_pending(*place, pending)).map(|(place, _)| place);
        let settled: Vec<KeyPlace> = settled.collect();
        // seam: a key stays taken for ever
        settled.into_iter().for_each(|place| _ = self.uniques.remove(place));
    }

    /// The same of all messages of a topic, whose groups are others now.
    pub(in crate::state) fn let_go_settled_of(&mut self, topic: TopicId) {
        self.partitions_with_keys(topic).into_iter().for_each(|partition| {
            self.let_go_within(partition, Offset(0), Offset(u64::MAX));
        });
    }

    /// Lets go of the keys of messages that a topic without groups does not keep any more: the first ones of each partition.
    pub(in crate::state) fn let_go_passed_of(&mut self, topic: TopicId) {
        self.partitions_with_keys(topic).into_iter().for_each(|partition| self.let_go_passed(partition));
    }

    /// The same of the partition to which a record adds messages, of which the topic may keep the last ones only.
    #[inline]
    pub(in crate::state) fn let_go_unkept(&mut self, record: &Record) {
        if self.uniques.pending.len() > 0 {
            record.claim().into_iter().for_each(|claim| self.let_go_passed(claim.partition));
        }
    }

    fn let_go_passed(&mut self, partition: PartitionId) {
        if !self.is_without_groups(partition) {
            return;
        }
        let all = self.uniques.within(partition, (Offset(0), Offset(u64::MAX)));
        let passed = all.take_while(|(place, pending)| !self.is_pending(*place, pending)).map(|(place, _)| place);
        passed.collect::<Vec<_>>().into_iter().for_each(|place| _ = self.uniques.remove(place));
    }

    fn partitions_with_keys(&self, topic: TopicId) -> Vec<PartitionId> {
        let of = self.catalog.topic(topic).filter(|_| self.uniques.pending.len() > 0);
        of.map_or(Vec::new(), |of| of.partitions().collect())
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
