//! Folding records in.
//!
//! Each function first checks that its record follows from the state, then changes it; a record that does not follow
//! changes nothing. The monotonic time of a lease record is its end less the group's timeout, so that apply holds leases to
//! the same rules as the decision did. Where a rule is about which of several messages comes first, apply does not ask.
//! Never here: a choice.

mod lease;

use super::decide::check_options;
use super::exclusive::Place;
use super::group::Group;
use super::outstanding::{Lease, OutstandingEntry, Phase};
use super::{Inconsistent, Rejection, Removed, Role, State};
use crate::ids::{Epoch, GroupId, Lsn, Offset, PartitionId, TopicId, WallMs};
use crate::limits::{ERROR_TEXT_LEN_MAX, HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{Cause, Copied, Failure, GroupOptions, Record};
use std::sync::Arc;

type Applied = Result<(), Inconsistent>;

impl From<Rejection> for Inconsistent {
    fn from(rejection: Rejection) -> Self {
        Self(match rejection {
            Rejection::Invalid(reason) | Rejection::LimitReached(reason) => reason,
            Rejection::UnknownTopic => "there is no such topic",
            Rejection::UnknownGroup => "there is no such group",
            Rejection::UnknownPartition => "there is no such partition",
            Rejection::LeaseLost => "there is no such lease",
            Rejection::NoSuchDeadLetter => "there is no such dead letter",
            Rejection::TooManyRedrives => "a message was sent to topics too often",
            Rejection::Stale => "the message is not exhausted",
            Rejection::Exists => "the name is taken",
        })
    }
}

fn require(holds: bool, otherwise: &'static str) -> Applied {
    if holds { Ok(()) } else { Err(Inconsistent(otherwise)) }
}

/// One outstanding message, and where it stands.
#[derive(Clone, Copy)]
struct At<'a> {
    place: Place,
    group: &'a Group,
    cursor: u32,
    entry: &'a OutstandingEntry,
}

impl State {
    /// Folds in a record of the frame at `lsn`. On `Err` nothing was changed.
    pub(crate) fn apply(&mut self, record: &Record, lsn: Lsn) -> Result<(), Inconsistent> {
        let opened = self.epoch != Epoch(0) || matches!(record, Record::Opened { .. });
        require(opened, "a record before the store was ever opened")?;
        match record {
            Record::Published { partition, base, count, .. } => Ok(self.catalog.publish(*partition, *base, *count)?),
            Record::Leased { .. } => self.apply_leased(record, lsn),
            Record::Acked { group, partition, first, count } => self.apply_acked(*group, *partition, *first, *count),
            Record::Nacked { group, partition, offset, due, delay_ms, failure } => {
                self.apply_nacked((*group, *partition, *offset), (*due, *delay_ms), failure)
            }
            Record::Extended { group, partition, offset, until } => {
                self.apply_extended((*group, *partition, *offset), *until)
            }
            Record::Released { group, partition, offset } => self.apply_given_back((*group, *partition, *offset), None),
            Record::Unreadable { group, partition, offset, due, delay_ms } => {
                self.apply_given_back((*group, *partition, *offset), Some((*due, *delay_ms)))
            }
            Record::PutOff { group, partition, offset, due, delay_ms } => {
                self.apply_put_off((*group, *partition, *offset), (*due, *delay_ms))
            }
            Record::ExclusivePending { group, partition, offset, since } => {
                self.apply_exclusive_pending((*group, *partition, *offset), *since)
            }
            Record::DeadLettered { group, partition, offset, copy } => {
                self.apply_dead_lettered((*group, *partition, *offset), copy)
            }
            Record::Redriven { group, dead_letter, copy } => self.apply_redriven(*group, *dead_letter, copy),
            Record::Discarded { group, dead_letter } => self.apply_dead_letter_settled(*group, *dead_letter),
            Record::Opened { epoch, clean, wall } => self.apply_opened(*epoch, *clean, *wall),
            Record::ClockJumped { wall } => {
                self.groups.values_mut().for_each(|group| group.clamp(*wall));
                Ok(())
            }
            Record::TopicCreated { topic, name, first, count } => {
                self.check_new_topic(*topic, name, *first, *count)?;
                self.catalog.add_topic(name, *count);
                Ok(())
            }
            Record::TopicRemoved { topic } => self.apply_topic_removed(*topic),
            Record::GroupCreated { group, topic, name, options, retry, starts } => {
                self.check_new_group((*group, *topic), name, options, *retry, starts)?;
                self.apply_group_created((*group, *topic), name, options, *retry, starts)
            }
            Record::GroupRemoved { group } => self.apply_group_removed(*group),
            Record::GroupAltered { group, options } => {
                check_options(options)?;
                let group = self.groups.get_mut(group).ok_or(Rejection::UnknownGroup)?;
                // seam: an altered limit holds for what is out
                group.kept.options = options.clone();
                Ok(())
            }
        }
    }

