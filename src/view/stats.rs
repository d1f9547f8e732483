//! A snapshot of the store in numbers.
//!
//! What is counted is a snapshot: the lock is held while pointers are copied. Never here: decisions.

use super::{Counters, GroupCounters, Now, ViewHolder, VisibleEnds};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::log::Catalog;
use crate::record::Retention;
use crate::state::{GroupCounts, GroupData, HoldUp, KnownVerdicts, Snapshot, StreamTails};
use std::collections::BTreeMap;
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
    /// For how long its messages stay.
    pub retention: Retention,
    /// How many messages a group may have that it has not settled before the topic is full. Zero is no bound.
    pub max_messages: u64,
    /// Messages ever published to it.
    pub published: u64,
    /// Those of them that were published since this process opened the store, redriven ones included.
    pub published_since_open: u64,
    /// Messages that were published for later and are not due yet, which count as published only then.
    pub scheduled: u64,
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

/// A group in numbers. Every message of the group's topic from its start on is settled, ready, leased, waiting, exhausted, parked, or
/// waits for a sync.
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
    /// In a group with an order: messages that wait for others of their key or partition, as far as the group has looked at them.
    pub parked: u64,
    /// Dead letters that were neither redriven nor discarded.
    pub dead: u64,
    /// Messages that are not settled: ready, leased, waiting, exhausted, parked, and those that wait for a sync. Those that the group's
    /// filter was not asked about count as ready.
    pub lag: u64,
    /// Whether as many messages are outstanding (leased, waiting, or ready for a retry) as the group's `max_outstanding` allows: it gets
    /// no new ones until one of them is settled.
    pub at_cap: bool,
    /// Messages that went without a delivery to the group, for want of room ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)) or by their
    /// topic's retention, since the group was created.
    pub dropped: u64,
    /// Whether the group is paused: it gets no messages until it is resumed.
    pub paused: bool,
    /// Its filter, if it has one.
    pub filter: Option<String>,
    /// How long the message has been ready that has been so for longest: since it was published, its lease ended or its retry was due.
    /// `None` where none is ready or it could not be read. Where more than 4,096 messages would have to be read to know, an upper bound.
    pub oldest_ready_age: Option<Duration>,
    /// How long ago the oldest message was published, or redriven, that is not settled; it keeps its segment and later ones on the disk.
    /// `None` where all are settled or it could not be read. An upper bound in the same case.
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
    /// As [`GroupStats::parked`].
    pub parked: u64,
    /// As [`GroupStats::lag`].
    pub lag: u64,
}

/// The log in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Segments that hold a part of the log, and files of messages or dead letters in the place of others.
    pub segments: usize,
    /// Bytes of frames in them.
    pub bytes: u64,
    /// The end of the log: where the next frame goes.
    pub end: Lsn,
    /// Everything below this survives a power failure.
    pub durable: Lsn,
    /// How long ago the last sync completed, or `None` before the first of this process.
    pub last_sync_age: Option<Duration>,
    /// Bytes of messages that were copied since this process opened the store, so that the files in which they were could be removed.
    pub cleaned_bytes: u64,
    /// Files that were found to hold damage when they were to be cleaned, since this process opened the store: they stay as they are.
    pub damaged_files: usize,
}

/// How many messages one call reads for their ages. Beyond it an age is an upper bound, but where the wall clock jumped back.
const READS_MAX: usize = 4096;
/// How many places are looked for in one hold of the lock.
const LOOKS_AT_ONCE: usize = 128;

/// Messages of a group in one partition whose ages are wanted.
struct AgeQuery {
    topic: usize,
    group: usize,
    partition: PartitionId,
    ready: Option<Offset>,
    unsettled: Option<Offset>,
}

/// What there is to be counted, as it was at one time.
pub(crate) struct Moment {
    pub(crate) now: Now,
    pub(crate) state: Snapshot,
    pub(crate) visible: VisibleEnds,
    pub(crate) verdicts: KnownVerdicts,
    pub(crate) counters: Counters,
    pub(crate) catalog: Catalog,
    pub(crate) end: Lsn,
    pub(crate) last_sync: Option<MonoMs>,
    /// How many bytes were copied when files were cleaned, and how many files could not be.
    pub(crate) cleaned: (u64, usize),
}

impl Moment {
    /// All numbers. Reads messages through `holder`, for ages as of `wall`.
    pub(crate) fn stats(&self, holder: &impl ViewHolder, wall: WallMs) -> Stats {
        let mut looks = Vec::new();
        let mut stats = self.count(&mut looks);
        look_at_ages(holder, wall, &looks, &mut stats);
        stats
    }

