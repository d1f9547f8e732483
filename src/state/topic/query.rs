//! What can be asked about topics and partitions.
//!
//! Never here: a change.

use super::{Role, TopicState};
use crate::ids::{Offset, PartitionId, TopicId};
use crate::state::{Snapshot, State};

impl State {
    pub(crate) fn topic_by_name(&self, name: &str) -> Option<TopicId> {
        self.catalog.topic_by_name(name)
    }

    pub(crate) fn topic(&self, topic: TopicId) -> Option<&TopicState> {
        self.catalog.topic(topic)
    }

    /// In order of their numbers.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &TopicState)> {
        self.catalog.topics()
    }

    pub(crate) fn partition_role(&self, partition: PartitionId) -> Option<Role> {
        self.catalog.role(partition)
    }

    /// How many messages each topic ever had.
    pub(crate) fn published(&self) -> impl Iterator<Item = (TopicId, u128)> {
        self.catalog.audiences().map(|(id, audience)| (id, audience.published))
    }

    /// The offset that the next message of a partition gets; zero for a partition that does not exist.
    pub(crate) fn partition_end(&self, partition: PartitionId) -> Offset {
        self.catalog.end(partition)
    }

    /// The number that the next partition gets: there never was one with it or a higher one.
    pub(crate) fn partitions_end(&self) -> PartitionId {
        self.catalog.next().partition
    }

    /// All partitions that there are, and where they end.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.catalog.tables().partitions.iter().map(|(id, partition)| (PartitionId(id), partition.end))
    }
}

impl Snapshot {
    /// In order of their numbers.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &TopicState)> {
        self.tables().topics.iter().map(|(id, topic)| (TopicId(id), topic))
    }

    /// Zero for a partition that does not exist.
    pub(crate) fn end(&self, partition: PartitionId) -> Offset {
        self.tables().end(partition)
    }
}
