//! A group: how far it has come in each partition, and what it has in progress.
//!
//! A partition of the subscription (the topic's in order, then the group's own retry partition) is a cursor here. Whatever
//! is below a cursor's `next` and not outstanding is settled. Never here: whether a change is allowed; callers have
//! checked that, and that what they name exists.

use super::deadlines::{Key, key};
use super::history::{History, Texts};
use super::letters::Letters;
use super::outstanding::{Lease, Phase, Slot, Window};
use super::queue::{Class, Queues, Source, class};
use super::topic::Topic;
use crate::ids::{Lsn, Offset, PartitionId, TopicId, WallMs};
use crate::record::{Cause, Failure, GroupOptions};
use std::sync::Arc;

/// A group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) topic: TopicId,
    pub(crate) options: GroupOptions,
    /// Its partition of redriven messages; the next one is that of its dead letters.
    pub(crate) retry: PartitionId,
    /// The first partition of its topic.
    first: PartitionId,
    pub(super) cursors: Vec<Cursor>,
    /// The sum of all `next`.
    pub(super) considered: u128,
    pub(super) outstanding: u32,
    pub(super) queues: Queues,
    pub(super) texts: Texts,
    /// Counts what got ready and what failed, so that each has an age without a clock.
    pub(super) turns: u64,
    /// The cursor where the search for new messages begins: after the one that gave the last.
    pub(super) position: u32,
    /// Where the last leased message came from.
    pub(super) source: Source,
    /// The frame that holds this group's last lease record, and which of its lease records in that frame this was.
    pub(super) rank: (Lsn, u32),
    pub(super) letters: Letters,
    spare: Spare,
}

/// How far a group has come in one partition.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// The first offset that was never leased.
    pub(super) next: Offset,
    /// `None` where nothing is outstanding.
    pub(super) window: Option<Box<Window>>,
}

impl Cursor {
    pub(super) fn slot(&self, offset: Offset) -> Option<&Slot> {
        self.window.as_ref()?.get(offset)
    }

    /// The first message that is not settled.
    pub(super) fn first_unsettled(&self) -> Offset {
        // seam: what is leased counts as settled
        self.window.as_ref().and_then(|window| window.first()).unwrap_or(self.next)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Offset, &Slot)> {
        self.window.iter().flat_map(|window| window.iter())
    }
}

/// Empty windows kept for the next message, so that a group that is idle between messages does not allocate for each.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the box is what is kept")]
struct Spare(Vec<Box<Window>>);

const SPARE_MAX: usize = 4;

impl Clone for Spare {
    /// Not part of the value.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Group {
    pub(super) fn new(
        name: Arc<str>,
        (id, topic): (TopicId, &Topic),
        options: GroupOptions,
        retry: PartitionId,
        nexts: impl Iterator<Item = Offset>,
    ) -> Self {
        let cursors: Vec<_> = nexts.map(|next| Cursor { next, window: None }).collect();
        Self {
            name,
            topic: id,
            options,
            retry,
            first: topic.first,
            considered: cursors.iter().map(|cursor| u128::from(cursor.next.0)).sum(),
            cursors,
            outstanding: 0,
            queues: Queues::default(),
            texts: Texts::default(),
            turns: 0,
            position: 0,
            source: Source::default(),
            rank: (Lsn(0), 0),
            letters: Letters::default(),
            spare: Spare::default(),
        }
    }

    /// The partition of its dead letters.
    pub(crate) fn dead(&self) -> PartitionId {
        self.retry.saturating_add(1)
    }

    /// Which cursor `partition` is.
    #[inline]
    pub(super) fn cursor_of(&self, partition: PartitionId) -> Option<u32> {
        let retry = self.retry_cursor();
        if partition == self.retry {
            return Some(retry);
        }
        partition.0.checked_sub(self.first.0).and_then(|index| u32::try_from(index).ok()).filter(|&index| index < retry)
    }

    #[inline]
    pub(super) fn partition_of(&self, cursor: u32) -> PartitionId {
        if cursor == self.retry_cursor() { self.retry } else { self.first.nth(cursor) }
    }

    /// The cursor of the retry partition: the last.
    fn retry_cursor(&self) -> u32 {
        self.cursors.len() as u32 - 1
    }

    #[inline]
    pub(super) fn slot(&self, cursor: u32, offset: Offset) -> Option<&Slot> {
        self.cursors.get(cursor as usize)?.slot(offset)
    }

