//! Topics and partitions: what exists, what each partition is for, and where it ends.
//!
//! Numbers of topics, groups and partitions are given in order and never twice, so what was removed leaves gaps. Never here: what
//! any group has done with the messages.

mod bound;
mod check;
mod decide;
mod query;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use bound::TopicRoom;
pub(super) use decide::check_name;
pub(super) use snapshot::{decode, encode};

use super::kit::sparse::Sparse;
use super::message::Applied;
use super::{LostRun, Rejection, Removed, State};
use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::limits::{STORE_PARTITIONS_MAX, TOPICS_MAX};
use crate::record::{Record, Retention, TopicOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// How many messages of a partition, and how many numbers, may be missing between two records that are left. More is a record that cannot
/// be.
const LOST_MAX: u64 = u32::MAX as u64;

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Partition number `index` of a topic.
    Topic { topic: TopicId, index: u32 },
    /// Where a group's redriven messages go: a further partition of its subscription.
    Retry { group: GroupId },
    /// Where a group's dead letters go.
    Dead { group: GroupId },
    /// Where the notes of a topic's streams go, which nobody gets.
    Notes { topic: TopicId },
    /// Where messages of a topic wait that were published for later.
    Schedule { topic: TopicId },
}

/// A topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicState {
    pub(crate) name: Arc<str>,
    /// Its partitions are `first .. first + count`, and behind them that of notes, if it has streams.
    pub(crate) first: PartitionId,
    pub(crate) count: u32,
    pub(crate) options: TopicOptions,
    /// The hidden partition of its messages for later, if it has had any.
    pub(crate) schedule: Option<PartitionId>,
}

impl TopicState {
    pub(in crate::state) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        let first = self.first;
        (0..self.count).map(move |index| first.nth(index))
    }

    /// The hidden partition of the notes of its streams.
    pub(in crate::state) fn notes(&self) -> Option<PartitionId> {
        self.options.streams.then(|| self.first.nth(self.count))
    }

    /// Behind all the partitions that it was created with, that of notes included.
    pub(in crate::state) fn partitions_end(&self) -> PartitionId {
        self.first.nth(partitions_len(self.count, self.options))
    }
}

/// How many partitions a topic takes that has `count` for messages.
pub(in crate::state) fn partitions_len(count: u32, options: TopicOptions) -> u32 {
    count + u32::from(options.streams)
}

#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct PartitionState {
    pub(in crate::state) role: Role,
    pub(in crate::state) end: Offset,
}

impl PartitionState {
    /// The topic that they count for, and the end after `count` messages that are published at `base`.
    #[inline]
    fn end_after(&self, base: Offset, count: u32) -> Result<(Option<TopicId>, Offset), Rejection> {
        let topic = match self.role {
            Role::Topic { topic, .. } => Some(topic),
            // They count once they are due.
            Role::Schedule { .. } => None,
            Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } => return Err(Rejection::UnknownPartition),
        };
        if count == 0 || base != self.end {
            return Err(Rejection::Invalid("messages are published at the end of a partition, one at least"));
        }
        let end = base.checked_add(u64::from(count));
        end.map(|end| (topic, end)).ok_or(Rejection::LimitReached("messages in a partition"))
    }
}

/// The numbers that come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct NextIds {
    pub(in crate::state) topic: TopicId,
    pub(in crate::state) group: GroupId,
    pub(in crate::state) partition: PartitionId,
}

/// What a snapshot has of topics and partitions. A clone shares its pages.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Tables {
    pub(in crate::state) next: NextIds,
    pub(in crate::state) topics: Sparse<TopicState>,
    pub(in crate::state) partitions: Sparse<PartitionState>,
}

/// The groups of a topic.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Audience {
    /// Its groups by name.
    pub(in crate::state) groups: BTreeMap<Arc<str>, GroupId>,
    /// The sum of its partitions' ends, so that a group can see at once that it has caught up.
    pub(in crate::state) published: u128,
}

