//! From a path to a directory that this process alone may use.
//!
//! The order is: the directory exists and its name is durable; its file system may be used; it is a store or empty; the
//! lock is held. Nothing is changed before what can be refused has been refused. The lock is the kernel's (`flock`) on the
//! file [`LOCK_NAME`]: never broken by time or by reading a process id, and the file is never unlinked. A forked child
//! shares the descriptor: what it drops leaves the lock alone, and if it outlives a parent that was killed, it keeps the
//! store locked until it ends or executes another program.
//!
//! Never here: what the lock file contains besides the page of the owner.

use super::fs_kind::{self, FsKind};
use super::sync;
use crate::disk::map::ForkSentinel;
use crate::disk::{LOCK_NAME, OWNER_AT};
use parking_lot::Mutex;
use rustix::fs::{Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How to attach to a directory.
#[derive(Clone, Debug)]
pub(crate) struct OpenOptions {
    /// Whether NFS, SMB, 9p, FUSE and the like are accepted, where locks and syncs may not do what they say.
    pub(crate) allow_network_fs: bool,
    /// Whether a missing directory (with its parents, all of mode 0700) and a missing store are created.
    pub(crate) create: bool,
    /// Whether the file that is locked may be created beside other files: those of a store that has lost it.
    pub(crate) adopt: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { allow_network_fs: false, create: true, adopt: false }
    }
}

/// Why a directory could not be attached to.
#[derive(Debug)]
pub(crate) enum AttachError {
    /// Another attachment lives, in this process or another, and its holder where it has left its number.
    Locked {
        /// The process id, as seen in the holder's own namespace.
        pid: Option<u32>,
    },
    /// There is something else at the path, or on the way to it.
    NotADirectory,
    /// There is no directory, or no store in it, and neither was to be created.
    NotFound,
    /// The directory holds something, but no store. Nothing was changed.
    NotAStore {
        /// The offending entry.
        found: String,
    },
    /// A file system that cannot be relied on, and was not allowed. Nothing was changed.
    UnsupportedFileSystem {
        /// What it is called.
        kind: &'static str,
    },
    /// The operating system refused.
    Io {
        /// What was being done.
        context: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl std::fmt::Display for AttachError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked { pid: Some(pid) } => write!(f, "the store is in use by process {pid}"),
            Self::Locked { pid: None } => f.write_str("the store is in use"),
            Self::NotADirectory => f.write_str("the path is not a directory"),
            Self::NotFound => f.write_str("there is no store"),
            Self::NotAStore { found } => write!(f, "the directory is not a store and not empty: it holds {found:?}"),
            Self::UnsupportedFileSystem { kind } => {
                write!(f, "the directory is on {kind}, where locks and syncs cannot be relied on")
            }
            Self::Io { context, source } => write!(f, "cannot {context}: {source}"),
        }
    }
}

impl std::error::Error for AttachError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Names the step in which an error of the operating system came up.
fn at<E: Into<io::Error>>(context: &'static str) -> impl FnOnce(E) -> AttachError {
    move |source| AttachError::Io { context, source: source.into() }
}

/// A locked directory. Every file keeps it alive, so that the lock outlives the last of them.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) dir: OwnedFd,
    pub(super) kind: FsKind,
    pub(super) sentinel: ForkSentinel,
    lock: Mutex<OwnedFd>,
}

const READ_FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const FILE_FLAGS: OFlags = READ_FLAGS.union(OFlags::RDWR);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: u32 = 0o700;
/// Length of the page at [`OWNER_AT`]. The number is noted only in a lock file that has all of it.
const OWNER_PAGE_LEN: u64 = 4096;
const OWNER_LEN: usize = 32;
/// How often the lock file may be replaced under us before that counts as an error.
const LOCK_TRIES: usize = 16;
/// Where a new lock file waits for its name. A directory that holds nothing else counts as empty.
pub(super) const RENEWED_NAME: &str = ".STORE";

/// Opens an existing file without following a link, waiting for a peer, or taking a terminal.
pub(super) fn open_file(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, FILE_FLAGS, Mode::empty()))
}

/// As [`open_file`], for reading alone.
pub(super) fn open_file_to_read(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, READ_FLAGS, Mode::empty()))
}

/// Creates a file that must not exist, readable and writable for its owner alone whatever the umask.
pub(super) fn create_file(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = FILE_FLAGS | OFlags::CREATE | OFlags::EXCL;
    let file = rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, flags, FILE_MODE))?;
    rustix::fs::fchmod(&file, FILE_MODE)?;
    Ok(file)
}

