//! Where a store's index is: which engine holds it, opening it, and throwing it away.
//!
//! Never here: what an engine writes.

#[cfg(any(feature = "sled", feature = "redb"))]
use super::folder;
use super::guarded::DerivedIndex;
use super::memory::MemoryEngine;
#[cfg(feature = "redb")]
use super::redb::RedbEngine;
#[cfg(feature = "sled")]
use super::sled::SledEngine;
use super::{IndexError, IndexHome};
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
#[cfg(any(feature = "sled", feature = "redb"))]
use std::path::Path;
use std::path::PathBuf;

/// What holds the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexKind {
    /// Nothing on disk. Beyond so many entries every apply that adds one is refused.
    Memory { entries_max: usize },
    /// On sled: files, and threads that write and clean them.
    #[cfg(feature = "sled")]
    Sled,
    /// On redb: one file, and no thread.
    #[cfg(feature = "redb")]
    Redb,
}

/// An index in a folder of the store, which the engine creates and removes.
#[derive(Debug)]
pub(crate) struct IndexDirectory {
    kind: IndexKind,
    path: PathBuf,
}

/// What the folder is renamed to before it is removed.
const ASIDE_ENDING: &str = "discarded";

impl IndexDirectory {
    pub(crate) fn new(kind: IndexKind, path: PathBuf) -> Self {
        Self { kind, path }
    }

    /// What was discarded and not removed, because a crash came between.
    pub(super) fn remove_aside(&self) -> Result<(), IndexError> {
        let aside = self.aside();
        let removed = match fs::symlink_metadata(&aside) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&aside),
            Ok(_) => fs::remove_file(&aside),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.fault("remove the discarded index of", error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension(ASIDE_ENDING)
    }

    pub(super) fn fault(&self, what: &str, why: impl Display) -> IndexError {
        IndexError::fault("directory", format_args!("could not {what} {}: {why}", self.path.display()))
    }
}

impl IndexHome for IndexDirectory {
    fn open(&self) -> Result<DerivedIndex, IndexError> {
        match self.kind {
            IndexKind::Memory { entries_max } => {
                DerivedIndex::open("memory", || Ok(Box::new(MemoryEngine::new(entries_max))))
            }
            #[cfg(feature = "sled")]
            IndexKind::Sled => {
                DerivedIndex::open(SledEngine::NAME, || folder::engine_in(self, SledEngine::NAME, SledEngine::open))
            }
            #[cfg(feature = "redb")]
            IndexKind::Redb => {
                DerivedIndex::open(RedbEngine::NAME, || folder::engine_in(self, RedbEngine::NAME, RedbEngine::open))
            }
        }
    }

    /// The folder loses its name first: whatever of it cannot be removed does not come back.
    fn discard(&self) -> Result<(), IndexError> {
        self.remove_aside()?;
        match fs::rename(&self.path, self.aside()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.fault("discard", error)),
            Ok(()) => {}
        }
        self.remove_aside()
    }
}
