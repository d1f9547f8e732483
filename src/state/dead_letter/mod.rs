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
use super::{Decision, Held, Inputs, Publication, Rejection, Role, Snapshot, State};
use crate::ids::{GroupId, MessageId, Offset, PartitionId, TopicId, hidden_index};
use crate::limits::{ERROR_TEXT_LEN_MAX, HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{AttemptFailure, Copied, FailureCause, Origin, Provenance, Record};

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
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let (_, entry) = self.exhausted(at, inputs)?;
        let expired =
            AttemptFailure { cause: FailureCause::Expired, time: inputs.wall_at_most(), text: Box::default() };
        self.move_to_dead_letters(at, entry.lease().map(|_| expired), published, inputs, records)
    }

    pub(in crate::state) fn decide_reject(
        &self,
        (id, held): (GroupId, Held),
        text: &str,
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        self.holding(self.group_named(id)?, held)?;
        let failure =
            AttemptFailure { cause: FailureCause::Rejected, time: inputs.wall_at_most(), text: capped(text).into() };
        self.move_to_dead_letters((id, held.partition, held.offset), Some(failure), published, inputs, records)
    }

    /// One move: a copy to the dead letters, and the message is settled.
    pub(in crate::state) fn move_to_dead_letters(
        &self,
        (id, partition, offset): (GroupId, PartitionId, Offset),
        last: Option<AttemptFailure>,
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Rejection::Stale)?;
        let origin = self.origin((partition, offset), published).ok_or(Rejection::UnknownPartition)?;
        let provenance = Provenance { origin, attempts: entry.attempts, history: GroupState::failures(entry, last) };
        let copy = self.copy_to(group.dead(), provenance, inputs)?;
        records.push(Record::DeadLettered { group: id, partition, offset, copy });
        Ok(Decision::Done)
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
    fn origin(&self, (partition, offset): (PartitionId, Offset), published: Publication) -> Option<Origin> {
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
        }
    }

    /// A copy at the end of a partition.
    fn copy_to(
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
