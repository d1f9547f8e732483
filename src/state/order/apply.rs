//! Applying that a group looked at messages.
//!
//! Never here: leases.

use super::line::CountedRun;
use crate::ids::{GroupId, Offset, PartitionId};
use crate::limits::RECALLED_KEYS_MAX;
use crate::record::{KeyHash, Ordering, Record};
use crate::state::group::GroupState;
use crate::state::lease::{OutstandingEntry, Phase, Prospect};
use crate::state::message::{Applied, require};
use crate::state::{Inconsistent, Rejection, State};
use std::collections::{BTreeMap, BTreeSet};

/// A look of a group at messages next to each other.
struct KeyLook<'a> {
    group: &'a GroupState,
    cursor: u32,
    end: Offset,
}

impl State {
    fn check_look(
        &self,
        (id, partition, first): (GroupId, PartitionId, Offset),
        keys: &[KeyHash],
    ) -> Result<KeyLook<'_>, Inconsistent> {
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(!keys.is_empty(), "a group looks at one message at least")?;
        let end = first.checked_add(keys.len() as u64);
        let end = end.ok_or(Inconsistent("a group looks beyond the last offset"))?;
        Ok(KeyLook { group, cursor, end })
    }

    pub(in crate::state) fn apply_looked(&mut self, record: &Record) -> Applied {
        if let Record::Considered { group, partition, first, keys, counted } = record {
            return self.apply_considered((*group, *partition, *first), keys, counted);
        }
        let Record::Recalled { group, partition, first, keys } = record else { return Err(Inconsistent("not a look")) };
        self.apply_recalled((*group, *partition, *first), keys)
    }

    fn apply_considered(
        &mut self,
        (id, partition, first): (GroupId, PartitionId, Offset),
        keys: &[KeyHash],
        counted: &[u32],
    ) -> Applied {
        let KeyLook { group, cursor, end } = self.check_look((id, partition, first), keys)?;
        // A group with a filter looks ahead in any order, and has keys in one.
        let is_ahead = group.options.filter.is_some() && cursor != group.retry_cursor();
        let is_ahead = is_ahead && keys.iter().all(|key| *key == KeyHash::NONE);
        require(group.options.ordering == Ordering::Key || is_ahead, "keys that a group does not go by")?;
        require(first == group.next(cursor), "a group looks at other messages than the next")?;
        require(end <= self.catalog.end(partition), "a group looks at messages that do not exist")?;
        let is_countable = |number: &u32| keys.get(*number as usize).is_some_and(|key| *key != KeyHash::NONE);
        let counts = counted.is_sorted_by(|one, next| one < next) && counted.iter().all(is_countable);
        require(
            counts && (counted.is_empty() || cursor != group.retry_cursor()),
            "messages that cannot be only counted",
        )?;
        let parked = keys.len() - counted.len();
        require(parked as u64 <= u64::from(group.parked_room()), "more messages are parked than may be")?;
        self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?.consider(cursor, keys, counted);
        Ok(())
    }

    fn apply_recalled(&mut self, (id, partition, first): (GroupId, PartitionId, Offset), keys: &[KeyHash]) -> Applied {
        let KeyLook { group, cursor, end } = self.check_look((id, partition, first), keys)?;
        require(group.options.ordering == Ordering::Key, "keys that a group does not go by")?;
        require(end <= group.next(cursor), "a group looks again at messages that it never looked at")?;
        let hungry = group.order.hungry_within(cursor, first, end, RECALLED_KEYS_MAX);
        require(!hungry.is_empty(), "a group looks again at messages that no key waits for")?;
        let mut counts: BTreeMap<KeyHash, u64> = BTreeMap::new();
        for (offset, key) in (first.0..).map(Offset).zip(keys).filter(|(_, key)| **key != KeyHash::NONE) {
            require(group.entry(cursor, offset).is_none(), "an outstanding message is recalled")?;
            if *key != KeyHash::LOST {
                let run = group.order.line(*key).and_then(|line| line.counted_of(cursor));
                let run = run.filter(|run| hungry.contains(key) && run.first <= offset);
                let run = run.ok_or(Inconsistent("a message is recalled that was not counted"))?;
                let count = counts.entry(*key).or_default();
                *count += 1;
                require(*count <= run.count, "more messages of a key are recalled than were counted")?;
            }
        }
        let parked = keys.iter().filter(|key| **key != KeyHash::NONE).count();
        require(parked as u64 <= u64::from(group.parked_room()), "more messages are parked than may be")?;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        group.recall((cursor, first, end), keys, &hungry, &counts);
        // What did not pass a filter, or was damaged, is known to be settled by now.
        let is_told = hungry.iter().any(|key| group.data.counted.get(&(*key, cursor)).is_none());
        let end = if is_told { group.next(cursor) } else { end };
        self.let_go_within(partition, first, end);
        Ok(())
    }
}

