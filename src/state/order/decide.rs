//! The decision to look at new messages before some are leased.
//!
//! Never here: leases.

use crate::ids::GroupId;
use crate::limits::CONSIDERED_MAX;
use crate::record::{Ordering, Record};
use crate::state::group::GroupState;
use crate::state::{Decision, Inputs, KeyRun, State};

impl State {
    /// What a group in order of keys does before it leases up to `max` messages, if anything: it looks at redriven messages, which come before
    /// all others of their keys, and where too few are ready, at the next ones of its topic. `new_last` as in a lease.
    pub(in crate::state) fn decide_considered(
        &self,
        (id, group): (GroupId, &GroupState),
        (max, new_last): (u32, Option<u32>),
        keys: Option<KeyRun<'_>>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Option<Decision> {
        if group.options.ordering != Ordering::Key {
            return None;
        }
        let (cursor, count) = self.unconsidered(group, max, inputs)?;
        let count = count.min(new_last.unwrap_or(u32::MAX));
        if count == 0 {
            return None;
        }
        let (partition, first) = (group.partition_of(cursor), group.next(cursor));
        let known = keys.map_or(&[][..], |keys| keys.from(partition, first));
        let keys: Vec<_> = known.iter().copied().take(count as usize).collect();
        if keys.is_empty() {
            return Some(Decision::KeysNeeded { partition, first, count });
        }
        records.push(Record::Considered { group: id, partition, first, keys });
        Some(Decision::Considered)
    }

    /// The cursor whose next messages the group looks at now, and how many: partition by partition, from where it left off.
    fn unconsidered(&self, group: &GroupState, max: u32, inputs: &Inputs<'_>) -> Option<(u32, u32)> {
        let mut unseen = self.new_count(group);
        let retry = group.retry_cursor();
        let is_enough = group.order.startable_count() >= max as usize;
        let of_topic = if is_enough { 0 } else { retry };
        let start = if group.position < retry { group.position } else { 0 };
        let cursors = (0..of_topic).map(|nth| (u64::from(start) + u64::from(nth)) % u64::from(retry));
        for cursor in std::iter::once(retry).chain(cursors.map(|cursor| cursor as u32)) {
            if unseen == 0 {
                return None;
            }
            let (partition, next) = (group.partition_of(cursor), group.next(cursor));
            let end = self.catalog.end(partition);
            let room = group.parked_room(cursor).min(CONSIDERED_MAX);
            let count = inputs.visible.end(partition, end).0.saturating_sub(next.0).min(u64::from(room));
            if count > 0 {
                return Some((cursor, count as u32));
            }
            unseen -= u128::from(end.0.saturating_sub(next.0));
        }
        None
    }
}