/// A file may have links from elsewhere, as a backup makes them: such a file is read, and never written to.
pub(super) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// How many names lead to `file`; none where `name` does not.
#[allow(clippy::useless_conversion, reason = "the width of a count of links differs between platforms")]
pub(super) fn links(dir: &OwnedFd, name: &str, file: impl AsFd) -> io::Result<u64> {
    let held = rustix::fs::fstat(file)?;
    match rustix::io::retry_on_intr(|| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => Ok(u64::from(named.st_nlink)),
        Ok(_) | Err(Errno::NOENT) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

impl Attachment {
    pub(super) fn new(path: &Path, options: &OpenOptions) -> Result<Self, AttachError> {
        let sentinel = ForkSentinel::new().map_err(at("map a page to recognise forks by"))?;
        ensure_directory(path, options)?;
        let path = std::fs::canonicalize(path).map_err(at("resolve the path of the directory"))?;
        let dir = open_directory(&path).map_err(at("open the directory"))?;
        let stat = rustix::fs::fstatfs(&dir).map_err(at("ask for the kind of file system"))?;
        let kind = allowed(fs_kind::of(&stat), options)?;
        // Else a process that may read the files and make none would learn it at the first append, with `STORE` changed by then.
        rustix::fs::accessat(&dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(at("write to the directory"))?;
        let lock = take_lock(&dir, &path, options)?;
        let attachment = Self { dir, kind, sentinel, lock: Mutex::new(lock) };
        attachment.note_owner();
        Ok(attachment)
    }

    /// Releases the lock, even if another process holds a copy of the descriptor: files that are still open, or a process just being
    /// spawned, for a moment. In a forked child the lock is the parent's, and stays.
    pub(super) fn unlock(&self) {
        if !self.sentinel.is_forked() {
            let _ = rustix::io::retry_on_intr(|| rustix::fs::flock(&*self.lock.lock(), FlockOperation::Unlock));
        }
    }

    /// Gives the lock's name to a new file that holds `bytes`, durable and locked before it has the name. Until this returns the old
    /// one is locked as well; a process that locks that afterwards finds that it has no name.
    pub(super) fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<(std::fs::File, Stat)> {
        let mut held = self.lock.lock();
        let lock = new_lock_file(&self.dir)?;
        // A handle of its own: closing it leaves the lock alone.
        let file = std::fs::File::from(open_file(&self.dir, RENEWED_NAME)?);
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
        sync::data(&file)?;
        let stat = rustix::fs::fstat(&file)?;
        rustix::fs::renameat(&self.dir, RENEWED_NAME, &self.dir, LOCK_NAME)?;
        *held = lock;
        Ok((file, stat))
    }

    /// Leaves this process's id in the lock file, for people. A failure costs a better error message and nothing else.
    pub(super) fn note_owner(&self) {
        let lock = self.lock.lock();
        let may_write = rustix::fs::fstat(&*lock).is_ok_and(|stat| {
            stat.st_nlink == 1 && u64::try_from(stat.st_size).is_ok_and(|len| len >= OWNER_AT + OWNER_PAGE_LEN)
        });
        if may_write {
            let mut note = [0; OWNER_LEN];
            let text = std::process::id().to_string();
            note[..text.len()].copy_from_slice(text.as_bytes());
            let _ = rustix::io::pwrite(&*lock, &note, OWNER_AT);
        }
    }
}

impl Drop for Attachment {
    /// Closing the descriptor would do, were it the only one.
    fn drop(&mut self) {
        self.unlock();
    }
}

pub(super) fn allowed(kind: FsKind, options: &OpenOptions) -> Result<FsKind, AttachError> {
    match kind {
        FsKind::Remote(kind) if !options.allow_network_fs => Err(AttachError::UnsupportedFileSystem { kind }),
        kind => Ok(kind),
    }
}

pub(super) fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
}

/// Makes `path` a directory, with its parents, and makes the names that this took durable.
fn ensure_directory(path: &Path, options: &OpenOptions) -> Result<(), AttachError> {
    let (mut missing, mut existing) = (Vec::new(), PathBuf::from("."));
    for ancestor in path.ancestors() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match std::fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                existing = ancestor.to_path_buf();
                break;
            }
            Ok(_) => return Err(AttachError::NotADirectory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(AttachError::NotADirectory),
            Err(error) => return Err(at("look for the directory")(error)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !options.create {
        return Err(AttachError::NotFound);
    }
    let stat = rustix::fs::statfs(&existing).map_err(at("ask for the kind of file system"))?;
    allowed(fs_kind::of(&stat), options)?;
    let mut parent = existing.as_path();
    for path in missing.into_iter().rev() {
        make_directory(path)?;
        let parent_fd = open_directory(parent).map_err(at("open the parent directory"))?;
        sync::names(&parent_fd).map_err(at("sync the parent directory"))?;
        parent = path;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), AttachError> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        // The umask may have taken bits away that the owner needs.
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(DIR_MODE))
            .map_err(at("set the permissions of the directory")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(at("create the directory")(error)),
    }
}

/// Makes the names on the way to a directory durable, as far up as its device goes. The process that made them, a moment ago or
/// just before a crash, may not have done it; once the lock file exists it has been done.
fn sync_ancestors(path: &Path) -> Result<(), AttachError> {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    let home = device(path).map_err(at("look at the directory"))?;
    for ancestor in path.ancestors().skip(1) {
        if !device(ancestor).is_ok_and(|device| device == home) {
            break;
        }
        let opened = match open_directory(ancestor) {
            // A directory that this process may not read was there before it.
            Err(Errno::ACCESS | Errno::PERM) => continue,
            opened => opened.map_err(at("open a parent directory"))?,
        };
        match sync::names(&opened) {
            Ok(()) | Err(Errno::INVAL | Errno::ROFS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(at("sync a parent directory")(error)),
        }
    }
    Ok(())
}

fn take_lock(dir: &OwnedFd, path: &Path, options: &OpenOptions) -> Result<OwnedFd, AttachError> {
    for _ in 0..LOCK_TRIES {
        let Some((lock, is_new)) = open_lock_file(dir, path, options)? else { continue };
        let locking = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        match rustix::io::retry_on_intr(locking) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(AttachError::Locked { pid: read_owner(&lock) }),
            Err(error) => return Err(at("lock the store")(error)),
        }
        // The name may have been given to another file between opening and locking; a lock on the old one is worth nothing.
        let held = rustix::fs::fstat(&lock).map_err(at("look at the lock file"))?;
        match rustix::fs::statat(dir, LOCK_NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(error) => return Err(at("look at the lock file")(error)),
        }
        if !is_regular(&held) {
            return Err(strange_lock_file());
        }
        let uncertain = held.st_size == 0 && !is_new && options.create;
        return if uncertain { renew_lock_file(dir).map_err(at("replace the empty lock file")) } else { Ok(lock) };
    }
    Err(at("keep hold of the lock file")(io::Error::from(io::ErrorKind::ResourceBusy)))
}

/// Gives the lock's name to a new file, locked from the first. An empty one is of a process that did not come to sync the
/// directory, or could not: then no later sync would make its name durable, but it makes a new one. The caller holds the
/// old file's lock until this returns; a process that locks that afterwards finds that it has no name.
fn renew_lock_file(dir: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let lock = new_lock_file(dir)?;
    rustix::fs::renameat(dir, RENEWED_NAME, dir, LOCK_NAME)?;
    Ok(lock)
}

/// An empty file, locked, that waits for its name.
fn new_lock_file(dir: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::unlinkat(dir, RENEWED_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let lock = create_file(dir, RENEWED_NAME)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive))?;
    Ok(lock)
}

/// Opens the lock file, or creates it in a directory that holds nothing else, and says which. `None`: look again.
fn open_lock_file(dir: &OwnedFd, path: &Path, options: &OpenOptions) -> Result<Option<(OwnedFd, bool)>, AttachError> {
    let look = || match open_file(dir, LOCK_NAME) {
        Ok(file) => Ok(Some((file, false))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Err(strange_lock_file()),
        Err(error) => Err(at("open the lock file")(error)),
    };
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    let foreign = if options.adopt { Ok(None) } else { foreign_entry(dir) };
    if let Some(found) = foreign.map_err(at("list the directory"))? {
        // A store may have been initialized since the first look, and then that is what was found.
        return look()?.map(Some).ok_or(AttachError::NotAStore { found });
    }
    if !options.create {
        return Err(AttachError::NotFound);
    }
    sync_ancestors(path)?;
    match create_file(dir, LOCK_NAME) {
        Ok(file) => Ok(Some((file, true))),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(at("create the lock file")(error)),
    }
}

fn strange_lock_file() -> AttachError {
    AttachError::NotAStore { found: format!("{LOCK_NAME}, which is not a regular file") }
}

/// The first entry, by name, that an empty directory would not have.
fn foreign_entry(dir: &OwnedFd) -> rustix::io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in rustix::io::retry_on_intr(|| Dir::read_from(dir))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "lost+found" && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    Ok(first)
}

/// The process id in the lock file, where there is one.
fn read_owner(lock: &OwnedFd) -> Option<u32> {
    let mut note = [0; OWNER_LEN];
    let count = rustix::io::pread(lock, &mut note[..], OWNER_AT).ok()?;
    let digits = note[..count].split(|byte| *byte == 0).next()?;
    // Digits alone: `parse` would take a sign too.
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_file_systems_need_leave() {
        let remote = FsKind::Remote("NFS");
        let (strict, lax) = (OpenOptions::default(), OpenOptions { allow_network_fs: true, ..OpenOptions::default() });
        let refusal = allowed(remote, &strict);
        assert!(matches!(refusal, Err(AttachError::UnsupportedFileSystem { kind: "NFS" })), "{refusal:?}");
        assert!(allowed(remote, &lax).is_ok_and(|kind| kind == remote));
        for kind in [FsKind::Mappable, FsKind::Local] {
            assert!(allowed(kind, &strict).is_ok_and(|found| found == kind));
        }
    }
}
