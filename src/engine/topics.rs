//! Opening topics and groups: creating them, or finding them with options that do not contradict.
//!
//! Never here: names' syntax (the handles check that), messages.

use super::Engine;
use super::core::Core;
use super::deliver::settle::end_of;
use crate::error::{Error, Result};
use crate::ids::{GroupId, Offset, PartitionId, Position, TopicId, WallMs};
use crate::log::Parts;
use crate::record::{GroupOptions, TopicOptions};
use crate::state::{Command, GroupChanges, Rejection};
use crate::view::{LogStart, Reader, TopicInfo, View, ViewHolder, log_start, next_run};

/// A group as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct GroupInfo {
    pub(crate) id: GroupId,
    pub(crate) options: GroupOptions,
    /// The hidden partitions, of redriven messages and of dead letters.
    pub(crate) retry: PartitionId,
    pub(crate) dead: PartitionId,
}

/// Where a group begins in each partition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    Earliest,
    Latest,
    Offset(Offset),
    /// The first message at or after this time.
    Time(WallMs),
    /// Behind the message at this position of the log.
    After(Position),
}

/// Where that is.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Starts {
    /// By partition: the place that was asked for, or the start if that comes first. Of what is between them some messages are gone.
    pub(in crate::engine) from: Vec<Offset>,
    /// By partition: from here on none is gone.
    pub(in crate::engine) offsets: Vec<Offset>,
    /// How many messages are between a place that was asked for by name and the start.
    pub(in crate::engine) missing: u64,
}

impl Engine {
    /// Finds the topic, or creates it so. Durable on return.
    ///
    /// # Errors
    /// `LimitReached`; the store's.
    pub(crate) fn open_topic(&self, name: &str, partitions: u32, options: TopicOptions) -> Result<TopicInfo> {
        self.enter()?;
        loop {
            if let Some(info) = self.topic(name) {
                return Ok(info);
            }
            let created = self.submit(&Command::CreateTopic { name, partitions, options }, Parts::default(), end_of)?;
            match created {
                Ok(end) => self.wait_durable(end)?,
                Err(Rejection::Exists) => {}
                Err(rejection) => return Err(self.rejected(rejection)),
            }
        }
    }

