//! What holders do with their messages, and what becomes of dead letters.
//!
//! Only a live token settles: the message is still under the lease that the token names, ended or not. Never here: a change
//! of the state.

use super::backoff;
use super::exclusive::Gate;
use super::group::Group;
use super::history::capped;
use super::outstanding::{Lease, OutstandingEntry, Phase};
use super::{Decision, Held, HeldRun, Inputs, Publication, Rejection, Role, State};
use crate::ids::{Epoch, GroupId, MessageId, MonoMs, Offset, PartitionId, TopicId, WallMs, hidden_index};
use crate::limits::{DURATION_MS_MAX, ERROR_TEXT_LEN_MAX, FRAME_PARTS_MAX, HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{Cause, Copied, Failure, Origin, Provenance, Record, Token};
use std::collections::BTreeSet;

/// A message that really is held.
struct Holding<'a> {
    group: &'a Group,
    entry: &'a OutstandingEntry,
    lease: &'a Lease,
}

impl OutstandingEntry {
    /// Whether it may have another lease now, as far as time goes.
    pub(super) fn is_due(&self, mono: MonoMs, wall: WallMs) -> bool {
        match self.phase {
            Phase::Leased(lease) => lease.until <= mono,
            Phase::Waiting { due, .. } => due <= wall,
            Phase::Ready { .. } => true,
        }
    }
}

impl Lease {
    /// Whether a token names this lease, which is one of this epoch.
    #[inline]
    fn is_named_by(&self, token: Token, epoch: Epoch) -> bool {
        // seam: a stale token is accepted
        token.epoch == epoch && token.lsn == self.lsn
    }
}

/// Acks on their way into records.
struct Ack<'a> {
    id: GroupId,
    group: &'a Group,
    epoch: Epoch,
    /// The records before are not of these acks.
    start: usize,
    records: &'a mut Vec<Record>,
    /// The numbers of those that are not held.
    lost: Vec<u32>,
}

impl Ack<'_> {
    /// Acks those of a run that are held; the first has this number.
    fn run(&mut self, number: u32, HeldRun { first, count }: HeldRun) {
        let Held { partition, offset, token } = first;
        let (group, epoch) = (self.group, self.epoch);
        let cursor = group.cursor_of(partition);
        let held_from = |nth: u32| {
            let first = offset.saturating_add(u64::from(nth));
            cursor.map_or(0, |at| group.leased_run(at, first, count - nth, |lease| lease.is_named_by(token, epoch)))
        };
        let mut nth = 0;
        while nth < count {
            let held = held_from(nth);
            let acked = held > 0 && self.push(partition, offset.saturating_add(u64::from(nth)), held);
            if !acked {
                self.lost.push(number + nth);
            }
            nth += held.max(1);
        }
    }

    /// Records acks, which come in order. `false` where it is a single one that was recorded already.
    fn push(&mut self, partition: PartitionId, first: Offset, count: u32) -> bool {
        if let Some(Record::Acked { partition: last, first: from, count: known, .. }) =
            self.records[self.start..].last_mut()
            && *last == partition
        {
            let ahead = first.0.saturating_sub(from.0);
            if ahead < u64::from(*known) {
                return false;
            }
            if ahead == u64::from(*known) {
                // seam: an ack of a run is lost
                *known += count;
                return true;
            }
        }
        self.records.push(Record::Acked { group: self.id, partition, first, count });
        true
    }
}

