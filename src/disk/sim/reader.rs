//! Another process that reads the simulated directory: it holds no lock, its requests are not counted and meet no fault.
//!
//! Never here: a change.

use super::SharedWorld;
use crate::disk::{Access, Disk, Entry, File, Tail};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Reads the directory of a [`SimDisk`](super::SimDisk), whatever other process has it.
#[derive(Clone)]
pub struct SimReader {
    world: SharedWorld,
}

struct SimReaderFile {
    world: SharedWorld,
    name: String,
    inode: u64,
}

impl SimReader {
    pub(super) fn new(world: &SharedWorld) -> Self {
        Self { world: Arc::clone(world) }
    }
}

impl fmt::Debug for SimReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReader").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimReaderFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReaderFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl Disk for SimReader {
    fn list(&self) -> io::Result<Vec<Entry>> {
        Ok(self.world.lock().entries())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.world.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimReaderFile { world: Arc::clone(&self.world), name: name.to_owned(), inode }))
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn File>> {
        Err(refused())
    }

    fn create_tail(&self, _: &str, _: u64, _: Access) -> io::Result<Box<dyn Tail>> {
        Err(refused())
    }

    fn prepare(&self, _: &str, _: Range<u64>) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(refused())
    }

    fn replace_lock_file(&self, _: &[u8]) -> io::Result<Arc<dyn File>> {
        Err(refused())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(refused())
    }

    fn available(&self) -> io::Result<u64> {
        Ok(self.world.lock().available())
    }

    fn random(&self) -> u64 {
        0
    }

    fn detach(&self) {}

    fn is_forked(&self) -> bool {
        false
    }
}

impl SimReaderFile {
    /// What the page cache has of the file. One that lost its last name and handle is gone: then a reader starts again, as a real one may.
    fn with<T>(&self, look: impl FnOnce(&super::image::Image) -> T) -> io::Result<T> {
        let world = self.world.lock();
        let inode = world.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(look(&inode.cache))
    }
}

impl File for SimReaderFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|cache| cache.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(u64::from(self.world.lock().names.get(&self.name) == Some(&self.inode)))
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|cache| cache.read(at, buf))
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        self.with(|cache| cache.data_from(at))
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ReadOnlyFilesystem.into()
}
