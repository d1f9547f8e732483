//! What can be asked about groups, and how each stands.
//!
//! Never here: a change, or anything that is not in the state or the inputs.

use super::peek::MessageState;
use super::{GroupData, GroupState};
use crate::ids::{GroupId, Offset, PartitionId, TopicId, WallMs};
use crate::limits::HISTORY_LEN;
use crate::state::filter::VerdictRun;
use crate::state::lease::{AttemptClass, OutstandingEntry, Phase, Queue};
use crate::state::order::{CountedRun, KeyOrder};
use crate::state::{Inputs, Role, Snapshot, State};
use std::collections::{BTreeMap, BTreeSet};

/// The most that an outstanding message takes in a checkpoint, in bytes, but for its history, and a failure in that, but for its text.
const ENTRY_LEN: u64 = 48;
const FAILURE_LEN: u64 = 10;
/// The hash of its key.
const KEY_LEN: u64 = 8;
/// What is only counted of a key in a partition.
const COUNTED_LEN: u64 = 33;
/// The most that it takes with a history as long as it may be, but for the texts.
pub(crate) const OUTSTANDING_LEN: u64 = ENTRY_LEN + HISTORY_LEN as u64 * FAILURE_LEN;

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
    /// Waiting for others of their key or partition, as far as that is known.
    pub(crate) parked: u64,
    /// Messages that are not settled, visible or not; dead letters are.
    pub(crate) lag: u64,
    /// Since when the outstanding message is ready that has been so for longest, as far as its account says.
    pub(crate) ready_since: Option<WallMs>,
    /// The first message that has been ready since it was published.
    pub(crate) first_ready: Option<Offset>,
    /// The first message that is not settled.
    pub(crate) first_unsettled: Option<Offset>,
}

/// What the order of a group says of messages that were never leased.
struct CountedOrder {
    lines: KeyOrder,
    startable: BTreeSet<(u32, Offset)>,
    counted: BTreeMap<u32, CountedRun>,
}

impl State {
    pub(crate) fn group_by_name(&self, topic: TopicId, name: &str) -> Option<GroupId> {
        self.catalog.audience(topic)?.groups.get(name).copied()
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<&GroupState> {
        self.groups.get(&group).map(Box::as_ref)
    }

    /// In order of their numbers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupState)> {
        self.groups.iter().map(|(id, group)| (*id, group.as_ref()))
    }

    /// The first message of a partition that the group has not come to.
    pub(crate) fn next_of(&self, group: GroupId, partition: PartitionId) -> Option<Offset> {
        let group = self.group(group)?;
        group.cursor_of(partition).map(|cursor| group.next(cursor))
    }

    /// In order of their names.
    pub(crate) fn groups_of(&self, topic: TopicId) -> impl Iterator<Item = (GroupId, &GroupState)> {
        let ids = self.catalog.audience(topic).into_iter().flat_map(|audience| audience.groups.values().copied());
        ids.filter_map(|id| Some((id, self.group(id)?)))
    }

