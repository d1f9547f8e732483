//! Topics as they are stored, for those who read them.

use super::View;
use crate::ids::{PartitionId, TopicId};
use crate::record::TopicOptions;

/// A topic as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicInfo {
    pub(crate) id: TopicId,
    pub(crate) first: PartitionId,
    pub(crate) partitions: u32,
    pub(crate) options: TopicOptions,
}

impl TopicInfo {
    /// The hidden partition of the notes of its streams, which a topic without streams does not have.
    pub(crate) fn notes(&self) -> PartitionId {
        self.first.nth(self.partitions)
    }

    /// Its partitions, in order.
    pub(crate) fn all(self) -> impl Iterator<Item = PartitionId> {
        (0..self.partitions).map(move |index| self.first.nth(index))
    }

    /// The index of one of its partitions.
    pub(crate) fn index_of(&self, partition: PartitionId) -> Option<usize> {
        usize::try_from(partition.0.checked_sub(self.first.0)?).ok()
    }
}

impl View {
    /// The topic of this name.
    pub(crate) fn topic_info(&self, name: &str) -> Option<TopicInfo> {
        let id = self.state.topic_by_name(name)?;
        let topic = self.state.topic(id)?;
        Some(TopicInfo { id, first: topic.first, partitions: topic.count, options: topic.options })
    }
}
