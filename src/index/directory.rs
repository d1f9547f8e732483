//! Where a store's index is: which engine holds it, opening it, and throwing it away.
//!
//! Never here: what an engine writes.

#[cfg(any(feature = "sled", feature = "redb"))]
use super::folder;
use super::guarded::DerivedIndex;
use super::memory::in_memory;
#[cfg(feature = "redb")]
use super::redb::RedbEngine;
#[cfg(feature = "sled")]
use super::sled::SledEngine;
use super::{IndexError, IndexHome};
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
#[cfg(any(feature = "sled", feature = "redb"))]
use std::path::Path;
use std::path::PathBuf;

/// What holds the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexKind {
    /// Nothing on disk. Beyond so many entries every apply that adds one is refused.
    Memory {
        /// The most entries, each an append to a stream.
        entries_max: usize,
    },
    /// On sled: files, and threads that write and clean them.
    #[cfg(feature = "sled")]
    Sled,
    /// On redb: one file, and no thread.
    #[cfg(feature = "redb")]
    Redb,
}

impl Default for IndexKind {
    /// On sled, or without that on redb, or without both in memory.
    fn default() -> Self {
        #[cfg(feature = "sled")]
        return Self::Sled;
        #[cfg(all(feature = "redb", not(feature = "sled")))]
        return Self::Redb;
        #[cfg(not(any(feature = "sled", feature = "redb")))]
        return Self::Memory { entries_max: 1 << 20 };
    }
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
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.io("remove the discarded index of", &error)),
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

    pub(super) fn io(&self, what: &str, error: &io::Error) -> IndexError {
        IndexError::io("directory", &format!("{what} {}", self.path.display()), error)
    }

    pub(super) fn fault(&self, what: &str, why: impl Display) -> IndexError {
        IndexError::fault("directory", format_args!("could not {what} {}: {why}", self.path.display()))
    }
}

impl IndexHome for IndexDirectory {
    fn has_files(&self) -> bool {
        match self.kind {
            IndexKind::Memory { .. } => false,
            #[cfg(feature = "sled")]
            IndexKind::Sled => true,
            #[cfg(feature = "redb")]
            IndexKind::Redb => true,
        }
    }

    fn open(&self) -> Result<DerivedIndex, IndexError> {
        match self.kind {
            IndexKind::Memory { entries_max } => in_memory(entries_max),
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
            Err(error) => return Err(self.io("discard", &error)),
            Ok(()) => {}
        }
        self.remove_aside()
    }
}