    /// Below this nobody wants a message of the partition any more: it is settled by every group, and not kept for ever.
    /// Cursors may hold it: see [`State::held_from`].
    pub(crate) fn settled_before(&self, partition: PartitionId) -> Offset {
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, index }) => {
                let of = |(_, group): (_, &GroupState)| group.first_unsettled(index);
                // While nobody has come to read it, all stays; a cursor that holds it is somebody, and says where it stands itself.
                let is_somebodys = self.held_from(partition).is_some() || self.is_for_a_while(topic);
                let without_groups = if is_somebodys { Offset(u64::MAX) } else { Offset(0) };
                // seam: retirement ignores a group
                let unsettled = self.groups_of(topic).map(of).min().unwrap_or(without_groups);
                unsettled.min(self.kept_from(topic, index))
            }
            Some(Role::Schedule { .. }) => self.schedules.first_from(partition, Offset(0)).unwrap_or(Offset(u64::MAX)),
            // What was said of streams stays as they do.
            // seam: notes of streams hold no segment
            Some(Role::Notes { .. }) => Offset(0),
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

    /// Whether the topic keeps its messages for a while, and no longer for want of groups.
    pub(in crate::state) fn is_for_a_while(&self, topic: TopicId) -> bool {
        self.topic(topic).is_some_and(|topic| topic.options.retention.is_for_a_while())
    }

    /// Whether nobody wants the messages from `first` up to `end` any more, whatever is below them: as [`State::settled_before`] says of
    /// what is below.
    pub(crate) fn is_settled(&self, partition: PartitionId, first: Offset, end: Offset) -> bool {
        if end <= self.settled_before(partition) {
            return true;
        }
        match self.catalog.role(partition) {
            Some(Role::Topic { topic, index }) if end > self.kept_from(topic, index) => false,
            Some(Role::Topic { topic, index }) => {
                let mut groups = self.groups_of(topic).peekable();
                groups.peek().is_some() && groups.all(|(_, group)| group.is_settled(index, first, end))
            }
            Some(Role::Retry { group }) => {
                self.group(group).is_some_and(|group| group.is_settled(group.retry_cursor(), first, end))
            }
            Some(Role::Dead { group }) => {
                self.group(group).is_some_and(|group| group.dead_letters.missing(first, end).next().is_none())
            }
            // seam: a scheduled message holds no segment
            Some(Role::Schedule { .. }) => self.schedules.first_from(partition, first).is_none_or(|next| next >= end),
            Some(Role::Notes { .. }) | None => false,
        }
    }

    /// The most that the outstanding messages of all groups take in a checkpoint, whatever becomes of them, but for new texts.
    pub(crate) fn outstanding_len(&self) -> u64 {
        self.groups.values().map(|group| group.outstanding_len()).sum()
    }

    /// Whether the settling of a message may make another one of the group ready.
    pub(crate) fn is_held_back(&self, group: GroupId) -> bool {
        // seam: a successor is not woken
        self.group(group).is_some_and(|group| group.is_at_cap() || group.is_ordered() || group.in_flight_room() == 0)
    }
}

impl GroupState {
    /// How many more messages may be leased at once. A lease that has ended keeps its place until its message is leased again, or
    /// moved or postponed.
    pub(in crate::state) fn in_flight_room(&self) -> u32 {
        match self.options.max_in_flight {
            0 => u32::MAX,
            max => {
                let leased: u64 = self.queues.all().into_iter().map(Queue::lease_count).sum();
                // seam: more are in flight than allowed
                max.saturating_sub(u32::try_from(leased).unwrap_or(u32::MAX))
            }
        }
    }

    /// What is exhausted has one more failure at most, in its copy; all others may have as many as there is room for.
    fn outstanding_len(&self) -> u64 {
        let exhausted = self.queues.of(AttemptClass::Exhausted).len();
        let others = u64::from(self.outstanding()).saturating_sub(exhausted);
        let failures = (self.texts.failures as u64).min(exhausted * HISTORY_LEN as u64);
        let keys = self.keys.len() as u64 * KEY_LEN + self.counted.len() as u64 * COUNTED_LEN;
        let order = u64::from(self.parked) * ENTRY_LEN + keys;
        exhausted * ENTRY_LEN + failures * FAILURE_LEN + others * OUTSTANDING_LEN + order + self.texts.bytes as u64
    }
}

