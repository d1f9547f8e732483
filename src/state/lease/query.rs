//! What can be asked about leases: when the next may be granted, and what holds them up.
//!
//! Never here: a change.

use super::exclusive::Gate;
use super::queue::Queue;
use crate::ids::{GroupId, MonoMs, Offset, PartitionId, WallMs};
use crate::state::group::GroupState;
use crate::state::{HoldUp, Inputs, State};

/// When something may become deliverable by time alone. Nothing becomes so before either time; something that was
/// expected may since have gone, so at a deadline one asks again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) mono: Option<MonoMs>,
    pub(crate) wall: Option<WallMs>,
}

impl State {
    /// The next time after that of `inputs` at which a `Lease` of the group may find more than now.
    pub(crate) fn next_deadline(&self, group: GroupId, inputs: &Inputs<'_>) -> Deadline {
        let Some(GroupState { queues, .. }) = self.group(group) else { return Deadline::default() };
        let queues = queues.all();
        let ends = queues.iter().filter_map(|queue| queue.next_ended_after(inputs.mono));
        // The last of the other leases may end before the wait for an exclusive one does.
        let alone = self.goes_alone(inputs.mono, inputs.hold_up);
        let alone = alone.filter(|&(of, from)| of == group && from > inputs.mono).map(|(_, from)| from);
        let mono = ends.chain(alone).chain(self.exclusive.next_after(inputs.mono, inputs.hold_up)).min();
        Deadline { mono, wall: queues.iter().filter_map(|queue| queue.next_due_after(inputs.wall)).min() }
    }

    /// How many messages are leased, by leases that are over or not.
    pub(crate) fn lease_count(&self) -> u64 {
        self.groups.values().flat_map(|group| group.queues.all()).map(Queue::lease_count).sum()
    }

    /// How many messages are leased by leases that are not over at `mono`, or a few more. Looks through these leases.
    pub(crate) fn live_lease_count(&self, mono: MonoMs) -> u64 {
        self.groups.values().flat_map(|group| group.queues.all()).map(|queue| queue.lease_count_after(mono)).sum()
    }

    /// Whether anything waits for the wall clock.
    pub(crate) fn has_due_times(&self) -> bool {
        let is_waiting = |queue: &Queue| !queue.waiting.is_empty();
        self.has_scheduled() || self.groups.values().flat_map(|group| group.queues.all()).any(is_waiting)
    }

    /// Whether anything goes by the time of day, so that a jump of it is to be noted.
    pub(crate) fn counts_time(&self) -> bool {
        self.has_due_times() || self.dedup.is_counting() || !self.ages.is_empty()
    }

    /// Until when no lease is granted, since an exclusive one is pending or out.
    pub(crate) fn held_up_until(&self, mono: MonoMs, hold_up: HoldUp) -> Option<MonoMs> {
        self.exclusive.next_after(mono, hold_up)
    }

    /// Since when an exclusive lease is pending or out, whether or not others are still held up.
    pub(crate) fn held_up_since(&self) -> Option<MonoMs> {
        self.exclusive.since()
    }

    /// The group whose message all others wait for, and from when on it could have its lease.
    pub(crate) fn goes_alone(&self, mono: MonoMs, hold_up: HoldUp) -> Option<(GroupId, MonoMs)> {
        match self.exclusive.gate(mono, hold_up) {
            Gate::Only(message) => Some((message.group, self.latest_end().map_or(mono, |end| end.max(mono)))),
            Gate::Open | Gate::Closed => None,
        }
    }

    /// Whether a message is leased, though the lease may have ended.
    pub(crate) fn has_lease(&self, group: GroupId, partition: PartitionId, offset: Offset) -> bool {
        let entry = self.group(group).and_then(|group| group.entry(group.cursor_of(partition)?, offset));
        entry.is_some_and(|entry| entry.lease().is_some())
    }
}