/// All topics and all partitions, and what follows from them.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct TopicCatalog {
    tables: Tables,
    names: BTreeMap<Arc<str>, TopicId>,
    audiences: BTreeMap<TopicId, Audience>,
    /// How many topics have a bound on their messages.
    bounded: usize,
    /// Those from which messages go that a group has not come to.
    dropping: BTreeSet<TopicId>,
}

impl TopicCatalog {
    pub(in crate::state) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(in crate::state) fn next(&self) -> &NextIds {
        &self.tables.next
    }

    /// In order of their numbers.
    pub(in crate::state) fn topics(&self) -> impl Iterator<Item = (TopicId, &TopicState)> {
        self.tables.topics.iter().map(|(id, topic)| (TopicId(id), topic))
    }

    pub(in crate::state) fn all_topics(&self) -> impl Iterator<Item = (TopicId, &TopicState)> {
        self.tables.topics.iter().map(|(id, topic)| (TopicId(id), topic))
    }

    pub(in crate::state) fn topic(&self, id: TopicId) -> Option<&TopicState> {
        self.tables.topics.get(id.0)
    }

    pub(in crate::state) fn audience(&self, id: TopicId) -> Option<&Audience> {
        self.audiences.get(&id)
    }

    pub(in crate::state) fn audiences(&self) -> impl Iterator<Item = (TopicId, &Audience)> {
        self.audiences.iter().map(|(id, audience)| (*id, audience))
    }

