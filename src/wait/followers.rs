//! Readers of the log, and where in their topics something has appeared.
//!
//! A topic that has readers notes each partition in which something may be seen that could not be before, in one list for all of them. A
//! reader goes through it under the lock, from where it came to last, and leaves a waker if it finds nothing. So what a publish costs does not
//! grow with the readers, but for those that it wakes. The list has a bound: a reader that was away for too long is told to look everywhere.
//! Never here: what may be seen.

use super::DueWakers;
use crate::ids::{PartitionId, TopicId};
use std::collections::BTreeMap;
use std::task::Waker;

/// How many notes a topic keeps.
const NOTES_MAX: usize = 1 << 16;

/// A reader, and how far it has gone through the notes of its topic.
#[derive(Debug)]
pub(crate) struct Follower {
    topic: TopicId,
    id: u64,
    seen: u64,
}

/// All readers of a store.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    next: u64,
    topics: BTreeMap<TopicId, Notes>,
}

/// Where in a topic that has readers something has appeared.
#[derive(Debug, Default)]
struct Notes {
    readers: usize,
    /// In order. The first note has the number `dropped`.
    list: Vec<PartitionId>,
    dropped: u64,
    /// Some reader has gone through all notes before this one.
    seen: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Notes {
    fn end(&self) -> u64 {
        self.dropped + self.list.len() as u64
    }

    fn note(&mut self, partition: PartitionId) {
        // One note says as much as two where nobody has come to the first.
        if self.list.last() == Some(&partition) && self.seen < self.end() {
            return;
        }
        // seam: notes of a topic have no bound
        if self.list.len() >= NOTES_MAX {
            self.dropped = self.end();
            self.list.clear();
        }
        self.list.push(partition);
    }

    fn wake(&mut self, due: &mut DueWakers) {
        self.wakers.drain(..).for_each(|(_, waker)| due.push(waker));
    }
}

impl Followers {
    pub(super) fn any(&self) -> bool {
        !self.topics.is_empty()
    }

    /// A reader that has looked nowhere.
    pub(crate) fn enter(&mut self, topic: TopicId) -> Follower {
        let notes = self.topics.entry(topic).or_default();
        notes.readers += 1;
        let id = self.next;
        self.next += 1;
        Follower { topic, id, seen: notes.end() }
    }

    pub(crate) fn leave(&mut self, follower: &Follower) {
        let Some(notes) = self.topics.get_mut(&follower.topic) else { return };
        notes.wakers.retain(|(id, _)| *id != follower.id);
        notes.readers -= 1;
        if notes.readers == 0 {
            self.topics.remove(&follower.topic);
        }
    }

    /// Shows `each` where something has appeared since the last call. The reader looks now, and need not be woken for it. `false` if it
    /// was away for too long: it may have appeared anywhere.
    pub(crate) fn take_notes(&mut self, follower: &mut Follower, each: impl FnMut(PartitionId)) -> bool {
        let Some(notes) = self.topics.get_mut(&follower.topic) else { return true };
        notes.wakers.retain(|(id, _)| *id != follower.id);
        let from = follower.seen.checked_sub(notes.dropped);
        follower.seen = notes.end();
        notes.seen = notes.end();
        // At most the number of notes.
        let Some(from) = from else { return false };
        notes.list.iter().skip(from as usize).copied().for_each(each);
        true
    }

    /// Called once something appears in the topic, or the reader has to look for another reason.
    pub(crate) fn leave_waker(&mut self, follower: &Follower, waker: Waker) {
        if let Some(notes) = self.topics.get_mut(&follower.topic) {
            notes.wakers.push((follower.id, waker));
        }
    }

    /// Something may be seen in a partition that could not be before.
    pub(super) fn appeared(&mut self, topic: TopicId, partition: PartitionId, due: &mut DueWakers) {
        let Some(notes) = self.topics.get_mut(&topic) else { return };
        notes.note(partition);
        // seam: a reader of the log is not woken
        notes.wake(due);
    }