    pub(super) fn slot_mut(&mut self, partition: PartitionId, offset: Offset) -> Option<&mut Slot> {
        let cursor = self.cursor_of(partition)?;
        self.cursors.get_mut(cursor as usize)?.window.as_mut()?.get_mut(offset)
    }

    pub(super) fn class(&self, slot: &Slot) -> Class {
        class(slot, self.options.max_attempts)
    }

    /// Whether the last attempt that `max_attempts` allows has been charged.
    pub(super) fn is_spent(&self, slot: &Slot) -> bool {
        self.options.max_attempts != 0 && slot.attempts >= self.options.max_attempts
    }

    pub(super) fn is_exhausted(&self, slot: &Slot) -> bool {
        self.class(slot) == Class::Exhausted
    }

    /// Whether the message of `key` still has that lease.
    #[inline]
    pub(super) fn holds(cursors: &[Cursor], of: &Key) -> bool {
        let lease = cursors.get(of.3 as usize).and_then(|cursor| cursor.slot(of.4)?.lease());
        lease.is_some_and(|lease| key(lease, of.3, of.4) == *of)
    }

    /// The rank of the next lease record in the frame at `lsn`.
    pub(super) fn next_rank(&mut self, lsn: Lsn) -> u32 {
        let rank = if self.rank.0 == lsn { self.rank.1.saturating_add(1) } else { 0 };
        self.rank = (lsn, rank);
        rank
    }

    /// Leases the next `count` messages of a cursor.
    #[inline]
    pub(super) fn lease_new(&mut self, cursor: u32, count: u32, lease: Lease) {
        let max_attempts = self.options.max_attempts;
        let Some(at) = self.cursors.get_mut(cursor as usize) else { return };
        let window = at.window.get_or_insert_with(|| self.spare.0.pop().unwrap_or_default());
        let slot = Slot { phase: Phase::Leased(lease), attempts: 1, crashed: false, grace: false, history: None };
        self.queues.insert_leased(cursor, at.next, count, &slot, max_attempts);
        window.push(at.next, count, slot);
        at.next = at.next.saturating_add(u64::from(count));
        self.considered += u128::from(count);
        self.outstanding += count;
        self.source = Source::New;
        self.position = if cursor == self.retry_cursor() { 0 } else { cursor + 1 };
    }

    /// Leases an outstanding message again. `time` is when its lease ended, if it has one.
    pub(super) fn lease_again(&mut self, cursor: u32, offset: Offset, attempt: u32, time: WallMs, lease: Lease) {
        self.source = self.slot(cursor, offset).map_or(self.source, Source::of);
        let expired = self.source == Source::Ended;
        let failure = expired.then(|| Failure { cause: Cause::Expired, time, text: Box::default() });
        self.change(cursor, offset, failure, |slot, _| {
            slot.ended_otherwise(expired);
            // seam: the attempt is not charged
            slot.attempts = attempt;
            slot.phase = Phase::Leased(lease);
        });
    }

    /// Changes an outstanding message: `failure` goes into its history, then `change` gets it and the number of this turn.
    /// [`Group::tidy`] follows.
    pub(super) fn change(
        &mut self,
        cursor: u32,
        offset: Offset,
        failure: Option<Failure>,
        change: impl FnOnce(&mut Slot, u64),
    ) {
        let max_attempts = self.options.max_attempts;
        let window = self.cursors.get_mut(cursor as usize).and_then(|at| at.window.as_mut());
        let Some(slot) = window.and_then(|window| window.get_mut(offset)) else { return };
        self.turns += 1;
        self.queues.remove(cursor, offset, slot, max_attempts);
        if let Some(failure) = failure {
            let history = slot.history.get_or_insert_default();
            self.texts.add((cursor, offset), history, failure, self.turns);
        }
        change(slot, self.turns);
        self.queues.insert(cursor, offset, slot, max_attempts);
        while self.texts.is_over() && self.drop_oldest_text() {}
    }

    fn drop_oldest_text(&mut self) -> bool {
        let Some((turn, (cursor, offset))) = self.texts.drop_oldest() else { return false };
        let window = self.cursors.get_mut(cursor as usize).and_then(|at| at.window.as_mut());
        let slot = window.and_then(|window| window.get_mut(offset));
        if let Some(history) = slot.and_then(|slot| slot.history.as_mut()) {
            self.texts.blank(history, turn);
        }
        true
    }

