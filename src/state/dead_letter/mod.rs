//! Dead letters: how a message gets there, and what becomes of it.
//!
//! A move is one record with its copy, so that a message is in one place.

mod apply;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use snapshot::{decode, encode};

use super::group::{GroupData, GroupState};
use super::lease::OutstandingEntry;
use super::retry::capped;
use super::topic::TopicState;
use super::{Decision, Held, Inputs, Moving, Notice, Publication, Rejection, Role, Snapshot, State};
use crate::ids::{GroupId, MessageId, Offset, PartitionId, SCHEDULE_INDEX, TopicId, hidden_index};
use crate::limits::{ERROR_TEXT_LEN_MAX, HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{AttemptFailure, Copied, FailureCause, Origin, Provenance, Record};
use std::sync::Arc;

/// A message that is about to move to the dead letters.
#[derive(Debug)]
pub(crate) struct Dying {
    pub(crate) id: MessageId,
    pub(crate) attempts: u32,
    pub(crate) cause: FailureCause,
    pub(crate) text: Box<str>,
}

impl State {
    /// The first `max` dead letters from `from` on that are not settled, in order.
    pub(crate) fn dead_letters(&self, group: GroupId, from: Offset, max: usize) -> Vec<Offset> {
        let Some(group) = self.group(group) else { return Vec::new() };
        group.dead_letters.missing(from, self.catalog.end(group.dead())).take(max).collect()
    }

    /// The exhausted message at a place, if it is one and its time has come.
    pub(in crate::state) fn exhausted(
        &self,
        (id, partition, offset): (GroupId, PartitionId, Offset),
        inputs: &Inputs<'_>,
    ) -> Result<(&GroupState, &OutstandingEntry), Rejection> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Rejection::Stale)?;
        let exhausted = entry.is_exhausted() && entry.is_due(inputs.mono, inputs.wall);
        if exhausted { Ok((group, entry)) } else { Err(Rejection::Stale) }
    }

    pub(in crate::state) fn decide_give_up(
        &self,
        at: (GroupId, PartitionId, Offset),
        moving: Moving,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let (_, entry) = self.exhausted(at, inputs)?;
        let expired =
            AttemptFailure { cause: FailureCause::Expired, time: inputs.wall_at_most(), text: Box::default() };
        self.move_to_dead_letters(at, entry.lease().map(|_| expired), moving, inputs, records)
    }

    pub(in crate::state) fn decide_reject(
        &self,
        (id, held): (GroupId, Held),
        text: &str,
        moving: Moving,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        self.holding(self.group_named(id)?, held)?;
        let failure =
            AttemptFailure { cause: FailureCause::Rejected, time: inputs.wall_at_most(), text: capped(text).into() };
        self.move_to_dead_letters((id, held.partition, held.offset), Some(failure), moving, inputs, records)
    }

    /// One move: a copy to the dead letters, and the message is settled.
    pub(in crate::state) fn move_to_dead_letters(
        &self,
        (id, partition, offset): (GroupId, PartitionId, Offset),
        last: Option<AttemptFailure>,
        moving: Moving,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Rejection::Stale)?;
        let origin = self.origin((partition, offset), moving.published).ok_or(Rejection::UnknownPartition)?;
        let (history, earlier) = GroupState::failures(entry, last);
        let provenance = Provenance { origin, attempts: entry.attempts, history, earlier };
        let copy = self.copy_to(group.dead(), provenance, inputs)?;
        records.push(Record::DeadLettered { group: id, partition, offset, copy });
        records.extend(self.decide_notice(group, moving.notice, inputs)?);
        Ok(Decision::Done)
    }

    /// The message that tells of a move, if the group asks for one.
    fn decide_notice(
        &self,
        group: &GroupState,
        notice: Notice,
        inputs: &Inputs<'_>,
    ) -> Result<Option<Record>, Rejection> {
        let asked = self.notices_to(group).map(|(topic, _)| topic);
        match (notice, asked) {
            (Notice::Never, _) | (Notice::Unasked, None) => Ok(None),
            (Notice::Into(partition), Some(asked)) if self.topic_of(partition) == Some(asked) => {
                let base = self.catalog.end(partition);
                self.catalog.check_published(partition, base, 1)?;
                Ok(Some(Record::Published { partition, base, count: 1, time: inputs.wall }))
            }
            (Notice::Unasked, Some(_)) | (Notice::Into(_), _) => Err(Rejection::NoticeDue),
        }
    }

    fn notices_to(&self, group: &GroupState) -> Option<(TopicId, &TopicState)> {
        let topic = group.options.notices?;
        Some((topic, self.topic(topic)?))
    }

    /// The names of a group's topic and of the group, and the topic that its notices go to. `None` if it asks for none.
    pub(crate) fn notice_topic(&self, id: GroupId) -> Option<(&Arc<str>, &Arc<str>, &TopicState)> {
        let group = self.group(id)?;
        let (_, to) = self.notices_to(group)?;
        Some((&self.topic(group.topic)?.name, &group.name, to))
    }

    fn topic_of(&self, partition: PartitionId) -> Option<TopicId> {
        match self.catalog.role(partition)? {
            Role::Topic { topic, .. } => Some(topic),
            Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. } | Role::Schedule { .. } => None,
        }
    }

    /// An outstanding message, for a notice of its move: its public id, its attempts, and how the last one ended, as of now.
    pub(crate) fn dying(&self, at: (GroupId, PartitionId, Offset), published: Publication) -> Option<Dying> {
        let group = self.group(at.0)?;
        let entry = group.entry(group.cursor_of(at.1)?, at.2)?;
        let last = entry.history.as_ref().and_then(|history| history.past.last());
        // A lease that has not ended yet ends by its timeout.
        let last = last.filter(|_| entry.lease().is_none()).map(|past| &past.failure);
        Some(Dying {
            id: self.origin((at.1, at.2), published)?.id,
            attempts: entry.attempts,
            cause: last.map_or(FailureCause::Expired, |failure| failure.cause),
            text: last.map_or_else(Box::default, |failure| failure.text.clone()),
        })
    }

    pub(in crate::state) fn decide_redrive(
        &self,
        (id, dead_letter): (GroupId, Offset),
        to: Option<PartitionId>,
        provenance: &Provenance,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_of_dead_letter(id, dead_letter)?;
        let to = to.unwrap_or(group.retry);
        let is_topic = matches!(self.catalog.role(to), Some(Role::Topic { .. }));
        if to != group.retry && !is_topic {
            return Err(Rejection::UnknownPartition);
        }
        let fits = provenance.history.iter().all(|failure| failure.text.len() <= ERROR_TEXT_LEN_MAX);
        if provenance.history.len() > HISTORY_LEN || !fits {
            return Err(Rejection::Invalid("a history is too long"));
        }
        let mut provenance = provenance.clone();
        // seam: redrives to topics are not counted
        if is_topic {
            let redrives = provenance.origin.redrives.checked_add(1).filter(|count| *count <= REDRIVES_TO_TOPICS_MAX);
            provenance.origin.redrives = redrives.ok_or(Rejection::TooManyRedrives)?;
        }
        records.push(Record::Redriven { group: id, dead_letter, copy: self.copy_to(to, provenance, inputs)? });
        Ok(Decision::Done)
    }

    pub(in crate::state) fn decide_discard(&self, (id, dead_letter): (GroupId, Offset)) -> Result<Record, Rejection> {
        self.group_of_dead_letter(id, dead_letter)?;
        Ok(Record::Discarded { group: id, dead_letter })
    }

    /// The group of a dead letter that is not settled.
    pub(in crate::state) fn group_of_dead_letter(
        &self,
        id: GroupId,
        dead_letter: Offset,
    ) -> Result<&GroupState, Rejection> {
        let group = self.group_named(id)?;
        let exists = dead_letter < self.catalog.end(group.dead()) && !group.dead_letters.contains(dead_letter);
        if exists { Ok(group) } else { Err(Rejection::NoSuchDeadLetter) }
    }

    /// The first publish of a message, by its public id.
    pub(in crate::state) fn origin(
        &self,
        (partition, offset): (PartitionId, Offset),
        published: Publication,
    ) -> Option<Origin> {
        match published {
            Publication::Elsewhere(origin) => Some(origin),
            Publication::Here { epoch, time } => {
                let (topic, partition) = self.public_place(partition)?;
                Some(Origin { id: MessageId { topic, partition, epoch, offset }, time, redrives: 0 })
            }
        }
    }

    /// A partition's topic and its index there.
    pub(crate) fn public_place(&self, partition: PartitionId) -> Option<(TopicId, u64)> {
        let hidden = |group: GroupId, nth| {
            let topic = self.group(group)?.topic;
            Some((topic, hidden_index(self.topic(topic)?.count, group).saturating_add(nth)))
        };
        match self.catalog.role(partition)? {
            Role::Topic { topic, index } => Some((topic, u64::from(index))),
            Role::Retry { group } => hidden(group, 0),
            Role::Dead { group } => hidden(group, 1),
            Role::Notes { topic } => Some((topic, u64::MAX)),
            Role::Schedule { topic } => Some((topic, SCHEDULE_INDEX)),
        }
    }

    /// A copy at the end of a partition.
    pub(in crate::state) fn copy_to(
        &self,
        partition: PartitionId,
        provenance: Provenance,
        inputs: &Inputs<'_>,
    ) -> Result<Box<Copied>, Rejection> {
        let offset = self.catalog.end(partition);
        if offset.checked_add(1).is_none() {
            return Err(Rejection::LimitReached("messages in a partition"));
        }
        Ok(Box::new(Copied { partition, offset, time: inputs.wall, provenance }))
    }
}

impl Snapshot {
    /// How many dead letters the group has that are not settled.
    pub(crate) fn dead_letters(&self, group: &GroupData) -> u64 {
        self.end(group.dead()).0.saturating_sub(group.dead_letters.len())
    }
}
