//! What can be asked of a state.
//!
//! Never here: a change, or anything that is not in the state or the inputs.

use super::exclusive::Gate;
use super::group::{Group, Kept};
use super::outstanding::{OutstandingEntry, Phase};
use super::{HoldUp, Inputs, Role, Snapshot, State, Topic};
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

/// How a group stands in one partition.
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
    /// Messages that are not settled, visible or not; dead letters are.
    pub(crate) lag: u64,
    /// Since when the outstanding message is ready that has been so for longest, as far as its account says.
    pub(crate) ready_since: Option<WallMs>,
    /// The first message that has been ready since it was published.
    pub(crate) first_ready: Option<Offset>,
    /// The first message that is not settled.
    pub(crate) first_unsettled: Option<Offset>,
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
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.catalog.topics()
    }

    pub(crate) fn group_by_name(&self, topic: TopicId, name: &str) -> Option<GroupId> {
        self.catalog.audience(topic)?.groups.get(name).copied()
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<&Group> {
        self.groups.get(&group).map(Box::as_ref)
    }

    #[cfg(any(test, feature = "simulation"))]
    /// In order of their numbers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group.as_ref()))
    }

    /// In order of their names.
    pub(crate) fn groups_of(&self, topic: TopicId) -> impl Iterator<Item = (GroupId, &Group)> {
        let ids = self.catalog.audience(topic).into_iter().flat_map(|audience| audience.groups.values().copied());
        ids.filter_map(|id| Some((id, self.group(id)?)))
    }

    pub(crate) fn partition_role(&self, partition: PartitionId) -> Option<Role> {
        self.catalog.role(partition)
    }

    /// How many messages each topic ever had.
    pub(crate) fn published(&self) -> impl Iterator<Item = (TopicId, u128)> {
        self.catalog.audiences().map(|(id, audience)| (id, audience.published))
    }

    /// The offset that the next message of a partition gets; zero for a partition that does not exist.
    pub(crate) fn partition_end(&self, partition: PartitionId) -> Offset {
        self.catalog.end(partition)
    }

    /// The number that the next partition gets: there never was one with it or a higher one.
    pub(crate) fn partitions_end(&self) -> PartitionId {
        self.catalog.next().partition
    }

    /// All partitions that there are, and where they end.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.catalog.tables().partitions.iter().map(|(id, partition)| (PartitionId(id), partition.end))
    }

    /// The first `max` dead letters from `from` on that are not settled, in order.
    pub(crate) fn dead_letters(&self, group: GroupId, from: Offset, max: usize) -> Vec<Offset> {
        let Some(group) = self.group(group) else { return Vec::new() };
        group.dead_letters.missing(from, self.catalog.end(group.dead())).take(max).collect()
    }

    /// Every message of a partition below this is settled by everyone who could want it.
    pub(crate) fn settled_before(&self, partition: PartitionId) -> Offset {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, index }) => {
                let of = |(_, group): (_, &Group)| group.first_unsettled(index);
                // seam: retirement ignores a group
                self.groups_of(topic).map(of).min().unwrap_or_default()
            }
            Some(Role::Retry { group }) => {
                self.group(group).map(|group| group.first_unsettled(group.retry_cursor())).unwrap_or_default()
            }
            Some(Role::Dead { group }) => {
                self.group(group).map(|group| group.dead_letters.first_missing()).unwrap_or_default()
            }
            // Nobody wants what belongs to nobody any more.
            // seam: a removed partition holds segments
            None if self.catalog.is_removed(partition) => Offset(u64::MAX),
            None => Offset(0),
        }
    }

    /// The next time after that of `inputs` at which a `Lease` of the group may find more than now.
    pub(crate) fn next_deadline(&self, group: GroupId, inputs: &Inputs<'_>) -> Deadline {
        let Some(Group { queues, .. }) = self.group(group) else { return Deadline::default() };
        let queues = queues.all();
        let ends = queues.iter().filter_map(|queue| queue.leases.next_after(inputs.mono));
        // The last of the other leases may end before the wait for an exclusive one does.
        let alone = self.goes_alone(inputs.mono, inputs.hold_up);
        let alone = alone.filter(|&(of, from)| of == group && from > inputs.mono).map(|(_, from)| from);
        let mono = ends.chain(alone).chain(self.exclusive.next_after(inputs.mono, inputs.hold_up)).min();
        Deadline { mono, wall: queues.iter().filter_map(|queue| queue.next_due_after(inputs.wall)).min() }
    }

    /// Whether anything waits for the wall clock.
    pub(crate) fn has_due_times(&self) -> bool {
        self.groups.values().flat_map(|group| group.queues.all()).any(|queue| !queue.waiting.is_empty())
    }

    /// Until when no lease is granted, since an exclusive one is awaited or out.
    pub(crate) fn held_up_until(&self, mono: MonoMs, hold_up: HoldUp) -> Option<MonoMs> {
        self.exclusive.next_after(mono, hold_up)
    }

    /// Since when an exclusive lease is awaited or out, whether or not others are still held up.
    pub(crate) fn held_up_since(&self) -> Option<MonoMs> {
        self.exclusive.since()
    }

    /// The group whose message all others wait for, and from when on it could have its lease.
    pub(crate) fn goes_alone(&self, mono: MonoMs, hold_up: HoldUp) -> Option<(GroupId, MonoMs)> {
        match self.exclusive.gate(mono, hold_up) {
            Gate::Only(place) => Some((place.group, self.latest_end().map_or(mono, |end| end.max(mono)))),
            Gate::Open | Gate::Closed => None,
        }
    }

    /// Whether a message is leased, though the lease may have ended.
    pub(crate) fn has_lease(&self, group: GroupId, partition: PartitionId, offset: Offset) -> bool {
        let entry = self.group(group).and_then(|group| group.entry(group.cursor_of(partition)?, offset));
        entry.is_some_and(|entry| entry.lease().is_some())
    }

    /// How many messages are outstanding, over all groups.
    pub(crate) fn outstanding_count(&self) -> u64 {
        self.groups.values().map(|group| u64::from(group.outstanding())).sum()
    }

    /// Whether the group has as many messages outstanding as it may.
    pub(crate) fn is_at_cap(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(|group| group.is_at_cap())
    }
}