impl GroupState {
    /// Takes in that the group looked at the next messages of a cursor.
    fn consider(&mut self, cursor: u32, keys: &[KeyHash], counted: &[u32]) {
        let mut counted = counted.iter().peekable();
        for (number, key) in (0u32..).zip(keys) {
            let offset = self.next(cursor);
            if counted.next_if_eq(&&number).is_some() {
                self.count_in(cursor, offset, *key);
            } else {
                self.park(cursor, offset, *key);
            }
            self.data.set_next(cursor, offset.saturating_add(1));
        }
        self.considered += keys.len() as u128;
        if cursor != self.retry_cursor() {
            self.data.position = cursor + 1;
        }
    }

    fn park(&mut self, cursor: u32, offset: Offset, key: KeyHash) {
        let Self { data, order, .. } = self;
        data.turns += 1;
        let turn = data.turns;
        let entry = OutstandingEntry {
            phase: Phase::Parked { turn },
            attempts: 0,
            max_attempts: data.options.max_attempts,
            backoff_ms: 0,
            crashes: 0,
            closes: 0,
            prospect: Prospect::None,
            history: None,
        };
        data.entries.insert((cursor, offset), entry);
        if ![KeyHash::NONE, KeyHash::LOST].contains(&key) {
            data.keys.insert((cursor, offset), key);
        }
        order.park(
            data.key_of(cursor, offset),
            data.parked_at(cursor, offset, turn),
            data.options.max_in_flight_per_key,
        );
        data.parked += 1;
    }

    /// A message waits for others of its key, and is only counted.
    fn count_in(&mut self, cursor: u32, offset: Offset, key: KeyHash) {
        let run = self.data.counted.get(&(key, cursor)).copied().unwrap_or(CountedRun { first: offset, count: 0 });
        self.set_counted(key, cursor, Some(CountedRun { count: run.count.saturating_add(1), ..run }));
    }

    fn set_counted(&mut self, key: KeyHash, cursor: u32, run: Option<CountedRun>) {
        let Self { data, order, .. } = self;
        match (run, data.counted.get_mut(&(key, cursor))) {
            (Some(run), Some(known)) => *known = run,
            (Some(run), None) => data.counted.insert((key, cursor), run),
            (None, _) => _ = data.counted.remove(&(key, cursor)),
        }
        order.set_counted(key, cursor, run, data.options.max_in_flight_per_key);
    }

    /// Takes in that the group looked again at messages of a cursor, for those of `hungry` keys. `counts`: how many each has there.
    fn recall(
        &mut self,
        (cursor, first, end): (u32, Offset, Offset),
        keys: &[KeyHash],
        hungry: &BTreeSet<KeyHash>,
        counts: &BTreeMap<KeyHash, u64>,
    ) {
        for (offset, key) in (first.0..).map(Offset).zip(keys).filter(|(_, key)| **key != KeyHash::NONE) {
            self.park(cursor, offset, *key);
        }
        // What is not found up to the end cannot be read any more: no more can be counted than there are behind.
        let behind = self.next(cursor).0.saturating_sub(end.0);
        for key in hungry {
            let Some(run) = self.data.counted.get(&(*key, cursor)).copied() else { continue };
            // seam: a recalled message is counted on
            let count = run.count.saturating_sub(counts.get(key).copied().unwrap_or_default());
            let count = count.min(behind);
            let run = (count > 0).then_some(CountedRun { first: end, count });
            self.set_counted(*key, cursor, run);
        }
    }
}
