//! Topics and partitions: what exists, what each partition is for, and where it ends.
//!
//! Numbers of topics, groups and partitions are given in order and never twice, so what was removed leaves gaps. Never here: what
//! any group has done with the messages.

use super::Rejection;
use super::kit::sparse::Sparse;
use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::limits::{GROUPS_MAX, STORE_PARTITIONS_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Partition number `index` of a topic.
    Topic { topic: TopicId, index: u32 },
    /// Where a group's redriven messages go: a further partition of its subscription.
    Retry { group: GroupId },
    /// Where a group's dead letters go.
    Dead { group: GroupId },
}

/// A topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// Its partitions are `first .. first + count`.
    pub(crate) first: PartitionId,
    pub(crate) count: u32,
}

impl Topic {
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        let first = self.first;
        (0..self.count).map(move |index| first.nth(index))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    pub(super) role: Role,
    pub(super) end: Offset,
}

impl Partition {
    /// The topic, and the end after `count` messages that are published at `base`.
    #[inline]
    fn end_after(&self, base: Offset, count: u32) -> Result<(TopicId, Offset), Rejection> {
        let Role::Topic { topic, .. } = self.role else { return Err(Rejection::UnknownPartition) };
        if count == 0 || base != self.end {
            return Err(Rejection::Invalid("messages are published at the end of a partition, one at least"));
        }
        let end = base.checked_add(u64::from(count));
        end.map(|end| (topic, end)).ok_or(Rejection::LimitReached("messages in a partition"))
    }
}

/// The numbers that come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NextIds {
    pub(super) topic: TopicId,
    pub(super) group: GroupId,
    pub(super) partition: PartitionId,
}

/// What a snapshot has of topics and partitions. A clone shares its pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) next: NextIds,
    pub(super) topics: Sparse<Topic>,
    pub(super) partitions: Sparse<Partition>,
}

/// Who reads a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Audience {
    /// Its groups by name.
    pub(super) groups: BTreeMap<Arc<str>, GroupId>,
    /// The sum of its partitions' ends, so that a group can see at once that it has caught up.
    pub(super) published: u128,
}

/// All topics and all partitions, and what follows from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    tables: Tables,
    names: BTreeMap<Arc<str>, TopicId>,
    audiences: BTreeMap<TopicId, Audience>,
}

impl Catalog {
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn next(&self) -> &NextIds {
        &self.tables.next
    }