    /// Settles the outstanding ones of `count` messages from `first` on. [`Group::tidy`] follows.
    #[inline]
    pub(super) fn settle(&mut self, cursor: u32, first: Offset, count: u32) {
        let Some(at) = self.cursors.get_mut(cursor as usize) else { return };
        let Some(window) = at.window.as_mut() else { return };
        let (queues, texts, max_attempts) = (&mut self.queues, &mut self.texts, self.options.max_attempts);
        let outstanding = &mut self.outstanding;
        window.remove(first, count, |offset, slot| {
            queues.remove(cursor, offset, slot, max_attempts);
            if let Some(history) = &slot.history {
                texts.forget(history);
            }
            *outstanding -= 1;
        });
        if window.is_empty()
            && let Some(window) = at.window.take()
            && self.spare.0.len() < SPARE_MAX
        {
            self.spare.0.push(window);
        }
    }

    #[inline]
    pub(super) fn tidy(&mut self) {
        let cursors = &self.cursors;
        self.queues.tidy(|key| Self::holds(cursors, key));
    }

    /// Ends every lease, as a process ended.
    pub(super) fn reopen(&mut self, clean: bool, wall: WallMs) {
        let mut leased = Vec::new();
        for (cursor, at) in (0..).zip(&self.cursors) {
            leased.extend(at.slots().filter(|(_, slot)| slot.lease().is_some()).map(|(offset, _)| (cursor, offset)));
        }
        let cause = if clean { Cause::Closed } else { Cause::Crashed };
        for (cursor, offset) in leased {
            let failure = Failure { cause, time: wall, text: Box::default() };
            self.change(cursor, offset, Some(failure), |slot, turn| {
                let lone = slot.lease().is_some_and(|lease| lease.lone);
                // seam: a crash is not charged
                slot.crashed = !clean;
                slot.grace = !clean && !lone;
                slot.phase = Phase::Ready { turn };
            });
        }
        self.rank = (Lsn(0), 0);
        self.tidy();
        self.clamp(wall);
    }

    /// No message waits longer from `wall` on than its delay.
    pub(super) fn clamp(&mut self, wall: WallMs) {
        for queue in self.queues.all_mut() {
            let waiting = std::mem::take(&mut queue.waiting).into_iter().map(|(due, cursor, offset)| {
                let window = self.cursors.get_mut(cursor as usize).and_then(|at| at.window.as_mut());
                match window.and_then(|window| window.get_mut(offset)).map(|slot| &mut slot.phase) {
                    Some(Phase::Waiting { due, delay_ms }) => {
                        // seam: a due time is not clamped
                        *due = (*due).min(wall.saturating_add(*delay_ms));
                        (*due, cursor, offset)
                    }
                    _ => (due, cursor, offset),
                }
            });
            queue.waiting = waiting.collect();
        }
    }

    /// Works out everything that is kept beside the cursors from them; `None` if they contradict each other.
    pub(super) fn rebuild(&mut self) -> Option<()> {
        let max_attempts = self.options.max_attempts;
        (self.queues, self.considered, self.outstanding) = (Queues::default(), 0, 0);
        self.texts = Texts { dropped: self.texts.dropped, ..Texts::default() };
        let mut leases = Vec::new();
        for (cursor, at) in (0..).zip(&self.cursors) {
            self.considered += u128::from(at.next.0);
            for (offset, slot) in at.slots() {
                self.outstanding = self.outstanding.checked_add(1)?;
                match slot.lease() {
                    Some(lease) => leases.push((key(lease, cursor, offset), slot)),
                    None => self.queues.insert(cursor, offset, slot, max_attempts),
                }
                self.texts.enter((cursor, offset), slot.history.as_deref())?;
            }
        }
        leases.sort_unstable_by_key(|(key, _)| *key);
        for ((.., cursor, offset), slot) in leases {
            self.queues.insert(cursor, offset, slot, max_attempts);
        }
        Some(())
    }

    /// What a copy of the message takes with it when it goes to the dead letters for `last`, or for what is in its account.
    pub(super) fn failures(slot: &Slot, last: Option<Failure>) -> Vec<Failure> {
        History::with(slot.history.as_deref(), last)
    }
}
