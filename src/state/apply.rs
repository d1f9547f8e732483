//! Folding records in.
//!
//! Each function first checks that its record follows from the state, then changes it; a record that does not follow
//! changes nothing. The monotonic time of a lease record is its end less the group's timeout, so that apply holds leases to
//! the same rules as the decision did. Where a rule is about which of several messages comes first, apply does not ask.
//! Never here: a choice.

mod lease;

use super::group::Group;
use super::lone::Place;
use super::outstanding::{Lease, Phase, Slot};
use super::queue::Class;
use super::{Inconsistent, Rejection, Role, State};
use crate::ids::{Epoch, GroupId, Lsn, Offset, PartitionId, WallMs};
use crate::limits::{ERROR_TEXT_LEN_MAX, HISTORY_LEN, REDRIVES_TO_TOPICS_MAX};
use crate::record::{Cause, Failure, Provenance, Record};

type Applied = Result<(), Inconsistent>;

impl From<Rejection> for Inconsistent {
    fn from(rejection: Rejection) -> Self {
        Self(match rejection {
            Rejection::Invalid(reason) | Rejection::LimitReached(reason) => reason,
            Rejection::UnknownTopic => "there is no such topic",
            Rejection::UnknownGroup => "there is no such group",
            Rejection::UnknownPartition => "there is no such partition",
            Rejection::LeaseLost => "there is no such lease",
            Rejection::NoSuchLetter => "there is no such dead letter",
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
    slot: &'a Slot,
}

impl State {
    /// Folds in a record of the frame at `lsn`. On `Err` nothing was changed.
    pub(crate) fn apply(&mut self, record: &Record, lsn: Lsn) -> Result<(), Inconsistent> {
        if self.copied.is_some() || self.epoch == Epoch(0) {
            self.check_context(record)?;
        }
        match record {
            Record::Published { partition, base, count, .. } => {
                self.check_published(*partition, *base, *count)?;
                self.catalog.extend(*partition, base.saturating_add(u64::from(*count)));
                Ok(())
            }
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
            Record::LoneAwaited { group, partition, offset, since } => {
                self.apply_lone_awaited((*group, *partition, *offset), *since)
            }
            Record::Copied { partition, offset, provenance, .. } => self.apply_copied(*partition, *offset, provenance),
            Record::DeadLettered { group, partition, offset } => {
                self.apply_dead_lettered((*group, *partition, *offset))
            }
            Record::Redriven { group, letter } => {
                require(self.copied.is_some(), "a redriven letter without its copy")?;
                self.apply_letter_settled(*group, *letter)
            }
            Record::Discarded { group, letter } => self.apply_letter_settled(*group, *letter),
            Record::Opened { .. } | Record::ClockJumped { .. } => self.apply_clock(record),
            Record::TopicCreated { .. } | Record::GroupCreated { .. } => self.apply_created(record),
        }
    }

    /// A copy and its move follow each other, and nothing comes before the first `Opened`.
    fn check_context(&self, record: &Record) -> Applied {
        let opened = matches!(record, Record::Opened { .. });
        require(self.epoch != Epoch(0) || opened, "a record before the store was ever opened")?;
        let Some(to) = self.copied else { return Ok(()) };
        let role = self.catalog.role(to);
        let belongs = match record {
            Record::DeadLettered { group, .. } => role == Some(Role::Dead { group: *group }),
            Record::Redriven { group, .. } => {
                role == Some(Role::Retry { group: *group }) || matches!(role, Some(Role::Topic { .. }))
            }
            _ => false,
        };
        require(belongs, "a copy that belongs to no move")
    }

    fn at(&self, (group, partition, offset): (GroupId, PartitionId, Offset)) -> Result<At<'_>, Inconsistent> {
        let place = Place { group, partition, offset };
        let group = self.group_named(group)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let slot = group.slot(cursor, offset).ok_or(Inconsistent("the message is not outstanding"))?;
        Ok(At { place, group, cursor, slot })
    }

    fn leased(&self, at: (GroupId, PartitionId, Offset)) -> Result<(At<'_>, Lease), Inconsistent> {
        let at = self.at(at)?;
        let lease = at.slot.lease().ok_or(Inconsistent("the message is not leased"))?;
        Ok((at, *lease))
    }

    /// Changes the message of `place`; everything has been checked.
    fn change(&mut self, place: Place, failure: Option<Failure>, change: impl FnOnce(&mut Slot, u64)) -> Applied {
        let group = self.groups.get_mut(place.group.0 as usize).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(place.partition).ok_or(Rejection::UnknownPartition)?;
        group.change(cursor, place.offset, failure, change);
        group.tidy();
        self.lone.touched(place, 1);
        Ok(())
    }

    #[inline]
    fn apply_acked(&mut self, id: GroupId, partition: PartitionId, first: Offset, count: u32) -> Applied {
        let group = self.groups.get_mut(id.0 as usize).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(count > 0 && first.checked_add(u64::from(count)).is_some(), "an ack of no messages")?;
        let at = group.cursors.get(cursor as usize);
        let is_leased = |offset| at.and_then(|at| at.slot(offset)?.lease()).is_some();
        require(offsets(first, count).all(is_leased), "an ack of a message that is not leased")?;
        group.settle(cursor, first, count);
        group.tidy();
        self.lone.touched(Place { group: id, partition, offset: first }, count);
        Ok(())
    }

    fn apply_nacked(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        (due, delay_ms): (WallMs, u64),
        failure: &Failure,
    ) -> Applied {
        let (At { place, group, slot, .. }, _) = self.leased(at)?;
        require(!group.is_spent(slot), "a nack of the last attempt")?;
        let fits = failure.cause == Cause::Nacked && failure.text.len() <= ERROR_TEXT_LEN_MAX;
        require(fits && due == failure.time.saturating_add(delay_ms), "a nack whose parts contradict each other")?;
        self.change(place, Some(failure.clone()), |slot, turn| {
            slot.ended_otherwise(true);
            slot.phase = if delay_ms == 0 { Phase::Ready { turn } } else { Phase::Waiting { due, delay_ms } };
        })
    }

    /// A lease given back: its attempt is not charged.
    fn apply_given_back(&mut self, at: (GroupId, PartitionId, Offset), wait: Option<(WallMs, u64)>) -> Applied {
        let (At { place, .. }, _) = self.leased(at)?;
        require(wait.is_none_or(|(_, delay_ms)| delay_ms > 0), "an unreadable message that does not wait")?;
        self.change(place, None, |slot, turn| {
            slot.attempts = slot.attempts.saturating_sub(1);
            slot.phase = match wait {
                Some((due, delay_ms)) => Phase::Waiting { due, delay_ms },
                None => Phase::Ready { turn },
            };
        })
    }

    fn apply_put_off(&mut self, at: (GroupId, PartitionId, Offset), (due, delay_ms): (WallMs, u64)) -> Applied {
        let At { place, group, slot, .. } = self.at(at)?;
        require(group.class(slot) == Class::Exhausted && delay_ms > 0, "only an exhausted message is put off")?;
        let time = due.saturating_sub(delay_ms);
        let expired = slot.lease().map(|_| Failure { cause: Cause::Expired, time, text: Box::default() });
        self.change(place, expired, |slot, _| {
            slot.ended_otherwise(slot.lease().is_some());
            slot.phase = Phase::Waiting { due, delay_ms };
        })
    }

    fn apply_copied(&mut self, partition: PartitionId, offset: Offset, provenance: &Provenance) -> Applied {
        require(self.catalog.role(partition).is_some(), "there is no such partition")?;
        let end = offset.checked_add(1).filter(|_| offset == self.catalog.end(partition));
        let end = end.ok_or(Inconsistent("a copy that is not at the end of a partition"))?;
        require(provenance.history.len() <= HISTORY_LEN, "a history is too long")?;
        require(provenance.origin.redrives <= REDRIVES_TO_TOPICS_MAX, "a message was sent to topics too often")?;
        self.catalog.extend(partition, end);
        self.copied = Some(partition);
        Ok(())
    }

    fn apply_dead_lettered(&mut self, at: (GroupId, PartitionId, Offset)) -> Applied {
        require(self.copied.is_some(), "a dead letter without its copy")?;
        let At { place, group, cursor, slot } = self.at(at)?;
        let may = slot.lease().is_some() || group.class(slot) == Class::Exhausted;
        require(may, "a message is given up that could have another attempt")?;
        self.copied = None;
        let group = &mut self.groups[place.group.0 as usize];
        // seam: a dead letter stays in its partition
        group.settle(cursor, place.offset, 1);
        group.tidy();
        self.lone.touched(place, 1);
        Ok(())
    }

    fn apply_letter_settled(&mut self, group: GroupId, letter: Offset) -> Applied {
        self.letter(group, letter)?;
        self.copied = None;
        // seam: a redriven letter stays
        self.groups[group.0 as usize].letters.settle(letter);
        Ok(())
    }

    fn apply_clock(&mut self, record: &Record) -> Applied {
        match *record {
            Record::Opened { epoch, clean, wall } => {
                require(epoch > self.epoch, "an epoch is used only once")?;
                self.epoch = epoch;
                self.lone = super::lone::Lone::default();
                self.groups.iter_mut().for_each(|group| group.reopen(clean, wall));
            }
            Record::ClockJumped { wall } => self.groups.iter_mut().for_each(|group| group.clamp(wall)),
            _ => return Err(Inconsistent("not a record of the clock")),
        }
        Ok(())
    }

    fn apply_created(&mut self, record: &Record) -> Applied {
        match record {
            Record::TopicCreated { topic, name, first, count } => {
                self.check_new_topic(*topic, name, *first, *count)?;
                self.catalog.add_topic(name, *count);
            }
            Record::GroupCreated { group, topic, name, options, retry, starts } => {
                self.check_new_group((*group, *topic), name, options, *retry, starts)?;
                let name: std::sync::Arc<str> = name.as_str().into();
                self.catalog.add_group(*topic, &name, *group);
                let of = self.catalog.topic(*topic).ok_or(Rejection::UnknownTopic)?;
                let nexts = starts.iter().copied().chain([Offset(0)]);
                self.groups.push(Group::new(name, (*topic, of), options.clone(), *retry, nexts));
            }
            _ => return Err(Inconsistent("not a record of something new")),
        }
        Ok(())
    }
}

/// A run whose end has been checked to be an offset.
fn offsets(first: Offset, count: u32) -> impl Iterator<Item = Offset> {
    (first.0..first.0.saturating_add(u64::from(count))).map(Offset)
}