    pub(in crate::state) fn topic_by_name(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    pub(in crate::state) fn names(&self) -> &BTreeMap<Arc<str>, TopicId> {
        &self.names
    }

    #[inline]
    pub(in crate::state) fn role(&self, partition: PartitionId) -> Option<Role> {
        self.tables.partitions.get(partition.0).map(|partition| partition.role)
    }

    /// Zero for a partition that does not exist.
    #[inline]
    pub(in crate::state) fn end(&self, partition: PartitionId) -> Offset {
        self.tables.end(partition)
    }

    /// Whether there was such a partition, and is no more.
    pub(in crate::state) fn is_removed(&self, partition: PartitionId) -> bool {
        partition < self.tables.next.partition && self.role(partition).is_none()
    }

    /// Whether `more` partitions still fit into a store.
    pub(in crate::state) fn has_room(&self, more: u32) -> bool {
        let fits = self.tables.partitions.len() + u64::from(more) <= u64::from(STORE_PARTITIONS_MAX);
        fits && self.tables.next.partition.checked_add(more.into()).is_some()
    }

    /// Whether any topic has a bound on its messages.
    #[inline]
    pub(in crate::state) fn has_bounds(&self) -> bool {
        self.bounded > 0
    }

    /// The topics from which messages go that a group has not come to.
    pub(in crate::state) fn dropping(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.dropping.iter().copied()
    }

    pub(in crate::state) fn has_room_for_topic(&self) -> bool {
        self.tables.topics.len() < u64::from(TOPICS_MAX)
    }

    /// The caller has checked that the name is free and that there is room.
    pub(in crate::state) fn add_topic(&mut self, name: &str, count: u32, options: TopicOptions) {
        let NextIds { topic: id, partition: first, .. } = self.tables.next;
        let topic = TopicState { name: name.into(), first, count, options, schedule: None };
        for index in 0..count {
            let role = Role::Topic { topic: id, index };
            self.tables.partitions.insert(first.nth(index).0, PartitionState { role, end: Offset(0) });
        }
        if let Some(notes) = topic.notes() {
            let role = Role::Notes { topic: id };
            self.tables.partitions.insert(notes.0, PartitionState { role, end: Offset(0) });
        }
        let next = &mut self.tables.next;
        (next.topic, next.partition) = (id.saturating_add(1), topic.partitions_end());
        self.enter_topic(id, topic, 0);
    }

    fn enter_topic(&mut self, id: TopicId, topic: TopicState, published: u128) {
        self.bounded += usize::from(topic.options.max_messages > 0);
        self.dropping.extend(topic.options.drops_unsettled.then_some(id));
        self.names.insert(Arc::clone(&topic.name), id);
        self.audiences.insert(id, Audience { groups: BTreeMap::new(), published });
        self.tables.topics.insert(id.0, topic);
    }

    /// The caller has checked that the topic exists, that the name is free in it, and that there is room.
    pub(in crate::state) fn add_group(&mut self, topic: TopicId, name: &Arc<str>) {
        let NextIds { group, partition: retry, .. } = self.tables.next;
        for (role, partition) in [Role::Retry { group }, Role::Dead { group }].into_iter().zip(retry.0..) {
            self.tables.partitions.insert(partition, PartitionState { role, end: Offset(0) });
        }
        let next = &mut self.tables.next;
        (next.group, next.partition) = (group.saturating_add(1), retry.nth(2));
        self.enter_group(topic, name, group);
    }

    fn enter_group(&mut self, topic: TopicId, name: &Arc<str>, group: GroupId) {
        if let Some(audience) = self.audiences.get_mut(&topic) {
            audience.groups.insert(Arc::clone(name), group);
        }
    }

    /// The caller has checked that the topic exists and has none, and that there is room.
    pub(in crate::state) fn add_schedule(&mut self, id: TopicId) {
        let partition = self.tables.next.partition;
        if let Some(topic) = self.tables.topics.get_mut(id.0) {
            topic.schedule = Some(partition);
            let state = PartitionState { role: Role::Schedule { topic: id }, end: Offset(0) };
            self.tables.partitions.insert(partition.0, state);
            self.tables.next.partition = partition.nth(1);
        }
    }

    /// Takes a topic out, with its partitions, and says which those were, but for that of its messages for later. Its groups have been
    /// taken out.
    pub(in crate::state) fn remove_topic(&mut self, id: TopicId) -> Option<Range<u64>> {
        let topic = self.tables.topics.remove(id.0)?;
        self.names.remove(&topic.name);
        for partition in topic.partitions().chain(topic.notes()).chain(topic.schedule) {
            self.tables.partitions.remove(partition.0);
        }
        self.audiences.remove(&id);
        self.bounded -= usize::from(topic.options.max_messages > 0);
        self.dropping.remove(&id);
        Some(topic.first.0..topic.partitions_end().0)
    }

    /// Takes a group out, with its partitions.
    pub(in crate::state) fn remove_group(&mut self, topic: TopicId, name: &str, retry: PartitionId) {
        if let Some(audience) = self.audiences.get_mut(&topic) {
            audience.groups.remove(name);
        }
        // seam: a removed number is given again
        for partition in [retry, retry.nth(1)] {
            self.tables.partitions.remove(partition.0);
        }
    }

    /// Whether `count` messages may be published at `base`, and if so, whether it is for later.
    #[inline]
    pub(in crate::state) fn check_published(
        &self,
        partition: PartitionId,
        base: Offset,
        count: u32,
    ) -> Result<bool, Rejection> {
        let found = self.tables.partitions.get(partition.0).ok_or(Rejection::UnknownPartition)?;
        found.end_after(base, count).map(|(topic, _)| topic.is_none())
    }

    /// Takes in `count` messages that were published at `base`.
    #[inline]
    pub(in crate::state) fn publish(
        &mut self,
        partition: PartitionId,
        base: Offset,
        count: u32,
    ) -> Result<(), Rejection> {
        let found = self.tables.partitions.get_mut(partition.0).ok_or(Rejection::UnknownPartition)?;
        let (topic, end) = found.end_after(base, count)?;
        found.end = end;
        if let Some(topic) = topic {
            self.count_published(topic, count.into());
        }
        Ok(())
    }

    /// Adds a copy at the end of a partition. The caller has checked that there is room for it.
    pub(in crate::state) fn add_copy(&mut self, partition: PartitionId) {
        let Some(found) = self.tables.partitions.get_mut(partition.0) else { return };
        found.end = found.end.saturating_add(1);
        if let Role::Topic { topic, .. } = found.role {
            self.count_published(topic, 1);
        }
    }

    /// Whether a note of a stream of `topic` may be added here.
    pub(in crate::state) fn check_note(
        &self,
        topic: TopicId,
        (partition, offset): (PartitionId, Offset),
    ) -> Result<(), Rejection> {
        let found = self.tables.partitions.get(partition.0).ok_or(Rejection::UnknownPartition)?;
        if found.role != (Role::Notes { topic }) || offset != found.end {
            return Err(Rejection::Invalid("a note of a stream is added at the end of its topic's partition of notes"));
        }
        offset.checked_add(1).map(drop).ok_or(Rejection::LimitReached("snapshots and truncations of a topic"))
    }

    fn count_published(&mut self, topic: TopicId, count: u64) {
        if let Some(audience) = self.audiences.get_mut(&topic) {
            audience.published += u128::from(count);
        }
    }

    /// Takes in what is missing before `base`: messages that are lost. Returns the first of them and how many, if there are any.
    fn pass_lost(&mut self, partition: PartitionId, base: Offset) -> Option<(Offset, u64)> {
        let found = self.tables.partitions.get_mut(partition.0)?;
        let first = found.end;
        let count = base.0.checked_sub(first.0).filter(|count| (1..=LOST_MAX).contains(count))?;
        found.end = base;
        if let Role::Topic { topic, .. } = found.role {
            self.count_published(topic, count);
        }
        Some((first, count))
    }
}

impl State {
    /// Where a damaged log is read and messages of a partition are missing before `base`: they are there, unsettled, and cannot be read.
    /// Returns the first of them and how many.
    pub(in crate::state) fn pass_lost(&mut self, partition: PartitionId, base: Offset) -> Option<LostRun> {
        // seam: missing messages do not count
        self.catalog.pass_lost(partition, base).map(|(first, count)| (partition, first, count))
    }

