//! What can be asked of a state.
//!
//! Never here: a change, or anything that is not in the state or the inputs.

use super::group::{Cursor, Group};
use super::lone::Gate;
use super::outstanding::{Phase, Slot};
use super::{HoldUp, Inputs, Role, State, Topic};
#[cfg(any(test, feature = "simulation"))]
use crate::ids::Epoch;
use crate::ids::{GroupId, MonoMs, Offset, PartitionId, TopicId, WallMs};

/// When something may become deliverable by time alone. Nothing becomes so before either time; something that was
/// expected may since have gone, so at a deadline one asks again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) mono: Option<MonoMs>,
    pub(crate) wall: Option<WallMs>,
}

/// How a group, or a group in one partition, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupCounts {
    /// Deliverable now: due again, or new and visible.
    pub(crate) ready: u64,
    /// Held under a live lease.
    pub(crate) leased: u64,
    /// Waiting for their due time.
    pub(crate) waiting: u64,
    /// Without another attempt, and not yet moved to the dead letters.
    pub(crate) exhausted: u64,
    /// Dead letters that are not settled. Of the group as a whole: zero for one partition.
    pub(crate) dead: u64,
    /// Messages that are not settled, visible or not; dead letters are.
    pub(crate) lag: u64,
    /// Since when the outstanding message is ready that has been so for longest, as far as its account says.
    pub(crate) ready_since: Option<WallMs>,
    /// The first message that has been ready since it was published: in the first partition that has one. Only in one partition does
    /// offset order mean age; who wants the oldest of all asks each partition.
    pub(crate) first_ready: Option<(PartitionId, Offset)>,
    /// The first message that is not settled, of the same partition.
    pub(crate) first_unsettled: Option<(PartitionId, Offset)>,
    /// No new message is leased until one of the outstanding ones is settled.
    pub(crate) at_cap: bool,
    /// Error texts that the group dropped for want of room.
    pub(crate) texts_dropped: u64,
}

impl State {
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn topic_by_name(&self, name: &str) -> Option<TopicId> {
        self.catalog.topic_by_name(name)
    }

    pub(crate) fn topic(&self, topic: TopicId) -> Option<&Topic> {
        self.catalog.topic(topic)
    }

