//! A snapshot of the store in numbers.
//!
//! Counts come from the state under the lock; the age of the oldest ready message needs its time, read outside. Never
//! here: decisions.

use super::Engine;
use crate::error::Result;
use crate::ids::{GroupId, Lsn, Offset, PartitionId, TopicId};
use crate::state::{GroupCounts, Inputs};
use std::time::Duration;

/// The store in numbers, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// All topics, in order of creation.
    pub topics: Vec<TopicStats>,
    /// The log under them.
    pub log: LogStats,
}

/// A topic in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStats {
    /// Its name.
    pub name: String,
    /// Messages ever published to it.
    pub published: u64,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionStats>,
    /// Its groups, in order of creation.
    pub groups: Vec<GroupStats>,
}

/// A partition in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStats {
    /// The offset that the next message gets: how many were ever published.
    pub end: u64,
    /// One past the last offset that may be delivered. In a store opened at `Disk` the ones above wait for a sync.
    pub visible_end: u64,
}

/// A group in numbers. Every message of the group's topic from its start on is settled, ready, leased or waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Messages that a consumer could receive now, or that are to be moved to the dead letters when one asks.
    pub ready: u64,
    /// Messages with a consumer, under a lease that has not expired.
    pub leased: u64,
    /// Messages that wait for their retry.
    pub waiting: u64,
    /// Dead letters that were neither redriven nor discarded.
    pub dead: u64,
    /// Messages that are not settled: ready, leased, waiting, and those that wait for a sync.
    pub lag: u64,
    /// How long ago the oldest ready message was published, or `None` where none is ready or it could not be read.
    pub oldest_ready_age: Option<Duration>,
}

/// The log in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Segments that hold a part of the log.
    pub segments: usize,
    /// Bytes of log in them.
    pub bytes: u64,
    /// The end of the log: where the next frame goes.
    pub end: Lsn,
    /// Everything below this survives a power cut.
    pub durable: Lsn,
    /// How long ago the last sync completed, or `None` before the first of this process.
    pub last_sync_age: Option<Duration>,
}

impl Engine {
    /// The store in numbers. Holds the lock for as long as it takes to count topics, partitions and groups.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn stats(&self) -> Result<Stats> {
        self.enter()?;
        let mut oldest: Vec<(usize, usize, PartitionId, Offset)> = Vec::new();
        let mut stats = self.count(&mut oldest);
        let wall = self.clock.wall();
        for (topic, group, partition, offset) in oldest {
            // The message may have been settled and unlinked meanwhile; then its age is of no interest.
            let age = self.fetch(partition, offset).ok().map(|stored| wall.0.saturating_sub(stored.time.0));
            stats.topics[topic].groups[group].oldest_ready_age = age.map(Duration::from_millis);
        }
        Ok(stats)
    }

    /// The fingerprint of the state, once all of it is in the log.
    ///
    /// # Errors
    /// The store's.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn state_hash(&self) -> Result<Option<u64>> {
        self.enter()?;
        let core = self.lock_core();
        Ok(core.unwritten_open.is_none().then(|| core.state.hash()))
    }

    fn count(&self, oldest: &mut Vec<(usize, usize, PartitionId, Offset)>) -> Stats {
        let now = self.now();
        let core = self.lock_core();
        let inputs = Inputs { mono: now.mono, wall: now.wall, visible: core.visible.as_input() };
        let mut topics = Vec::new();
        for (id, topic) in core.state.topics() {
            let partitions: Vec<PartitionStats> = (0..topic.count)
                .map(|index| {
                    let partition = topic.first.saturating_add(index);
                    let end = core.state.partition_end(partition);
                    PartitionStats { end: end.0, visible_end: core.visible.end(partition, end).0 }
                })
                .collect();
            let mut groups = Vec::new();
            for (group, name) in core.groups_of(id) {
                let counts = core.state.group_counts(group, &inputs).unwrap_or_default();
                oldest.extend(counts.oldest_ready.map(|(p, o)| (topics.len(), groups.len(), p, o)));
                groups.push(group_stats(name, &counts));
            }
            let published = partitions.iter().map(|partition| partition.end).sum();
            topics.push(TopicStats { name: topic.name.to_string(), published, partitions, groups });
        }
        let log = LogStats {
            segments: core.catalog.segments().len(),
            bytes: core.catalog.segments().iter().map(|segment| segment.end().0 - segment.base().0).sum(),
            end: core.appender.end(),
            durable: now.watermark,
            last_sync_age: core.last_sync.map(|at| Duration::from_millis(now.mono.0.saturating_sub(at.0))),
        };
        Stats { topics, log }
    }
}

impl super::core::Core {
    fn groups_of(&self, topic: TopicId) -> Vec<(GroupId, String)> {
        self.state.groups_of(topic).map(|(id, group)| (id, group.name.to_string())).collect()
    }
}

fn group_stats(name: String, counts: &GroupCounts) -> GroupStats {
    GroupStats {
        name,
        ready: counts.ready,
        leased: counts.leased,
        waiting: counts.waiting,
        dead: counts.dead,
        lag: counts.lag,
        oldest_ready_age: None,
    }
}