impl GroupData {
    /// The partitions of its topic, and the first message of each that the group has not come to.
    pub(crate) fn topic_nexts(&self) -> impl Iterator<Item = (PartitionId, Offset)> + '_ {
        (0..self.retry_cursor()).map(|cursor| (self.partition_of(cursor), self.next(cursor)))
    }

    /// How many messages went without a delivery to it.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether it has as many messages outstanding as it may.
    pub(in crate::state) fn is_at_cap(&self) -> bool {
        self.outstanding() >= self.options.max_outstanding || self.parked_room() == 0
    }

    /// `order`: its lines, the parked messages that may be leased, and by cursor what is only counted. `run`: what is known of the next messages.
    fn count(
        &self,
        (cursor, end): (u32, Offset),
        order: &CountedOrder,
        run: Option<&VerdictRun>,
        inputs: &Inputs<'_>,
    ) -> GroupCounts {
        let (partition, next) = (self.partition_of(cursor), self.next(cursor));
        let mut counts = GroupCounts::default();
        let (mut first, mut first_outstanding) = (None, None);
        for (offset, entry) in self.entries_of(cursor) {
            first_outstanding = first_outstanding.or(Some(offset));
            let state = entry.message_state((cursor, offset), &order.startable, inputs);
            counts.note(state);
            if state == MessageState::Ready {
                match entry.ready_since(inputs) {
                    Some(since) => {
                        counts.ready_since = Some(counts.ready_since.map_or(since, |other| other.min(since)))
                    }
                    None => first = first.or(Some(offset)),
                }
            }
        }
        let (filtered, filtered_first) = run.map_or((0, 0), |run| (run.filtered(), run.filtered_first()));
        let new = inputs.visible.end(partition, end).0.saturating_sub(next.0).saturating_sub(filtered);
        let held_back = new.saturating_sub(order.lines.new_room(self, cursor));
        counts.parked = counts.parked.saturating_add(held_back);
        let new = new - held_back;
        counts.ready = counts.ready.saturating_add(new);
        counts.lag = counts.lag.saturating_add(end.0.saturating_sub(next.0).saturating_sub(filtered));
        let next = next.saturating_add(filtered_first.into());
        counts.first_ready = first.or((new > 0).then_some(next));
        let counted = order.counted.get(&cursor);
        let count = counted.map_or(0, |run| run.count);
        (counts.parked, counts.lag) = (counts.parked.saturating_add(count), counts.lag.saturating_add(count));
        let first = first_outstanding.into_iter().chain(counted.map(|run| run.first)).min();
        counts.first_unsettled = Some(first.unwrap_or(next)).filter(|first| *first < end);
        counts
    }
}

impl Snapshot {
    /// In order of their numbers.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupData)> {
        self.all_groups().iter().map(|(id, group)| (*id, group))
    }

    /// How the group stands in each partition of its subscription: the topic's in order, then its own of redriven messages.
    pub(crate) fn counts<'a>(
        &'a self,
        (id, group): (GroupId, &'a GroupData),
        inputs: &'a Inputs<'_>,
    ) -> impl Iterator<Item = (PartitionId, GroupCounts)> + 'a {
        let lines = KeyOrder::of(group).map(|(lines, _)| lines).unwrap_or_default();
        let startable = lines.startable(group).collect();
        let order = CountedOrder { lines, startable, counted: group.counted_by_cursor() };
        (0..group.cursors()).map(move |cursor| {
            let partition = group.partition_of(cursor);
            let run = inputs.verdicts.run(id, group, cursor);
            (partition, group.count((cursor, self.end(partition)), &order, run, inputs))
        })
    }

    /// Whether the group has as many messages outstanding as it may.
    pub(crate) fn is_at_cap(&self, group: &GroupData) -> bool {
        group.is_at_cap()
    }
}

impl OutstandingEntry {
    /// Since when it is ready, which it is; `None` where it is ready as if it had never been leased.
    fn ready_since(&self, inputs: &Inputs<'_>) -> Option<WallMs> {
        match self.phase {
            Phase::Leased(lease) => {
                Some(inputs.wall.saturating_sub(inputs.mono.0.saturating_sub(self.leasable_from(&lease).0)))
            }
            Phase::Waiting { due, .. } => Some(due),
            Phase::Ready { .. } => self.history.as_ref()?.past.last().map(|past| past.failure.time),
            Phase::Parked { .. } => None,
        }
    }
}
