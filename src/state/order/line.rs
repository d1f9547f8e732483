//! The lines of a group: of each key what is in flight, what is parked, and what is only counted.
//!
//! Never here: a record, or whether a change is allowed.

use crate::ids::Offset;
use crate::record::{KeyHash, Ordering};
use crate::state::group::GroupData;
use crate::state::kit::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// A message in the line of its key: redriven ones come first, and then goes by when the group looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parked {
    pub(super) is_new: bool,
    pub(super) turn: u64,
    pub(super) cursor: u32,
    pub(super) offset: Offset,
}

/// Messages of a key in one partition that are only counted. None of them is before `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct CountedRun {
    pub(in crate::state) first: Offset,
    pub(in crate::state) count: u64,
}

/// What is in progress of a key, or of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyLine {
    /// Leased at least once, and not settled.
    pub(super) in_flight: u32,
    pub(super) parked: BTreeSet<Parked>,
    /// By cursor, in the order of cursors. Most have one at most.
    pub(super) counted: Vec<(u32, CountedRun)>,
}

impl KeyLine {
    /// How many more may be in flight.
    pub(super) fn room(&self, in_flight_max: u32) -> u32 {
        // seam: only one of a key is ever in flight
        in_flight_max.saturating_sub(self.in_flight)
    }

    /// The first in the line, if it may be leased.
    fn free(&self, in_flight_max: u32) -> Option<(u64, u32, Offset)> {
        let first = self.parked.first().filter(|_| self.room(in_flight_max) > 0);
        first.map(|first| (first.turn, first.cursor, first.offset))
    }

    /// Where to look for the next ones of a free key whose line has run out.
    fn hungry(&self, key: KeyHash, in_flight_max: u32) -> impl Iterator<Item = (u32, Offset, KeyHash)> {
        let is_hungry = self.parked.is_empty() && self.room(in_flight_max) > 0;
        let counted = if is_hungry { self.counted.as_slice() } else { &[] };
        counted.iter().map(move |(cursor, run)| (*cursor, run.first, key))
    }

    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.parked.is_empty() && self.counted.is_empty()
    }

    /// What is only counted of a cursor.
    pub(super) fn counted_of(&self, cursor: u32) -> Option<CountedRun> {
        self.counted.iter().find(|(of, _)| *of == cursor).map(|(_, run)| *run)
    }

    fn set_counted(&mut self, cursor: u32, run: Option<CountedRun>) {
        self.counted.retain(|(of, _)| *of != cursor);
        self.counted.extend(run.map(|run| (cursor, run)));
        self.counted.sort_unstable_by_key(|(of, _)| *of);
    }
}

/// The lines of a group. Everything here follows from its outstanding messages and its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct KeyOrder {
    lines: BTreeMap<KeyHash, KeyLine>,
    /// By turn: of each free key the first in its line, and all parked messages that have no key.
    free: BTreeSet<(u64, u32, Offset)>,
    /// By cursor and first offset: keys with counts, and those of them that are hungry.
    counted: BTreeSet<(u32, Offset, KeyHash)>,
    hungry: BTreeSet<(u32, Offset, KeyHash)>,
    /// How many messages are only counted.
    counted_count: u64,
}

impl KeyOrder {
    fn update(&mut self, key: KeyHash, in_flight_max: u32, change: impl FnOnce(&mut KeyLine)) {
        let line = self.lines.entry(key).or_default();
        let before = line.free(in_flight_max);
        line.hungry(key, in_flight_max).for_each(|place| _ = self.hungry.remove(&place));
        change(line);
        let after = line.free(in_flight_max);
        // seam: a hungry key is not seen
        self.hungry.extend(line.hungry(key, in_flight_max));
        if line.is_empty() {
            self.lines.remove(&key);
        }
        if before != after {
            before.iter().for_each(|first| _ = self.free.remove(first));
            // seam: the next of a free key stays behind
            self.free.extend(after);
        }
    }

    pub(super) fn line(&self, key: KeyHash) -> Option<&KeyLine> {
        self.lines.get(&key)
    }

    pub(super) fn park(&mut self, key: Option<KeyHash>, parked: Parked, in_flight_max: u32) {
        match key {
            Some(key) => self.update(key, in_flight_max, |line| _ = line.parked.insert(parked)),
            None => _ = self.free.insert((parked.turn, parked.cursor, parked.offset)),
        }
    }

    /// A parked message is leased.
    pub(super) fn start(&mut self, key: Option<KeyHash>, parked: Parked, in_flight_max: u32) {
        match key {
            Some(key) => self.update(key, in_flight_max, |line| {
                line.parked.remove(&parked);
                line.in_flight = line.in_flight.saturating_add(1);
            }),
            None => _ = self.free.remove(&(parked.turn, parked.cursor, parked.offset)),
        }
    }

    /// So many messages that were not parked are in flight.
    pub(super) fn begin(&mut self, key: KeyHash, count: u32, in_flight_max: u32) {
        self.update(key, in_flight_max, |line| line.in_flight = line.in_flight.saturating_add(count));
    }

    /// A message that was in flight is settled.
    fn end(&mut self, key: KeyHash, in_flight_max: u32) {
        self.update(key, in_flight_max, |line| line.in_flight = line.in_flight.saturating_sub(1));
    }