    /// In order of their numbers.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        (0..).map(TopicId).zip(self.catalog.topics())
    }

    pub(crate) fn group_by_name(&self, topic: TopicId, name: &str) -> Option<GroupId> {
        self.catalog.topic(topic)?.groups.get(name).copied()
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(group.0 as usize)
    }

    #[cfg(any(test, feature = "simulation"))]
    /// In order of their numbers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        (0..).map(GroupId).zip(&self.groups)
    }

    /// In order of their names.
    pub(crate) fn groups_of(&self, topic: TopicId) -> impl Iterator<Item = (GroupId, &Group)> {
        let ids = self.catalog.topic(topic).into_iter().flat_map(|topic| topic.groups.values().copied());
        ids.filter_map(|id| Some((id, self.group(id)?)))
    }

    pub(crate) fn partition_role(&self, partition: PartitionId) -> Option<Role> {
        self.catalog.role(partition)
    }

    /// The offset that the next message of a partition gets; zero for a partition that does not exist.
    pub(crate) fn partition_end(&self, partition: PartitionId) -> Offset {
        self.catalog.end(partition)
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.catalog.partition_count()
    }

    /// The first `max` dead letters from `from` on that are not settled, in order.
    pub(crate) fn letters(&self, group: GroupId, from: Offset, max: usize) -> Vec<Offset> {
        let Some(group) = self.group(group) else { return Vec::new() };
        group.letters.unsettled(from, self.catalog.end(group.dead())).take(max).collect()
    }

    /// Every message of a partition below this is settled by everyone who could want it.
    pub(crate) fn settled_before(&self, partition: PartitionId) -> Offset {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, index }) => {
                let of = |(_, group): (_, &Group)| group.cursors.get(index as usize).map(Cursor::first_unsettled);
                // seam: retirement ignores a group
                self.groups_of(topic).filter_map(of).min().unwrap_or_default()
            }
            Some(Role::Retry { group }) => {
                let cursor = self.group(group).and_then(|group| group.cursors.last());
                cursor.map(Cursor::first_unsettled).unwrap_or_default()
            }
            Some(Role::Dead { group }) => self.group(group).map(|group| group.letters.first()).unwrap_or_default(),
            None => Offset(0),
        }
    }

    /// The next time after that of `inputs` at which a `Lease` of the group may find more than now.
    pub(crate) fn next_deadline(&self, group: GroupId, inputs: &Inputs<'_>) -> Deadline {
        let Some(group) = self.group(group) else { return Deadline::default() };
        let queues = group.queues.all();
        let mut mono: Option<MonoMs> = queues.iter().filter_map(|queue| queue.leases.next_after(inputs.mono)).min();
        if matches!(self.lone.gate(inputs.mono, inputs.hold_up), Gate::Only(_)) {
            // The last of the other leases may end before the wait does.
            let idle = self.latest_end().filter(|&until| until > inputs.mono);
            mono = mono.into_iter().chain(idle).min();
        }
        let mono = mono.into_iter().chain(self.lone.next_after(inputs.mono, inputs.hold_up)).min();
        Deadline { mono, wall: queues.iter().filter_map(|queue| queue.next_due_after(inputs.wall)).min() }
    }

    /// Whether anything waits for the wall clock.
    pub(crate) fn has_due_times(&self) -> bool {
        self.groups.iter().flat_map(|group| group.queues.all()).any(|queue| !queue.waiting.is_empty())
    }

    /// Until when no lease is granted, since a lone one is awaited or out.
    pub(crate) fn held_up_until(&self, mono: MonoMs, hold_up: HoldUp) -> Option<MonoMs> {
        self.lone.next_after(mono, hold_up)
    }

    /// Since when a lone lease is awaited or out, whether or not others are still held up.
    pub(crate) fn held_up_since(&self) -> Option<MonoMs> {
        self.lone.since()
    }

    /// The group whose message all others wait for, once it could have its lease.
    pub(crate) fn may_go_alone(&self, mono: MonoMs, hold_up: HoldUp) -> Option<GroupId> {
        match self.lone.gate(mono, hold_up) {
            Gate::Only(place) if !self.any_live(mono) => Some(place.group),
            _ => None,
        }
    }

    /// Whether a message is leased, though the lease may have ended.
    pub(crate) fn has_lease(&self, group: GroupId, partition: PartitionId, offset: Offset) -> bool {
        let slot = self.group(group).and_then(|group| group.slot(group.cursor_of(partition)?, offset));
        slot.is_some_and(|slot| slot.lease().is_some())
    }

    /// How many messages are outstanding, over all groups.
    pub(crate) fn outstanding_count(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.outstanding)).sum()
    }

    /// Whether the group has as many messages outstanding as it may.
    pub(crate) fn is_at_cap(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(|group| group.outstanding >= group.options.max_outstanding)
    }

    /// How many dead letters the group has that are not settled.
    pub(crate) fn letter_count(&self, group: GroupId) -> u64 {
        let count = |group: &Group| self.catalog.end(group.dead()).0.saturating_sub(group.letters.settled());
        self.group(group).map_or(0, count)
    }

    /// Looks at every outstanding message of the group in one partition of its subscription.
    pub(crate) fn partition_counts(
        &self,
        group: GroupId,
        partition: PartitionId,
        inputs: &Inputs<'_>,
    ) -> Option<GroupCounts> {
        let group = self.group(group)?;
        let mut counts = self.group_wide(group);
        self.count(group, group.cursor_of(partition)?, inputs, &mut counts);
        Some(counts)
    }

    fn group_wide(&self, group: &Group) -> GroupCounts {
        let at_cap = group.outstanding >= group.options.max_outstanding;
        GroupCounts { at_cap, texts_dropped: group.texts.dropped, ..GroupCounts::default() }
    }

    fn count(&self, group: &Group, cursor: u32, inputs: &Inputs<'_>, counts: &mut GroupCounts) {
        let partition = group.partition_of(cursor);
        let Some(at) = group.cursors.get(cursor as usize) else { return };
        let mut first = None;
        for (offset, slot) in at.slots() {
            counts.lag += 1;
            if slot.is_live(inputs.mono) {
                counts.leased += 1;
            } else if group.is_exhausted(slot) {
                counts.exhausted += 1;
            } else if !slot.is_due(inputs.mono, inputs.wall) {
                counts.waiting += 1;
            } else {
                counts.ready += 1;
                match slot.ready_since(inputs) {
                    Some(since) => {
                        counts.ready_since = Some(counts.ready_since.map_or(since, |other| other.min(since)))
                    }
                    None => first = first.or(Some(offset)),
                }
            }
        }
        let end = self.catalog.end(partition);
        let new = inputs.visible.end(partition, end).0.saturating_sub(at.next.0);
        counts.ready = counts.ready.saturating_add(new);
        counts.lag = counts.lag.saturating_add(end.0.saturating_sub(at.next.0));
        let first = first.or((new > 0).then_some(at.next));
        counts.first_ready = counts.first_ready.or(first.map(|offset| (partition, offset)));
        let unsettled = Some(at.first_unsettled()).filter(|first| *first < end);
        counts.first_unsettled = counts.first_unsettled.or(unsettled.map(|offset| (partition, offset)));
    }
}

impl Slot {
    /// Since when it is ready, which it is; `None` where it is ready as if it had never been leased.
    fn ready_since(&self, inputs: &Inputs<'_>) -> Option<WallMs> {
        match self.phase {
            Phase::Leased(lease) => Some(inputs.wall.saturating_sub(inputs.mono.0.saturating_sub(lease.until.0))),
            Phase::Waiting { due, .. } => Some(due),
            Phase::Ready { .. } => self.history.as_ref()?.past.last().map(|past| past.failure.time),
        }
    }
}
