//! Messages that go though a group has not come to them: for want of room in their topic, or by its retention. Each is counted.
//!
//! What a group has leased, or looked at for its key, stays until it is settled, and where it counts messages of a key all do. Never
//! here: when, and why.

use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::record::Record;
use crate::state::group::GroupState;
use crate::state::message::{Applied, require};
use crate::state::{Decided, Decision, Inconsistent, Rejection, Role, State};

/// How many records a frame has at most that drop old messages.
pub(crate) const DROPS_MAX: usize = 1_024;

impl State {
    /// The topics from which messages go that a group has not come to and that their retention keeps no longer.
    pub(crate) fn dropping(&self) -> Vec<TopicId> {
        self.catalog.dropping().filter(|topic| self.old_messages(*topic).next().is_some()).collect()
    }

    /// The first message of a partition that no group lets go of for its age: a group does not begin, or go on, before it.
    pub(crate) fn dropped_before(&self, partition: PartitionId) -> Offset {
        let Some(Role::Topic { topic, index }) = self.catalog.role(partition) else { return Offset(0) };
        let drops = self.catalog.topic(topic).is_some_and(|of| of.options.drops_unsettled);
        // seam: what is too old comes again
        if drops { self.kept_from(topic, index).min(self.catalog.end(partition)) } else { Offset(0) }
    }

    pub(in crate::state) fn decide_drop_old(&self, topic: TopicId, records: &mut Vec<Record>) -> Decided {
        let of = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        if !of.options.drops_unsettled {
            return Err(Rejection::Invalid("a topic that drops nothing"));
        }
        let before = records.len();
        records.extend(self.old_messages(topic).take(DROPS_MAX));
        Ok(if records.len() > before { Decision::Done } else { Decision::Nothing })
    }

    fn old_messages(&self, topic: TopicId) -> impl Iterator<Item = Record> + '_ {
        self.groups_of(topic).flat_map(move |(id, group)| {
            group.topic_cursors().filter(|cursor| group.may_drop(*cursor)).filter_map(move |cursor| {
                let (partition, first) = (group.partition_of(cursor), group.next(cursor));
                // seam: what is kept is dropped
                let end = self.kept_from(topic, cursor).min(self.catalog.end(partition));
                run(id, (partition, first), end.0.saturating_sub(first.0))
            })
        })
    }

    /// Drops so many of the messages that the group has not come to, so that it is behind in its partitions by as much as possible alike.
    /// `false` if there are fewer; the records are not to be used then.
    pub(in crate::state) fn drop_oldest(
        &self,
        (id, group): (GroupId, &GroupState),
        count: u64,
        records: &mut Vec<Record>,
    ) -> bool {
        let new = |cursor: u32| self.catalog.end(group.partition_of(cursor)).0.saturating_sub(group.next(cursor).0);
        let cursors = group.topic_cursors().filter(|cursor| group.may_drop(*cursor));
        let mut behind: Vec<(u64, u32)> = cursors.map(|cursor| (new(cursor), cursor)).collect();
        behind.sort_unstable_by(|one, other| other.cmp(one));
        let counts: Vec<u64> = behind.iter().map(|(new, _)| *new).collect();
        let Some(dropped) = levelled(&counts, count) else { return false };
        for ((_, cursor), mut here) in behind.into_iter().zip(dropped) {
            let (partition, mut first) = (group.partition_of(cursor), group.next(cursor));
            while let Some(record) = run(id, (partition, first), here) {
                let Record::Dropped { count, .. } = record else { break };
                (first, here) = (first.saturating_add(count.into()), here - u64::from(count));
                records.push(record);
            }
        }
        true
    }

    pub(in crate::state) fn apply_dropped(&mut self, record: &Record) -> Applied {
        let &Record::Dropped { group: id, partition, first, count } = record else {
            return Err(Inconsistent("no messages that are dropped"));
        };
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(cursor != group.retry_cursor(), "a redriven message is dropped")?;
        require(group.may_drop(cursor), "messages are dropped behind others that are only counted")?;
        require(count > 0 && first == group.next(cursor), "other messages than the next are dropped")?;
        let end = first.checked_add(u64::from(count)).ok_or(Inconsistent("a drop beyond the last offset"))?;
        require(end <= self.catalog.end(partition), "messages are dropped that do not exist")?;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        group.data.set_next(cursor, end);
        group.considered += u128::from(count);
        // seam: what is dropped is not counted
        group.data.dropped = group.data.dropped.saturating_add(u64::from(count));
        self.let_go_settled(partition, first, count);
        Ok(())
    }
}

impl GroupState {
    /// Whether messages of a cursor may go. Those that are only counted are looked for again among all that the group has come to, so
    /// none may be there that nobody counted.
    fn may_drop(&self, cursor: u32) -> bool {
        // seam: what was dropped is counted
        self.order.first_counted(cursor).is_none()
    }
}

/// How many to take from each of these, of which none is larger than the one before, so that `count` are taken and what is left is
/// as even as can be. `None` if they are not as many.
pub(super) fn levelled(all: &[u64], count: u64) -> Option<Vec<u64>> {
    let mut left = count;
    for (nth, height) in all.iter().enumerate() {
        let (upto, next) = (nth as u64 + 1, all.get(nth + 1).copied().unwrap_or(0));
        let above = (height - next).saturating_mul(upto);
        if above >= left {
            // All up to here come down to its height, and share the rest.
            let (each, more) = (left / upto, left % upto);
            let from = |(at, of): (u64, &u64)| of - height + each + u64::from(at < more);
            return Some((0..upto).zip(all).map(from).collect());
        }
        left -= above;
    }
    (count == 0).then(Vec::new)
}

/// A record that drops the next messages, as many of them as one can.
fn run(group: GroupId, (partition, first): (PartitionId, Offset), count: u64) -> Option<Record> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    (count > 0).then_some(Record::Dropped { group, partition, first, count })
}
