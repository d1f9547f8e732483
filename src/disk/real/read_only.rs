//! A directory that is read while another process may write to it: no lock, no map, and no call that changes anything.

use super::attach::{self, AttachError};
use super::file::{data_from, pread};
use super::fs_kind::{self, FsKind};
use super::list;
use crate::disk::map::ForkSentinel;
use crate::disk::{Access, Disk, Entry, File, Tail, checked_end, checked_name};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// A directory for reading.
#[derive(Debug)]
pub(crate) struct ReadOnlyDisk {
    dir: Arc<OwnedFd>,
    kind: FsKind,
    sentinel: ForkSentinel,
}

/// A file for reading.
#[derive(Debug)]
struct ReadOnlyFile {
    dir: Arc<OwnedFd>,
    name: Box<str>,
    file: std::fs::File,
    kind: FsKind,
}

impl ReadOnlyDisk {
    /// The directory at `path`. Nothing is created.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `UnsupportedFileSystem`, `Io`.
    pub(crate) fn open(path: &Path, allow_network_fs: bool) -> Result<Self, AttachError> {
        let options = attach::OpenOptions { allow_network_fs, create: false, adopt: false };
        let dir = attach::open_directory(path).map_err(|error| match error {
            Errno::NOENT => AttachError::NotFound,
            Errno::NOTDIR => AttachError::NotADirectory,
            other => AttachError::Io { context: "open the directory", source: other.into() },
        })?;
        let stat = rustix::fs::fstatfs(&dir);
        let stat =
            stat.map_err(|error| AttachError::Io { context: "ask for the kind of file system", source: error.into() })?;
        let kind = attach::allowed(fs_kind::of(&stat), &options)?;
        let sentinel = ForkSentinel::new();
        let sentinel =
            sentinel.map_err(|source| AttachError::Io { context: "map a page to recognise forks by", source })?;
        Ok(Self { dir: Arc::new(dir), kind, sentinel })
    }
}

impl Disk for ReadOnlyDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        list(&self.dir)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = match attach::open_file_to_read(&self.dir, checked_name(name)?) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(io::ErrorKind::InvalidInput.into()),
            Err(error) => return Err(error.into()),
        };
        if !attach::is_regular(&rustix::fs::fstat(&file)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Arc::new(ReadOnlyFile { dir: Arc::clone(&self.dir), name: name.into(), file, kind: self.kind }))
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
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        super::random()
    }

    fn detach(&self) {}

    fn is_forked(&self) -> bool {
        self.sentinel.is_forked()
    }
}

impl File for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        attach::links(&self.dir, &self.name, &self.file)
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        checked_end(at, buf.len())?;
        pread(&self.file, at, buf)
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        data_from(&self.file, at, self.kind)
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
