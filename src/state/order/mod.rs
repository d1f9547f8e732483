//! Order: which messages of a group wait for others, by key or by partition.
//!
//! A group in order of keys looks at new messages before it leases them ([`Record::Considered`]): each is outstanding from then on, parked
//! in the line of its key. A message that was leased and is not settled is in flight, whatever happened to its lease. A key with fewer in
//! flight than the group allows is free: the first in its line may be leased. A message without a key is in no line.
//!
//! Of a key with many messages, and where many are parked, those that come later are only counted, with where the first of them is. From
//! then on all later ones are, until none is left. A free key whose line has run out is hungry: the group looks again at the messages of that
//! partition, and parks the next ones of all hungry keys that it meets ([`Record::Recalled`]).
//!
//! In order of partitions and without order nothing is parked, unless a group with a filter looked ahead: the next message of a partition is leased when few enough of it are outstanding. Lines are derived from
//! the outstanding messages, their keys and the counts. Never here: when a message that was leased may be leased again.
//!
//! [`Record::Considered`]: crate::record::Record
//! [`Record::Recalled`]: crate::record::Record

mod apply;
mod decide;
mod facts;
mod line;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use facts::{KeyRun, ParkedMax};
pub(in crate::state) use line::{CountedRun, KeyOrder};
pub(super) use snapshot::{decode, encode};

use super::Inconsistent;
use super::group::{GroupData, GroupState};
use super::message::{Applied, require};
use crate::ids::Offset;
use crate::limits::PARKED_LIMIT;
use crate::record::{KeyHash, Ordering};
use line::{Parked, of_cursor};
use std::collections::BTreeMap;

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

    /// How many more messages of the group may be parked.
    pub(in crate::state) fn parked_room(&self) -> u32 {
        PARKED_LIMIT.saturating_sub(self.parked)
    }

    /// Whether the group keeps messages waiting for others.
    pub(in crate::state) fn is_ordered(&self) -> bool {
        self.options.ordering != Ordering::None
    }

    /// By cursor: how many messages wait and are only counted, and where the first of them may be.
    pub(in crate::state) fn counted_by_cursor(&self) -> BTreeMap<u32, CountedRun> {
        let mut sums: BTreeMap<u32, CountedRun> = BTreeMap::new();
        for ((_, cursor), run) in self.counted.iter() {
            let sum = sums.entry(*cursor).or_insert(CountedRun { first: run.first, count: 0 });
            *sum = CountedRun { first: sum.first.min(run.first), count: sum.count.saturating_add(run.count) };
        }
        sums
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
            let line = self.order.line(key).ok_or(Inconsistent("a parked message in no line"))?;
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
