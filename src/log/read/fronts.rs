//! Fronts of frames of many parts, shared by all readers, within a bound: what stands before the parts, and what the caller made
//! of it, is worked out once for all messages of the frame, in whatever order they are read.
//!
//! A front that is here has proven itself. Keyed by the file's salt, which no other file has, so that nothing is ever stale.
//! Never here: what heads mean.

use crate::log::read::part::Front;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// From so many parts on a front is shared. One of fewer is read and decoded anew by each reader.
pub(in crate::log) const WIDE_PARTS: u32 = 64;

/// The salt of a file, and the frame's place in it.
type FrontKey = (u64, u32);

/// A front, and what the caller made of it.
#[derive(Debug)]
pub(in crate::log) struct SharedFront<T> {
    pub(in crate::log) front: Front,
    pub(in crate::log) note: OnceLock<T>,
}

/// What a front and its note take together, at most: each record of a head has a few bytes there, and some more in a note.
const WEIGHT: usize = 4;

#[derive(Debug)]
struct Fronts<T> {
    by_key: HashMap<FrontKey, Arc<SharedFront<T>>>,
    /// The oldest first.
    order: VecDeque<FrontKey>,
    bytes: usize,
}

/// The cache. Its mutex is held for a look-up, never for a read.
#[derive(Debug)]
pub(crate) struct FrontCache<T> {
    fronts: Mutex<Fronts<T>>,
    bytes_max: usize,
}

impl<T> FrontCache<T> {
    /// Of at most `bytes`, notes included.
    pub(crate) fn new(bytes: usize) -> Self {
        let fronts = Fronts { by_key: HashMap::new(), order: VecDeque::new(), bytes: 0 };
        Self { fronts: Mutex::new(fronts), bytes_max: bytes }
    }

    pub(in crate::log) fn get(&self, key: FrontKey) -> Option<Arc<SharedFront<T>>> {
        self.fronts.lock().by_key.get(&key).map(Arc::clone)
    }

    /// Takes a front in; the oldest give way.
    pub(in crate::log) fn put(&self, key: FrontKey, seen: &Arc<SharedFront<T>>) {
        let mut gone = Vec::new();
        let mut fronts = self.fronts.lock();
        if fronts.by_key.contains_key(&key) || weight(seen) > self.bytes_max {
            return;
        }
        fronts.bytes += weight(seen);
        fronts.by_key.insert(key, Arc::clone(seen));
        fronts.order.push_back(key);
        while fronts.bytes > self.bytes_max
            && let Some(oldest) = fronts.order.pop_front()
        {
            gone.extend(fronts.remove(oldest));
        }
        // What went is freed outside the lock.
        drop(fronts);
    }

    /// Forgets a front, as what was read of it may be wrong.
    pub(in crate::log) fn forget(&self, key: FrontKey) {
        let mut fronts = self.fronts.lock();
        if fronts.remove(key).is_some() {
            fronts.order.retain(|other| *other != key);
        }
    }
}

impl<T> Fronts<T> {
    fn remove(&mut self, key: FrontKey) -> Option<Arc<SharedFront<T>>> {
        let seen = self.by_key.remove(&key)?;
        self.bytes -= weight(&seen);
        Some(seen)
    }
}

fn weight<T>(seen: &SharedFront<T>) -> usize {
    seen.front.len().saturating_mul(WEIGHT)
}
