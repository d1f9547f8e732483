//! One directory of files, and what survives a crash after which call.
//!
//! The contract of [`Disk`], [`File`] and [`Tail`] below is all that the engine knows of storage. `real` keeps it with
//! the operating system, `sim` keeps it in memory and takes away everything that the contract does not promise;
//! `conformance` is one suite that both pass. Never here: frames, records, or any idea of what a file means.
//!
//! # What survives
//!
//! *Process crash* (kill -9, abort): every call that returned. Of a [`Tail::append`] in flight, any subset of its
//! aligned 8-byte words; of any other write in flight, any subset of its bytes; of a creation, nothing or a file of any
//! length; of a sync, any part; of any other call, all or nothing.
//!
//! *Power failure*:
//! - the bytes of a file, and its length, as of its last [`File::sync`] that returned `Ok`; of every later write any subset
//!   of its 512-byte sectors, in any order, and any content (old bytes, zeros, garbage) in a sector that was being written;
//! - the names in the directory as of the last [`Disk::sync_dir`] that returned `Ok`; of each later creation or
//!   removal, either outcome. A file whose creation survived without a sync may have any length and any content.
//!
//! A sector rewritten with equal leading bytes keeps them (power-safe overwrite).
//!
//! *A sync that failed* leaves the unsynced bytes of its file unknown for ever, even to reads: the caller must never sync
//! it again and take success for durability, and neither must a later process.
//!
//! # The lock
//!
//! Attaching takes an exclusive lock on the file [`LOCK_NAME`], which it creates empty where there is none, and anew where it is
//! empty: so a caller that syncs the directory before it writes to that file has a durable name whenever there are bytes in
//! it, whatever became of earlier syncs. The name is always in the list of an attached disk, its content is the caller's, and it
//! cannot be removed. The lock is released when the disk and every file and tail opened through it are dropped, or when the
//! process ends.

#![cfg_attr(
    not(any(test, feature = "simulation")),
    expect(unreachable_pub, reason = "the traits leave the crate with the simulation alone")
)]

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[cfg(test)]
mod conformance;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod hostile;
mod map;
mod real;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod sim;

pub(crate) use map::ForkSentinel;
#[cfg(test)]
pub(crate) use map::in_child;
pub(crate) use real::{AttachError, OpenOptions, ReadOnlyDisk, RealDisk};

/// The disk of the operating system, attached to the directory `path`, for tests that stand between it and the engine.
///
/// # Errors
/// Why it could not be attached to.
#[cfg(any(test, feature = "simulation"))]
pub fn real_disk(path: &std::path::Path) -> io::Result<Arc<dyn Disk>> {
    match RealDisk::attach(path, &OpenOptions::default()) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(AttachError::Io { source, .. }) => Err(source),
        Err(other) => Err(io::Error::other(other)),
    }
}

/// The file that carries the lock of a directory. Its 32 bytes at [`OWNER_AT`] belong to this layer.
pub(crate) const LOCK_NAME: &str = "STORE";

/// Where the lock file names its holder (a process id, for people to read). Nothing decides by it, nothing syncs it.
pub(crate) const OWNER_AT: u64 = 12_288;

/// The greatest position that a file may reach: what the kernel's signed offsets hold.
const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// A regular file in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without a path.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// How a [`Tail`] will be used, so that syncs and stores both stay cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Synced often, a little at a time: a sync must write no more than the few KiB that changed.
    SyncOften,
    /// Synced seldom: a store must cost as little as it can.
    SyncSeldom,
}

/// An exclusive attachment to one directory: while it lives, no other attachment to it exists on this machine.
///
/// Names are chosen by the caller from a fixed grammar; an implementation refuses (`InvalidInput`) a name with a
/// separator or a zero byte, an empty one, `.` and `..`, and never follows a symbolic link.
pub trait Disk: Debug + Send + Sync {
    /// The regular files of the directory in no particular order. Other entries, and names that are not UTF-8, are left
    /// out.
    ///
    /// # Errors
    /// Whatever reading the directory says.
    fn list(&self) -> io::Result<Vec<Entry>>;

    /// Opens a file for positional reads and writes.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where it is not a regular file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file of `len` zero bytes for positional reads and writes, with blocks allocated where the file system
    /// can promise that.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull`, and then the file does not exist. After another error it may exist, with any length.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>>;

    /// Creates a file of `len` zero bytes whose one [`Tail`] may append to it. Where the file system is known to allow it,
    /// the file is mapped, with all its blocks allocated, so that an append neither calls the kernel nor can fail.
    ///
    /// # Errors
    /// As [`Disk::create`].
    fn create_tail(&self, name: &str, len: u64, access: Access) -> io::Result<Box<dyn Tail>>;

