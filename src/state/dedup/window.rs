//! The ids that a topic remembers, in the order in which they were accepted.
//!
//! They lie in pages that snapshots share; a table beside them finds one by its hash. Never here: which topic it is, what a repeat means.

use crate::ids::{Epoch, Lsn, Offset, PartitionId, StoreMs};
use crate::state::kit::prehashed::Prehashed;
use crate::state::kit::tree::Tree;

/// A message that was accepted under an id.
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
    len_max: u32,
    age_max_ms: u64,
    /// By numbers that rise.
    accepted: Tree<u64, Acceptance>,
    /// The numbers in use are `first .. next`.
    first: u64,
    next: u64,
    /// The newest number of each id. Its order is never looked at.
    newest: Prehashed<u128, u64>,
}

/// How many that are too old leave for each that comes, so that a long rest is not paid for by one publish.
const LEAVE_AT_ONCE: usize = 8;

impl Window {
    pub(in crate::state) fn new(len_max: u32, age_max_ms: u64) -> Self {
        // All the room at once, for what grows later grows under the lock: half as much again, so that places that were given up are
        // used again before the table is full of them.
        let room = len_max as usize + len_max as usize / 2;
        let newest = Prehashed::with_capacity_and_hasher(room, Default::default());
        Self { len_max, age_max_ms, accepted: Tree::default(), first: 0, next: 0, newest }
    }

    pub(in crate::state) fn capacity(&self) -> u64 {
        u64::from(self.len_max)
    }

    pub(in crate::state) fn is_empty(&self) -> bool {
        self.first == self.next
    }

    fn is_over(&self, acceptance: &Acceptance, now: StoreMs) -> bool {
        // seam: an id is forgotten too early
        now.saturating_sub(acceptance.time.0).0 > self.age_max_ms
    }

    #[inline]
    pub(in crate::state) fn find(&self, id: u128, now: StoreMs) -> Option<&Acceptance> {
        let found = self.accepted.get(self.newest.get(&id)?)?;
        (!self.is_over(found, now)).then_some(found)
    }

    /// Lets go of the oldest, at most so many, as far as they are too old.
    pub(in crate::state) fn expire(&mut self, now: StoreMs, max: usize) {
        for _ in 0..max {
            match self.accepted.get(&self.first) {
                Some(oldest) if self.is_over(oldest, now) => self.drop_oldest(),
                Some(_) | None => return,
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.accepted.remove(&self.first) {
            if self.newest.get(&oldest.id) == Some(&self.first) {
                self.newest.remove(&oldest.id);
            }
            self.first += 1;
        }
    }

    /// Takes in one that is not remembered, at its time.
    pub(in crate::state) fn accept(&mut self, acceptance: Acceptance) {
        self.expire(acceptance.time, LEAVE_AT_ONCE);
        if self.next - self.first >= u64::from(self.len_max) {
            self.drop_oldest();
        }
        self.put(acceptance);
    }

    /// Takes in one, as it is.
    pub(in crate::state) fn put(&mut self, acceptance: Acceptance) {
        self.newest.insert(acceptance.id, self.next);
        self.accepted.insert(self.next, acceptance);
        self.next += 1;
    }

    /// As they are now. Copies pointers.
    pub(in crate::state) fn snapshot(&self) -> Tree<u64, Acceptance> {
        self.accepted.clone()
    }

    /// Whether the table finds what is there, and nothing else.
    #[cfg(any(test, feature = "simulation"))]
    pub(in crate::state) fn is_sound(&self) -> bool {
        let mut newest = Prehashed::default();
        newest.extend(self.accepted.iter().map(|(number, acceptance)| (acceptance.id, *number)));
        let numbers = self.accepted.iter().map(|(number, _)| *number);
        newest == self.newest && numbers.eq(self.first..self.next) && self.next - self.first <= u64::from(self.len_max)
    }
}
