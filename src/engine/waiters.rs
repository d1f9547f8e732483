//! Who sleeps until there is a message for a group.
//!
//! A consumer that finds nothing waits on its group's condition variable, with the store's lock. Those who add a message
//! wake one consumer of each waiting group; one who takes a message and leaves more wakes the next. With nobody
//! waiting that costs a load. At least one sleeper of a group knows the group's next deadline: whoever changes it, or leaves
//! with it, wakes one to look again. Never here: time.

use crate::ids::{GroupId, TopicId};
use crate::sync::Condvar;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    total: usize,
    /// By group.
    groups: Vec<Group>,
    /// By topic: the groups with consumers asleep.
    topics: Vec<Vec<GroupId>>,
}

#[derive(Debug, Default)]
struct Group {
    count: usize,
    condvar: Arc<Condvar>,
    /// Whether someone waits although there are messages: held back by the cap or by a lone lease.
    held_back: bool,
}

impl Waiters {
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.total > 0
    }

    /// Counts a consumer in and returns what to wait on.
    pub(crate) fn enter(&mut self, topic: TopicId, group: GroupId, held_back: bool) -> Arc<Condvar> {
        grow(&mut self.groups, group.0);
        grow(&mut self.topics, topic.0);
        self.total += 1;
        let entry = &mut self.groups[group.0 as usize];
        entry.count += 1;
        entry.held_back |= held_back;
        if entry.count == 1 {
            self.topics[topic.0 as usize].push(group);
        }
        Arc::clone(&entry.condvar)
    }

    /// Counts a consumer out.
    pub(crate) fn leave(&mut self, topic: TopicId, group: GroupId) {
        self.total -= 1;
        let entry = &mut self.groups[group.0 as usize];
        entry.count -= 1;
        if entry.count == 0 {
            entry.held_back = false;
            self.topics[topic.0 as usize].retain(|other| *other != group);
        }
    }

    pub(crate) fn wake_one(&mut self, group: GroupId) {
        if let Some(entry) = self.groups.get(group.0 as usize).filter(|entry| entry.count > 0) {
            entry.condvar.notify_one();
        }
    }

    pub(crate) fn wake_group(&mut self, group: GroupId) {
        if let Some(entry) = self.groups.get(group.0 as usize).filter(|entry| entry.count > 0) {
            entry.condvar.notify_all();
        }
    }

    pub(crate) fn wake_one_if_held_back(&mut self, group: GroupId) {
        if self.groups.get(group.0 as usize).is_some_and(|entry| entry.held_back) {
            self.wake_one(group);
        }
    }

    /// Wakes a consumer of each group of the topic.
    pub(crate) fn wake_topic(&mut self, topic: TopicId) {
        for group in self.topics.get(topic.0 as usize).into_iter().flatten() {
            self.groups[group.0 as usize].condvar.notify_one();
        }
    }

    pub(crate) fn wake_all(&mut self) {
        for entry in self.groups.iter().filter(|entry| entry.count > 0) {
            entry.condvar.notify_all();
        }
    }
}

fn grow<T: Default>(list: &mut Vec<T>, index: u32) {
    if list.len() <= index as usize {
        list.resize_with(index as usize + 1, T::default);
    }
}
