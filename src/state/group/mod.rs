//! A group: how far it has come in each partition, and what it has in progress.
//!
//! A partition of the subscription (the topic's in order, then the group's own retry partition) is a cursor here. Whatever
//! is below a cursor's `next` and not outstanding is settled. Never here: whether a change is allowed; callers have
//! checked that, and that what they name exists.

mod check;
mod decide;
mod outstanding;
mod peek;
mod query;
mod seek;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use check::check_derived;
use decide::{check_new_filter, check_notices};
pub(super) use decide::{check_options, has_room_for_group};
pub use peek::MessageState;
pub(crate) use peek::PeekedPlace;
pub(crate) use query::{GroupCounts, OUTSTANDING_LEN};
pub(crate) use seek::GroupProgress;
pub(super) use snapshot::{decode, encode};

use super::kit::offsets::OffsetSet;
use super::kit::sparse::Sparse;
use super::kit::tree::Tree;
use super::lease::{OutstandingEntry, Queues, Source};
use super::message::{Applied, require};
use super::order::{CountedRun, KeyOrder};
use super::retry::Texts;
use super::topic::TopicState;
use super::{Rejection, Removed, State};
use crate::ids::{GroupId, Lsn, Offset, PartitionId, TopicId};
use crate::record::{GroupOptions, KeyHash};
use std::ops::Deref;
use std::sync::Arc;

/// What a snapshot has of a group. A clone shares its pages.
#[derive(Clone, Debug)]
pub(crate) struct GroupData {
    pub(crate) name: Arc<str>,
    pub(crate) topic: TopicId,
    pub(crate) options: GroupOptions,
    /// Its partition of redriven messages; the next one is that of its dead letters.
    pub(crate) retry: PartitionId,
    /// The first partition of its topic, and how many those are.
    first: PartitionId,
    partitions: u32,
    /// By cursor: the first offset that was never leased.
    pub(in crate::state) nexts: Sparse<Offset>,
    /// By cursor and offset.
    pub(in crate::state) entries: Tree<(u32, Offset), OutstandingEntry>,
    /// In order of keys: the keys of those that have one.
    pub(in crate::state) keys: Tree<(u32, Offset), KeyHash>,
    /// How many of them are parked.
    pub(in crate::state) parked: u32,
    /// By key and cursor: messages that wait and are only counted.
    pub(in crate::state) counted: Tree<(KeyHash, u32), CountedRun>,
    /// Counts what got ready and what failed, so that each has an age without a clock.
    pub(in crate::state) turns: u64,
    /// The cursor where the search for new messages begins: after the one that gave the last.
    pub(in crate::state) position: u32,
    /// Where the last leased message came from.
    pub(in crate::state) source: Source,
    /// The frame that holds this group's last lease record, and which of its lease records in that frame this was.
    pub(in crate::state) rank: (Lsn, u32),
    /// Its dead letters that are settled.
    pub(in crate::state) dead_letters: Arc<OffsetSet>,
    /// How many error texts went for want of room.
    pub(in crate::state) texts_dropped: u64,
    /// How many messages went without a delivery, for want of room or because they were too old.
    pub(in crate::state) dropped: u64,
}

/// A group: what is data of it, and what follows from that.
#[derive(Clone, Debug)]
pub(crate) struct GroupState {
    pub(in crate::state) data: GroupData,
    /// The sum of all `next`.
    pub(in crate::state) considered: u128,
    pub(in crate::state) queues: Queues,
    pub(in crate::state) order: KeyOrder,
    pub(in crate::state) texts: Texts,
}

impl Deref for GroupState {
    type Target = GroupData;

    fn deref(&self) -> &GroupData {
        &self.data
    }
}

impl GroupData {
    /// The partition of its dead letters.
    pub(crate) fn dead(&self) -> PartitionId {
        self.retry.saturating_add(1)
    }

    /// Which cursor `partition` is.
    #[inline]
    pub(in crate::state) fn cursor_of(&self, partition: PartitionId) -> Option<u32> {
        if partition == self.retry {
            return Some(self.retry_cursor());
        }
        let index = u32::try_from(partition.0.checked_sub(self.first.0)?).ok()?;
        (index < self.partitions).then_some(index)
    }

