//! The disk of the operating system.
//!
//! Everything goes through one directory descriptor; nothing is looked up by path after attaching. Files are private
//! (mode 0600); links that others make to them are theirs to keep. A process under a limit on file sizes is killed by SIGXFSZ at that
//! limit: a library installs no signal handlers. Where the process ignores that signal, the limit is a full disk. For how the directory
//! is found and locked see `attach`, for how bytes move see `file`.

mod attach;
mod file;
mod fs_kind;
mod read_only;
mod sync;

pub(crate) use attach::{AttachError, OpenOptions};
pub(crate) use read_only::ReadOnlyDisk;

use super::{Access, Disk, Entry, File, LOCK_NAME, Tail, checked_end, checked_name};
use attach::Attachment;
use file::{MappedTail, RealFile, RealInode, SLICE_LEN, WrittenTail, give_way};
use fs_kind::FsKind;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

/// How far one open file reads when memory is got ready.
const STRIDE_LEN: u64 = 2 << 20;

/// A locked directory of a real file system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    attachment: Arc<Attachment>,
    /// Whether tails are mapped, where their blocks can be allocated.
    maps: bool,
    names: sync::SyncOnce,
    /// The files that this process has open, by device and number.
    inodes: Mutex<HashMap<(u64, u64), Weak<RealInode>>>,
}

impl RealDisk {
    /// Attaches to the directory at `path`, alone.
    ///
    /// # Errors
    /// See [`AttachError`]. Directories that were missing may have been created.
    pub(crate) fn attach(path: &Path, options: &OpenOptions) -> Result<Self, AttachError> {
        let attachment = Attachment::new(path, options)?;
        Ok(Self {
            maps: attachment.kind == FsKind::Mappable,
            attachment: Arc::new(attachment),
            names: sync::SyncOnce::default(),
            inodes: Mutex::default(),
        })
    }

    /// Leaves this process's id in the lock file for others to read, once that file is long enough to hold it. Attaching
    /// does it too; call it after laying the file out.
    pub(crate) fn note_owner(&self) {
        self.attachment.note_owner();
    }

    /// The same disk as on a file system where nothing is mapped.
    #[cfg(test)]
    pub(super) fn unmapped(mut self) -> Self {
        self.maps = false;
        self
    }

    /// Creates a file of `len` zero bytes, or none. The second value: whether all its blocks are allocated.
    fn create_file(&self, name: &str, len: u64) -> io::Result<(RealFile, bool)> {
        checked_name(name)?;
        checked_end(len, 0)?;
        let file = std::fs::File::from(attach::create_file(&self.attachment.dir, name)?);
        let allocated = allocate(&file, len);
        let (allocated, stat) = match allocated.and_then(|allocated| Ok((allocated, rustix::fs::fstat(&file)?))) {
            Ok(done) => done,
            Err(error) => return Err(self.give_up(name, error.into())),
        };
        Ok((self.handle(file, name, &stat), allocated))
    }

    /// Takes back the creation of a file. An error there hides behind the first one.
    fn give_up(&self, name: &str, error: io::Error) -> io::Error {
        let _ = rustix::fs::unlinkat(&self.attachment.dir, name, AtFlags::empty());
        match error.kind() {
            io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                io::Error::new(io::ErrorKind::StorageFull, error)
            }
            _ => error,
        }
    }

    /// A live inode of the same number is the same file: the descriptor behind it keeps the number from being given away.
    fn handle(&self, file: std::fs::File, name: &str, stat: &Stat) -> RealFile {
        let key = (stat.st_dev, stat.st_ino);
        let mut inodes = self.inodes.lock();
        let inode = inodes.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            inodes.retain(|_, inode| inode.strong_count() > 0);
            let inode = Arc::new(RealInode::default());
            inodes.insert(key, Arc::downgrade(&inode));
            inode
        });
        RealFile::new(file, name, inode, self.attachment.clone())
    }
}

/// Gives `file` its length, with blocks where the file system knows how. Whether it did.
fn allocate(file: &std::fs::File, len: u64) -> rustix::io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, len))?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The regular files of a directory.
fn list(dir: &OwnedFd) -> io::Result<Vec<Entry>> {
    let list = || {
        let mut entries = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    let len = u64::try_from(stat.st_size).unwrap_or(0);
                    entries.push(Entry { name: name.to_owned(), len });
                }
                // Removed since the directory was read.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    };
    Ok(rustix::io::retry_on_intr(list)?)
}

/// A number that no one can foretell.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        // A kernel without the call: the standard library has its own ways to a random key.
        _ => std::hash::RandomState::new().build_hasher().finish(),
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        list(&self.attachment.dir)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = match attach::open_file(&self.attachment.dir, checked_name(name)?) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(io::ErrorKind::InvalidInput.into()),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        if !attach::is_regular(&stat) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Arc::new(self.handle(file, name, &stat)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.create_file(name, len)?.0))
    }

    fn create_tail(&self, name: &str, len: u64, access: Access) -> io::Result<Box<dyn Tail>> {
        let (file, allocated) = self.create_file(name, len)?;
        let tail: io::Result<Box<dyn Tail>> = if self.maps && allocated {
            MappedTail::new(file, len, access).map(|tail| Box::new(tail) as _)
        } else {
            WrittenTail::new(file, len).map(|tail| Box::new(tail) as _)
        };
        tail.map_err(|error| self.give_up(name, error))
    }

    fn prepare(&self, name: &str, range: Range<u64>) -> io::Result<()> {
        if !self.maps {
            return Ok(());
        }
        // Reading does it: blocks that were never written are zeroed in the page cache. Read-ahead makes the folios larger with each
        // step, up to megabytes: a sync would then write such a folio whole for a few bytes, and a step take milliseconds. Without
        // it they are single pages, and each store into a new one costs more. It begins anew with each open file.
        let mut buf = vec![0; SLICE_LEN];
        let mut at = range.start;
        while at < range.end {
            let file = attach::open_file(&self.attachment.dir, checked_name(name)?)?;
            let stride_end = range.end.min(at.saturating_add(STRIDE_LEN));
            while at < stride_end {
                let len = (stride_end - at).min(SLICE_LEN as u64) as usize;
                match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut buf[..len], at))? {
                    0 => return Ok(()),
                    read => at += read as u64,
                }
                give_way();
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        // A process that locked a new file of that name would not exclude us.
        if checked_name(name)? == LOCK_NAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(rustix::io::retry_on_intr(|| rustix::fs::unlinkat(&self.attachment.dir, name, AtFlags::empty()))?)
    }

    fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
        let replaced = self.attachment.replace_lock_file(bytes);
        let (file, stat) = replaced.map_err(|error| self.give_up(attach::RENEWED_NAME, error))?;
        self.attachment.note_owner();
        Ok(Arc::new(self.handle(file, LOCK_NAME, &stat)))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.names.run(|| sync::names(&self.attachment.dir))
    }

    fn available(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.attachment.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        random()
    }

    fn detach(&self) {
        self.attachment.unlock();
    }

    fn is_forked(&self) -> bool {
        self.attachment.sentinel.is_forked()
    }
}
