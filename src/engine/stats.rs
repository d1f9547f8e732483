//! A snapshot of the store in numbers.
//!
//! Counts come from the state under the lock; the age of the oldest ready message needs its time, read outside. Never
//! here: decisions.

use super::Engine;
use super::core::{Core, Now};
use crate::error::Result;
use crate::ids::{GroupId, Lsn, Offset, PartitionId};
use crate::state::{Group, GroupCounts, Topic};
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
    /// The same by partition of the topic.
    pub partitions: Vec<GroupPartitionStats>,
}

/// A group in one partition, in numbers. Redriven messages are in none of them, only in the group's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPartitionStats {
    /// As [`GroupStats::ready`].
    pub ready: u64,
    /// As [`GroupStats::leased`].
    pub leased: u64,
    /// As [`GroupStats::waiting`].
    pub waiting: u64,
    /// As [`GroupStats::lag`].
    pub lag: u64,
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
    /// The store in numbers. Holds the lock for as long as it takes to count topics, partitions and groups, and then reads
    /// the oldest ready message of each partition and group.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn stats(&self) -> Result<Stats> {
        self.enter()?;
        let mut oldest = Vec::new();
        let mut stats = self.count(&mut oldest);
        let wall = self.clock.wall();
        for Oldest { topic, group, partition, offset } in oldest {
            // The message may have been settled and unlinked meanwhile; then its age is of no interest.
            let Ok(stored) = self.fetch(partition, offset) else { continue };
            let age = Duration::from_millis(wall.0.saturating_sub(stored.about.time.0));
            let known = &mut stats.topics[topic].groups[group].oldest_ready_age;
            *known = Some(known.map_or(age, |other| other.max(age)));
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

    /// What the state keeps twice and does not agree upon: nothing, unless this code is wrong.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn violations(&self) -> Vec<String> {
        if self.is_forked() {
            return Vec::new();
        }
        self.lock_core().state.check().iter().map(|violation| format!("{violation:?}")).collect()
    }

    fn count(&self, oldest: &mut Vec<Oldest>) -> Stats {
        let now = self.now();
        let core = self.lock_core();
        let mut topics: Vec<TopicStats> = Vec::new();
        for (id, topic) in core.state.topics() {
            let partition_stats = |index| {
                let partition = topic.first.saturating_add(index);
                let end = core.state.partition_end(partition);
                PartitionStats { end: end.0, visible_end: core.visible.end(partition, end).0 }
            };
            let partitions: Vec<PartitionStats> = (0..topic.count).map(partition_stats).collect();
            let published = partitions.iter().map(|partition| partition.end).sum();
            let mut groups = Vec::new();
            let mut in_order: Vec<_> = core.state.groups_of(id).collect();
            in_order.sort_unstable_by_key(|(group_id, _)| *group_id);
            for (group_id, group) in in_order {
                let place = (topics.len(), groups.len());
                groups.push(core.count_group(topic, group_id, group, now, |partition, offset| {
                    oldest.push(Oldest { topic: place.0, group: place.1, partition, offset });
                }));
            }
            topics.push(TopicStats { name: topic.name.to_string(), published, partitions, groups });
        }
        let segments = core.catalog.segments();
        let log = LogStats {
            segments: segments.len(),
            bytes: segments.iter().map(|segment| segment.end().0.saturating_sub(segment.base().0)).sum(),
            end: core.appender.end(),
            durable: now.watermark,
            last_sync_age: core.last_sync.map(|at| Duration::from_millis(now.mono.0.saturating_sub(at.0))),
        };
        Stats { topics, log }
    }
}

/// A ready message whose age is to be read.
struct Oldest {
    topic: usize,
    group: usize,
    partition: PartitionId,
    offset: Offset,
}

impl Core {
    /// The group in numbers; tells `oldest` the first ready message of each partition.
    fn count_group(
        &self,
        topic: &Topic,
        id: GroupId,
        group: &Group,
        now: Now,
        mut oldest: impl FnMut(PartitionId, Offset),
    ) -> GroupStats {
        let inputs = self.inputs(now);
        let counts = |partition| self.state.partition_counts(id, partition, &inputs).unwrap_or_default();
        let mut partitions = Vec::new();
        for index in 0..topic.count {
            let counts = counts(topic.first.saturating_add(index));
            if let Some((partition, offset)) = counts.oldest_ready {
                oldest(partition, offset);
            }
            let GroupCounts { ready, leased, waiting, lag, .. } = counts;
            partitions.push(GroupPartitionStats { ready, leased, waiting, lag });
        }
        let redriven = counts(group.retry);
        if let Some((partition, offset)) = redriven.oldest_ready {
            oldest(partition, offset);
        }
        let sum = |of: fn(&GroupPartitionStats) -> u64| partitions.iter().map(of).sum::<u64>();
        GroupStats {
            name: group.name.to_string(),
            ready: sum(|p| p.ready) + redriven.ready,
            leased: sum(|p| p.leased) + redriven.leased,
            waiting: sum(|p| p.waiting) + redriven.waiting,
            dead: self.state.letter_count(id),
            lag: sum(|p| p.lag) + redriven.lag,
            oldest_ready_age: None,
            partitions,
        }
    }
}
