//! An index in memory: for programs that want no files beside the log, and as the model of the other engines.
//!
//! It begins empty at each open and is filled from the log. Never here: files.

use super::guarded::DerivedIndex;
use super::{Direction, IndexChange, IndexEngine, IndexEntry, IndexError, KeyRange, STAMP_KEY};
use std::collections::BTreeMap;

/// Entries, up to a number of them.
#[derive(Debug)]
pub(super) struct MemoryEngine {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    entries_max: usize,
}

/// An empty index in memory of at most so many entries.
pub(crate) fn in_memory(entries_max: usize) -> Result<DerivedIndex, IndexError> {
    DerivedIndex::open("memory", || Ok(Box::new(MemoryEngine::new(entries_max))))
}

impl MemoryEngine {
    fn new(entries_max: usize) -> Self {
        Self { entries: BTreeMap::new(), entries_max }
    }
}

impl IndexEngine for MemoryEngine {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), IndexError> {
        scan_map(&self.entries, range, direction, entries_max, out);
        Ok(())
    }

    fn apply(&mut self, changes: &[IndexChange<'_>]) -> Result<(), IndexError> {
        for change in changes {
            // The stamp is an entry here, and none that is counted.
            let counted = self.entries.len() - usize::from(self.entries.contains_key(STAMP_KEY));
            let is_new = change.value.is_some() && change.key != STAMP_KEY && !self.entries.contains_key(change.key);
            if is_new && counted >= self.entries_max {
                return Err(IndexError::Full { entries_max: self.entries_max });
            }
            apply_to_map(&mut self.entries, change);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), IndexError> {
        Ok(())
    }
}

pub(super) fn scan_map(
    entries: &BTreeMap<Vec<u8>, Vec<u8>>,
    range: KeyRange<'_>,
    direction: Direction,
    entries_max: usize,
    out: &mut Vec<IndexEntry>,
) {
    let found = entries.range::<[u8], _>(range);
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    match direction {
        Direction::Ascending => out.extend(found.take(entries_max).map(owned)),
        Direction::Descending => out.extend(found.rev().take(entries_max).map(owned)),
    }
}

pub(super) fn apply_to_map(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, change: &IndexChange<'_>) {
    match change.value {
        Some(value) => drop(entries.insert(change.key.to_vec(), value.to_vec())),
        None => drop(entries.remove(change.key)),
    }
}
