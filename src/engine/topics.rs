//! Opening topics and groups: creating them, or finding them with options that do not contradict.
//!
//! Never here: names' syntax (the handles check that), messages.

use super::core::Core;
use super::deliver::end_of;
use super::read::Reader;
use super::{Engine, Refusal};
use crate::error::{Error, Result};
use crate::ids::{GroupId, Offset, PartitionId, TopicId, WallMs};
use crate::log::Parts;
use crate::record::GroupOptions;
use crate::state::{Command, Rejection};

/// A topic as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicInfo {
    pub(crate) id: TopicId,
    pub(crate) first: PartitionId,
    pub(crate) partitions: u32,
}

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
}

impl Engine {
    /// Finds the topic, or creates it with `partitions`. Durable on return.
    ///
    /// # Errors
    /// `LimitReached`; the store's.
    pub(crate) fn open_topic(&self, name: &str, partitions: u32) -> Result<TopicInfo> {
        self.enter()?;
        loop {
            if let Some(info) = self.topic(name) {
                return Ok(info);
            }
            let created = self.submit(&Command::CreateTopic { name, partitions }, Parts::default(), end_of);
            match created {
                Ok(end) => self.wait_durable(end)?,
                Err(Refusal::Rejected(Rejection::Exists)) => {}
                Err(refusal) => return Err(self.refused(refusal)),
            }
        }
    }

    /// Finds the topic.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn find_topic(&self, name: &str) -> Result<TopicInfo> {
        self.enter()?;
        self.topic(name).ok_or_else(|| Error::NotFound { what: "topic", name: name.to_owned() })
    }

    /// Finds the group.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub(crate) fn find_group(&self, topic: TopicId, name: &str) -> Result<GroupInfo> {
        self.enter()?;
        self.group(topic, name).ok_or_else(|| Error::NotFound { what: "group", name: name.to_owned() })
    }

    pub(crate) fn topic(&self, name: &str) -> Option<TopicInfo> {
        let core = self.lock_core();
        let id = core.state.topic_by_name(name)?;
        let topic = core.state.topic(id)?;
        Some(TopicInfo { id, first: topic.first, partitions: topic.count })
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
            let (starts, retirements) = self.starts(topic, begin)?;
            let command = Command::CreateGroup { topic: topic.id, name, options, starts: &starts };
            // The group must not begin at a message that went while its start was looked for.
            let stands = |core: &Core| core.retirements == retirements;
            match self.submit_if(stands, &command, Parts::default(), end_of) {
                Ok(Some(end)) => self.wait_durable(end)?,
                Ok(None) | Err(Refusal::Rejected(Rejection::Exists)) => {}
                Err(refusal) => return Err(self.refused(refusal)),
            }
        }
    }

    pub(crate) fn group(&self, topic: TopicId, name: &str) -> Option<GroupInfo> {
        let core = self.lock_core();
        let id = core.state.group_by_name(topic, name)?;
        let group = core.state.group(id)?;
        Some(GroupInfo { id, options: group.options.clone(), retry: group.retry, dead: group.dead() })
    }

    /// Where the group begins in each partition, as of so many retirements.
    fn starts(&self, topic: TopicInfo, begin: Begin) -> Result<(Vec<Offset>, u64)> {
        let partitions = (0..topic.partitions).map(|index| topic.first.saturating_add(index));
        let (ends, kept, retirements): (Vec<Offset>, Vec<Offset>, u64) = {
            let core = self.lock_core();
            let end = |partition| core.state.partition_end(partition);
            let kept = |partition| core.positions.kept_from(partition, end(partition));
            (partitions.clone().map(end).collect(), partitions.clone().map(kept).collect(), core.retirements)
        };
        let starts = match begin {
            Begin::Earliest => kept,
            Begin::Latest => ends,
            Begin::Offset(offset) => ends.into_iter().zip(kept).map(|(end, kept)| end.min(offset).max(kept)).collect(),
            Begin::Time(time) => {
                let first = |(partition, end)| self.first_at_or_after(partition, end, time);
                partitions.zip(ends).map(first).collect::<Result<_>>()?
            }
        };
        Ok((starts, retirements))
    }

    /// Halves the range of offsets until the first message at or after `time` is left. Where the wall clock jumped back,
    /// times are not in order, and any message with an earlier neighbour may be the answer. Messages that retention took
    /// count as earlier.
    fn first_at_or_after(&self, partition: PartitionId, end: Offset, time: WallMs) -> Result<Offset> {
        let (mut low, mut high) = (0, end.0);
        let mut reader = Reader::default();
        while low < high {
            let middle = low + (high - low) / 2;
            let located = self.lock_core().locate(partition, Offset(middle));
            let earlier = match located {
                Some(at) => {
                    let read = self.read(&mut reader, &at.segment, &at.place, 0, (partition, Offset(middle)))?;
                    read.about.time < time
                }
                None => true,
            };
            if earlier {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Offset(low))
    }
}
