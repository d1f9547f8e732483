//! An index for simulated stores: it comes back from a crash as any earlier one, or as garbage.
//!
//! It keeps the batches that were made since the last flush, so a crash can drop any number of the last of them. Each batch is
//! small: one apply is several of them, and a crash may come between two. Equal calls and outcomes give equal answers. Never
//! here: files, threads, randomness.

use super::guarded::{DerivedIndex, encoded, seal};
use super::memory::{apply_to_map, scan_map};
use super::{Direction, IndexChange, IndexEngine, IndexEntry, IndexError, IndexHome, IndexStamp, KeyRange, STAMP_KEY};
use crate::ids::{Epoch, Lsn};
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "simulated";
const BATCH_LEN_MAX: usize = 7;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;
type OwnedBatch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What a crash leaves of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOutcome {
    /// What was flushed, and so many of the batches since then, or all that there are.
    Prefix(usize),
    /// Nothing.
    Empty,
    /// It does not open until it is discarded.
    Refuses,
    /// It neither opens nor can be discarded, as where its folder may not be written.
    Locked,
    /// It opens, and fails after so many calls.
    FailsAfter(u64),
    /// It is whole, and its stamp names another store.
    OtherInstance,
    /// It is whole, and its stamp is so far ahead of what was applied.
    Ahead(u64),
    /// A byte of an entry is changed: the first one from this key on, or the stamp.
    Damaged([u8; 2]),
}

impl IndexOutcome {
    /// One of them, by a random number.
    pub fn drawn(random: u64) -> Self {
        let (kind, detail) = (random % 16, random >> 8);
        match kind {
            0 => Self::Empty,
            1 => Self::Refuses,
            2 => Self::FailsAfter(detail % 8),
            3 => Self::OtherInstance,
            // Beyond the end of the log: one below it would be a lie that nobody can see.
            4 => Self::Ahead((1 << 40) + detail % 1024),
            5 => Self::Damaged((detail as u16).to_le_bytes()),
            6 => Self::Locked,
            // Most often it is an earlier one.
            _ => Self::Prefix((detail % 16) as usize),
        }
    }
}

/// A simulated folder of an index. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct SimIndexHome {
    world: Arc<Mutex<IndexWorld>>,
}

#[derive(Debug, Default)]
struct IndexWorld {
    entries: Entries,
    flushed: Entries,
    /// Since `flushed`.
    batches: Vec<OwnedBatch>,
    refuses: bool,
    stays: bool,
    calls_left: Option<u64>,
    is_open: bool,
    /// How many processes have died: the index of a dead one answers nothing.
    crashes: u64,
}

impl SimIndexHome {
    /// The process that has it open, if there is one, dies, and the index is found like this.
    pub fn crash(&self, outcome: IndexOutcome) {
        let world = &mut *self.world.lock();
        world.crashes += 1;
        (world.is_open, world.stays) = (false, false);
        match outcome {
            IndexOutcome::Prefix(count) => {
                world.entries = world.flushed.clone();
                world.batches.iter().take(count).for_each(|batch| apply_owned(&mut world.entries, batch));
            }
            IndexOutcome::Empty => world.entries.clear(),
            IndexOutcome::Refuses => world.refuses = true,
            IndexOutcome::Locked => (world.refuses, world.stays) = (true, true),
            IndexOutcome::FailsAfter(calls) => world.calls_left = Some(calls),
            IndexOutcome::OtherInstance => world.restamp(|stamp| stamp.instance[0] ^= 1),
            IndexOutcome::Ahead(by) => world.restamp(|stamp| stamp.lsn = stamp.lsn.saturating_add(by)),
            IndexOutcome::Damaged(from) => {
                let place = world.entries.range(from.to_vec()..).map(|(key, _)| key.clone()).next();
                if let Some(value) = world.entries.get_mut(place.as_deref().unwrap_or(STAMP_KEY)) {
                    value[0] ^= 1;
                }
            }
        }
        world.flush();
    }

    /// Whether a process has it open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.world.lock().is_open
    }
}

impl IndexWorld {
    fn flush(&mut self) {
        self.flushed = self.entries.clone();
        self.batches.clear();
    }

    /// Puts another stamp there, if there is one.
    fn restamp(&mut self, change: impl FnOnce(&mut IndexStamp)) {
        if let Some(stored) = self.entries.get_mut(STAMP_KEY) {
            let word = |at: usize| stored[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let instance = stored.first_chunk().copied().unwrap_or_default();
            let mut stamp = IndexStamp { instance, epoch: Epoch(word(16)), lsn: Lsn(word(24)) };
            change(&mut stamp);
            stored.clear();
            seal(&IndexChange { key: STAMP_KEY, value: Some(&encoded(stamp)) }, stored);
        }
    }
}

fn apply_owned(entries: &mut Entries, batch: &OwnedBatch) {
    batch.iter().for_each(|(key, value)| apply_to_map(entries, &IndexChange { key, value: value.as_deref() }));
}

impl IndexHome for SimIndexHome {
    fn has_files(&self) -> bool {
        true
    }

    fn open(&self) -> Result<DerivedIndex, IndexError> {
        DerivedIndex::open(NAME, || {
            let world = &mut *self.world.lock();
            if world.refuses || world.is_open {
                let why = if world.refuses { "refuses to open" } else { "is open" };
                return Err(IndexError::fault(NAME, why));
            }
            world.is_open = true;
            Ok(Box::new(SimEngine { world: Arc::clone(&self.world), crashes: world.crashes }))
        })
    }

    fn discard(&self) -> Result<(), IndexError> {
        let world = &mut *self.world.lock();
        if world.is_open || world.stays {
            return Err(IndexError::fault(NAME, if world.is_open { "is open" } else { "may not be removed" }));
        }
        *world = IndexWorld { crashes: world.crashes, ..IndexWorld::default() };
        Ok(())
    }
}

struct SimEngine {
    world: Arc<Mutex<IndexWorld>>,
    /// At the time that it was opened.
    crashes: u64,
}

impl SimEngine {
    fn with<T>(&self, work: impl FnOnce(&mut IndexWorld) -> T) -> Result<T, IndexError> {
        let world = &mut *self.world.lock();
        if world.crashes != self.crashes {
            return Err(IndexError::fault(NAME, "its process is dead"));
        }
        match &mut world.calls_left {
            Some(0) => return Err(IndexError::fault(NAME, "fails")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(work(world))
    }
}

impl IndexEngine for SimEngine {
    fn batch_len_max(&self) -> usize {
        BATCH_LEN_MAX
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.with(|world| world.entries.get(key).cloned())
    }

    fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), IndexError> {
        self.with(|world| scan_map(&world.entries, range, direction, entries_max, out))
    }

    fn apply(&mut self, changes: &[IndexChange<'_>]) -> Result<(), IndexError> {
        let owned = |change: &IndexChange<'_>| (change.key.to_vec(), change.value.map(<[u8]>::to_vec));
        let batch: OwnedBatch = changes.iter().map(owned).collect();
        self.with(|world| {
            apply_owned(&mut world.entries, &batch);
            world.batches.push(batch);
        })
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        self.with(IndexWorld::flush)
    }

    fn close(self: Box<Self>) -> Result<(), IndexError> {
        let world = &mut *self.world.lock();
        // The index of a dead process has nothing to close.
        if world.crashes == self.crashes {
            world.is_open = false;
        }
        Ok(())
    }
}
