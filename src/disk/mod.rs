//! One directory of files, and what survives a crash after which call.
//!
//! The contract of [`Disk`], [`File`] and [`Tail`] below is all that the engine knows of storage. `real` keeps it with
//! the operating system, `sim` keeps it in memory and takes away everything that the contract does not promise;
//! `conformance` is one suite that both pass. Never here: frames, records, or any idea of what a file means.
//!
//! # What survives
//!
//! *Death of the process* (kill -9, abort): every call that returned. Of an [`Tail::append`] in flight, any subset of its
//! aligned 8-byte words; of any other write in flight, any subset of its bytes.
//!
//! *Power cut*:
//! - the bytes of a file, and its length, as of its last [`File::sync`] that returned `Ok`; of every later write any subset
//!   of its 512-byte sectors, in any order, and any content (old bytes, zeros, garbage) in a sector that was being written;
//! - the names in the directory as of the last [`Disk::sync_dir`] that returned `Ok`; of each later creation or
//!   removal, either outcome. A file whose creation survived without a sync may have any length and any content.
//!
//! A sector rewritten with equal leading bytes keeps them (power-safe overwrite).
//!
//! *A sync that failed* leaves the unsynced bytes of its file unknown for ever: the caller must never sync it again and
//! take success for durability.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

#[cfg(test)]
mod conformance;
mod map;
mod real;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;

// pub use real::{OpenOptions, RealDisk};

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
/// separator, an empty one, `.` and `..`, and never follows a symbolic link.
pub trait Disk: Debug + Send + Sync {
    /// The regular files of the directory in no particular order. Other entries are left out.
    ///
    /// # Errors
    /// Whatever reading the directory says.
    fn list(&self) -> io::Result<Vec<Entry>>;

    /// Opens a file for positional reads and writes.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where it is not a regular file with one link.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file of `len` zero bytes for positional reads and writes, with blocks allocated where the file system
    /// can promise that.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull`, and then the file does not exist.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>>;

    /// Creates a file of `len` zero bytes whose one [`Tail`] may append to it. Where the file system is known to allow it,
    /// the file is mapped, with all its blocks allocated, so that an append neither calls the kernel nor can fail.
    ///
    /// # Errors
    /// As [`Disk::create`].
    fn create_tail(&self, name: &str, len: u64, access: Access) -> io::Result<Box<dyn Tail>>;

    /// Removes a name. Files already open stay readable.
    ///
    /// # Errors
    /// `NotFound`, or whatever unlinking says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in the directory durable as they are now.
    ///
    /// # Errors
    /// Whatever the sync says; afterwards no name created or removed since the last success is certain.
    fn sync_dir(&self) -> io::Result<()>;

    /// A number that no one can foretell (from a seed in a simulation): for salts and ids.
    fn random(&self) -> u64;

    /// Whether this process is a forked child of the one that attached. Costs no system call.
    fn is_forked(&self) -> bool;
}

/// An open file. All methods may be called from several threads at once.
pub trait File: Debug + Send + Sync {
    /// The length in bytes now.
    ///
    /// # Errors
    /// Whatever the kernel says.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from position `at` and returns how many bytes there were: fewer than asked only at the end of the file.
    /// Of a file with a [`Tail`], bytes at and after the tail's position may read as zeros or as `0` bytes there.
    ///
    /// # Errors
    /// Whatever the kernel says; never `Interrupted`.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `at`, extending the file where needed. Not for a file with a live [`Tail`].
    ///
    /// # Errors
    /// Whatever the kernel says; a part of the bytes may then have been written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and length durable, appended ones included: all writes that returned before this call began.
    ///
    /// # Errors
    /// Whatever the kernel says. Never call it again on this file after that.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file. Never below a tail's position while bytes there may still be read.
    ///
    /// # Errors
    /// Whatever the kernel says.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// The one writing end of an appendable file. Reads through [`Tail::file`] see an append once it has returned.
pub trait Tail: Debug + Send {
    /// Writes `pieces` one after another at position `at`, which must not lie before the end of the last successful append
    /// (a gap stays zero). Makes one system call at most, and none where the file is mapped.
    ///
    /// # Errors
    /// `InvalidInput` where `at` lies before that end or the pieces reach past the file's length; otherwise whatever the
    /// kernel says. After an error nothing new is visible to readers and the same place may be written again.
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()>;

    /// The file, for reading and syncing from any thread.
    fn file(&self) -> &Arc<dyn File>;
}