    /// The numbers, but for the ages of messages that were never leased: those are to be looked for.
    fn count(&self, looks: &mut Vec<AgeQuery>) -> Stats {
        let mut topics: Vec<TopicStats> = Vec::new();
        let mut places = BTreeMap::new();
        for (id, topic) in self.state.topics() {
            places.insert(id, topics.len());
            let partition = |index| {
                let partition = topic.first.nth(index);
                let end = self.state.end(partition);
                PartitionStats { end: end.0, visible_end: self.visible.end(partition, end).0 }
            };
            let partitions: Vec<PartitionStats> = (0..topic.count).map(partition).collect();
            let published = partitions.iter().map(|partition| u128::from(partition.end)).sum();
            topics.push(TopicStats {
                name: topic.name.to_string(),
                retention: topic.options.retention,
                max_messages: topic.options.max_messages,
                published: published as u64,
                published_since_open: self.counters.published(id, published),
                scheduled: topic.schedule.map_or(0, |partition| self.state.scheduled(partition)),
                partitions,
                groups: Vec::new(),
            });
        }
        for (id, group) in self.state.groups() {
            let Some(&topic) = places.get(&group.topic) else { continue };
            let groups = &mut topics[topic].groups;
            let place = (topic, groups.len());
            groups.push(self.count_group(id, group, place, looks));
        }
        let segments = self.catalog.segments();
        let mono = self.now.mono;
        let log = LogStats {
            segments: segments.len(),
            bytes: segments.iter().map(|segment| segment.frames_len()).sum(),
            end: self.end,
            durable: self.now.watermark,
            last_sync_age: self.last_sync.map(|at| Duration::from_millis(mono.0.saturating_sub(at.0))),
            cleaned_bytes: self.cleaned.0,
            damaged_files: self.cleaned.1,
        };
        Stats { topics, log }
    }

    fn count_group(
        &self,
        id: GroupId,
        group: &GroupData,
        (topic, nth): (usize, usize),
        looks: &mut Vec<AgeQuery>,
    ) -> GroupStats {
        let streams = StreamTails::default();
        let inputs = self.now.inputs(HoldUp(0), &self.visible, (&streams, &self.verdicts));
        let mut partitions: Vec<GroupPartitionStats> = Vec::new();
        let mut ready_since = None;
        for (partition, counts) in self.state.counts((id, group), &inputs) {
            let GroupCounts { ready, leased, waiting, exhausted, parked, lag, first_ready, first_unsettled, .. } =
                counts;
            partitions.push(GroupPartitionStats { ready, leased, waiting, exhausted, parked, lag });
            ready_since = ready_since.into_iter().chain(counts.ready_since).min();
            if first_unsettled.is_some() {
                looks.push(AgeQuery { topic, group: nth, partition, ready: first_ready, unsettled: first_unsettled });
            }
        }
        let sum = |of: fn(&GroupPartitionStats) -> u64| partitions.iter().map(of).sum::<u64>();
        let (ready, leased, waiting) = (sum(|p| p.ready), sum(|p| p.leased), sum(|p| p.waiting));
        let (exhausted, parked, lag) = (sum(|p| p.exhausted), sum(|p| p.parked), sum(|p| p.lag));
        // The last is that of redriven messages, which belongs to no partition of the topic.
        partitions.pop();
        let wall = self.now.wall;
        GroupStats {
            name: group.name.to_string(),
            ready,
            leased,
            waiting,
            exhausted,
            parked,
            dead: self.state.dead_letters(group),
            lag,
            at_cap: self.state.is_at_cap(group),
            dropped: group.dropped(),
            paused: group.options.paused,
            filter: group.options.filter.as_ref().map(|filter| filter.text().to_owned()),
            oldest_ready_age: ready_since.map(|since| Duration::from_millis(wall.0.saturating_sub(since.0))),
            oldest_unsettled_age: None,
            since_open: self.counters.of_group(id),
            partitions,
        }
    }
}

/// How long ago the oldest of the messages were published that are looked for.
fn look_at_ages(holder: &impl ViewHolder, wall: WallMs, looks: &[AgeQuery], stats: &mut Stats) {
    let mut reads_left = READS_MAX;
    for of_group in looks.chunk_by(|one, other| (one.topic, one.group) == (other.topic, other.group)) {
        let Some(&AgeQuery { topic, group, .. }) = of_group.first() else { continue };
        let mut oldest = |wanted: fn(&AgeQuery) -> Option<Offset>| {
            let places = of_group.iter().filter_map(|look| Some((look.partition, wanted(look)?)));
            let since = oldest_time(holder, &places.collect::<Vec<_>>(), &mut reads_left)?;
            Some(Duration::from_millis(wall.0.saturating_sub(since.0)))
        };
        let (ready_age, unsettled_age) = (oldest(|look| look.ready), oldest(|look| look.unsettled));
        let group = &mut stats.topics[topic].groups[group];
        group.oldest_ready_age = group.oldest_ready_age.max(ready_age);
        group.oldest_unsettled_age = group.oldest_unsettled_age.max(unsettled_age);
    }
}

/// When the oldest of these messages was published. Where there are too many to be read, a time before that: a segment tells when
/// its first message of a partition came. One that was settled and unlinked meanwhile is of no interest.
fn oldest_time(holder: &impl ViewHolder, places: &[(PartitionId, Offset)], reads_left: &mut usize) -> Option<WallMs> {
    if let Some(left) = reads_left.checked_sub(places.len()) {
        *reads_left = left;
        let time = |&(partition, offset)| Some(holder.fetch(partition, offset).ok()?.about.time);
        return places.iter().filter_map(time).min();
    }
    // In several holds of the lock, so that none is long.
    let bounds = places.chunks(LOOKS_AT_ONCE).filter_map(|some| {
        holder.with_view(|view| {
            some.iter().filter_map(|&(partition, offset)| view.positions.time_before(partition, offset)).min()
        })
    });
    bounds.min()
}
