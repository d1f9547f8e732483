//! Topics and partitions: what exists, what each partition is for, and where it ends.
//!
//! What never changes is shared between clones; what changes with every publish is one dense array. Never here: what any
//! group has done with the messages.

use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::limits::{GROUPS_MAX, STORE_PARTITIONS_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX};
use std::collections::BTreeMap;
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
    /// Its groups by name.
    pub(super) groups: Arc<BTreeMap<Arc<str>, GroupId>>,
    /// The sum of its partitions' ends, so that a group can see at once that it has caught up.
    pub(super) published: u128,
}

/// All topics and all partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    topics: Vec<Topic>,
    names: Arc<BTreeMap<Arc<str>, TopicId>>,
    roles: Arc<Vec<Role>>,
    ends: Vec<Offset>,
}

impl Catalog {
    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    pub(super) fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id.0 as usize)
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
        self.roles.get(partition.0 as usize).copied()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Zero for a partition that does not exist.
    #[inline]
    pub(super) fn end(&self, partition: PartitionId) -> Offset {
        self.ends.get(partition.0 as usize).copied().unwrap_or_default()
    }

    pub(super) fn ends(&self) -> &[Offset] {
        &self.ends
    }

    pub(super) fn partition_count(&self) -> u32 {
        // `add_partitions` keeps the number of partitions below `STORE_PARTITIONS_MAX`.
        self.ends.len() as u32
    }

    /// Whether `more` partitions still fit into a store.
    pub(super) fn has_room(&self, more: u32) -> bool {
        self.partition_count().checked_add(more).is_some_and(|count| count <= STORE_PARTITIONS_MAX)
    }

    /// The caller has checked that the name is free and that there is room.
    pub(super) fn add_topic(&mut self, name: &str, count: u32) {
        let (id, first) = (TopicId(self.topics.len() as u64), PartitionId(self.partition_count().into()));
        self.add_partitions((0..count).map(|index| Role::Topic { topic: id, index }));
        self.enter_topic(name.into(), first, count);
    }

    fn enter_topic(&mut self, name: Arc<str>, first: PartitionId, count: u32) {
        let id = TopicId(self.topics.len() as u64);
        Arc::make_mut(&mut self.names).insert(Arc::clone(&name), id);
        self.topics.push(Topic { name, first, count, groups: Arc::default(), published: 0 });
    }

    /// The caller has checked that the topic exists, that the name is free in it, and that there is room.
    pub(super) fn add_group(&mut self, topic: TopicId, name: &Arc<str>, group: GroupId) {
        self.add_partitions([Role::Retry { group }, Role::Dead { group }].into_iter());
        self.enter_group(topic, name, group);
    }

    fn enter_group(&mut self, topic: TopicId, name: &Arc<str>, group: GroupId) {
        if let Some(topic) = self.topics.get_mut(topic.0 as usize) {
            Arc::make_mut(&mut topic.groups).insert(Arc::clone(name), group);
        }
    }

    fn add_partitions(&mut self, roles: impl Iterator<Item = Role>) {
        let all = Arc::make_mut(&mut self.roles);
        all.extend(roles);
        self.ends.resize(all.len(), Offset(0));
    }

    /// Moves a partition's end. The caller has checked that the partition exists and that `end` is not before its end.
    #[inline]
    pub(super) fn extend(&mut self, partition: PartitionId, end: Offset) {
        let Some(old) = self.ends.get_mut(partition.0 as usize) else { return };
        let count = end.0.saturating_sub(old.0);
        *old = end;
        if let Some(Role::Topic { topic, .. }) = self.roles.get(partition.0 as usize).copied()
            && let Some(topic) = self.topics.get_mut(topic.0 as usize)
        {
            topic.published += u128::from(count);
        }
    }

    /// A catalog with the partitions of a snapshot, as yet without roles; `None` if there are too many.
    pub(super) fn restore(ends: Vec<Offset>) -> Option<Restore> {
        let fits = ends.len() <= STORE_PARTITIONS_MAX as usize;
        fits.then(|| Restore { roles: vec![None; ends.len()], catalog: Self { ends, ..Self::default() } })
    }
}

/// A catalog on its way back from a snapshot: every partition must be claimed, and only once.
pub(super) struct Restore {
    catalog: Catalog,
    roles: Vec<Option<Role>>,
}

impl Restore {
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The next topic; `None` if it cannot be.
    pub(super) fn topic(&mut self, name: &str, first: PartitionId, count: u32) -> Option<()> {
        let topics = self.catalog.topics.len() as u32;
        if self.catalog.names.contains_key(name) || !(1..=TOPIC_PARTITIONS_MAX).contains(&count) || topics >= TOPICS_MAX
        {
            return None;
        }
        let topic = TopicId(topics.into());
        let range = first.0 as usize..first.checked_add(count.into())?.0 as usize;
        let ends = self.catalog.ends.get(range.clone())?;
        let published = ends.iter().map(|end| u128::from(end.0)).sum();
        for (index, role) in self.roles.get_mut(range)?.iter_mut().enumerate() {
            claim(role, Role::Topic { topic, index: index as u32 })?;
        }
        self.catalog.enter_topic(name.into(), first, count);
        self.catalog.topics.last_mut()?.published = published;
        Some(())
    }

    /// The group `group`; `None` if it cannot be.
    pub(super) fn group(&mut self, topic: TopicId, name: &Arc<str>, group: GroupId, retry: PartitionId) -> Option<()> {
        if self.catalog.topic(topic)?.groups.contains_key(name) || group.0 >= u64::from(GROUPS_MAX) {
            return None;
        }
        claim(self.roles.get_mut(retry.0 as usize)?, Role::Retry { group })?;
        claim(self.roles.get_mut(retry.checked_add(1)?.0 as usize)?, Role::Dead { group })?;
        self.catalog.enter_group(topic, name, group);
        Some(())
    }

    pub(super) fn finish(mut self) -> Option<Catalog> {
        self.catalog.roles = Arc::new(self.roles.into_iter().collect::<Option<_>>()?);
        Some(self.catalog)
    }
}

fn claim(role: &mut Option<Role>, by: Role) -> Option<()> {
    role.replace(by).is_none().then_some(())
}