impl State {
    fn holding<'a>(&self, group: &'a Group, held: Held) -> Result<Holding<'a>, Rejection> {
        let cursor = group.cursor_of(held.partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, held.offset).ok_or(Rejection::LeaseLost)?;
        let lease = entry.lease().filter(|lease| lease.is_named_by(held.token, self.epoch));
        lease.map(|lease| Holding { group, entry, lease }).ok_or(Rejection::LeaseLost)
    }

    pub(super) fn decide_ack(
        &self,
        id: GroupId,
        held: &[HeldRun],
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let total: u64 = held.iter().map(|run| u64::from(run.count)).sum();
        if total > FRAME_PARTS_MAX as u64 {
            return Err(Rejection::LimitReached("messages in a batch"));
        }
        let mut ack = Ack { id, group, epoch: self.epoch, start: records.len(), records, lost: Vec::new() };
        let mut number = 0;
        let ends = |run: &HeldRun| (run.first.partition, run.first.offset.saturating_add(u64::from(run.count)));
        if held.is_sorted_by(|run, next| ends(run) <= (next.first.partition, next.first.offset)) {
            for &run in held {
                ack.run(number, run);
                number += run.count;
            }
        } else {
            // In another order a message may come twice; sorted, its second ack meets the first as the last run's end.
            let mut single = Vec::with_capacity(total as usize);
            for &HeldRun { first, count } in held {
                let offsets = (0..count).map(|nth| first.offset.saturating_add(u64::from(nth)));
                single.extend((number..).zip(offsets.map(|offset| Held { offset, ..first })));
                number += count;
            }
            single.sort_by_key(|(_, held)| (held.partition, held.offset));
            single.into_iter().for_each(|(number, held)| ack.run(number, held.into()));
            ack.lost.sort_unstable();
        }
        Ok(Decision::Settled { lost: ack.lost })
    }

    pub(super) fn decide_nack(
        &self,
        (id, held): (GroupId, Held),
        delay_ms: Option<u64>,
        text: &str,
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let Holding { group, entry, .. } = self.holding(self.group_named(id)?, held)?;
        let failure = Failure { cause: Cause::Nacked, time: inputs.wall_at_most(), text: capped(text).into() };
        if delay_ms.is_some_and(|delay| delay > DURATION_MS_MAX) {
            return Err(Rejection::Invalid("a delay is at most ten years"));
        }
        if entry.is_spent() {
            return self.move_to_dead_letters(
                (id, held.partition, held.offset),
                Some(failure),
                published,
                inputs,
                records,
            );
        }
        let backoff = group.options.backoff;
        let drawn = || backoff::delay_ms(backoff, held.partition, held.offset, entry.attempts);
        let delay_ms = delay_ms.unwrap_or_else(drawn);
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        let Held { partition, offset, .. } = held;
        records.push(Record::Nacked { group: id, partition, offset, due, delay_ms, failure });
        Ok(Decision::Done)
    }

    pub(super) fn decide_reject(
        &self,
        (id, held): (GroupId, Held),
        text: &str,
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        self.holding(self.group_named(id)?, held)?;
        let failure = Failure { cause: Cause::Rejected, time: inputs.wall_at_most(), text: capped(text).into() };
        self.move_to_dead_letters((id, held.partition, held.offset), Some(failure), published, inputs, records)
    }

    pub(super) fn decide_extend(
        &self,
        (id, held): (GroupId, Held),
        for_ms: u64,
        inputs: &Inputs<'_>,
    ) -> Result<Option<Record>, Rejection> {
        let Holding { lease, .. } = self.holding(self.group_named(id)?, held)?;
        if for_ms > DURATION_MS_MAX {
            return Err(Rejection::Invalid("a lease is extended by at most ten years"));
        }
        let until = inputs.mono_in(for_ms)?;
        // A lease that has ended may go on if nobody took the message: but not beside an exclusive lease, or as one.
        let ended = lease.until <= inputs.mono;
        if ended && (lease.exclusive || self.exclusive.gate(inputs.mono, inputs.hold_up) != Gate::Open) {
            return Err(Rejection::LeaseLost);
        }
        if until <= lease.until {
            return Ok(None);
        }
        Ok(Some(Record::Extended { group: id, partition: held.partition, offset: held.offset, until }))
    }

    pub(super) fn decide_release(
        &self,
        id: GroupId,
        held: &[HeldRun],
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let (mut released, mut lost) = (BTreeSet::new(), Vec::new());
        let all = held.iter().flat_map(|run| (0..run.count).map(|nth| run.nth(nth)));
        for (number, held) in (0..).zip(all) {
            match self.holding(group, held) {
                // A message that is named twice is held the first time.
                Ok(_) if released.insert((held.partition, held.offset)) => {}
                Ok(_) | Err(Rejection::LeaseLost) => lost.push(number),
                Err(rejection) => return Err(rejection),
            }
        }
        if released.len() > FRAME_PARTS_MAX {
            return Err(Rejection::LimitReached("messages in a batch"));
        }
        let record = |(partition, offset)| Record::Released { group: id, partition, offset };
        records.extend(released.into_iter().map(record));
        Ok(Decision::Settled { lost })
    }

    pub(super) fn decide_unreadable(
        &self,
        (id, held): (GroupId, Held),
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let Holding { group, .. } = self.holding(self.group_named(id)?, held)?;
        let delay_ms = backoff::deferral_ms(group.options.backoff);
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        Ok(Record::Unreadable { group: id, partition: held.partition, offset: held.offset, due, delay_ms })
    }

    /// The exhausted message at a place, if it is one and its time has come.
    fn exhausted(
        &self,
        (id, partition, offset): (GroupId, PartitionId, Offset),
        inputs: &Inputs<'_>,
    ) -> Result<(&Group, &OutstandingEntry), Rejection> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Rejection::Stale)?;
        let exhausted = entry.is_exhausted() && entry.is_due(inputs.mono, inputs.wall);
        if exhausted { Ok((group, entry)) } else { Err(Rejection::Stale) }
    }

    pub(super) fn decide_give_up(
        &self,
        at: (GroupId, PartitionId, Offset),
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let (_, entry) = self.exhausted(at, inputs)?;
        let expired = Failure { cause: Cause::Expired, time: inputs.wall_at_most(), text: Box::default() };
        self.move_to_dead_letters(at, entry.lease().map(|_| expired), published, inputs, records)
    }

    pub(super) fn decide_put_off(
        &self,
        at: (GroupId, PartitionId, Offset),
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let (group, _) = self.exhausted(at, inputs)?;
        let delay_ms = backoff::deferral_ms(group.options.backoff);
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        Ok(Record::PutOff { group: at.0, partition: at.1, offset: at.2, due, delay_ms })
    }

    /// One move: a copy to the dead letters, and the message is settled.
    fn move_to_dead_letters(
        &self,
        (id, partition, offset): (GroupId, PartitionId, Offset),
        last: Option<Failure>,
        published: Publication,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Rejection::Stale)?;
        let origin = self.origin((partition, offset), published).ok_or(Rejection::UnknownPartition)?;
        let provenance = Provenance { origin, attempts: entry.attempts, history: Group::failures(entry, last) };
        let copy = self.copy_to(group.dead(), provenance, inputs)?;
        records.push(Record::DeadLettered { group: id, partition, offset, copy });
        Ok(Decision::Done)
    }

    pub(super) fn decide_redrive(
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

    pub(super) fn decide_discard(&self, (id, dead_letter): (GroupId, Offset)) -> Result<Record, Rejection> {
        self.group_of_dead_letter(id, dead_letter)?;
        Ok(Record::Discarded { group: id, dead_letter })
    }

    /// The group of a dead letter that is not settled.
    pub(super) fn group_of_dead_letter(&self, id: GroupId, dead_letter: Offset) -> Result<&Group, Rejection> {
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
    fn public_place(&self, partition: PartitionId) -> Option<(TopicId, u64)> {
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
