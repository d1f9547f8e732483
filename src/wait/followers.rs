//! Readers of the log, and the partitions that each of them has read to the end.
//!
//! A reader that finds nothing more in a partition *watches* it, under the lock under which it looked. The commit or sync that shows a
//! message there names the partition to each of its watchers, once, and calls the waker that a reader has left. So a reader learns where to look,
//! however many partitions there are. Never here: what may be seen.

use super::DueWakers;
use crate::ids::{PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

/// Names a reader while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FollowerId(u64);

/// All readers of a store.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    next: u64,
    readers: BTreeMap<FollowerId, Follower>,
    watched: BTreeSet<(PartitionId, FollowerId)>,
}

#[derive(Debug)]
struct Follower {
    topic: TopicId,
    /// Where something has appeared since the reader looked. Each partition at most once, for naming it ends the watch.
    fresh: Vec<PartitionId>,
    waker: Option<Waker>,
}

impl Followers {
    pub(super) fn any(&self) -> bool {
        !self.watched.is_empty()
    }

    pub(crate) fn enter(&mut self, topic: TopicId) -> FollowerId {
        let id = FollowerId(self.next);
        self.next += 1;
        self.readers.insert(id, Follower { topic, fresh: Vec::new(), waker: None });
        id
    }

    /// The reader goes away, and watches none of its partitions any more, which are all in the range.
    pub(crate) fn leave(&mut self, id: FollowerId, partitions: std::ops::Range<PartitionId>) {
        self.readers.remove(&id);
        let range = (partitions.start, FollowerId(0))..(partitions.end, FollowerId(0));
        let watched: Vec<_> = self.watched.range(range).filter(|(_, other)| *other == id).copied().collect();
        watched.iter().for_each(|watch| _ = self.watched.remove(watch));
    }

    pub(crate) fn watch(&mut self, id: FollowerId, partition: PartitionId) {
        self.watched.insert((partition, id));
    }

    /// Moves to `fresh` where something has appeared. The reader looks now, and need not be woken for it.
    pub(crate) fn take_fresh(&mut self, id: FollowerId, fresh: &mut Vec<PartitionId>) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.waker = None;
            fresh.append(&mut reader.fresh);
        }
    }

    /// Called once something appears in a partition that the reader watches, or it has to look for another reason.
    pub(crate) fn leave_waker(&mut self, id: FollowerId, waker: Waker) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.waker = Some(waker);
        }
    }

    /// Something may be seen in a partition that could not be before.
    pub(super) fn appeared(&mut self, partition: PartitionId, due: &mut DueWakers) {
        let range = (partition, FollowerId(0))..=(partition, FollowerId(u64::MAX));
        while let Some(watch) = self.watched.range(range.clone()).next().copied() {
            self.watched.remove(&watch);
            let Some(reader) = self.readers.get_mut(&watch.1) else { continue };
            reader.fresh.push(partition);
            // seam: a reader of the log is not woken
            reader.waker.take().into_iter().for_each(|waker| due.push(waker));
        }
    }

    /// Lets the readers look for which `wanted` holds.
    fn wake(&mut self, due: &mut DueWakers, wanted: impl Fn(&Follower) -> bool) {
        for reader in self.readers.values_mut().filter(|reader| wanted(reader)) {
            reader.waker.take().into_iter().for_each(|waker| due.push(waker));
        }
    }

    pub(super) fn wake_topic(&mut self, topic: TopicId, due: &mut DueWakers) {
        self.wake(due, |reader| reader.topic == topic);
    }

    pub(super) fn wake_all(&mut self, due: &mut DueWakers) {
        self.wake(due, |_| true);
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

    /// A reader is told of a partition once, however much appears there, and of none that it does not watch.
    #[test]
    fn a_reader_is_told_where_to_look() {
        let (mut followers, mut due) = (Followers::default(), DueWakers::default());
        let (one, other) = (followers.enter(TopicId(0)), followers.enter(TopicId(0)));
        let count = Arc::new(Count::default());
        for partition in 3..6 {
            followers.watch(one, PartitionId(partition));
        }
        followers.watch(other, PartitionId(4));
        followers.leave_waker(one, Arc::clone(&count).into());
        for partition in [4, 4, 5, 7] {
            followers.appeared(PartitionId(partition), &mut due);
        }
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "one wake-up, for the reader looks everywhere");
        let fresh = |followers: &mut Followers, id| {
            let mut fresh = Vec::new();
            followers.take_fresh(id, &mut fresh);
            fresh
        };
        assert_eq!(fresh(&mut followers, one), [PartitionId(4), PartitionId(5)]);
        assert_eq!(fresh(&mut followers, other), [PartitionId(4)]);
        assert_eq!(fresh(&mut followers, other), []);
        assert!(followers.any());
        followers.leave(one, PartitionId(3)..PartitionId(6));
        assert!(!followers.any() && followers.readers.len() == 1);
    }

    #[test]
    fn a_removal_and_an_end_wake_readers() {
        let (mut followers, mut due) = (Followers::default(), DueWakers::default());
        let count = Arc::new(Count::default());
        for topic in [1, 2] {
            let id = followers.enter(TopicId(topic));
            followers.leave_waker(id, Arc::clone(&count).into());
        }
        followers.wake_topic(TopicId(2), &mut due);
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        followers.wake_all(&mut due);
        drop(due.take());
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