    /// In order of their numbers.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.tables.topics.iter().map(|(id, topic)| (TopicId(id), topic))
    }

    pub(super) fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.tables.topics.get(id.0)
    }

    pub(super) fn audience(&self, id: TopicId) -> Option<&Audience> {
        self.audiences.get(&id)
    }

    pub(super) fn audiences(&self) -> impl Iterator<Item = (TopicId, &Audience)> {
        self.audiences.iter().map(|(id, audience)| (*id, audience))
    }

    pub(super) fn topic_by_name(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn names(&self) -> &BTreeMap<Arc<str>, TopicId> {
        &self.names
    }

    #[inline]
    pub(super) fn role(&self, partition: PartitionId) -> Option<Role> {
        self.tables.partitions.get(partition.0).map(|partition| partition.role)
    }

    /// Zero for a partition that does not exist.
    #[inline]
    pub(super) fn end(&self, partition: PartitionId) -> Offset {
        self.tables.partitions.get(partition.0).map(|partition| partition.end).unwrap_or_default()
    }

    /// Whether there was such a partition, and is no more.
    pub(super) fn is_removed(&self, partition: PartitionId) -> bool {
        partition < self.tables.next.partition && self.role(partition).is_none()
    }

    /// Whether `more` partitions still fit into a store.
    pub(super) fn has_room(&self, more: u32) -> bool {
        let fits = self.tables.partitions.len() + u64::from(more) <= u64::from(STORE_PARTITIONS_MAX);
        fits && self.tables.next.partition.checked_add(more.into()).is_some()
    }

    pub(super) fn has_room_for_topic(&self) -> bool {
        self.tables.topics.len() < u64::from(TOPICS_MAX)
    }

    /// The caller has checked that the name is free and that there is room.
    pub(super) fn add_topic(&mut self, name: &str, count: u32) {
        let NextIds { topic: id, partition: first, .. } = self.tables.next;
        for index in 0..count {
            let role = Role::Topic { topic: id, index };
            self.tables.partitions.insert(first.nth(index).0, Partition { role, end: Offset(0) });
        }
        let next = &mut self.tables.next;
        (next.topic, next.partition) = (id.saturating_add(1), first.nth(count));
        self.enter_topic(id, Topic { name: name.into(), first, count }, 0);
    }

    fn enter_topic(&mut self, id: TopicId, topic: Topic, published: u128) {
        self.names.insert(Arc::clone(&topic.name), id);
        self.audiences.insert(id, Audience { groups: BTreeMap::new(), published });
        self.tables.topics.insert(id.0, topic);
    }

    /// The caller has checked that the topic exists, that the name is free in it, and that there is room.
    pub(super) fn add_group(&mut self, topic: TopicId, name: &Arc<str>) {
        let NextIds { group, partition: retry, .. } = self.tables.next;
        for (role, partition) in [Role::Retry { group }, Role::Dead { group }].into_iter().zip(retry.0..) {
            self.tables.partitions.insert(partition, Partition { role, end: Offset(0) });
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

    /// Takes a topic out, with its partitions, and says which those were. Its groups have been taken out.
    pub(super) fn remove_topic(&mut self, id: TopicId) -> Option<Range<u64>> {
        let topic = self.tables.topics.remove(id.0)?;
        self.names.remove(&topic.name);
        for partition in topic.partitions() {
            self.tables.partitions.remove(partition.0);
        }
        self.audiences.remove(&id);
        Some(topic.first.0..topic.first.nth(topic.count).0)
    }

    /// Takes a group out, with its partitions.
    pub(super) fn remove_group(&mut self, topic: TopicId, name: &str, retry: PartitionId) {
        if let Some(audience) = self.audiences.get_mut(&topic) {
            audience.groups.remove(name);
        }
        // seam: a removed number is given again
        for partition in [retry, retry.nth(1)] {
            self.tables.partitions.remove(partition.0);
        }
    }

    /// Whether `count` messages may be published at `base`.
    #[inline]
    pub(super) fn check_published(&self, partition: PartitionId, base: Offset, count: u32) -> Result<(), Rejection> {
        self.tables.partitions.get(partition.0).ok_or(Rejection::UnknownPartition)?.end_after(base, count).map(drop)
    }

    /// Takes in `count` messages that were published at `base`.
    #[inline]
    pub(super) fn publish(&mut self, partition: PartitionId, base: Offset, count: u32) -> Result<(), Rejection> {
        let found = self.tables.partitions.get_mut(partition.0).ok_or(Rejection::UnknownPartition)?;
        let (topic, end) = found.end_after(base, count)?;
        found.end = end;
        self.count_published(topic, count);
        Ok(())
    }

    /// Adds a copy at the end of a partition. The caller has checked that there is room for it.
    pub(super) fn add_copy(&mut self, partition: PartitionId) {
        let Some(found) = self.tables.partitions.get_mut(partition.0) else { return };
        found.end = found.end.saturating_add(1);
        if let Role::Topic { topic, .. } = found.role {
            self.count_published(topic, 1);
        }
    }

    fn count_published(&mut self, topic: TopicId, count: u32) {
        if let Some(audience) = self.audiences.get_mut(&topic) {
            audience.published += u128::from(count);
        }
    }

    /// A catalog without topics in which these numbers come next.
    pub(super) fn restore(next: NextIds) -> Self {
        Self { tables: Tables { next, ..Tables::default() }, ..Self::default() }
    }

    /// Puts a topic of a snapshot back, whose partitions end at `ends`; `None` if it cannot be.
    pub(super) fn restore_topic(&mut self, id: TopicId, name: &str, first: PartitionId, ends: &[Offset]) -> Option<()> {
        let count = u32::try_from(ends.len()).ok().filter(|count| (1..=TOPIC_PARTITIONS_MAX).contains(count))?;
        let is_free = id < self.tables.next.topic && !self.names.contains_key(name);
        if !is_free || !self.has_room_for_topic() {
            return None;
        }
        for (index, end) in (0..).zip(ends) {
            self.claim(first.checked_add(index)?, Role::Topic { topic: id, index: index as u32 }, *end)?;
        }
        let published = ends.iter().map(|end| u128::from(end.0)).sum();
        self.enter_topic(id, Topic { name: name.into(), first, count }, published);
        Some(())
    }

    /// Puts a group of a snapshot back, whose two partitions end at `ends`; `None` if it cannot be.
    pub(super) fn restore_group(
        &mut self,
        group: GroupId,
        topic: TopicId,
        name: &Arc<str>,
        retry: PartitionId,
        ends: [Offset; 2],
    ) -> Option<()> {
        if self.audience(topic)?.groups.contains_key(name) || group >= self.tables.next.group {
            return None;
        }
        self.claim(retry, Role::Retry { group }, ends[0])?;
        self.claim(retry.checked_add(1)?, Role::Dead { group }, ends[1])?;
        self.enter_group(topic, name, group);
        Some(())
    }

    fn claim(&mut self, partition: PartitionId, role: Role, end: Offset) -> Option<()> {
        let is_free = partition < self.tables.next.partition && self.role(partition).is_none();
        if !is_free || self.tables.partitions.len() >= u64::from(STORE_PARTITIONS_MAX) {
            return None;
        }
        self.tables.partitions.insert(partition.0, Partition { role, end });
        Some(())
    }
}

/// Whether one more group fits beside `groups` others.
pub(super) fn has_room_for_group(groups: usize) -> bool {
    groups < GROUPS_MAX as usize
}
