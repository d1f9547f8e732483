//! A group: how far it has come in each partition, and what it has in progress.
//!
//! A partition of the subscription (the topic's in order, then the group's own retry partition) is a cursor here. Whatever
//! is below a cursor's `next` and not outstanding is settled. Never here: whether a change is allowed; callers have
//! checked that, and that what they name exists.

use super::deadlines::{Key, key};
use super::history::{History, Texts};
use super::kit::offsets::OffsetSet;
use super::kit::sparse::Sparse;
use super::kit::tree::Tree;
use super::outstanding::{Lease, OutstandingEntry, Phase};
use super::queue::{Class, Queues, Source, class};
use super::topic::Topic;
use crate::ids::{Lsn, Offset, PartitionId, TopicId, WallMs};
use crate::record::{Cause, Failure, GroupOptions};
use std::ops::Deref;
use std::sync::Arc;

/// What a snapshot has of a group. A clone shares its pages.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) name: Arc<str>,
    pub(crate) topic: TopicId,
    pub(crate) options: GroupOptions,
    /// Its partition of redriven messages; the next one is that of its dead letters.
    pub(crate) retry: PartitionId,
    /// The first partition of its topic, and how many those are.
    first: PartitionId,
    partitions: u32,
    /// By cursor: the first offset that was never leased.
    pub(super) nexts: Sparse<Offset>,
    /// By cursor and offset.
    pub(super) entries: Tree<(u32, Offset), OutstandingEntry>,
    /// Counts what got ready and what failed, so that each has an age without a clock.
    pub(super) turns: u64,
    /// The cursor where the search for new messages begins: after the one that gave the last.
    pub(super) position: u32,
    /// Where the last leased message came from.
    pub(super) source: Source,
    /// The frame that holds this group's last lease record, and which of its lease records in that frame this was.
    pub(super) rank: (Lsn, u32),
    /// Its dead letters that are settled.
    pub(super) dead_letters: Arc<OffsetSet>,
    /// How many error texts went for want of room.
    pub(super) texts_dropped: u64,
}

/// A group: what is kept of it, and what follows from that.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(super) kept: Kept,
    /// The sum of all `next`.
    pub(super) considered: u128,
    pub(super) queues: Queues,
    pub(super) texts: Texts,
}

impl Deref for Group {
    type Target = Kept;

    fn deref(&self) -> &Kept {
        &self.kept
    }
}

impl Kept {
    /// The partition of its dead letters.
    pub(crate) fn dead(&self) -> PartitionId {
        self.retry.saturating_add(1)
    }

    /// Which cursor `partition` is.
    #[inline]
    pub(super) fn cursor_of(&self, partition: PartitionId) -> Option<u32> {
        if partition == self.retry {
            return Some(self.retry_cursor());
        }
        let index = u32::try_from(partition.0.checked_sub(self.first.0)?).ok()?;
        (index < self.partitions).then_some(index)
    }

    #[inline]
    pub(super) fn partition_of(&self, cursor: u32) -> PartitionId {
        if cursor == self.retry_cursor() { self.retry } else { self.first.nth(cursor) }
    }

    /// The cursor of the retry partition: the last.
    pub(super) fn retry_cursor(&self) -> u32 {
        self.partitions
    }

    pub(super) fn cursors(&self) -> u32 {
        self.partitions + 1
    }

    /// The first offset of a cursor that was never leased.
    #[inline]
    pub(super) fn next(&self, cursor: u32) -> Offset {
        self.nexts.get(cursor.into()).copied().unwrap_or_default()
    }

    pub(super) fn set_next(&mut self, cursor: u32, next: Offset) {
        match self.nexts.get_mut(cursor.into()) {
            Some(old) => *old = next,
            None => self.nexts.insert(cursor.into(), next),
        }
    }

    #[inline]
    pub(super) fn entry(&self, cursor: u32, offset: Offset) -> Option<&OutstandingEntry> {
        self.entries.get(&(cursor, offset))
    }

    /// How many of `count` messages from `first` on are leased, up to the first that is not `wanted`.
    pub(super) fn leased_run(&self, cursor: u32, first: Offset, count: u32, wanted: impl Fn(&Lease) -> bool) -> u32 {
        let is_wanted = |entry: &OutstandingEntry| entry.lease().is_some_and(&wanted);
        if count == 1 {
            return u32::from(self.entry(cursor, first).is_some_and(is_wanted));
        }
        let expected = (first.0..).take(count as usize).map(|offset| (cursor, Offset(offset)));
        let found = self.entries.from((cursor, first)).zip(expected);
        found.take_while(|((at, entry), expected)| *at == expected && is_wanted(entry)).count() as u32
    }