    /// Numbers that a record names were given, also where the record that gave the ones before them is lost.
    pub(in crate::state) fn pass_lost_numbers(&mut self, record: &Record) {
        let next = &mut self.catalog.tables.next;
        let mut named = None;
        if let Record::TopicCreated { topic, first, .. } = record {
            named = Some(*first);
            next.topic = next.topic.max(TopicId(topic.0.min(next.topic.0.saturating_add(LOST_MAX))));
        }
        if let Record::GroupCreated { group, retry, .. } = record {
            named = Some(*retry);
            next.group = next.group.max(GroupId(group.0.min(next.group.0.saturating_add(LOST_MAX))));
        }
        if let Record::ScheduleCreated { partition, .. } = record {
            named = Some(*partition);
        }
        if let Some(claim) = record.claim() {
            named = Some(claim.partition.nth(1));
        }
        let within = named.filter(|named| named.0 <= next.partition.0.saturating_add(LOST_MAX));
        next.partition = within.map_or(next.partition, |named| named.max(next.partition));
    }

    pub(in crate::state) fn apply_topic_created(
        &mut self,
        topic: TopicId,
        name: &str,
        (first, count): (PartitionId, u32),
        options: TopicOptions,
    ) -> Applied {
        self.check_new_topic(topic, name, first, (count, options))?;
        self.catalog.add_topic(name, count, options);
        if matches!(options.retention, Retention::Age(_)) {
            self.ages.add(topic, count);
        }
        Ok(())
    }

    pub(in crate::state) fn apply_topic_removed(&mut self, topic: TopicId) -> Applied {
        let audience = self.catalog.audience(topic).ok_or(Rejection::UnknownTopic)?;
        let groups: Vec<GroupId> = audience.groups.values().copied().collect();
        self.forget_keys_of(topic);
        groups.into_iter().try_for_each(|group| self.apply_group_removed(group))?;
        if let Some(partition) = self.schedule_of(topic) {
            let _schedule = self.schedules.forget(partition);
            let partitions = partition.0..partition.nth(1).0;
            self.removed.push(Removed { partitions, group: None, _forgotten: None, _schedule });
        }
        self.ages.forget(topic);
        if let Some(partitions) = self.catalog.remove_topic(topic) {
            let _forgotten = Some(self.dedup.forget(topic));
            self.removed.push(Removed { partitions, group: None, _forgotten, _schedule: None });
        }
        Ok(())
    }
}