    /// Gets memory ready for the bytes of a file that a [`Tail`] will append to soon, where appending goes through a map: a caller that
    /// stores there first would wait for that, up to tens of milliseconds. Changes no byte and makes none dirty.
    ///
    /// # Errors
    /// Whatever the kernel says; nothing depends on it.
    fn prepare(&self, name: &str, range: Range<u64>) -> io::Result<()>;

    /// Removes a name. Files already open stay readable.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for the lock file; or whatever unlinking says, and then the name may be gone or not.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives the lock's name to a new file that holds `bytes`, durably, and is locked like the one before, which stays as it is:
    /// others may have links to that. The new name is durable after the next [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `StorageFull` or a lack of descriptors or memory, with nothing changed. After another error the name may lead to
    /// either file.
    fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<Arc<dyn File>>;

    /// Makes the names in the directory durable as they are now.
    ///
    /// # Errors
    /// Whatever the sync says; afterwards no name created or removed since the last success is certain.
    fn sync_dir(&self) -> io::Result<()>;

    /// How many more bytes files may take, as far as the file system tells. A hint: others take from it too.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn available(&self) -> io::Result<u64>;

    /// A number that no one can foretell (from a seed in a simulation): for salts and ids.
    fn random(&self) -> u64;

    /// Lets others attach from now on. The caller writes nothing more; what it still reads may change under it.
    fn detach(&self);

    /// Whether this process is a forked child of the one that attached. Costs no system call.
    fn is_forked(&self) -> bool;
}

/// An open file. All methods may be called from several threads at once.
#[allow(clippy::len_without_is_empty, reason = "a length that may fail to be known")]
pub trait File: Debug + Send + Sync {
    /// The length in bytes now.
    ///
    /// # Errors
    /// Whatever the kernel says.
    fn len(&self) -> io::Result<u64>;

    /// How many names lead to the file, in any directory; none where the one by which it was opened or created does not any more.
    ///
    /// # Errors
    /// Whatever the kernel says.
    fn links(&self) -> io::Result<u64>;

    /// Fills `buf` from position `at` and returns how many bytes there were: fewer than asked only at the end of the file.
    /// Through [`Tail::file`] reads end where the last append ended. Through another handle, opened by name, bytes at
    /// and after that position may read as zeros or as parts of an append in flight.
    ///
    /// # Errors
    /// Whatever the kernel says; never `Interrupted`.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// The next range, at or after `at`, of bytes that may be other than zeros: all from `at` up to it are zeros, and where there is
    /// none all to the end of the file. So is the byte behind it, or it does not exist.
    ///
    /// # Errors
    /// As [`File::read_at`].
    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>>;

    /// Writes all of `bytes` at `at`, extending the file where needed.
    ///
    /// # Errors
    /// `InvalidInput` while the file has a live [`Tail`], and always through [`Tail::file`]. Otherwise whatever the kernel
    /// says; a part of the bytes may then have been written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and length durable, appended ones included: all writes that returned before this call began.
    ///
    /// # Errors
    /// Whatever the kernel says. Never call it again on this file after that: its answer would mean nothing.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// `InvalidInput` while the file has a live [`Tail`], and for a cut below the end of the last append while a handle
    /// from [`Tail::file`] lives. Otherwise whatever the kernel says.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// The one writing end of an appendable file. Reads through [`Tail::file`] see an append once it has returned.
pub trait Tail: Debug + Send {
    /// Writes `pieces` one after another at position `at`, which must not lie before the end of the last successful append
    /// (a gap holds zeros, or what a failed append left there). Makes no system call where the file is mapped, otherwise
    /// two, and more only after a short write.
    ///
    /// # Errors
    /// `InvalidInput` where `at` lies before that end or the pieces reach past the file's length; otherwise whatever the
    /// kernel says. After an error nothing new is visible to readers and the same place may be written again. `StorageFull`
    /// has changed no byte up to the next multiple of 8 above `at`, also for a later open of the file: a frame whose
    /// first word is not there is none.
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()>;

    /// The file, for reading and syncing from any thread.
    fn file(&self) -> &Arc<dyn File>;
}

/// Where an append of `pieces` at `at` ends, given where the last one ended and the length of the file.
fn tail_range(end: u64, at: u64, pieces: &[&[u8]], file_len: u64) -> io::Result<u64> {
    let added = pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.len() as u64));
    match added.and_then(|added| at.checked_add(added)) {
        Some(new_end) if at >= end && new_end <= file_len => Ok(new_end),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Refuses positions beyond [`FILE_LEN_MAX`]: the end of `len` bytes at `at`.
fn checked_end(at: u64, len: usize) -> io::Result<u64> {
    match at.checked_add(len as u64) {
        Some(end) if end <= FILE_LEN_MAX => Ok(end),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn checked_name(name: &str) -> io::Result<&str> {
    match name {
        "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
        _ if name.contains(['/', '\\', '\0']) => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(name),
    }
}
