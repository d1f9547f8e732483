//! Syncs, and the memory of those that failed.
//!
//! The kernel reports a failed write-back once, to one caller, and then counts the pages as clean: a second sync would
//! say that all is well. So a failure is final for everyone who shares a [`SyncOnce`], and callers take turns, since of two
//! that run at once only one is told. Never here: a retry.

use parking_lot::Mutex;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io;

/// The syncs of one file or directory in this process.
#[derive(Debug, Default)]
pub(super) struct SyncOnce {
    failure: Mutex<Option<Errno>>,
}

impl SyncOnce {
    /// Runs `sync`, unless one has failed before; then that failure is the answer.
    pub(super) fn run(&self, sync: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            *failure = sync().err();
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Makes the bytes and the length of a file durable.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn data(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fdatasync(file)
}

/// Makes the bytes and the length of a file durable. Anything less stops at the drive's cache.
#[cfg(target_vendor = "apple")]
pub(super) fn data(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fcntl_fullfsync(file)
}

/// Makes the names in a directory durable.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn names(dir: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fsync(dir)
}

/// Makes the names in a directory durable.
#[cfg(target_vendor = "apple")]
pub(super) fn names(dir: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fcntl_fullfsync(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_final() {
        let once = SyncOnce::default();
        once.run(|| Ok(())).unwrap();
        assert_eq!(once.run(|| Err(Errno::IO)).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        let again = once.run(|| panic!("the kernel must not be asked again"));
        assert_eq!(again.unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
}
