//! What must stay of the messages of a store: the same rule as [`State::is_settled`](super::State::is_settled),
//! for whole stretches and from a snapshot, so that nothing is looked through under the lock.
//!
//! Never here: files, and what becomes of what must not stay.

mod age;
mod drop;
#[cfg(test)]
pub(super) mod tests;

pub(in crate::state) use age::{Ages, AgesSnapshot, decode, encode, kept_from};
pub(crate) use drop::DROPS_MAX;

use super::Snapshot;
use super::group::GroupData;
use super::topic::Role;
use crate::ids::{GroupId, Lsn, Offset, PartitionId, TopicId};
use std::collections::BTreeMap;

/// Messages of a partition that follow each other: the first, and the one behind the last.
pub(crate) type OffsetRange = (Offset, Offset);

/// A snapshot that is asked which messages must stay. A message that need not stay is never needed again, except by a group that is created
/// later, or a cursor that comes to hold more.
#[derive(Debug)]
pub(crate) struct LiveMessages {
    snapshot: Snapshot,
    /// By topic: its groups' numbers in the snapshot.
    groups: BTreeMap<TopicId, Vec<usize>>,
    /// From where on cursors hold a topic.
    holds: BTreeMap<TopicId, Lsn>,
}

impl LiveMessages {
    /// Looks through all groups and cursors: outside the lock.
    pub(crate) fn of(snapshot: Snapshot) -> Self {
        let mut groups: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (number, (_, group)) in snapshot.all_groups().iter().enumerate() {
            groups.entry(group.topic).or_default().push(number);
        }
        let mut holds: BTreeMap<TopicId, Lsn> = BTreeMap::new();
        for (_, cursor) in snapshot.cursors().sorted() {
            if let Some(hold) = cursor.hold {
                let from = holds.entry(hold.topic).or_insert(hold.from);
                *from = hold.from.min(*from);
            }
        }
        Self { snapshot, groups, holds }
    }

    /// From where in the log on cursors hold a partition, as [`State::held_from`] says.
    pub(crate) fn held_from(&self, partition: PartitionId) -> Option<Lsn> {
        match self.role(partition) {
            Some(Role::Topic { topic, .. }) => self.holds.get(&topic).copied(),
            Some(Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. }) | None => None,
        }
    }

    /// Which of a partition's messages `first..end` must stay, whatever cursors hold: in order, apart, none empty.
    pub(crate) fn stretches(&self, partition: PartitionId, first: Offset, end: Offset) -> Vec<OffsetRange> {
        let all = || if first < end { vec![(first, end)] } else { Vec::new() };
        match self.role(partition) {
            Some(Role::Topic { topic, index }) => {
                let kept_from = self.kept_from(partition, topic, index).max(first);
                if kept_from <= first {
                    return all();
                }
                let mut found = Vec::new();
                if kept_from < end {
                    found.push((kept_from, end));
                }
                let of_topic = self.groups.get(&topic).map(Vec::as_slice).unwrap_or_default();
                let is_somebodys = self.holds.contains_key(&topic) || self.is_for_a_while(topic);
                if of_topic.is_empty() && !is_somebodys {
                    // A topic without groups keeps everything, unless a cursor holds it.
                    return all();
                }
                for number in of_topic {
                    let Some((_, group)) = self.snapshot.all_groups().get(*number) else { continue };
                    // seam: a cleaner ignores a group
                    group.put_unsettled(index, (first, end), &mut found);
                    if found.first() == Some(&(first, end)) {
                        return all();
                    }
                }
                merged(found)
            }
            Some(Role::Retry { group }) => self.of_group(group, |group, found| {
                group.put_unsettled(group.retry_cursor(), (first, end), found);
            }),
            Some(Role::Dead { group }) => self.of_group(group, |group, found| {
                found.extend(group.dead_letters.missing(first, end).map(|offset| (offset, offset.saturating_add(1))));
            }),
            Some(Role::Schedule { .. }) => merged(self.snapshot.scheduled_within(partition, first, end)),
            // What was said of streams stays as they do.
            Some(Role::Notes { .. }) => all(),
            None => Vec::new(),
        }
    }

    /// Whether a partition has dead letters; `None` where it is no more.
    pub(crate) fn has_dead_letters(&self, partition: PartitionId) -> Option<bool> {
        self.role(partition).map(|role| matches!(role, Role::Dead { .. }))
    }

    fn of_group(&self, id: GroupId, put: impl FnOnce(&GroupData, &mut Vec<OffsetRange>)) -> Vec<OffsetRange> {
        let groups = self.snapshot.all_groups();
        let group = groups.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| groups.get(at));
        let mut found = Vec::new();
        if let Some((_, group)) = group {
            put(group, &mut found);
        }
        merged(found)
    }

    fn role(&self, partition: PartitionId) -> Option<Role> {
        self.snapshot.tables().partitions.get(partition.0).map(|partition| partition.role)
    }

    fn kept_from(&self, partition: PartitionId, topic: TopicId, index: u32) -> Offset {
        let Some(of) = self.snapshot.tables().topics.get(topic.0) else { return Offset(u64::MAX) };
        kept_from(of.options.retention, self.snapshot.end(partition), || self.snapshot.kept_by_age(topic, index))
    }

    fn is_for_a_while(&self, topic: TopicId) -> bool {
        self.snapshot.tables().topics.get(topic.0).is_some_and(|topic| topic.options.retention.is_for_a_while())
    }
}

impl GroupData {
    /// Adds which of the messages of a cursor are not settled.
    fn put_unsettled(&self, cursor: u32, (first, end): OffsetRange, out: &mut Vec<OffsetRange>) {
        let next = self.next(cursor).max(first);
        if next < end {
            out.push((next, end));
        }
        let counted = self.counted.iter().filter(|((_, of), _)| *of == cursor).map(|(_, run)| run.first).min();
        if let Some(from) = counted.map(|from| from.max(first)).filter(|from| *from < end) {
            out.push((from, end));
        }
        let from = self.entries.from((cursor, first)).take_while(|(key, _)| **key < (cursor, end));
        for ((_, offset), _) in from {
            match out.last_mut() {
                Some((_, last)) if *last == *offset => *last = offset.saturating_add(1),
                _ => out.push((*offset, offset.saturating_add(1))),
            }
        }
    }
}

/// The same offsets in order, in stretches that are apart.
fn merged(mut stretches: Vec<OffsetRange>) -> Vec<OffsetRange> {
    stretches.sort_unstable();
    let mut merged: Vec<OffsetRange> = Vec::new();
    for (first, end) in stretches {
        match merged.last_mut() {
            Some((_, last)) if *last >= first => *last = end.max(*last),
            _ => merged.push((first, end)),
        }
    }
    merged
}
