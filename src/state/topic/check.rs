//! What is true of all topics and partitions, however they came about.

use super::Role;
use crate::ids::{PartitionId, TopicId};
use crate::state::State;

impl State {
    pub(in crate::state) fn check_catalog(&self, fault: &mut impl FnMut(&'static str)) {
        let tables = self.catalog.tables();
        if self.catalog.names().len() as u64 != tables.topics.len() {
            fault("there are not as many names as topics");
        }
        let mut partitions = 2 * self.groups.len() as u64;
        for (id, topic) in self.topics() {
            partitions += u64::from(topic.count) + topic.notes().iter().chain(&topic.schedule).count() as u64;
            let published = topic.partitions().map(|partition| u128::from(self.catalog.end(partition).0)).sum();
            if self.catalog.audience(id).map(|audience| audience.published) != Some(published) {
                fault("what a topic published is not the sum of its partitions");
            }
            if self.catalog.topic_by_name(&topic.name) != Some(id) {
                fault("a topic is not found by its name");
            }
            if id >= tables.next.topic {
                fault("a topic's number comes again");
            }
        }
        if tables.partitions.len() != partitions {
            fault("there are partitions that belong to nobody");
        }
        for (id, partition) in tables.partitions.iter() {
            if !self.role_fits(partition.role, PartitionId(id)) || PartitionId(id) >= tables.next.partition {
                fault("a partition does not belong to whom it says");
            }
        }
    }

    fn role_fits(&self, role: Role, partition: PartitionId) -> bool {
        let of = |topic: TopicId| self.catalog.topic(topic);
        match role {
            Role::Topic { topic, index } => {
                of(topic).is_some_and(|of| index < of.count && of.first.checked_add(index.into()) == Some(partition))
            }
            Role::Retry { group } => self.group(group).is_some_and(|group| group.retry == partition),
            Role::Notes { topic } => of(topic).is_some_and(|of| of.notes() == Some(partition)),
            Role::Schedule { topic } => of(topic).is_some_and(|of| of.schedule == Some(partition)),
            Role::Dead { group } => self.group(group).is_some_and(|group| group.dead() == partition),
        }
    }
}
