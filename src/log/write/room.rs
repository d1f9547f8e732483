//! How many more bytes the files of a store may take: what the file system says, and what the owner allows.
//!
//! Never here: what part of that is kept back for whom.

use crate::disk::Disk;
use std::cell::Cell;
use std::io;

/// A bound on the lengths of all files in the directory together.
#[derive(Debug, Default)]
pub(in crate::log) struct DiskRoom {
    max_bytes: Option<u64>,
    /// What the files took when they were listed last, unless some were changed since.
    used: Cell<Option<u64>>,
}

impl DiskRoom {
    pub(in crate::log) fn limit(&mut self, max_bytes: Option<u64>) {
        self.max_bytes = max_bytes;
    }

    /// Files were created, removed, or cut.
    pub(in crate::log) fn changed(&self) {
        self.used.set(None);
    }

    /// How many more bytes there are.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(in crate::log) fn available(&self, disk: &dyn Disk) -> io::Result<u64> {
        let free = disk.available()?;
        let Some(max_bytes) = self.max_bytes else { return Ok(free) };
        let used = match self.used.get() {
            Some(used) => used,
            None => disk.list()?.iter().map(|file| file.len).sum(),
        };
        self.used.set(Some(used));
        // seam: a store grows beyond its bound
        Ok(free.min(max_bytes.saturating_sub(used)))
    }

    /// Whether a file of `len` bytes may be created that leaves `leave`. Where nothing is to be left, and nothing is bounded, creating it tells.
    ///
    /// # Errors
    /// `StorageFull` where it may not; whatever the file system says.
    pub(in crate::log) fn check(&self, disk: &dyn Disk, len: u64, leave: u64) -> io::Result<()> {
        let is_full = (leave > 0 || self.max_bytes.is_some()) && self.available(disk)? < len.saturating_add(leave);
        self.changed();
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
