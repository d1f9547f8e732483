//! Where a store is damaged. Never here: what becomes of it.

use crate::ids::Lsn;
use std::fmt;

/// Where bytes on disk are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The file's name in the store's directory.
    pub file: String,
    /// Where in the file, in bytes, as far as that is known.
    pub offset: Option<u64>,
    /// The part of the log that cannot be read, from and up to, as far as that is known.
    pub lsns: Option<(Lsn, Lsn)>,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some((from, to)) = self.lsns {
            write!(f, " (LSN {from} to {to})")?;
        }
        write!(f, ": {}", self.reason)
    }
}
