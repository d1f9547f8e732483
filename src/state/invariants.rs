//! What is true of every state: everything that is kept beside the truth is counted again.
//!
//! Never here: rules about one change; `apply` has those.

use super::deadlines::Key;
use super::group::Group;
use super::{Role, State};
use crate::ids::{GroupId, MonoMs, PartitionId, TopicId};
use crate::limits::{HISTORY_LEN, HISTORY_TEXT_BYTES_MAX, OUTSTANDING_MAX};
use std::fmt;

/// Something that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Of one group, or of the store.
    pub(crate) group: Option<GroupId>,
    pub(crate) what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "group {group}: {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl State {
    /// All violations; empty unless this code is wrong. Looks at everything.
    pub(crate) fn check(&self) -> Vec<Violation> {
        let mut faults = Vec::new();
        self.check_catalog(&mut |what| faults.push(Violation { group: None, what }));
        if !self.exclusive_fits() {
            faults.push(Violation { group: None, what: "the exclusive lease is not what its message says" });
        }
        for (id, group) in self.groups() {
            let mut fault = |what| faults.push(Violation { group: Some(id), what });
            self.check_group(id, group, &mut fault);
            check_kept(group, &mut fault);
            check_slots(group, &mut fault);
        }
        faults
    }

    fn check_catalog(&self, fault: &mut impl FnMut(&'static str)) {
        let tables = self.catalog.tables();
        if self.catalog.names().len() as u64 != tables.topics.len() {
            fault("there are not as many names as topics");
        }
        let mut partitions = 2 * self.groups.len() as u64;
        for (id, topic) in self.topics() {
            partitions += u64::from(topic.count);
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
            Role::Dead { group } => self.group(group).is_some_and(|group| group.dead() == partition),
        }
    }

    fn check_group(&self, id: GroupId, group: &Group, fault: &mut impl FnMut(&'static str)) {
        if self.group_by_name(group.topic, &group.name) != Some(id) {
            fault("it is not found by its name");
        }
        let count = self.catalog.topic(group.topic).map(|topic| topic.count + 1);
        let counts = (u64::from(group.cursors()) == group.nexts.len()).then_some(group.cursors());
        if count != counts || group.position >= group.cursors() {
            fault("it does not have a cursor for each partition");
        }
        for cursor in 0..group.cursors() {
            if group.next(cursor) > self.catalog.end(group.partition_of(cursor)) {
                fault("it is beyond the end of a partition");
            }
        }
        if id >= self.catalog.next().group {
            fault("its number comes again");
        }
        if let Some(what) = group.dead_letters.fault(self.catalog.end(group.dead())) {
            fault(what);
        }
    }
}

/// What a group keeps beside its cursors.
fn check_kept(group: &Group, fault: &mut impl FnMut(&'static str)) {
    let Some(fresh) = Group::restored(group.kept.clone()) else { return fault("its messages contradict each other") };
    if fresh.considered != group.considered {
        fault("its total is not the sum of its cursors");
    }
    if group.entries.len() > OUTSTANDING_MAX as usize {
        fault("it has more outstanding messages than any group may");
    }
    for (fresh, kept) in fresh.queues.all().into_iter().zip(group.queues.all()) {
        if (&fresh.waiting, &fresh.ready) != (&kept.waiting, &kept.ready) || fresh.leases.len() != kept.leases.len() {
            fault("a queue does not hold what its messages say");
        }
        let classed = |key: &_| group.holds(key);
        if let Some(what) = kept.leases.fault(classed) {
            fault(what);
        }
    }
    if lease_keys(&fresh) != lease_keys(group) {
        fault("its leases are not those of its messages");
    }
    if (&fresh.texts.order, fresh.texts.bytes) != (&group.texts.order, group.texts.bytes) {
        fault("its texts are not those of its messages");
    }
    if group.texts.bytes > HISTORY_TEXT_BYTES_MAX {
        fault("its texts take more room than they may");
    }
}

/// All leases in the order of their ends.
fn lease_keys(group: &Group) -> Vec<Key> {
    let holds = |key: &Key| group.holds(key);
    let all = group.queues.all().into_iter();
    let mut keys: Vec<Key> = all.flat_map(|queue| queue.leases.expired(MonoMs(u64::MAX), holds)).collect();
    keys.sort_unstable();
    keys
}

fn check_slots(group: &Group, fault: &mut impl FnMut(&'static str)) {
    if let Some(what) = group.entries.fault() {
        fault(what);
    }
    for (&(cursor, offset), entry) in group.entries.iter() {
        if cursor >= group.cursors() || offset >= group.next(cursor) {
            fault("a message is outstanding that was never leased");
        }
        if entry.grace && !entry.crashed || entry.lease().is_some() && entry.attempts == 0 {
            fault("the account of a message cannot be");
        }
        if entry.history.as_ref().is_some_and(|history| history.past.len() > HISTORY_LEN) {
            fault("a history is too long");
        }
    }
}
