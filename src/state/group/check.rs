//! What is true of each group, however it came about: all that follows from its messages is worked out again.

use super::GroupState;
use crate::ids::GroupId;
use crate::limits::{HISTORY_TEXT_BYTES_MAX, OUTSTANDING_MAX, PARKED_MAX};
use crate::state::State;
use crate::state::lease::lease_keys;

impl State {
    pub(in crate::state) fn check_group(&self, id: GroupId, group: &GroupState, fault: &mut impl FnMut(&'static str)) {
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
pub(in crate::state) fn check_derived(group: &GroupState, fault: &mut impl FnMut(&'static str)) {
    let Some(fresh) = GroupState::restored(group.data.clone()) else {
        return fault("its messages contradict each other");
    };
    if fresh.considered != group.considered {
        fault("its total is not the sum of its cursors");
    }
    if (&fresh.order, fresh.parked) != (&group.order, group.parked) {
        fault("the lines of its keys are not those of its messages");
    }
    if group.parked > 2 * PARKED_MAX {
        fault("more messages are parked than in any group");
    }
    if group.outstanding() > OUTSTANDING_MAX {
        fault("it has more outstanding messages than any group may");
    }
    for (fresh, kept) in fresh.queues.all().into_iter().zip(group.queues.all()) {
        if (&fresh.waiting, &fresh.ready, &fresh.backoffs) != (&kept.waiting, &kept.ready, &kept.backoffs)
            || fresh.leases.len() != kept.leases.len()
        {
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
    let texts_of = |group: &GroupState| (group.texts.order.clone(), group.texts.bytes, group.texts.failures);
    if texts_of(&fresh) != texts_of(group) {
        fault("its texts are not those of its messages");
    }
    if group.texts.bytes > HISTORY_TEXT_BYTES_MAX {
        fault("its texts take more room than they may");
    }
}
