//! The index on redb. The one file that knows it.
//!
//! An apply is one transaction without durability: its pages are written when the cache wants it, and count once a later
//! flush has committed durably. Until then a crash takes all back to the last flush, and no page is used again. So who fills
//! the index flushes now and then. It has no thread. Never here: checks of what it returns.

use super::folder::sync_names;
use super::{Direction, IndexChange, IndexEngine, IndexEntry, IndexError, KeyRange};
use ::redb::{AccessGuard, Database, Durability, ReadableDatabase, StorageError, TableDefinition, TableError};
use std::path::{Path, PathBuf};

/// Its cache, in bytes, which is nearly all the memory that it takes.
const CACHE_BYTES: usize = 16 << 20;
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("index");

pub(super) struct RedbEngine {
    db: Database,
    path: PathBuf,
}

impl RedbEngine {
    /// Also its name in the folder of the index.
    pub(super) const NAME: &str = "redb";

    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(fault("open"))?;
        let engine = Self { db, path: path.to_owned() };
        // So that a read finds the table.
        engine.commit(&[], Durability::None)?;
        Ok(engine)
    }

    fn commit(&self, changes: &[IndexChange<'_>], durability: Durability) -> Result<(), IndexError> {
        let mut transaction = self.db.begin_write().map_err(fault("write"))?;
        transaction.set_durability(durability).map_err(fault("write"))?;
        let mut table = transaction.open_table(TABLE).map_err(fault("write"))?;
        for change in changes {
            match change.value {
                Some(value) => drop(table.insert(change.key, value).map_err(fault("write"))?),
                None => drop(table.remove(change.key).map_err(fault("write"))?),
            }
        }
        drop(table);
        transaction.commit().map_err(fault("commit"))
    }

    fn table(&self) -> Result<::redb::ReadOnlyTable<&'static [u8], &'static [u8]>, IndexError> {
        let transaction = self.db.begin_read().map_err(fault("read"))?;
        transaction.open_table(TABLE).map_err(fault::<TableError>("read"))
    }
}

/// What an error of redb or of the system is here.
fn fault<E: Into<::redb::Error>>(what: &'static str) -> impl FnOnce(E) -> IndexError {
    move |error| {
        let error = error.into();
        if let ::redb::Error::Io(error) = &error {
            return IndexError::io(RedbEngine::NAME, what, error);
        }
        IndexError::fault(RedbEngine::NAME, format_args!("could not {what}: {error}"))
    }
}

type RedbItem = Result<(AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>), StorageError>;

impl IndexEngine for RedbEngine {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.table()?.get(key).map_err(fault("read"))?.map(|value| value.value().to_vec()))
    }

    fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), IndexError> {
        let mut entries = self.table()?.range::<&[u8]>(range).map_err(fault("scan"))?;
        for _ in 0..entries_max {
            let next: Option<RedbItem> = match direction {
                Direction::Ascending => entries.next(),
                Direction::Descending => entries.next_back(),
            };
            let Some(entry) = next else { break };
            let (key, value) = entry.map_err(fault("scan"))?;
            out.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[IndexChange<'_>]) -> Result<(), IndexError> {
        self.commit(changes, Durability::None)
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        self.commit(&[], Durability::Immediate)?;
        sync_names(&self.path).map_err(|error| IndexError::io(Self::NAME, "sync", &error))
    }

    fn close(self: Box<Self>) -> Result<(), IndexError> {
        drop(self);
        Ok(())
    }
}