#[cfg(test)]
#[cfg(any(feature = "sled", feature = "redb"))]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Lsn};
    use crate::index::{DerivedIndex, IndexChange, IndexStamp};
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    const KINDS: &[IndexKind] = &[
        #[cfg(feature = "sled")]
        IndexKind::Sled,
        #[cfg(feature = "redb")]
        IndexKind::Redb,
    ];

    const STAMP: IndexStamp = IndexStamp { instance: [1; 16], epoch: Epoch(1 << 32), lsn: Lsn(8) };

    /// Checks on a fresh folder for each engine with files.
    fn on_each(check: impl Fn(&TempDir, IndexDirectory)) {
        for kind in KINDS {
            let folder = tempfile::tempdir().unwrap();
            let home = IndexDirectory::new(*kind, folder.path().join("index"));
            check(&folder, home);
        }
    }

    fn refusal(home: &IndexDirectory) -> String {
        home.open().map(drop).unwrap_err().to_string()
    }

    fn names_in(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn index_is_its_owners_alone_and_leaves_nothing_when_discarded() {
        on_each(|folder, home| {
            drop(home.open().unwrap());
            assert_eq!(names_in(folder.path()), ["index"]);
            assert_eq!(fs::metadata(folder.path().join("index")).unwrap().permissions().mode() & 0o777, 0o700);
            home.discard().unwrap();
            assert!(names_in(folder.path()).is_empty());
        });
    }

    #[test]
    fn something_else_in_the_place_is_refused_and_discarded() {
        on_each(|folder, home| {
            let path = folder.path().join("index");
            fs::write(&path, "a file").unwrap();
            assert!(refusal(&home).contains("no directory"));
            home.discard().unwrap();
            fs::create_dir(folder.path().join("elsewhere")).unwrap();
            fs::write(folder.path().join("elsewhere/kept"), "").unwrap();
            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
            assert!(refusal(&home).contains("no directory"));
            home.discard().unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(path.join("of another engine"), "").unwrap();
            assert!(refusal(&home).contains("of another engine"));
            home.discard().unwrap();
            drop(home.open().unwrap());
            home.discard().unwrap();
            assert_eq!(names_in(&folder.path().join("elsewhere")), ["kept"], "a link is removed, not followed");
        });
    }

    #[test]
    fn folder_of_another_engine_or_none_is_refused() {
        on_each(|folder, home| {
            drop(home.open().unwrap());
            for other in KINDS.iter().filter(|other| **other != home.kind) {
                assert!(refusal(&IndexDirectory::new(*other, home.path.clone())).contains("is no"));
            }
            let nowhere = IndexDirectory::new(home.kind, folder.path().join("missing/index"));
            assert!(refusal(&nowhere).contains("could not create"));
            nowhere.discard().unwrap();
        });
    }

    #[test]
    fn engine_that_finds_no_files_of_its_own_is_refused() {
        on_each(|_, home| {
            let name = if cfg!(feature = "sled") && format!("{:?}", home.kind) == "Sled" { "sled" } else { "redb" };
            fs::create_dir(&home.path).unwrap();
            // Sled wants a folder there, and redb a file.
            if name == "sled" {
                fs::write(home.path.join(name), "a file").unwrap();
            } else {
                fs::create_dir(home.path.join(name)).unwrap();
            }
            assert!(refusal(&home).contains("could not open"));
            home.discard().unwrap();
            drop(home.open().unwrap());
        });
    }

    /// A named pipe would make the open wait for ever. The link comes first, so that a failure is told and does not wait.
    #[test]
    fn what_is_no_file_is_refused_before_an_engine_opens_it() {
        on_each(|folder, home| {
            drop(home.open().unwrap());
            let path = fs::read_dir(&home.path).unwrap().next().unwrap().unwrap().path();
            let file = if path.is_dir() { path.join("db") } else { path };
            let elsewhere = folder.path().join("elsewhere");
            fs::rename(&file, &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
            assert!(refusal(&home).contains("neither file nor folder"));
            fs::remove_file(&file).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            assert!(refusal(&home).contains("neither file nor folder"));
            home.discard().unwrap();
            assert!(elsewhere.exists() && !home.path.exists());
            drop(home.open().unwrap());
        });
    }

    #[test]
    fn discard_that_a_crash_cut_short_is_finished_by_the_next_open() {
        on_each(|folder, home| {
            for is_file in [true, false] {
                let aside = folder.path().join("index.discarded");
                if is_file {
                    fs::write(&aside, "").unwrap();
                } else {
                    fs::create_dir(&aside).unwrap();
                    fs::write(aside.join("left"), "").unwrap();
                }
                drop(home.open().unwrap());
                assert_eq!(names_in(folder.path()), ["index"]);
            }
        });
    }

    #[test]
    fn folder_that_may_not_be_written_is_a_fault() {
        if rustix::process::geteuid().is_root() {
            return; // Root may write everywhere.
        }
        on_each(|folder, home| {
            let permit = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            permit(0o500);
            assert!(refusal(&home).contains("ermission denied"));
            permit(0o700);
            drop(home.open().unwrap());
            permit(0o500);
            let discarded = home.discard().unwrap_err().to_string();
            permit(0o700);
            assert!(discarded.contains("ermission denied"), "{discarded}");
        });
    }

    /// Sled hands what is written to threads of its own, which may have the locked file for moments after a drop; the more so
    /// while they work for several databases.
    #[test]
    fn index_that_is_closed_while_it_writes_opens_at_once() {
        let keys: Vec<[u8; 8]> = (0..500).map(|at: u64| at.to_le_bytes()).collect();
        let changes: Vec<_> = keys.iter().map(|key| IndexChange { key, value: Some(&[1; 200]) }).collect();
        let reopen = |home: &IndexDirectory| {
            for round in 0..60 {
                let mut index: DerivedIndex = home.open().unwrap_or_else(|error| panic!("round {round}: {error}"));
                index.apply(&changes, STAMP).unwrap();
                if round % 2 == 0 {
                    index.close().unwrap()
                } else {
                    drop(index)
                }
                if round % 10 == 9 {
                    home.discard().unwrap();
                }
            }
        };
        on_each(|folder, home| {
            let others = ["2", "3", "4"].map(|name| IndexDirectory::new(home.kind, folder.path().join(name)));
            std::thread::scope(|scope| {
                others.iter().chain([&home]).for_each(|home| drop(scope.spawn(|| reopen(home))));
            });
        });
    }
}
