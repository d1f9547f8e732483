//! The derived index: an ordered map of bytes that the log can give again at any time.
//!
//! A [`DerivedIndex`] holds entries and one [`IndexStamp`], which names the store, the epoch and the end of the log that the
//! entries follow. The caller fills it: it reads the log from the stamp on, and applies changes that bring the stamp to a
//! later end. Nothing here is ever the only copy of a fact, so every failure has one answer: [`IndexHome::discard`], then
//! [`IndexHome::open`], then filling from the start.
//!
//! # What survives
//!
//! A change that was applied is seen by every later call of the same process. After a crash of the process or a power failure
//! the index shows some stamp that was applied before, or none. It is at least the stamp of the last [`DerivedIndex::flush`]
//! that returned `Ok`. The entries have then the effects of *all* changes up to the stamp shown. An index in memory is empty at
//! each open.
//!
//! An engine may take one [`DerivedIndex::apply`] in several batches, with the stamp in the last one. So a crash, or an
//! [`IndexError`], in the middle of it can leave effects of changes *beyond* the stamp. They do no harm if the index is filled
//! from its stamp to the end that was being applied, or a later one, before an answer of it is believed: filling writes the
//! same keys again. That needs two things of the caller: it applies only changes that follow from frames below the durable
//! watermark, which no crash takes away; and what it writes of a key is a function of the log and of nothing that it reads
//! here.
//!
//! # What is checked
//!
//! Each value is stored with a checksum over its key and itself, so a changed byte is an [`IndexError::Fault`] and no wrong
//! answer, whatever the engine checks. Keys of a scan are checked to be in order and in range. *An entry that is missing, or
//! an older one in the place of a newer one, cannot be seen here*: the reader compares each answer with the message in the
//! log that it names, and finds a version that stands nowhere.
//!
//! # Why files are reached without the disk port
//!
//! The engines of others open files by path, and the [`IndexDirectory`] creates and removes their folder with `std::fs`. That
//! is allowed because no promise of the store rests on these files. Simulated stores have a [`SimIndexHome`] in their place.
//! Never here: a file of the log, or any idea of what a key or a value means.

#[cfg(test)]
mod conformance;
#[cfg(test)]
#[cfg(any(feature = "sled", feature = "redb"))]
mod damage;
mod directory;
#[cfg(any(feature = "sled", feature = "redb"))]
mod folder;
mod guarded;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(any(test, feature = "simulation"))]
mod sim;
#[cfg(feature = "sled")]
mod sled;

pub(crate) use directory::IndexDirectory;
pub use directory::IndexKind;
pub(crate) use guarded::DerivedIndex;
pub(crate) use memory::in_memory;
#[cfg(any(test, feature = "simulation"))]
pub use sim::{IndexOutcome, SimIndexHome};

use crate::ids::{Epoch, Lsn};
use std::fmt::{self, Debug, Display};
use std::io;
use std::ops::Bound;

/// The longest key, in bytes. The shortest is 1.
pub(crate) const INDEX_KEY_LEN_MAX: usize = 128;
/// The longest value, in bytes.
pub(crate) const INDEX_VALUE_LEN_MAX: usize = 256;

/// The engine's key of the stamp, below every key of a caller.
const STAMP_KEY: &[u8] = b"";

/// The end of the log that the entries follow: all frames of this store that end at or below `lsn`, of which the last one has
/// this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexStamp {
    pub(crate) instance: [u8; 16],
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
}

/// Puts a value in the place of whatever the key has, or without a value removes the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexChange<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// A key and its value.
pub(crate) type IndexEntry = (Vec<u8>, Vec<u8>);

/// Between which keys a scan goes.
pub(crate) type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// In which order a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// Why the index gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IndexError {
    /// An index in memory holds as many entries as it may. It can still be read, and keeps its stamp.
    Full { entries_max: usize },
    /// The system lacks something for a while, descriptors or memory, by this number of its. Nothing is wrong with the index.
    Lacking { os: i32 },
    /// Anything else. The index answers every later call with this fault: it must be discarded, and opened and filled anew.
    Fault { engine: &'static str, text: String },
}

impl IndexError {
    fn fault(engine: &'static str, text: impl Display) -> Self {
        Self::Fault { engine, text: text.to_string() }
    }

    /// What an error of the system is here.
    fn io(engine: &'static str, what: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            // seam: an index goes where descriptors lack
            Some(os) if is_lack(os) => Self::Lacking { os },
            Some(_) | None => Self::fault(engine, format_args!("could not {what}: {error}")),
        }
    }
}

impl Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { entries_max } => write!(f, "index in memory is full at {entries_max} entries"),
            Self::Lacking { os } => write!(f, "{}", io::Error::from_raw_os_error(*os)),
            Self::Fault { engine, text } => write!(f, "{engine} index: {text}"),
        }
    }
}

impl std::error::Error for IndexError {}

/// Whether the system says by this number that descriptors or memory are lacking.
fn is_lack(os: i32) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(os, ENOMEM | ENFILE | EMFILE)
}

/// Where a store's index comes from, and where it is thrown away.
pub(crate) trait IndexHome: Debug + Send + Sync {
    /// Whether its index takes room on the disk.
    fn has_files(&self) -> bool;

    /// Opens the index that is there, or an empty one. At most one is open at a time.
    fn open(&self) -> Result<DerivedIndex, IndexError>;

    /// Removes the index, which must not be open. The next one that opens is empty.
    fn discard(&self) -> Result<(), IndexError>;
}

/// An ordered map of bytes by somebody else, below the checks of [`DerivedIndex`]. It may fail, panic and return garbage.
///
/// [`STAMP_KEY`] is a key like any other here.
trait IndexEngine: Send {
    /// The most changes that one [`apply`](Self::apply) is given.
    fn batch_len_max(&self) -> usize {
        usize::MAX
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Appends to `out` the first entries in the order of `direction`, at most `entries_max`. The range has a key in it.
    fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), IndexError>;

    /// Makes the changes in their order. After a crash all are there or none, and those of an earlier call are there if those
    /// of a later one are.
    fn apply(&mut self, changes: &[IndexChange<'_>]) -> Result<(), IndexError>;

    /// Makes all that was applied survive a power failure.
    fn flush(&mut self) -> Result<(), IndexError>;

    /// Ends with every thread and lock of it gone, so that the same files can be opened again or removed.
    fn close(self: Box<Self>) -> Result<(), IndexError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes by itself leaves the index as it is; anything else has it discarded.
    #[test]
    fn what_the_system_lacks_is_no_fault() {
        for (os, is_lack) in [(12, true), (23, true), (24, true), (5, false), (28, false), (30, false)] {
            let error = IndexError::io("sled", "open it", &io::Error::from_raw_os_error(os));
            assert_eq!(error == IndexError::Lacking { os }, is_lack, "{error}");
        }
        let error = IndexError::io("sled", "open it", &io::ErrorKind::Other.into());
        assert!(matches!(error, IndexError::Fault { .. }));
    }
}
