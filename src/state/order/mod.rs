//! Order: which messages of a group wait for others, by key or by partition.
//!
//! A group in order of keys looks at new messages before it leases them ([`Record::Considered`]): each is outstanding from then on, parked
//! in the line of its key. A message that was leased and is not settled is in flight, whatever happened to its lease. A key with fewer in
//! flight than the group allows is free: the first in its line may be leased. A message without a key is in no line. In order of
//! partitions nothing is parked: the next message of a partition is leased when few enough of it are outstanding. Lines are derived from
//! the outstanding messages and their keys. Never here: when a message that was leased may be leased again.
//!
//! [`Record::Considered`]: crate::record::Record

mod apply;
mod decide;
#[cfg(test)]
mod tests;

use super::group::{GroupData, GroupState};
use super::kit::tree::Tree;
use super::message::{Applied, require};
use crate::ids::Offset;
use crate::limits::PARKED_MAX;
use crate::record::{KeyHash, Ordering};
use std::collections::{BTreeMap, BTreeSet};

/// A message in the line of its key: redriven ones come first, and then goes by when the group looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parked {
    is_new: bool,
    turn: u64,
    cursor: u32,
    offset: Offset,
}

/// What is in progress of a key, or of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeyLine {
    /// Leased at least once, and not settled.
    in_flight: u32,
    parked: BTreeSet<Parked>,
}

impl KeyLine {
    /// How many more may be in flight.
    fn room(&self, in_flight_max: u32) -> u32 {
        // seam: only one of a key is ever in flight
        in_flight_max.saturating_sub(self.in_flight)
    }

    /// The first in the line, if it may be leased.
    fn free(&self, in_flight_max: u32) -> Option<(u64, u32, Offset)> {
        let first = self.parked.first().filter(|_| self.room(in_flight_max) > 0);
        first.map(|first| (first.turn, first.cursor, first.offset))
    }
}

/// The lines of a group. Everything here follows from its outstanding messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct KeyOrder {
    lines: BTreeMap<KeyHash, KeyLine>,
    /// By turn: of each free key the first in its line, and all parked messages that have no key.
    free: BTreeSet<(u64, u32, Offset)>,
}

impl KeyOrder {
    fn update(&mut self, key: KeyHash, in_flight_max: u32, change: impl FnOnce(&mut KeyLine)) {
        let line = self.lines.entry(key).or_default();
        let before = line.free(in_flight_max);
        change(line);
        let after = line.free(in_flight_max);
        if line.in_flight == 0 && line.parked.is_empty() {
            self.lines.remove(&key);
        }
        if before != after {
            before.iter().for_each(|first| _ = self.free.remove(first));
            // seam: the next of a free key stays behind
            self.free.extend(after);
        }
    }

    fn park(&mut self, key: Option<KeyHash>, parked: Parked, in_flight_max: u32) {
        match key {
            Some(key) => self.update(key, in_flight_max, |line| _ = line.parked.insert(parked)),
            None => _ = self.free.insert((parked.turn, parked.cursor, parked.offset)),
        }
    }

    /// A parked message is leased.
    fn start(&mut self, key: Option<KeyHash>, parked: Parked, in_flight_max: u32) {
        match key {
            Some(key) => self.update(key, in_flight_max, |line| {
                line.parked.remove(&parked);
                line.in_flight = line.in_flight.saturating_add(1);
            }),
            None => _ = self.free.remove(&(parked.turn, parked.cursor, parked.offset)),
        }
    }

    /// So many messages that were not parked are in flight.
    fn begin(&mut self, key: KeyHash, count: u32, in_flight_max: u32) {
        self.update(key, in_flight_max, |line| line.in_flight = line.in_flight.saturating_add(count));
    }