    #[inline]
    pub(in crate::state) fn partition_of(&self, cursor: u32) -> PartitionId {
        if cursor == self.retry_cursor() { self.retry } else { self.first.nth(cursor) }
    }

    /// The cursor of the retry partition: the last.
    pub(in crate::state) fn retry_cursor(&self) -> u32 {
        self.partitions
    }

    pub(in crate::state) fn cursors(&self) -> u32 {
        self.partitions + 1
    }

    /// The first offset of a cursor that was never leased.
    #[inline]
    pub(in crate::state) fn next(&self, cursor: u32) -> Offset {
        self.nexts.get(cursor.into()).copied().unwrap_or_default()
    }

    pub(in crate::state) fn set_next(&mut self, cursor: u32, next: Offset) {
        match self.nexts.get_mut(cursor.into()) {
            Some(old) => *old = next,
            None => self.nexts.insert(cursor.into(), next),
        }
    }
}

impl GroupState {
    pub(in crate::state) fn new(
        name: Arc<str>,
        (id, topic): (TopicId, &TopicState),
        options: GroupOptions,
        retry: PartitionId,
        starts: impl Iterator<Item = Offset>,
    ) -> Self {
        let mut data = GroupData {
            name,
            topic: id,
            options,
            retry,
            first: topic.first,
            partitions: topic.count,
            nexts: Sparse::default(),
            entries: Tree::default(),
            keys: Tree::default(),
            parked: 0,
            counted: Tree::default(),
            turns: 0,
            position: 0,
            source: Source::default(),
            rank: (Lsn(0), 0),
            dead_letters: Arc::default(),
            texts_dropped: 0,
            dropped: 0,
        };
        let mut considered = 0;
        for (cursor, start) in (0..topic.count).zip(starts) {
            data.set_next(cursor, start);
            considered += u128::from(start.0);
        }
        data.set_next(topic.count, Offset(0));
        Self { data, considered, queues: Queues::default(), order: KeyOrder::default(), texts: Texts::default() }
    }
}

impl State {
    pub(in crate::state) fn apply_group_created(
        &mut self,
        (id, topic): (GroupId, TopicId),
        name: &str,
        options: &GroupOptions,
        retry: PartitionId,
        starts: &[Offset],
    ) -> Applied {
        self.check_new_group((id, topic), name, options, retry, starts)?;
        let name: Arc<str> = name.into();
        let of = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        let group = GroupState::new(Arc::clone(&name), (topic, of), options.clone(), retry, starts.iter().copied());
        self.catalog.add_group(topic, &name);
        self.groups.insert(id, Box::new(group));
        self.let_go_settled_of(topic);
        Ok(())
    }

    pub(in crate::state) fn apply_group_removed(&mut self, id: GroupId) -> Applied {
        let group = self.groups.remove(&id).ok_or(Rejection::UnknownGroup)?;
        self.catalog.remove_group(group.topic, &group.name, group.retry);
        // seam: a removed group is waited for
        self.exclusive.forget(id);
        let (topic, partitions) = (group.topic, group.retry.0..group.retry.nth(2).0);
        self.removed.push(Removed { partitions, group: Some(group), _forgotten: None, _schedule: None });
        self.let_go_settled_of(topic);
        Ok(())
    }

    pub(in crate::state) fn apply_group_altered(&mut self, group: GroupId, options: &GroupOptions) -> Applied {
        check_options(options)?;
        check_notices(options, self.catalog.next())?;
        let id = group;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let order = |options: &GroupOptions| (options.ordering, options.max_in_flight_per_key);
        require(order(options) == order(&group.options), "the order of a group never changes")?;
        check_new_filter(options, &group.options)?;
        // seam: an altered limit holds for what is out
        group.data.options = options.clone();
        if options.paused {
            // seam: a message of a paused group is waited for
            self.exclusive.stop_waiting(id);
        }
        Ok(())
    }
}
