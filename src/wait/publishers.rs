//! Publishers that wait for room in their topic.
//!
//! Each says for how many messages it needs room, and is woken when there is as much; one that needs more than there is lets those behind it
//! pass. One that was woken and finds the room taken waits anew. Never here: what room there is.

use super::DueWakers;
use crate::ids::TopicId;
use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

/// All publishers of a store that wait.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    next: u64,
    topics: BTreeMap<TopicId, VecDeque<WaitingPublisher>>,
}

#[derive(Debug)]
struct WaitingPublisher {
    id: u64,
    count: u64,
    waker: Waker,
}

impl Publishers {
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Takes in a publisher of so many messages. [`Publishers::leave`] follows, with what this returns.
    pub(crate) fn enter(&mut self, topic: TopicId, count: u64, waker: &Waker) -> u64 {
        let id = self.next;
        self.next += 1;
        self.topics.entry(topic).or_default().push_back(WaitingPublisher { id, count, waker: waker.clone() });
        id
    }

    /// A publisher looks again, or goes away.
    pub(crate) fn leave(&mut self, topic: TopicId, id: u64) {
        self.keep(topic, |waiting| waiting.id != id);
    }

    /// Wakes those for whom there is room, in `room` of each topic.
    pub(super) fn wake(&mut self, room: impl Fn(TopicId) -> u64, due: &mut DueWakers) {
        let topics: Vec<TopicId> = self.topics.keys().copied().collect();
        for topic in topics {
            let mut room = room(topic);
            self.keep(topic, |waiting| match room.checked_sub(waiting.count) {
                Some(rest) => {
                    // Where there is no bound any more all are woken.
                    room = if room == u64::MAX { room } else { rest };
                    due.push(waiting.waker.clone());
                    false
                }
                None => true,
            });
        }
    }

    fn keep(&mut self, topic: TopicId, is_kept: impl FnMut(&WaitingPublisher) -> bool) {
        let Some(waiting) = self.topics.get_mut(&topic) else { return };
        waiting.retain(is_kept);
        if waiting.is_empty() {
            self.topics.remove(&topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Parker;
    use std::time::Duration;

    #[test]
    fn those_are_woken_for_whom_there_is_room() {
        let (mut publishers, mut due) = (Publishers::default(), DueWakers::default());
        let (one, other) = (TopicId(1), TopicId(2));
        let mut enter = |topic, count| {
            let parker = Parker::new();
            (publishers.enter(topic, count, &parker.waker()), parker)
        };
        let waiting = [enter(one, 1), enter(one, 5), enter(one, 2), enter(one, 1), enter(other, 1)];
        publishers.leave(one, waiting[0].0);
        publishers.wake(|topic| if topic == one { 3 } else { 0 }, &mut due);
        let woken = due.take();
        drop(woken);
        assert!(publishers.any());
        publishers.wake(|_| 4, &mut due);
        drop(due.take());
        assert_eq!(publishers.topics.values().map(VecDeque::len).sum::<usize>(), 1, "one needs more");
        publishers.wake(|_| u64::MAX, &mut due);
        drop(due.take());
        assert!(!publishers.any());
        // A wake-up that came before is not lost: none of these blocks for long.
        waiting[1..].iter().for_each(|(_, parker)| parker.park_for(Duration::MAX));
    }
}
