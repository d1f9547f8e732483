//! The consumers that wait until there is a message for their group.
//!
//! A consumer that finds nothing leaves a [`Ticket`] with its waker and sleeps, without the store's lock. A commit that adds a message
//! wakes one consumer of each group. A consumer that takes a message, or fails to, wakes the next. With nobody asleep that costs a load.
//!
//! If no sleeper of a group has been woken: (1) nothing is deliverable to the group; (2) one sleeper's timer is at or before the next
//! deadline. So a commit that changes either, and a consumer that leaves without a lease, wakes one sleeper to look again. Never here:
//! time.

use super::{DueWakers, Followers, Publishers};
use crate::ids::{GroupId, MonoMs, PartitionId, TopicId};
use crate::sync::atomic::{AtomicBool, Ordering};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

#[derive(Debug, Default)]
pub(crate) struct WaitList {
    /// How many are asleep and not woken.
    asleep: usize,
    /// Groups with consumers that sleep or were woken.
    groups: BTreeMap<GroupId, Sleepers>,
    /// Of each topic the groups with consumers asleep.
    topics: BTreeMap<TopicId, Vec<GroupId>>,
    /// Of those that were woken and not told yet.
    due: DueWakers,
    pub(crate) followers: Followers,
    pub(crate) publishers: Publishers,
}

/// The consumers of a group that sleep.
#[derive(Debug, Default)]
struct Sleepers {
    /// Those that are not woken; the one that has slept longest is woken first.
    asleep: VecDeque<Arc<Ticket>>,
    /// How many were woken and have not looked yet.
    woken: usize,
    /// Whether someone sleeps although there are messages: held back by the cap.
    held_back: bool,
}

/// One sleep of one consumer.
#[derive(Debug)]
pub(crate) struct Ticket {
    topic: TopicId,
    group: GroupId,
    /// When the sleeper wakes by itself.
    pub(crate) until: MonoMs,
    woken: AtomicBool,
    waker: Waker,
}

impl Ticket {
    /// Whether somebody woke this sleeper. Changes only under the store's lock.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }
}

impl WaitList {
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.asleep > 0 || self.followers.any() || self.publishers.any()
    }

    /// The wakers of those that were woken since the last call: to be dropped without the lock.
    #[inline]
    pub(crate) fn take_due(&mut self) -> DueWakers {
        if self.due.is_empty() { DueWakers::default() } else { self.due.take() }
    }

    /// Takes in a consumer that goes to sleep. [`WaitList::leave`] follows.
    pub(crate) fn enter(
        &mut self,
        (topic, group): (TopicId, GroupId),
        held_back: bool,
        until: MonoMs,
        waker: &Waker,
    ) -> Arc<Ticket> {
        let (woken, waker) = (AtomicBool::new(false), waker.clone());
        let ticket = Arc::new(Ticket { topic, group, until, woken, waker });
        self.asleep += 1;
        let sleepers = self.groups.entry(group).or_default();
        sleepers.held_back |= held_back;
        if sleepers.asleep.is_empty() {
            self.topics.entry(topic).or_default().push(group);
        }
        sleepers.asleep.push_back(Arc::clone(&ticket));
        ticket
    }

    /// A consumer has looked, or looks now, or goes away.
    pub(crate) fn leave(&mut self, ticket: &Arc<Ticket>) {
        let Some(sleepers) = self.groups.get_mut(&ticket.group) else { return };
        if ticket.is_woken() {
            sleepers.woken -= 1;
        } else {
            sleepers.asleep.retain(|other| !Arc::ptr_eq(other, ticket));
            self.gone(ticket.topic, ticket.group);
        }
        if self.groups.get(&ticket.group).is_some_and(|sleepers| sleepers.asleep.is_empty() && sleepers.woken == 0) {
            self.groups.remove(&ticket.group);
        }
    }

    pub(crate) fn wake_one(&mut self, group: GroupId) {
        let Some(sleepers) = self.groups.get_mut(&group) else { return };
        let Some(ticket) = sleepers.asleep.pop_front() else { return };
        sleepers.woken += 1;
        ticket.woken.store(true, Ordering::Relaxed);
        self.due.push(ticket.waker.clone());
        self.gone(ticket.topic, group);
    }

    /// One less is asleep.
    fn gone(&mut self, topic: TopicId, group: GroupId) {
        self.asleep -= 1;
        let Some(sleepers) = self.groups.get_mut(&group).filter(|sleepers| sleepers.asleep.is_empty()) else { return };
        sleepers.held_back = false;
        if let Some(groups) = self.topics.get_mut(&topic) {
            groups.retain(|other| *other != group);
            if groups.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }

    pub(crate) fn wake_one_if_held_back(&mut self, group: GroupId) {
        if self.groups.get(&group).is_some_and(|sleepers| sleepers.held_back) {
            self.wake_one(group);
        }
    }

    /// Tells the readers of the log that there is more in a partition.
    pub(crate) fn appeared(&mut self, topic: TopicId, partition: PartitionId) {
        self.followers.appeared(topic, partition, &mut self.due);
    }

    /// Wakes a consumer of each group of the topic.
    pub(crate) fn wake_topic(&mut self, topic: TopicId) {
        // From the last on, for a group whose last sleeper is woken leaves the list.
        let mut nth = self.topics.get(&topic).map_or(0, Vec::len);
        while let Some(group) = nth.checked_sub(1).and_then(|last| self.topics.get(&topic)?.get(last).copied()) {
            self.wake_one(group);
            nth -= 1;
        }
    }

    /// Wakes all consumers of all groups of the topic, and its readers.
    pub(crate) fn wake_all_of(&mut self, topic: TopicId) {
        self.followers.wake_topic(topic, &mut self.due);
        let groups = self.topics.get(&topic).cloned().unwrap_or_default();
        groups.into_iter().for_each(|group| self.wake_group(group));
    }

    /// Wakes the publishers for whom there is room: `room` says how many messages a topic takes.
    pub(crate) fn wake_publishers(&mut self, room: impl Fn(TopicId) -> u64) {
        if self.publishers.any() {
            self.publishers.wake(room, &mut self.due);
        }
    }

    /// Wakes a consumer of each group.
    pub(crate) fn wake_each(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.wake_one(group));
    }

    /// Wakes all consumers of a group.
    pub(crate) fn wake_group(&mut self, group: GroupId) {
        let count = self.groups.get(&group).map_or(0, |sleepers| sleepers.asleep.len());
        (0..count).for_each(|_| self.wake_one(group));
    }

    pub(crate) fn wake_all(&mut self) {
        self.followers.wake_all(&mut self.due);
        self.wake_publishers(|_| u64::MAX);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        groups.into_iter().for_each(|group| self.wake_group(group));
    }

    /// Each group with sleepers none of whom is on its way, and when the first of them wakes by itself.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn at_rest(&self) -> impl Iterator<Item = (GroupId, MonoMs)> {
        let groups = self.groups.iter();
        groups
            .filter(|(_, sleepers)| sleepers.woken == 0)
            .filter_map(|(group, sleepers)| Some((*group, sleepers.asleep.iter().map(|ticket| ticket.until).min()?)))
    }
}