impl Kept {
    /// Whether it has as many messages outstanding as it may.
    pub(super) fn is_at_cap(&self) -> bool {
        self.outstanding() >= self.options.max_outstanding
    }

    fn count(&self, cursor: u32, end: Offset, inputs: &Inputs<'_>) -> GroupCounts {
        let (partition, next) = (self.partition_of(cursor), self.next(cursor));
        let mut counts = GroupCounts::default();
        let (mut first, mut first_outstanding) = (None, None);
        for (offset, entry) in self.slots_of(cursor) {
            first_outstanding = first_outstanding.or(Some(offset));
            counts.lag += 1;
            if entry.is_live(inputs.mono) {
                counts.leased += 1;
            } else if entry.is_exhausted() {
                counts.exhausted += 1;
            } else if !entry.is_due(inputs.mono, inputs.wall) {
                counts.waiting += 1;
            } else {
                counts.ready += 1;
                match entry.ready_since(inputs) {
                    Some(since) => {
                        counts.ready_since = Some(counts.ready_since.map_or(since, |other| other.min(since)))
                    }
                    None => first = first.or(Some(offset)),
                }
            }
        }
        let new = inputs.visible.end(partition, end).0.saturating_sub(next.0);
        counts.ready = counts.ready.saturating_add(new);
        counts.lag = counts.lag.saturating_add(end.0.saturating_sub(next.0));
        counts.first_ready = first.or((new > 0).then_some(next));
        counts.first_unsettled = Some(first_outstanding.unwrap_or(next)).filter(|first| *first < end);
        counts
    }
}

impl Snapshot {
    /// In order of their numbers.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.tables().topics.iter().map(|(id, topic)| (TopicId(id), topic))
    }

    /// In order of their numbers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Kept)> {
        self.all_groups().iter().map(|(id, group)| (*id, group))
    }

    /// How the group stands in each partition of its subscription: the topic's in order, then its own of redriven messages.
    pub(crate) fn counts<'a>(
        &'a self,
        group: &'a Kept,
        inputs: &'a Inputs<'_>,
    ) -> impl Iterator<Item = (PartitionId, GroupCounts)> + 'a {
        (0..group.cursors()).map(|cursor| {
            let partition = group.partition_of(cursor);
            (partition, group.count(cursor, self.end(partition), inputs))
        })
    }

    /// How many dead letters the group has that are not settled.
    pub(crate) fn dead_letters(&self, group: &Kept) -> u64 {
        self.end(group.dead()).0.saturating_sub(group.dead_letters.len())
    }

    /// Whether the group has as many messages outstanding as it may.
    pub(crate) fn is_at_cap(&self, group: &Kept) -> bool {
        group.is_at_cap()
    }
}

impl OutstandingEntry {
    /// Since when it is ready, which it is; `None` where it is ready as if it had never been leased.
    fn ready_since(&self, inputs: &Inputs<'_>) -> Option<WallMs> {
        match self.phase {
            Phase::Leased(lease) => Some(inputs.wall.saturating_sub(inputs.mono.0.saturating_sub(lease.until.0))),
            Phase::Waiting { due, .. } => Some(due),
            Phase::Ready { .. } => self.history.as_ref()?.past.last().map(|past| past.failure.time),
        }
    }
}