    /// The outstanding messages of a cursor, in order.
    pub(super) fn slots_of(&self, cursor: u32) -> impl Iterator<Item = (Offset, &OutstandingEntry)> {
        let all = self.entries.from((cursor, Offset(0)));
        all.take_while(move |((of, _), _)| *of == cursor).map(|((_, offset), entry)| (*offset, entry))
    }

    /// The first message of a cursor that is not settled.
    pub(super) fn first_unsettled(&self, cursor: u32) -> Offset {
        // seam: what is leased counts as settled
        let first = self.slots_of(cursor).next().map(|(offset, _)| offset);
        first.unwrap_or_else(|| self.next(cursor))
    }

    /// How many messages are outstanding.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        // At most `OUTSTANDING_MAX`.
        self.entries.len() as u32
    }

    /// Whether the message of `key` still has that lease.
    #[inline]
    pub(super) fn holds(&self, of: &Key) -> bool {
        let lease = self.entry(of.3, of.4).and_then(OutstandingEntry::lease);
        lease.is_some_and(|lease| key(lease, of.3, of.4) == *of)
    }
}

impl Group {
    pub(super) fn new(
        name: Arc<str>,
        (id, topic): (TopicId, &Topic),
        options: GroupOptions,
        retry: PartitionId,
        starts: impl Iterator<Item = Offset>,
    ) -> Self {
        let mut kept = Kept {
            name,
            topic: id,
            options,
            retry,
            first: topic.first,
            partitions: topic.count,
            nexts: Sparse::default(),
            entries: Tree::default(),
            turns: 0,
            position: 0,
            source: Source::default(),
            rank: (Lsn(0), 0),
            dead_letters: Arc::default(),
            texts_dropped: 0,
        };
        let mut considered = 0;
        for (cursor, start) in (0..topic.count).zip(starts) {
            kept.set_next(cursor, start);
            considered += u128::from(start.0);
        }
        kept.set_next(topic.count, Offset(0));
        Self { kept, considered, queues: Queues::default(), texts: Texts::default() }
    }

    pub(super) fn slot_mut(&mut self, partition: PartitionId, offset: Offset) -> Option<&mut OutstandingEntry> {
        let cursor = self.cursor_of(partition)?;
        self.kept.entries.get_mut(&(cursor, offset))
    }

    /// The rank of the next lease record in the frame at `lsn`.
    pub(super) fn next_rank(&mut self, lsn: Lsn) -> u32 {
        let rank = if self.rank.0 == lsn { self.rank.1.saturating_add(1) } else { 0 };
        self.kept.rank = (lsn, rank);
        rank
    }

    /// Leases the next `count` messages of a cursor.
    #[inline]
    pub(super) fn lease_new(&mut self, cursor: u32, count: u32, lease: Lease) {
        let max_attempts = self.options.max_attempts;
        let entry = OutstandingEntry {
            phase: Phase::Leased(lease),
            attempts: 1,
            max_attempts,
            crashed: false,
            grace: false,
            history: None,
        };
        let kept = &mut self.kept;
        let next = kept.next(cursor);
        self.queues.insert_leased(cursor, next, count, &entry);
        if count == 1 {
            kept.entries.insert((cursor, next), entry);
        } else {
            kept.entries.insert_run(count, |nth| (cursor, next.saturating_add(u64::from(nth))), &entry);
        }
        kept.set_next(cursor, next.saturating_add(u64::from(count)));
        kept.source = Source::New;
        kept.position = if cursor == kept.retry_cursor() { 0 } else { cursor + 1 };
        self.considered += u128::from(count);
    }

    /// Leases an outstanding message again. `time` is when its lease ended, if it has one.
    pub(super) fn lease_again(&mut self, cursor: u32, offset: Offset, attempt: u32, time: WallMs, lease: Lease) {
        self.kept.source = self.entry(cursor, offset).map_or(self.source, Source::of);
        let expired = self.source == Source::Ended;
        let failure = expired.then(|| Failure { cause: Cause::Expired, time, text: Box::default() });
        let max_attempts = self.options.max_attempts;
        self.change(cursor, offset, failure, |entry, _| {
            entry.ended_otherwise(expired);
            // seam: the attempt is not charged
            entry.attempts = attempt;
            // seam: a lease keeps the first limit
            entry.max_attempts = max_attempts;
            entry.phase = Phase::Leased(lease);
        });
    }

