//! The bound of a topic: how many messages a group may have that it has not settled.
//!
//! What counts is the group that has most of them. Only who publishes is refused: messages that are due, copies and notices always find
//! room. Or the oldest messages go that a group has not come to. A topic without groups has nobody to wait for, and no bound. Never here: who waits for room.

use super::Role;
use crate::ids::{PartitionId, TopicId};
use crate::record::{Record, TopicOptions, WhenFull};
use crate::state::group::GroupState;
use crate::state::{Rejection, State};
use std::collections::BTreeMap;

/// A topic that has a bound, and what there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicRoom {
    pub(crate) max: u64,
    /// How many more messages may be published.
    pub(crate) left: u64,
    pub(crate) when_full: WhenFull,
}

impl State {
    /// What there is room for in a topic; `None` where it has no bound or no groups, or is no more.
    pub(crate) fn topic_room(&self, topic: TopicId) -> Option<TopicRoom> {
        let TopicOptions { max_messages: max, when_full, .. } = self.catalog.topic(topic)?.options;
        if max == 0 {
            return None;
        }
        // seam: a bound ignores a group
        let most = self.groups_of(topic).map(|(_, group)| self.unsettled_count(group)).max()?;
        Some(TopicRoom { max, left: max.saturating_sub(most), when_full })
    }

    /// Makes room for these messages where a topic lets the oldest go.
    ///
    /// # Errors
    /// `TopicFull` where a topic has no room for them.
    pub(in crate::state) fn make_topic_room(
        &self,
        runs: &[(PartitionId, u32)],
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        let mut counts: BTreeMap<TopicId, u64> = BTreeMap::new();
        for &(partition, count) in runs {
            match self.catalog.role(partition) {
                Some(Role::Topic { topic, .. }) => *counts.entry(topic).or_default() += u64::from(count),
                // They count once they are due.
                Some(Role::Schedule { .. } | Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) | None => {}
            }
        }
        for (topic, count) in counts {
            let Some(TopicRoom { max, left, when_full }) = self.topic_room(topic) else { continue };
            // seam: a topic takes more than its bound
            if count <= left {
                continue;
            }
            let is_made = match when_full {
                WhenFull::DropOldest if count <= max => self.drop_down_to(topic, max - count, records),
                WhenFull::DropOldest | WhenFull::Reject | WhenFull::Block(_) => false,
            };
            if !is_made {
                return Err(Rejection::TopicFull { topic, count });
            }
        }
        Ok(())
    }

    /// Drops what a group of the topic has more than `most` of. `false` if there is too little to drop.
    fn drop_down_to(&self, topic: TopicId, most: u64, records: &mut Vec<Record>) -> bool {
        self.groups_of(topic).all(|(id, group)| {
            let over = self.unsettled_count(group).saturating_sub(most);
            self.drop_oldest((id, group), over, records)
        })
    }

    /// How many messages of its subscription a group has not settled, those included that it has not come to.
    fn unsettled_count(&self, group: &GroupState) -> u64 {
        let published = self.catalog.audience(group.topic).map_or(0, |audience| audience.published);
        let published = published + u128::from(self.catalog.end(group.retry).0);
        let new = u64::try_from(published.saturating_sub(group.considered)).unwrap_or(u64::MAX);
        // seam: a bound counts no message that was leased
        new.saturating_add(group.entries.len() as u64).saturating_add(group.order.counted_count())
    }
}
