//! The outstanding messages of a group: how they are found, changed and settled, with all that follows from them.
//!
//! Never here: whether a change is allowed, or what it is.

use super::{GroupData, GroupState};
use crate::ids::Offset;
use crate::record::{AttemptFailure, KeyHash};
use crate::state::lease::{Lease, LeaseKey, OutstandingEntry, Queues, key};
use crate::state::order::KeyOrder;
use crate::state::retry::Texts;
use std::sync::Arc;

impl GroupData {
    #[inline]
    pub(in crate::state) fn entry(&self, cursor: u32, offset: Offset) -> Option<&OutstandingEntry> {
        self.entries.get(&(cursor, offset))
    }

    /// How many of `count` messages from `first` on are leased, up to the first that is not `wanted`.
    pub(in crate::state) fn leased_run(
        &self,
        cursor: u32,
        first: Offset,
        count: u32,
        wanted: impl Fn(&Lease) -> bool,
    ) -> u32 {
        let is_wanted = |entry: &OutstandingEntry| entry.lease().is_some_and(&wanted);
        if count == 1 {
            return u32::from(self.entry(cursor, first).is_some_and(is_wanted));
        }
        let expected = (first.0..).take(count as usize).map(|offset| (cursor, Offset(offset)));
        let found = self.entries.from((cursor, first)).zip(expected);
        found.take_while(|((at, entry), expected)| *at == expected && is_wanted(entry)).count() as u32
    }

    /// The outstanding messages of a cursor, in order.
    pub(in crate::state) fn entries_of(&self, cursor: u32) -> impl Iterator<Item = (Offset, &OutstandingEntry)> {
        let all = self.entries.from((cursor, Offset(0)));
        all.take_while(move |((of, _), _)| *of == cursor).map(|((_, offset), entry)| (*offset, entry))
    }

    /// How many messages are outstanding that were leased.
    #[inline]
    pub(in crate::state) fn outstanding(&self) -> u32 {
        // At most `OUTSTANDING_MAX`.
        (self.entries.len() as u32).saturating_sub(self.parked)
    }

    /// Whether the message of `key` still has that lease.
    #[inline]
    pub(in crate::state) fn holds(&self, of: &LeaseKey) -> bool {
        let lease = self.entry(of.3, of.4).and_then(OutstandingEntry::lease);
        lease.is_some_and(|lease| key(lease, of.3, of.4) == *of)
    }
}

impl GroupState {
    /// The first message of a cursor that is not settled.
    pub(in crate::state) fn first_unsettled(&self, cursor: u32) -> Offset {
        // seam: what is leased counts as settled
        let first = self.entries_of(cursor).next().map(|(offset, _)| offset);
        first.into_iter().chain(self.order.first_counted(cursor)).min().unwrap_or_else(|| self.next(cursor))
    }

    /// Whether the messages of a cursor from `first` up to `end` are settled.
    pub(in crate::state) fn is_settled(&self, cursor: u32, first: Offset, end: Offset) -> bool {
        // seam: what is settled around a message takes it along
        if self.entries.from((cursor, first)).next().is_some_and(|(key, _)| *key < (cursor, end)) {
            return false;
        }
        end <= self.next(cursor) && self.order.first_counted(cursor).is_none_or(|first| end <= first)
    }

    /// Whether a message of a cursor, which has this key, is settled. One that did not pass a filter counts as unsettled while an earlier one of
    /// its key is only counted.
    pub(in crate::state) fn has_settled(&self, cursor: u32, offset: Offset, key: KeyHash) -> bool {
        // seam: a key is free while its message is only counted
        let is_counted = || self.counted.get(&(key, cursor)).is_some_and(|run| run.first <= offset);
        offset < self.next(cursor) && self.entry(cursor, offset).is_none() && !is_counted()
    }

    /// Changes an outstanding message: `failure` goes into its history, then `change` gets it and the number of this turn.
    /// [`GroupState::tidy`] follows.
    pub(in crate::state) fn change(
        &mut self,
        cursor: u32,
        offset: Offset,
        failure: Option<AttemptFailure>,
        change: impl FnOnce(&mut OutstandingEntry, u64),
    ) {
        let Some(entry) = self.data.entries.get_mut(&(cursor, offset)) else { return };
        self.data.turns += 1;
        let turn = self.data.turns;
        self.queues.remove(cursor, offset, entry);
        if let Some(failure) = failure {
            let history = Arc::make_mut(entry.history.get_or_insert_default());
            self.texts.add((cursor, offset), history, failure, turn);
        }
        change(entry, turn);
        // seam: a head that fails frees its key
        self.queues.insert(cursor, offset, entry);
        while self.texts.is_over() && self.drop_oldest_text() {}
    }

    fn drop_oldest_text(&mut self) -> bool {
        let Some((turn, at)) = self.texts.drop_oldest() else { return false };
        self.data.texts_dropped = self.data.texts_dropped.saturating_add(1);
        if let Some(history) = self.data.entries.get_mut(&at).and_then(|entry| entry.history.as_mut()) {
            self.texts.blank(Arc::make_mut(history), turn);
        }
        true
    }

    /// Settles the outstanding ones of `count` messages from `first` on. [`GroupState::tidy`] follows.
    #[inline]
    pub(in crate::state) fn settle(&mut self, cursor: u32, first: Offset, count: u32) {
        let Self { data: GroupData { entries, keys, options, .. }, queues, order, texts, .. } = self;
        let by = (options.ordering, options.max_in_flight_per_key);
        let mut taken = |offset: Offset, entry: &OutstandingEntry| {
            queues.remove(cursor, offset, entry);
            order.settled(by, keys, (cursor, offset));
            if let Some(history) = &entry.history {
                texts.forget(history);
            }
        };
        if count == 1 {
            if let Some(entry) = entries.remove(&(cursor, first)) {
                taken(first, &entry);
            }
            return;
        }
        let end = (cursor, first.saturating_add(u64::from(count)));
        entries.remove_run((cursor, first), end, |(_, offset), entry| taken(*offset, entry));
    }

    #[inline]
    pub(in crate::state) fn tidy(&mut self) {
        let data = &self.data;
        self.queues.tidy(|key| data.holds(key));
    }

    /// A group with all that follows from what is data; `None` if that contradicts itself.
    pub(in crate::state) fn restored(mut data: GroupData) -> Option<Self> {
        let (order, parked) = KeyOrder::of(&data)?;
        data.parked = parked;
        let (mut queues, mut texts) = (Queues::default(), Texts::default());
        let mut leases = Vec::new();
        for (&(cursor, offset), entry) in data.entries.iter() {
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
        let considered = data.nexts.iter().map(|(_, next)| u128::from(next.0)).sum();
        Some(Self { data, considered, queues, order, texts })
    }
}