    fn at(&self, (group, partition, offset): (GroupId, PartitionId, Offset)) -> Result<At<'_>, Inconsistent> {
        let place = Place { group, partition, offset };
        let group = self.group_named(group)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, offset).ok_or(Inconsistent("the message is not outstanding"))?;
        Ok(At { place, group, cursor, entry })
    }

    fn leased(&self, at: (GroupId, PartitionId, Offset)) -> Result<(At<'_>, Lease), Inconsistent> {
        let at = self.at(at)?;
        let lease = at.entry.lease().ok_or(Inconsistent("the message is not leased"))?;
        Ok((at, *lease))
    }

    /// Changes the message of `place`; everything has been checked.
    fn change(
        &mut self,
        place: Place,
        failure: Option<Failure>,
        change: impl FnOnce(&mut OutstandingEntry, u64),
    ) -> Applied {
        let group = self.groups.get_mut(&place.group).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(place.partition).ok_or(Rejection::UnknownPartition)?;
        group.change(cursor, place.offset, failure, change);
        group.tidy();
        self.exclusive.touched(place, 1);
        Ok(())
    }

    #[inline]
    fn apply_acked(&mut self, id: GroupId, partition: PartitionId, first: Offset, count: u32) -> Applied {
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(count > 0 && first.checked_add(u64::from(count)).is_some(), "an ack of no messages")?;
        let leased = group.leased_run(cursor, first, count, |_| true);
        require(leased == count, "an ack of a message that is not leased")?;
        group.settle(cursor, first, count);
        group.tidy();
        self.exclusive.touched(Place { group: id, partition, offset: first }, count);
        Ok(())
    }

    fn apply_nacked(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        (due, delay_ms): (WallMs, u64),
        failure: &Failure,
    ) -> Applied {
        let (At { place, entry, .. }, _) = self.leased(at)?;
        require(!entry.is_spent(), "a nack of the last attempt")?;
        let fits = failure.cause == Cause::Nacked && failure.text.len() <= ERROR_TEXT_LEN_MAX;
        require(fits && due == failure.time.saturating_add(delay_ms), "a nack whose parts contradict each other")?;
        self.change(place, Some(failure.clone()), |entry, turn| {
            entry.ended_otherwise(true);
            entry.phase = if delay_ms == 0 { Phase::Ready { turn } } else { Phase::Waiting { due, delay_ms } };
        })
    }

    /// A lease given back: its attempt is not charged.
    fn apply_given_back(&mut self, at: (GroupId, PartitionId, Offset), wait: Option<(WallMs, u64)>) -> Applied {
        let (At { place, .. }, _) = self.leased(at)?;
        require(wait.is_none_or(|(_, delay_ms)| delay_ms > 0), "an unreadable message that does not wait")?;
        self.change(place, None, |entry, turn| {
            entry.attempts = entry.attempts.saturating_sub(1);
            entry.phase = match wait {
                Some((due, delay_ms)) => Phase::Waiting { due, delay_ms },
                None => Phase::Ready { turn },
            };
        })
    }

    fn apply_put_off(&mut self, at: (GroupId, PartitionId, Offset), (due, delay_ms): (WallMs, u64)) -> Applied {
        let At { place, entry, .. } = self.at(at)?;
        require(entry.is_exhausted() && delay_ms > 0, "only an exhausted message is put off")?;
        let time = due.saturating_sub(delay_ms);
        let expired = entry.lease().map(|_| Failure { cause: Cause::Expired, time, text: Box::default() });
        self.change(place, expired, |entry, _| {
            entry.ended_otherwise(entry.lease().is_some());
            entry.phase = Phase::Waiting { due, delay_ms };
        })
    }

    fn check_copy(&self, copy: &Copied) -> Applied {
        let Copied { partition, offset, provenance, .. } = copy;
        let at_end = *offset == self.catalog.end(*partition) && offset.checked_add(1).is_some();
        require(at_end, "a copy that is not at the end of a partition")?;
        require(provenance.history.len() <= HISTORY_LEN, "a history is too long")?;
        require(provenance.origin.redrives <= REDRIVES_TO_TOPICS_MAX, "a message was sent to topics too often")
    }

    fn apply_dead_lettered(&mut self, at: (GroupId, PartitionId, Offset), copy: &Copied) -> Applied {
        let At { place, group, cursor, entry } = self.at(at)?;
        let may = entry.lease().is_some() || entry.is_exhausted();
        require(may, "a message is given up that could have another attempt")?;
        require(copy.partition == group.dead(), "a dead letter among others than its group's")?;
        self.check_copy(copy)?;
        self.catalog.add_copy(copy.partition);
        let group = self.groups.get_mut(&place.group).ok_or(Rejection::UnknownGroup)?;
        // seam: a dead letter stays in its partition
        group.settle(cursor, place.offset, 1);
        group.tidy();
        self.exclusive.touched(place, 1);
        Ok(())
    }

    fn apply_redriven(&mut self, group: GroupId, dead_letter: Offset, copy: &Copied) -> Applied {
        let to_topic = matches!(self.catalog.role(copy.partition), Some(Role::Topic { .. }));
        let to_group = copy.partition == self.group_of_dead_letter(group, dead_letter)?.retry;
        require(to_topic || to_group, "a dead letter is redriven to a place that is none")?;
        self.check_copy(copy)?;
        self.catalog.add_copy(copy.partition);
        self.apply_dead_letter_settled(group, dead_letter)
    }

    fn apply_dead_letter_settled(&mut self, group: GroupId, dead_letter: Offset) -> Applied {
        self.group_of_dead_letter(group, dead_letter)?;
        let group = self.groups.get_mut(&group).ok_or(Rejection::UnknownGroup)?;
        // seam: a redriven dead letter stays
        Arc::make_mut(&mut group.kept.dead_letters).insert(dead_letter);
        Ok(())
    }

    fn apply_opened(&mut self, epoch: Epoch, clean: bool, wall: WallMs) -> Applied {
        require(epoch > self.epoch, "an epoch is used only once")?;
        self.epoch = epoch;
        self.exclusive = super::exclusive::Exclusive::default();
        self.groups.values_mut().for_each(|group| group.reopen(clean, wall));
        Ok(())
    }

    fn apply_group_created(
        &mut self,
        (id, topic): (GroupId, TopicId),
        name: &str,
        options: &GroupOptions,
        retry: PartitionId,
        starts: &[Offset],
    ) -> Applied {
        let name: Arc<str> = name.into();
        let of = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        let group = Group::new(Arc::clone(&name), (topic, of), options.clone(), retry, starts.iter().copied());
        self.catalog.add_group(topic, &name);
        self.groups.insert(id, Box::new(group));
        Ok(())
    }

    fn apply_group_removed(&mut self, id: GroupId) -> Applied {
        let group = self.groups.remove(&id).ok_or(Rejection::UnknownGroup)?;
        self.catalog.remove_group(group.topic, &group.name, group.retry);
        // seam: a removed group is waited for
        self.exclusive.forget(id);
        let partitions = group.retry.0..group.retry.nth(2).0;
        self.removed.push(Removed { partitions, _group: Some(group) });
        Ok(())
    }

    fn apply_topic_removed(&mut self, topic: TopicId) -> Applied {
        let audience = self.catalog.audience(topic).ok_or(Rejection::UnknownTopic)?;
        let groups: Vec<GroupId> = audience.groups.values().copied().collect();
        groups.into_iter().try_for_each(|group| self.apply_group_removed(group))?;
        if let Some(partitions) = self.catalog.remove_topic(topic) {
            self.removed.push(Removed { partitions, _group: None });
        }
        Ok(())
    }
}

/// A run whose end has been checked to be an offset.
fn offsets(first: Offset, count: u32) -> impl Iterator<Item = Offset> {
    (first.0..first.0.saturating_add(u64::from(count))).map(Offset)
}
