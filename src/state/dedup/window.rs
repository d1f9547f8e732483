//! The ids that a topic remembers, in the order in which they were accepted.
//!
//! They lie in pages that snapshots share; a table beside them finds one by its hash. Never here: which topic it is, what a repeat means.

use crate::ids::{Epoch, Lsn, Offset, PartitionId, StoreMs};
use crate::state::kit::ring::Ring;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// A message that was accepted under an id. It lies in one line of the cache, for each publish looks at the oldest.
#[repr(align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// Hashes of its id and of its bytes.
    pub(crate) id: u128,
    pub(crate) body: u64,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) epoch: Epoch,
    /// Its frame.
    pub(crate) lsn: Lsn,
    pub(crate) time: StoreMs,
}

/// What one topic remembers.
#[derive(Clone, Debug)]
pub(in crate::state) struct Window {
    age_max_ms: u64,
    accepted: Ring<Acceptance>,
    /// The newest number of each id: its low half, for the table is looked into at every publish and the ring holds less than that. Its
    /// order is never looked at.
    newest: HashTable<u32>,
}

/// How many that are too old leave for each that comes, so that a long rest is not paid for by one publish.
const LEAVE_AT_ONCE: usize = 8;

impl Window {
    pub(in crate::state) fn new(len_max: u32, age_max_ms: u64) -> Self {
        // All the room at once, for what grows later grows under the lock: half as much again, so that places that were given up are
        // used again before the table is full of them.
        let room = len_max as usize + len_max as usize / 2;
        Self { age_max_ms, accepted: Ring::new(len_max), newest: HashTable::with_capacity(room) }
    }

    pub(in crate::state) fn capacity(&self) -> u64 {
        self.accepted.len_max()
    }

    pub(in crate::state) fn is_empty(&self) -> bool {
        self.accepted.numbers().is_empty()
    }

    #[inline]
    pub(in crate::state) fn find(&self, id: u128, now: StoreMs) -> Option<&Acceptance> {
        let low = self.newest.find(hash(id), |&low| has_id(&self.accepted, low, id))?;
        self.accepted.get_low(*low).filter(|found| !is_over(found, now, self.age_max_ms))
    }

    /// Lets go of the oldest, at most so many, as far as they are too old.
    pub(in crate::state) fn expire(&mut self, now: StoreMs, max: usize) {
        for _ in 0..max {
            match self.accepted.get(self.accepted.numbers().start) {
                Some(oldest) if is_over(oldest, now, self.age_max_ms) => self.drop_oldest(),
                Some(_) | None => return,
            }
        }
    }

    fn drop_oldest(&mut self) {
        let Some((number, oldest)) = self.accepted.pop() else { return };
        if let Ok(entry) = self.newest.find_entry(hash(oldest.id), |&low| low == number as u32) {
            entry.remove();
        }
    }

    /// Takes in one, at its time. `false` if its id is remembered then: nothing was changed.
    pub(in crate::state) fn accept(&mut self, acceptance: Acceptance) -> bool {
        let (age_max_ms, now) = (self.age_max_ms, acceptance.time);
        if !self.number_next(acceptance.id, |before| is_over(before, now, age_max_ms)) {
            return false;
        }
        self.expire(now, LEAVE_AT_ONCE);
        if self.accepted.is_full() {
            self.drop_oldest();
        }
        self.accepted.push(acceptance);
        true
    }

    /// Takes in one, as it is.
    pub(in crate::state) fn put(&mut self, acceptance: Acceptance) {
        self.number_next(acceptance.id, |_| true);
        self.accepted.push(acceptance);
    }

    /// Lets an id find the entry that comes next, unless it finds one that may not be replaced.
    #[inline]
    fn number_next(&mut self, id: u128, may_replace: impl FnOnce(&Acceptance) -> bool) -> bool {
        let Self { accepted, newest, .. } = self;
        let next = accepted.numbers().end as u32;
        let rehash = |&low: &u32| accepted.get_low(low).map_or(0, |acceptance| hash(acceptance.id));
        match newest.entry(hash(id), |&low| has_id(accepted, low, id), rehash) {
            Entry::Occupied(mut entry) => {
                let replaced = accepted.get_low(*entry.get()).is_none_or(may_replace);
                if replaced {
                    *entry.get_mut() = next;
                }
                return replaced;
            }
            Entry::Vacant(entry) => _ = entry.insert(next),
        }
        true
    }

    /// As they are now. Copies pointers.
    pub(in crate::state) fn snapshot(&self) -> Ring<Acceptance> {
        self.accepted.clone()
    }

    /// Whether the table finds what is there, and nothing else.
    pub(in crate::state) fn is_sound(&self) -> bool {
        let newest: std::collections::BTreeMap<_, _> =
            self.accepted.iter().map(|(number, acceptance)| (acceptance.id, number as u32)).collect();
        let found = |(&id, &number)| {
            let found = self.newest.find(hash(id), |&low| has_id(&self.accepted, low, id));
            found == Some(&number)
        };
        newest.len() == self.newest.len()
            && newest.iter().all(found)
            && self.accepted.iter().count() as u64 <= self.capacity()
    }
}

fn is_over(acceptance: &Acceptance, now: StoreMs, age_max_ms: u64) -> bool {
    // seam: an id is forgotten too early
    now.saturating_sub(acceptance.time.0).0 > age_max_ms
}

/// An id is a keyed hash already.
fn hash(id: u128) -> u64 {
    id as u64
}

fn has_id(accepted: &Ring<Acceptance>, low: u32, id: u128) -> bool {
    accepted.get_low(low).is_some_and(|acceptance| acceptance.id == id)
}