    /// A message that was in flight is settled.
    fn end(&mut self, key: KeyHash, in_flight_max: u32) {
        self.update(key, in_flight_max, |line| line.in_flight = line.in_flight.saturating_sub(1));
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
        if ordering == Ordering::None {
            return (data.keys.len() == 0 && !data.entries.iter().any(|(_, entry)| entry.parked().is_some()))
                .then_some((order, 0));
        }
        for (&(cursor, offset), entry) in data.entries.iter() {
            let key = data.key_of(cursor, offset);
            match entry.parked() {
                Some(_) if ordering != Ordering::Key => return None,
                Some(turn) => {
                    parked += 1;
                    order.park(key, data.parked_at(cursor, offset, turn), in_flight_max);
                }
                // seam: a restart forgets the keys in flight
                None => key.into_iter().for_each(|key| order.begin(key, 1, in_flight_max)),
            }
        }
        let is_sound = data.keys.iter().all(|(at, key)| *key != KeyHash::NONE && data.entries.get(at).is_some())
            && (ordering == Ordering::Key || data.keys.len() == 0)
            && order.lines.values().all(|line| line.in_flight <= in_flight_max);
        is_sound.then_some((order, parked))
    }
}

/// What stands for the key in order of partitions.
fn of_cursor(cursor: u32) -> KeyHash {
    KeyHash(u64::from(cursor) + 1)
}

impl GroupData {
    /// What an outstanding message is ordered by.
    fn key_of(&self, cursor: u32, offset: Offset) -> Option<KeyHash> {
        match self.options.ordering {
            Ordering::None => None,
            // seam: a key is free in each partition
            Ordering::Key => self.keys.get(&(cursor, offset)).copied(),
            Ordering::Partition => Some(of_cursor(cursor)),
        }
    }

    fn parked_at(&self, cursor: u32, offset: Offset, turn: u64) -> Parked {
        // seam: a redriven message goes last
        let is_new = cursor != self.retry_cursor();
        Parked { is_new, turn, cursor, offset }
    }

    /// How many more messages of a cursor the group may look at.
    fn parked_room(&self, cursor: u32) -> u32 {
        let max = if cursor == self.retry_cursor() { 2 * PARKED_MAX } else { PARKED_MAX };
        max.saturating_sub(self.parked)
    }

    /// Whether the group keeps messages waiting for others.
    pub(in crate::state) fn is_ordered(&self) -> bool {
        self.options.ordering != Ordering::None
    }
}

impl KeyOrder {
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
                // seam: a partition has more in flight than it may
                let room = self.lines.get(&of_cursor(cursor)).map_or(in_flight_max, |line| line.room(in_flight_max));
                u64::from(room)
            }
        }
    }

    /// How many of them there are, or fewer where a key may have several in flight.
    fn startable_count(&self) -> usize {
        self.free.len()
    }
}

impl GroupState {
    /// Whether `count` messages from `first` on may be leased, as far as order goes: those that are parked are the first of their keys.
    pub(in crate::state) fn check_started(&self, cursor: u32, first: Offset, count: u32) -> Applied {
        let mut lines = BTreeMap::new();
        let mut parked_count = 0;
        for offset in (first.0..first.0.saturating_add(u64::from(count))).map(Offset) {
            let Some(turn) = self.entry(cursor, offset).and_then(|entry| entry.parked()) else { continue };
            parked_count += 1;
            let Some(key) = self.key_of(cursor, offset) else { continue };
            let line = self.order.lines.get(&key).ok_or(super::Inconsistent("a parked message in no line"))?;
            let room = line.room(self.options.max_in_flight_per_key);
            let next = lines.entry(key).or_insert_with(|| line.parked.iter().take(room as usize)).next();
            let is_next = next == Some(&self.parked_at(cursor, offset, turn));
            require(is_next, "a lease of a message that waits for another of its key")?;
        }
        let room = self.options.max_outstanding.saturating_sub(self.outstanding());
        require(parked_count <= room, "a lease of more messages than may be outstanding")
    }

    /// Takes a message out of the line of its key, if it is parked: it is leased.
    pub(in crate::state) fn start_parked(&mut self, cursor: u32, offset: Offset) {
        let Some(turn) = self.entry(cursor, offset).and_then(|entry| entry.parked()) else { return };
        let (key, parked) = (self.key_of(cursor, offset), self.parked_at(cursor, offset, turn));
        self.order.start(key, parked, self.data.options.max_in_flight_per_key);
        self.data.parked -= 1;
    }

    /// So many new messages of a cursor are leased.
    pub(in crate::state) fn begin_new(&mut self, cursor: u32, count: u32) {
        if self.options.ordering == Ordering::Partition {
            self.order.begin(of_cursor(cursor), count, self.data.options.max_in_flight_per_key);
        }
    }
}
