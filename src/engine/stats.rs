//! A snapshot of the store in numbers.
//!
//! Counts come from the state under the lock; the age of the oldest ready message needs its time, read outside. Never
//! here: decisions.

use super::Engine;
use super::core::{Core, Now};
use super::counters::GroupCounters;
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
    /// Those of them that were published since this process opened the store, redriven ones included.
    pub published_since_open: u64,
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

/// A group in numbers. Every message of the group's topic from its start on is settled, ready, leased, waiting, exhausted, or waits for
/// a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Messages that a consumer could receive now, but for those above the group's `max_outstanding` (see [`GroupStats::at_cap`]).
    pub ready: u64,
    /// Messages with a consumer, under a lease that has not expired.
    pub leased: u64,
    /// Messages that wait for their retry.
    pub waiting: u64,
    /// Messages without another attempt, which become dead letters when a consumer asks, as far as there is room.
    pub exhausted: u64,
    /// Dead letters that were neither redriven nor discarded.
    pub dead: u64,
    /// Messages that are not settled: ready, leased, waiting, exhausted, and those that wait for a sync.
    pub lag: u64,
    /// Whether as many messages are outstanding (leased, waiting, or ready for a retry) as the group's `max_outstanding` allows: it gets
    /// no new ones until one of them is settled.
    pub at_cap: bool,
    /// How long the message has been ready that has been so for longest: since it was published, its lease ended or its retry was due.
    /// `None` where none is ready or it could not be read.
    pub oldest_ready_age: Option<Duration>,
    /// How long ago the oldest message was published, or redriven, that is not settled; it keeps its segment and later ones on the disk.
    /// `None` where all are settled or it could not be read.
    pub oldest_unsettled_age: Option<Duration>,
    /// What happened since this process opened the store.
    pub since_open: GroupCounters,
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
    /// As [`GroupStats::exhausted`].
    pub exhausted: u64,
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
        let mut looks = Vec::new();
        let mut stats = self.count(&mut looks);
        let wall = self.clock.wall();
        for Look { topic, group, ready, unsettled } in looks {
            // A message may have been settled and unlinked meanwhile; then its age is of no interest.
            let age = |(partition, offset)| {
                let stored = self.fetch(partition, offset).ok()?;
                Some(Duration::from_millis(wall.0.saturating_sub(stored.about.time.0)))
            };
            let ready_age = ready.and_then(age);
            let unsettled_age = if unsettled == ready { ready_age } else { unsettled.and_then(age) };
            let group = &mut stats.topics[topic].groups[group];
            group.oldest_ready_age = group.oldest_ready_age.max(ready_age);
            group.oldest_unsettled_age = group.oldest_unsettled_age.max(unsettled_age);
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

    fn count(&self, looks: &mut Vec<Look>) -> Stats {
        let now = self.now();
        let core = self.lock_core();
        let mut topics: Vec<TopicStats> = Vec::new();
        for (id, topic) in core.state.topics() {
            let partition_stats = |index| {
                let partition = topic.first.nth(index);
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
                groups.push(core.count_group(topic, group_id, group, now, |ready, unsettled| {
                    looks.push(Look { topic: place.0, group: place.1, ready, unsettled });
                }));
            }
            let published_since_open = core.counters.published(id);
            topics.push(TopicStats {
                name: topic.name.to_string(),
                published,
                published_since_open,
                partitions,
                groups,
            });
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

/// Messages of a group in one partition whose ages are to be read.
struct Look {
    topic: usize,
    group: usize,
    ready: Option<(PartitionId, Offset)>,
    unsettled: Option<(PartitionId, Offset)>,
}

impl Core {
    /// The group in numbers; tells `look` the first messages of each partition that are ready since they were published, and unsettled.
    fn count_group(
        &self,
        topic: &Topic,
        id: GroupId,
        group: &Group,
        now: Now,
        mut look: impl FnMut(Option<(PartitionId, Offset)>, Option<(PartitionId, Offset)>),
    ) -> GroupStats {
        let inputs = self.inputs(now);
        let mut ready_since = None;
        let mut counts = |partition| {
            let counts = self.state.partition_counts(id, partition, &inputs).unwrap_or_default();
            if counts.first_unsettled.is_some() {
                look(counts.first_ready, counts.first_unsettled);
            }
            ready_since = ready_since.into_iter().chain(counts.ready_since).min();
            counts
        };
        let partitions: Vec<GroupPartitionStats> = (0..topic.count)
            .map(|index| {
                let counts = counts(topic.first.nth(index));
                let GroupCounts { ready, leased, waiting, exhausted, lag, .. } = counts;
                GroupPartitionStats { ready, leased, waiting, exhausted, lag }
            })
            .collect();
        let redriven = counts(group.retry);
        let sum = |of: fn(&GroupPartitionStats) -> u64| partitions.iter().map(of).sum::<u64>();
        GroupStats {
            name: group.name.to_string(),
            ready: sum(|p| p.ready) + redriven.ready,
            leased: sum(|p| p.leased) + redriven.leased,
            waiting: sum(|p| p.waiting) + redriven.waiting,
            exhausted: sum(|p| p.exhausted) + redriven.exhausted,
            dead: self.state.letter_count(id),
            lag: sum(|p| p.lag) + redriven.lag,
            at_cap: self.state.is_at_cap(id),
            oldest_ready_age: ready_since.map(|since| Duration::from_millis(now.wall.0.saturating_sub(since.0))),
            oldest_unsettled_age: None,
            since_open: self.counters.of_group(id),
            partitions,
        }
    }
}