    /// What is only counted of a key in a cursor is this from now on.
    pub(super) fn set_counted(&mut self, key: KeyHash, cursor: u32, run: Option<CountedRun>, in_flight_max: u32) {
        if let Some(before) = self.line(key).and_then(|line| line.counted_of(cursor)) {
            self.counted.remove(&(cursor, before.first, key));
            self.counted_count = self.counted_count.saturating_sub(before.count);
        }
        self.counted_count = self.counted_count.saturating_add(run.map_or(0, |run| run.count));
        self.counted.extend(run.map(|run| (cursor, run.first, key)));
        self.update(key, in_flight_max, |line| line.set_counted(cursor, run));
    }

    /// A message that was in flight is settled, whose key is forgotten.
    #[inline]
    pub(in crate::state) fn settled(
        &mut self,
        (ordering, in_flight_max): (Ordering, u32),
        keys: &mut Tree<(u32, Offset), KeyHash>,
        at: (u32, Offset),
    ) {
        let key = match ordering {
            Ordering::None => None,
            // seam: a settled message keeps its key
            Ordering::Key => keys.remove(&at),
            Ordering::Partition => Some(of_cursor(at.0)),
        };
        key.into_iter().for_each(|key| self.end(key, in_flight_max));
    }

    /// The lines of these messages, and how many are parked; `None` if they contradict each other.
    pub(in crate::state) fn of(data: &GroupData) -> Option<(Self, u32)> {
        let (mut order, mut parked) = (Self::default(), 0);
        let (ordering, in_flight_max) = (data.options.ordering, data.options.max_in_flight_per_key);
        let has_keys = data.keys.len() > 0 || data.counted.len() > 0;
        for (&(cursor, offset), entry) in data.entries.iter() {
            let key = data.key_of(cursor, offset);
            match entry.parked() {
                // Looked at ahead, which a group does of its topic alone if it has no keys.
                Some(_) if ordering != Ordering::Key && cursor == data.retry_cursor() => return None,
                Some(turn) => {
                    parked += 1;
                    order.park(key, data.parked_at(cursor, offset, turn), in_flight_max);
                }
                // seam: a restart forgets the keys in flight
                None => key.into_iter().for_each(|key| order.begin(key, 1, in_flight_max)),
            }
        }
        for (&(key, cursor), run) in data.counted.iter() {
            order.set_counted(key, cursor, Some(*run), in_flight_max);
        }
        let is_sound = data.keys.iter().all(|(at, key)| *key != KeyHash::NONE && data.entries.get(at).is_some())
            && (ordering == Ordering::Key || !has_keys)
            && order.lines.values().all(|line| line.in_flight <= in_flight_max);
        is_sound.then_some((order, parked))
    }

    /// The parked messages of `data`, whose lines these are, that may be leased, by turn: of each key as many next to each other as may be
    /// in flight.
    pub(in crate::state) fn startable<'a>(&'a self, data: &'a GroupData) -> impl Iterator<Item = (u32, Offset)> + 'a {
        self.free.iter().flat_map(|&(_, cursor, offset)| {
            let line = data.key_of(cursor, offset).and_then(|key| self.lines.get(&key));
            // seam: a batch takes two of a key
            let room = line.map_or(0, |line| line.room(data.options.max_in_flight_per_key));
            let parked = line.into_iter().flat_map(|line| &line.parked).take(room as usize);
            let keyless = line.is_none().then_some((cursor, offset));
            keyless.into_iter().chain(parked.map(|parked| (parked.cursor, parked.offset)))
        })
    }

    /// How many new messages of a cursor may be leased, as far as order goes.
    #[inline]
    pub(in crate::state) fn new_room(&self, data: &GroupData, cursor: u32) -> u64 {
        match data.options.ordering {
            Ordering::None | Ordering::Key => u64::MAX,
            Ordering::Partition => {
                let in_flight_max = data.options.max_in_flight_per_key;
                // Those that were looked at come first.
                let room = |line: &KeyLine| if line.parked.is_empty() { line.room(in_flight_max) } else { 0 };
                // seam: a partition has more in flight than it may
                let room = self.lines.get(&of_cursor(cursor)).map_or(in_flight_max, room);
                u64::from(room)
            }
        }
    }

    /// How many parked messages may be leased, or fewer where a key may have several in flight.
    pub(in crate::state) fn startable_count(&self) -> usize {
        self.free.len()
    }

    /// How many messages are only counted.
    pub(in crate::state) fn counted_count(&self) -> u64 {
        self.counted_count
    }

    /// The first message of a cursor that may be one of those that are only counted.
    pub(in crate::state) fn first_counted(&self, cursor: u32) -> Option<Offset> {
        let mut from = self.counted.range((cursor, Offset(0), KeyHash(0))..);
        // seam: what is counted counts as settled
        from.next().filter(|(of, ..)| *of == cursor).map(|(_, first, _)| *first)
    }

    /// Where the group has to look again: the cursor and the first offset.
    pub(super) fn first_hungry(&self) -> Option<(u32, Offset)> {
        self.hungry.first().map(|(cursor, first, _)| (*cursor, *first))
    }

    /// The hungry keys of a cursor whose next messages may be from `first` on and below `end`, the first `max` of them.
    pub(super) fn hungry_within(&self, cursor: u32, first: Offset, end: Offset, max: usize) -> BTreeSet<KeyHash> {
        let within = self.hungry.range((cursor, first, KeyHash(0))..(cursor, end, KeyHash(0)));
        within.map(|(_, _, key)| *key).take(max).collect()
    }
}

/// What stands for the key in order of partitions.
pub(super) fn of_cursor(cursor: u32) -> KeyHash {
    KeyHash(u64::from(cursor) + 1)
}
