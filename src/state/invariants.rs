//! What is true of every state: everything that is kept beside the truth is counted again.
//!
//! Never here: rules about one change; `apply` has those.

use super::deadlines::Key;
use super::group::Group;
use super::{Role, State};
use crate::ids::{GroupId, MonoMs, Offset, PartitionId, TopicId};
use crate::limits::{HISTORY_LEN, HISTORY_TEXT_BYTES_MAX};
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
        if !self.lone_fits() {
            faults.push(Violation { group: None, what: "the lone lease is not what its message says" });
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
        let ends = self.catalog.ends();
        if self.catalog.roles().len() != ends.len() {
            fault("there are not as many roles as partitions");
        }
        if self.catalog.names().len() != self.catalog.topics().len() {
            fault("there are not as many names as topics");
        }
        for (id, topic) in self.topics() {
            let range = topic.first.0 as usize..topic.first.0 as usize + topic.count as usize;
            let published = ends.get(range).map(|ends| ends.iter().map(|end| u128::from(end.0)).sum());
            if published != Some(topic.published) {
                fault("what a topic published is not the sum of its partitions");
            }
            if self.catalog.topic_by_name(&topic.name) != Some(id) {
                fault("a topic is not found by its name");
            }
        }
        for (role, id) in self.catalog.roles().iter().zip(0..) {
            if !self.role_fits(*role, PartitionId(id)) {
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
        let count = self.catalog.topic(group.topic).map(|topic| topic.count as usize + 1);
        if count != Some(group.cursors.len()) || group.position as usize >= group.cursors.len() {
            fault("it does not have a cursor for each partition");
        }
        for (cursor, at) in (0..).zip(&group.cursors) {
            if at.next > self.catalog.end(group.partition_of(cursor)) {
                fault("it is beyond the end of a partition");
            }
        }
        if let Some(what) = group.letters.fault(self.catalog.end(group.dead())) {
            fault(what);
        }
    }
}

/// What a group keeps beside its cursors.
fn check_kept(group: &Group, fault: &mut impl FnMut(&'static str)) {
    let mut fresh = group.clone();
    if fresh.rebuild().is_none() {
        fault("its messages contradict each other");
    }
    if (fresh.considered, fresh.outstanding) != (group.considered, group.outstanding) {
        fault("its totals are not the sums of its cursors");
    }
    if group.outstanding > group.options.max_outstanding {
        fault("it has more outstanding messages than it may");
    }
    for (fresh, kept) in fresh.queues.all().into_iter().zip(group.queues.all()) {
        if (&fresh.waiting, &fresh.ready) != (&kept.waiting, &kept.ready) || fresh.leases.len() != kept.leases.len() {
            fault("a queue does not hold what its messages say");
        }
        let classed = |key: &_| Group::holds(&group.cursors, key);
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
    let holds = |key: &Key| Group::holds(&group.cursors, key);
    let all = group.queues.all().into_iter();
    let mut keys: Vec<Key> = all.flat_map(|queue| queue.leases.expired(MonoMs(u64::MAX), holds)).collect();
    keys.sort_unstable();
    keys
}

fn check_slots(group: &Group, fault: &mut impl FnMut(&'static str)) {
    for at in &group.cursors {
        let Some(window) = &at.window else { continue };
        if window.is_empty() {
            fault("an empty window was kept");
        }
        if let Some(what) = window.fault(at.next) {
            fault(what);
        }
        let mut last = None;
        for (offset, slot) in window.iter() {
            if last.is_some_and(|last: Offset| last >= offset) {
                fault("its messages are out of order");
            }
            last = Some(offset);
            if slot.grace && !slot.crashed || slot.lease().is_some() && slot.attempts == 0 {
                fault("the account of a message cannot be");
            }
            if slot.history.as_ref().is_some_and(|history| history.past.len() > HISTORY_LEN) {
                fault("a history is too long");
            }
        }
    }
}