    /// Changes an outstanding message: `failure` goes into its history, then `change` gets it and the number of this turn.
    /// [`Group::tidy`] follows.
    pub(super) fn change(
        &mut self,
        cursor: u32,
        offset: Offset,
        failure: Option<Failure>,
        change: impl FnOnce(&mut OutstandingEntry, u64),
    ) {
        let Some(entry) = self.kept.entries.get_mut(&(cursor, offset)) else { return };
        self.kept.turns += 1;
        let turn = self.kept.turns;
        self.queues.remove(cursor, offset, entry);
        if let Some(failure) = failure {
            let history = Arc::make_mut(entry.history.get_or_insert_default());
            self.texts.add((cursor, offset), history, failure, turn);
        }
        change(entry, turn);
        self.queues.insert(cursor, offset, entry);
        while self.texts.is_over() && self.drop_oldest_text() {}
    }

    fn drop_oldest_text(&mut self) -> bool {
        let Some((turn, at)) = self.texts.drop_oldest() else { return false };
        self.kept.texts_dropped = self.kept.texts_dropped.saturating_add(1);
        if let Some(history) = self.kept.entries.get_mut(&at).and_then(|entry| entry.history.as_mut()) {
            self.texts.blank(Arc::make_mut(history), turn);
        }
        true
    }

    /// Settles the outstanding ones of `count` messages from `first` on. [`Group::tidy`] follows.
    #[inline]
    pub(super) fn settle(&mut self, cursor: u32, first: Offset, count: u32) {
        let Self { kept, queues, texts, .. } = self;
        let mut taken = |offset: Offset, entry: &OutstandingEntry| {
            queues.remove(cursor, offset, entry);
            if let Some(history) = &entry.history {
                texts.forget(history);
            }
        };
        if count == 1 {
            if let Some(entry) = kept.entries.remove(&(cursor, first)) {
                taken(first, &entry);
            }
            return;
        }
        let end = (cursor, first.saturating_add(u64::from(count)));
        kept.entries.remove_run((cursor, first), end, |(_, offset), entry| taken(*offset, entry));
    }

    #[inline]
    pub(super) fn tidy(&mut self) {
        let kept = &self.kept;
        self.queues.tidy(|key| kept.holds(key));
    }

    /// Ends every lease, as a process ended.
    pub(super) fn reopen(&mut self, clean: bool, wall: WallMs) {
        let leased = self.entries.iter().filter(|(_, entry)| entry.lease().is_some());
        let leased: Vec<_> = leased.map(|(at, _)| *at).collect();
        let cause = if clean { Cause::Closed } else { Cause::Crashed };
        for (cursor, offset) in leased {
            let failure = Failure { cause, time: wall, text: Box::default() };
            self.change(cursor, offset, Some(failure), |entry, turn| {
                let exclusive = entry.lease().is_some_and(|lease| lease.exclusive);
                // seam: a crash is not charged
                entry.crashed = !clean;
                entry.grace = !clean && !exclusive;
                entry.phase = Phase::Ready { turn };
            });
        }
        self.kept.rank = (Lsn(0), 0);
        self.tidy();
        self.clamp(wall);
    }

    /// No message waits longer from `wall` on than its delay.
    pub(super) fn clamp(&mut self, wall: WallMs) {
        for queue in self.queues.all_mut() {
            let waiting = std::mem::take(&mut queue.waiting).into_iter().map(|(due, cursor, offset)| {
                match self.kept.entries.get_mut(&(cursor, offset)).map(|entry| &mut entry.phase) {
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

    /// A group with all that follows from what is kept; `None` if that contradicts itself.
    pub(super) fn restored(kept: Kept) -> Option<Self> {
        let (mut queues, mut texts) = (Queues::default(), Texts::default());
        let mut leases = Vec::new();
        for (&(cursor, offset), entry) in kept.entries.iter() {
            match entry.lease() {
                Some(lease) => leases.push((key(lease, cursor, offset), entry)),
                None => queues.insert(cursor, offset, entry),
            }
            texts.enter((cursor, offset), entry.history.as_deref())?;
        }
        leases.sort_unstable_by_key(|(key, _)| *key);
        for ((.., cursor, offset), entry) in leases {
            queues.insert(cursor, offset, entry);
        }
        let considered = kept.nexts.iter().map(|(_, next)| u128::from(next.0)).sum();
        Some(Self { kept, considered, queues, texts })
    }

    /// What a copy of the message takes with it when it goes to the dead letters for `last`, or for what is in its account.
    pub(super) fn failures(entry: &OutstandingEntry, last: Option<Failure>) -> Vec<Failure> {
        History::with(entry.history.as_deref(), last)
    }
}

impl OutstandingEntry {
    pub(super) fn is_exhausted(&self) -> bool {
        class(self) == Class::Exhausted
    }

    /// Whether the last attempt that `max_attempts` allows has been charged.
    pub(super) fn is_spent(&self) -> bool {
        self.max_attempts != 0 && self.attempts >= self.max_attempts
    }
}
