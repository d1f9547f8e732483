//! The decisions to look at messages before some are leased.
//!
//! Never here: leases.

use crate::ids::{GroupId, Offset};
use crate::limits::{CONSIDERED_MAX, RECALLED_KEYS_MAX};
use crate::record::{KeyHash, Record};
use crate::state::group::GroupState;
use crate::state::{Decision, Inputs, KeyRun, LookLimits, ParkedMax, State};
use std::collections::BTreeMap;

impl State {
    /// What a group in order of keys does before it leases some messages, if anything: it looks at redriven messages, which come before
    /// all others of their keys; and where too few are ready, again at those of free keys that were only counted, and at the next ones of
    /// its topic.
    pub(in crate::state) fn decide_considered(
        &self,
        (id, group): (GroupId, &GroupState),
        limits: LookLimits,
        keys: Option<KeyRun<'_>>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Option<Decision> {
        let LookLimits { max, new_last, .. } = limits;
        let is_enough = group.order.startable_count() >= max as usize;
        let most = CONSIDERED_MAX.min(group.parked_room()).min(new_last.unwrap_or(u32::MAX));
        let retry = std::iter::once(group.retry_cursor());
        let redriven = self.unconsidered(group, retry, most, inputs);
        let again = || group.order.first_hungry().filter(|_| !is_enough && most > 0);
        let (cursor, first, count, is_again) = match (redriven, again()) {
            (Some((cursor, first, count)), _) => (cursor, first, count, false),
            (None, Some((cursor, first))) => {
                let count = group.next(cursor).0.saturating_sub(first.0).min(u64::from(most));
                (cursor, first, count as u32, true)
            }
            (None, None) if is_enough => return None,
            (None, None) if group.options.filter.is_some() => {
                let parked_max = keys.map(|keys| keys.parked_max).unwrap_or_default();
                return self.decide_filtered_keys((id, group), (limits, most, parked_max), inputs, records);
            }
            (None, None) => {
                let (cursor, first, count) = self.unconsidered(group, group.topic_cursors(), most, inputs)?;
                (cursor, first, count, false)
            }
        };
        let partition = group.partition_of(cursor);
        let parked_max = keys.map(|keys| keys.parked_max).unwrap_or_default();
        let known = keys.map_or(&[][..], |keys| keys.from(partition, first));
        let known = known.get(..known.len().min(count as usize)).unwrap_or(known);
        if known.is_empty() {
            return Some(Decision::KeysNeeded { partition, first, count });
        }
        records.push(if is_again {
            Record::Recalled { group: id, partition, first, keys: group.recalled(cursor, first, known) }
        } else {
            let keys: Vec<_> =
                known.iter().map(|key| if *key == KeyHash::LOST { KeyHash::NONE } else { *key }).collect();
            let counted = if cursor == group.retry_cursor() { Vec::new() } else { group.counted(&keys, parked_max) };
            Record::Considered { group: id, partition, first, keys, counted }
        });
        Some(Decision::Considered { count: known.len() as u32 })
    }

    /// The first of these cursors with messages that the group has not looked at, the first of them, and how many.
    fn unconsidered(
        &self,
        group: &GroupState,
        cursors: impl Iterator<Item = u32>,
        most: u32,
        inputs: &Inputs<'_>,
    ) -> Option<(u32, Offset, u32)> {
        let mut unseen = self.new_count(group);
        for cursor in cursors {
            if unseen == 0 || most == 0 {
                return None;
            }
            let (partition, next) = (group.partition_of(cursor), group.next(cursor));
            let end = self.catalog.end(partition);
            let count = inputs.visible.end(partition, end).0.saturating_sub(next.0).min(u64::from(most));
            if count > 0 {
                return Some((cursor, next, count as u32));
            }
            unseen -= u128::from(end.0.saturating_sub(next.0));
        }
        None
    }
}

impl GroupState {
    /// The cursors of the topic, from where the group left off.
    pub(in crate::state) fn topic_cursors(&self) -> impl Iterator<Item = u32> + use<> {
        let count = self.retry_cursor();
        let start = if self.position < count { self.position } else { 0 };
        (start..count).chain(0..start)
    }

    /// Which of the next messages, of these keys, are only counted: those that wait where enough are parked, and all that come behind one that
    /// is counted.
    pub(in crate::state) fn counted(&self, keys: &[KeyHash], parked_max: ParkedMax) -> Vec<u32> {
        // How many of each key are parked here, and whether some are counted.
        let mut here: BTreeMap<KeyHash, (usize, bool)> = BTreeMap::new();
        let (mut parked, mut counted) = (self.parked, Vec::new());
        for (number, key) in (0u32..).zip(keys).filter(|(_, key)| **key != KeyHash::NONE) {
            let line = self.order.line(*key);
            let (parked_here, is_counted) = here.entry(*key).or_default();
            let of_key = line.map_or(0, |line| line.parked.len()) + *parked_here;
            let is_blocked = line.is_some_and(|line| line.room(self.options.max_in_flight_per_key) == 0);
            let is_full = parked >= parked_max.of_group || of_key >= parked_max.of_key as usize;
            // seam: a key that is counted goes on in its line
            *is_counted |= line.is_some_and(|line| !line.counted.is_empty()) || is_full && (is_blocked || of_key > 0);
            if *is_counted {
                counted.push(number);
            } else {
                *parked_here += 1;
                parked += 1;
            }
        }
        counted
    }

    /// The keys of those messages of a cursor that are parked again; `keys` are those of all from `first` on.
    fn recalled(&self, cursor: u32, first: Offset, keys: &[KeyHash]) -> Vec<KeyHash> {
        let end = first.saturating_add(keys.len() as u64);
        let hungry = self.order.hungry_within(cursor, first, end, RECALLED_KEYS_MAX);
        let mut left: BTreeMap<KeyHash, (Offset, u64)> = BTreeMap::new();
        let mut is_recalled = |offset: Offset, key: KeyHash| {
            if !hungry.contains(&key) || self.entry(cursor, offset).is_some() {
                return key == KeyHash::LOST && self.entry(cursor, offset).is_none();
            }
            let (from, count) = left.entry(key).or_insert_with(|| {
                let run = self.order.line(key).and_then(|line| line.counted_of(cursor));
                run.map_or((Offset(u64::MAX), 0), |run| (run.first, run.count))
            });
            let is_one = *from <= offset && *count > 0;
            *count -= u64::from(is_one);
            is_one
        };
        let offsets = (first.0..).map(Offset);
        offsets.zip(keys).map(|(offset, key)| if is_recalled(offset, *key) { *key } else { KeyHash::NONE }).collect()
    }
}