    pub(super) fn wake_topic(&mut self, topic: TopicId, due: &mut DueWakers) {
        self.topics.get_mut(&topic).into_iter().for_each(|notes| notes.wake(due));
    }

    pub(super) fn wake_all(&mut self, due: &mut DueWakers) {
        self.topics.values_mut().for_each(|notes| notes.wake(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const TOPIC: TopicId = TopicId(0);

    fn notes(followers: &mut Followers, of: &mut Follower) -> Option<Vec<u64>> {
        let mut notes = Vec::new();
        followers.take_notes(of, |partition| notes.push(partition.0)).then_some(notes)
    }

    /// Each reader is told of what appeared since it looked last, and woken once for it.
    #[test]
    fn a_reader_is_told_where_to_look() {
        let (mut followers, mut due) = (Followers::default(), DueWakers::default());
        let (mut one, mut other) = (followers.enter(TOPIC), followers.enter(TOPIC));
        let count = Arc::new(Count::default());
        followers.leave_waker(&one, Arc::clone(&count).into());
        for partition in [4, 4, 5, 7] {
            followers.appeared(TOPIC, PartitionId(partition), &mut due);
        }
        followers.appeared(TopicId(1), PartitionId(9), &mut due);
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "one wake-up, for the reader looks everywhere");
        assert_eq!(notes(&mut followers, &mut one), Some(vec![4, 5, 7]));
        assert_eq!(notes(&mut followers, &mut one), Some(vec![]));
        // What appears again has to be told again, though the other has not come to the first.
        followers.appeared(TOPIC, PartitionId(7), &mut due);
        assert_eq!(notes(&mut followers, &mut one), Some(vec![7]));
        assert_eq!(notes(&mut followers, &mut other), Some(vec![4, 5, 7, 7]));
        let mut late = followers.enter(TOPIC);
        assert_eq!(notes(&mut followers, &mut late), Some(vec![]));
        [one, other].iter().for_each(|reader| followers.leave(reader));
        assert!(followers.any());
        followers.leave(&late);
        assert!(!followers.any(), "nothing is kept for readers that have left");
    }

    /// The list is one for all readers and has a bound. A reader that misses a part of it looks everywhere, once.
    #[test]
    fn a_reader_that_was_away_for_too_long_looks_everywhere() {
        let (mut followers, mut due) = (Followers::default(), DueWakers::default());
        let mut readers: Vec<Follower> = (0..20).map(|_| followers.enter(TOPIC)).collect();
        let appear = |followers: &mut Followers, due: &mut DueWakers, count: usize| {
            (0..count as u64).for_each(|partition| followers.appeared(TOPIC, PartitionId(partition), due));
            followers.topics[&TOPIC].list.len()
        };
        assert_eq!(appear(&mut followers, &mut due, NOTES_MAX), NOTES_MAX, "each noted once, for twenty readers");
        assert_eq!(notes(&mut followers, &mut readers[0]).unwrap().len(), NOTES_MAX);
        assert_eq!(appear(&mut followers, &mut due, 3), 3);
        assert_eq!(notes(&mut followers, &mut readers[0]), Some(vec![0, 1, 2]));
        assert_eq!(notes(&mut followers, &mut readers[1]), None);
        assert_eq!(notes(&mut followers, &mut readers[1]), Some(vec![]));
        appear(&mut followers, &mut due, 1);
        assert_eq!(notes(&mut followers, &mut readers[1]), Some(vec![0]));
    }

    #[test]
    fn a_removal_and_an_end_wake_readers() {
        let (mut followers, mut due) = (Followers::default(), DueWakers::default());
        let count = Arc::new(Count::default());
        for topic in [1, 2] {
            let reader = followers.enter(TopicId(topic));
            followers.leave_waker(&reader, Arc::clone(&count).into());
        }
        followers.wake_topic(TopicId(2), &mut due);
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        followers.wake_all(&mut due);
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