    /// Finds the topic.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn find_topic(&self, name: &str) -> Result<TopicInfo> {
        self.enter()?;
        self.topic(name).ok_or_else(|| not_found("topic", name))
    }

    /// Finds the group.
    ///
    /// # Errors
    /// `NotFound`; `Removed` where the topic was; the store's.
    pub(crate) fn find_group(&self, topic: TopicId, name: &str) -> Result<GroupInfo> {
        self.enter()?;
        let found = self.group(topic, name);
        if found.is_none() && self.lock_core().view.state.topic(topic).is_none() {
            return Err(Error::Removed { what: "topic" });
        }
        found.ok_or_else(|| not_found("group", name))
    }

    /// The name of a topic, for an error. Empty if it was removed.
    pub(super) fn topic_name(&self, topic: TopicId) -> String {
        self.lock_core().view.state.topic(topic).map(|topic| topic.name.to_string()).unwrap_or_default()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.lock_core().view.topic_info(name)
    }

    /// Finds the group, or creates it. Durable on return: every message that comes after is for it.
    ///
    /// # Errors
    /// `LimitReached`; the store's; what reading for `Begin::Time` says.
    pub(crate) fn open_group(
        &self,
        topic: TopicInfo,
        name: &str,
        options: &GroupOptions,
        begin: Begin,
    ) -> Result<GroupInfo> {
        self.enter()?;
        loop {
            if let Some(info) = self.group(topic.id, name) {
                return Ok(info);
            }
            // The group must not begin at a message that went while its start was looked for.
            let pin = (!matches!(begin, Begin::Latest)).then(|| self.maintenance.pin());
            let Starts { offsets, .. } = self.starts(topic, begin)?;
            let command = Command::CreateGroup { topic: topic.id, name, options, starts: &offsets };
            let created = self.submit(&command, Parts::default(), end_of);
            drop(pin);
            match created? {
                Ok(end) => self.wait_durable(end)?,
                Err(Rejection::Exists) => {}
                Err(rejection) => return Err(self.rejected(rejection)),
            }
        }
    }

    /// Removes the topic of this name, with its groups and all that they have in progress. Durable on return.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn remove_topic(&self, name: &str) -> Result<()> {
        let TopicInfo { id, .. } = self.find_topic(name)?;
        match self.remove(&Command::RemoveTopic { topic: id }) {
            Err(Error::Removed { .. }) => Err(not_found("topic", name)),
            other => other,
        }
    }

    /// Removes the group of this name, with all that it has in progress. Durable on return.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn remove_group(&self, topic: TopicId, name: &str) -> Result<()> {
        let GroupInfo { id, .. } = self.find_group(topic, name)?;
        match self.remove(&Command::RemoveGroup { group: id }) {
            Err(Error::Removed { .. }) => Err(not_found("group", name)),
            other => other,
        }
    }

    fn remove(&self, command: &Command<'_>) -> Result<()> {
        let removed = self.submit(command, Parts::default(), |core, committed| {
            let Core { rates, view, .. } = core;
            rates.keep(|group| view.state.group(group).is_some());
            let View { state, verdicts, .. } = view;
            verdicts.keep(|group| state.group(group).is_some());
            let removed = state.take_removed();
            (end_of(core, committed), removed)
        })?;
        let (end, removed) = removed.map_err(|rejection| self.rejected(rejection))?;
        // Freed outside the lock.
        drop(removed);
        // seam: a removal does not wait
        self.wait_durable(end)
    }

    /// Changes options of the group. Durable on return.
    ///
    /// # Errors
    /// `Removed`; the store's.
    pub(crate) fn alter_group(&self, group: GroupId, changes: &GroupChanges) -> Result<()> {
        self.enter()?;
        let mono = self.now().mono;
        let end = self.submit(&Command::AlterGroup { group, changes }, Parts::default(), |core, committed| {
            if changes.rate.is_some() {
                let rate = core.rate_of(group);
                core.rates.change(group, rate, mono);
            }
            end_of(core, committed)
        })?;
        self.wait_durable(end.map_err(|rejection| self.rejected(rejection))?)
    }

    /// How long a lease of the group lasts.
    ///
    /// # Errors
    /// `Removed`.
    pub(crate) fn visibility_timeout_ms(&self, group: GroupId) -> Result<u64> {
        let core = self.lock_core();
        let group = core.view.state.group(group).ok_or(Error::Removed { what: "group" })?;
        Ok(group.options.visibility_timeout_ms)
    }

    /// The options of the group of this name, if it is there.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn stored_options(&self, topic: TopicId, name: &str) -> Result<Option<GroupOptions>> {
        self.enter()?;
        Ok(self.group(topic, name).map(|group| group.options))
    }

    pub(crate) fn group(&self, topic: TopicId, name: &str) -> Option<GroupInfo> {
        let core = self.lock_core();
        let id = core.view.state.group_by_name(topic, name)?;
        let group = core.view.state.group(id)?;
        Some(GroupInfo { id, options: group.options.clone(), retry: group.retry, dead: group.dead() })
    }

    /// Where the group begins in each partition. Segments must be pinned.
    ///
    /// # Errors
    /// `InvalidPosition`; `Unreadable`; what reading an index says; the store's.
    pub(in crate::engine) fn starts(&self, topic: TopicInfo, begin: Begin) -> Result<Starts> {
        let all = std::iter::repeat(Offset(0));
        Ok(match begin {
            Begin::Latest => {
                let ends = self.look_at_each(topic, |core, partition, _| core.view.state.partition_end(partition));
                Starts { from: ends.clone(), offsets: ends, missing: 0 }
            }
            // seam: a group begins at the end
            Begin::Earliest => Starts { missing: 0, ..Starts::within(&self.kept_messages(topic)?, all) },
            Begin::Offset(offset) => Starts::within(&self.kept_messages(topic)?, std::iter::repeat(offset)),
            Begin::Time(time) => {
                let kept = self.kept_messages(topic)?;
                let offsets = self.first_at_or_after(topic, kept.clone(), time)?;
                // What is before all that is kept may have been published then.
                let of_start = |(start, kept): (&Offset, &(Offset, Offset))| {
                    if *start == kept.0 { Offset(0) } else { *start }
                };
                Starts { from: offsets.iter().zip(&kept).map(of_start).collect(), offsets, missing: 0 }
            }
            Begin::After(position) => {
                let nexts = log_start::nexts(self, topic, LogStart::After(position))?;
                Starts::within(&self.kept_messages(topic)?, nexts)
            }
        })
    }

    /// The messages of each partition from the first on from which on none is missing: that one, and the end.
    fn kept_messages(&self, topic: TopicInfo) -> Result<Vec<(Offset, Offset)>> {
        let kept = self.look_at_each(topic, |core, partition, looked_at| {
            let end = core.view.state.partition_end(partition);
            let from = core.view.positions.kept_from(partition, end, looked_at);
            let from = from.max(core.view.state.dropped_before(partition));
            (from, end, core.view.cleaned_shares(partition, from))
        });
        let (mut reader, mut found) = (Reader::default(), Vec::with_capacity(kept.len()));
        for (index, (from, end, cleaned)) in (0..).zip(kept) {
            let kept = self.behind_gaps(&mut reader, topic.first.nth(index), from, &cleaned)?;
            found.push((kept.min(end), end));
        }
        Ok(found)
    }

    /// The first message from which on none is missing, of those from `from` on that are all there but for what was cleaned away: files of a
    /// class, which have the shares `cleaned`, lack what nobody wanted.
    fn behind_gaps(
        &self,
        reader: &mut Reader,
        partition: PartitionId,
        from: Offset,
        cleaned: &[(Offset, Offset)],
    ) -> Result<Offset> {
        let mut kept = from;
        for (first, end) in cleaned {
            let mut next = from.max(*first);
            while next < *end {
                let run = next_run(self, reader, partition, next)?;
                let first = run.map_or(*end, |run| run.first);
                // seam: a group begins in a gap
                if first > next {
                    kept = first;
                }
                next = run.map_or(*end, |run| run.end());
            }
        }
        Ok(kept)
    }

    /// What `look` says of each partition of the topic, in several holds of the lock: each ends when as much was looked at as
    /// may be in one.
    pub(super) fn look_at_each<T>(
        &self,
        topic: TopicInfo,
        look: impl Fn(&Core, PartitionId, &mut usize) -> T,
    ) -> Vec<T> {
        let mut found = Vec::with_capacity(topic.partitions as usize);
        let mut left = (0..topic.partitions).map(|index| topic.first.nth(index)).peekable();
        while left.peek().is_some() {
            let core = self.lock_core();
            let mut looked_at = 0;
            while looked_at < LOOKED_AT_MAX
                && let Some(partition) = left.next()
            {
                looked_at += 1;
                found.push(look(&core, partition, &mut looked_at));
            }
        }
        found
    }

    /// Halves the ranges of offsets, each of a partition, until of each the first message at or after `time` is left. Where the
    /// wall clock jumped back, times are not in order, and any message with an earlier neighbour may be the answer.
    fn first_at_or_after(
        &self,
        topic: TopicInfo,
        mut ranges: Vec<(Offset, Offset)>,
        time: WallMs,
    ) -> Result<Vec<Offset>> {
        let mut reader = Reader::default();
        // All ranges are halved before one is again: what was published together stands together.
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            for ((low, high), index) in ranges.iter_mut().zip(0..).filter(|((low, high), _)| low < high) {
                goes_on = true;
                let middle = Offset(low.0 + (high.0 - low.0) / 2);
                let partition = topic.first.nth(index);
                let located = self.lock_core().view.locate(partition, middle);
                let earlier = match located {
                    Some(at) => {
                        self.read(&mut reader, &at.segment, &at.place, 0, (partition, middle))?.about.time < time
                    }
                    None => true,
                };
                if earlier {
                    *low = middle.saturating_add(1);
                } else {
                    *high = middle;
                }
            }
        }
        Ok(ranges.into_iter().map(|(low, _)| low).collect())
    }
}

impl Starts {
    /// The offsets that are asked for, in partitions of which so much is kept.
    fn within(kept: &[(Offset, Offset)], asked: impl IntoIterator<Item = Offset>) -> Self {
        let mut starts = Self { from: Vec::new(), offsets: Vec::new(), missing: 0 };
        for ((from, end), asked) in kept.iter().zip(asked) {
            // seam: a group goes on in a gap
            let start = asked.min(*end).max(*from);
            starts.from.push(asked.min(start));
            starts.offsets.push(start);
            starts.missing = starts.missing.saturating_add(start.0.saturating_sub(asked.0));
        }
        starts
    }
}

fn not_found(what: &'static str, name: &str) -> Error {
    Error::NotFound { what, name: name.to_owned() }
}

/// How much is looked at in one hold of the lock: partitions, and their shares of segments.
pub(super) const LOOKED_AT_MAX: usize = 1024;
