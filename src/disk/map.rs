//! Mapped memory: the appendable file, and the page that tells a forked child from its parent. The one file with `unsafe`.
//!
//! No reference to mapped memory is ever formed: bytes go in and out by raw copies, and what is copied out is untrusted
//! until its checksum has been verified. A [`Writer`] copies only to positions at or above the published end, [`Mapped`]
//! only from positions below it, and the end only grows: so no byte is read while it is written.
//!
//! What this cannot rule out is a fault: a store into a file that was cut under the map, or a page that the device fails
//! to read back, kills the process with SIGBUS. `real` never cuts a file that has a writer, nor one below its published
//! end, and allocates all blocks before mapping. Cutting the file elsewhere above that end is harmless: those pages are
//! not touched again. Never here: names, paths, locks, system calls other than those that map and advise.

#![allow(unsafe_code)]

use super::{Access, tail_range};
#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file mapped for appending: the side of the readers.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapRaw,
    /// Where the appended bytes end. Only the one [`Writer`] stores it; never greater than `map.len()`.
    published: AtomicU64,
    /// Below this the pages were dropped from the map; a multiple of the page size.
    dropped: AtomicU64,
}

/// The one writing end of a [`Mapped`].
#[derive(Debug)]
pub(super) struct Writer {
    mapped: Arc<Mapped>,
    /// The same value as `mapped.published`, without a shared cache line.
    end: u64,
}

/// Maps the first `len` bytes of `file`, all of which must exist.
pub(super) fn map_tail(file: &File, len: u64, access: Access) -> io::Result<Writer> {
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let map = MmapOptions::new().len(len).map_raw(file)?;
    if access == Access::SyncOften && len > 0 {
        // Without it the page cache grows its folios under sequential stores, and a sync writes whole folios.
        map.advise(Advice::Random)?;
    }
    // Whole folios of megabytes would be mapped writable at the first store into them, and a sync would then write-protect each page
    // of the last one, appended to or not, with an interrupt for each. A kernel that has no such pages refuses the advice.
    #[cfg(target_os = "linux")]
    let _ = map.advise(Advice::NoHugePage);
    let mapped = Mapped { map, published: AtomicU64::new(0), dropped: AtomicU64::new(0) };
    Ok(Writer { mapped: Arc::new(mapped), end: 0 })
}

impl Writer {
    /// As [`super::Tail::append`].
    pub(super) fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let end = tail_range(self.end, at, pieces, self.mapped.map.len() as u64)?;
        let Ok(mut place) = usize::try_from(at) else { return Err(io::ErrorKind::InvalidInput.into()) };
        for piece in pieces {
            // SAFETY: `place <= end <= map.len()`, so the pointer stays inside the map or one past its end.
            let target = unsafe { self.mapped.map.as_mut_ptr().add(place) };
            // SAFETY: `place + piece.len() <= end <= map.len()`; the map is writable and lives as long as `self.mapped`.
            // `piece` is borrowed memory and no reference into the map exists, so the two do not overlap. No other thread
            // touches these bytes: this is the only writer (`&mut self`, never cloned), and readers stay below the
            // published end, which is at most `place`.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), target, piece.len()) };
            place += piece.len();
        }
        self.end = end;
        // Release: a reader that sees this end sees the bytes below it.
        self.mapped.published.store(end, Ordering::Release);
        #[cfg(target_arch = "x86_64")]
        self.expect_stores(place);
        Ok(())
    }

    /// As [`Writer::append`], of bytes that `write` writes to the file at `at`. The map shows them: both see one page cache.
    pub(super) fn append_written(
        &mut self,
        at: u64,
        pieces: &[&[u8]],
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let end = tail_range(self.end, at, pieces, self.mapped.map.len() as u64)?;
        write()?;
        self.end = end;
        self.mapped.published.store(end, Ordering::Release);
        Ok(())
    }

    /// Asks the processor for the cache lines that the next append will store to: the caller gives up a lock next, and that waits
    /// until all stores before it have their lines.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn expect_stores(&self, place: usize) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        let next = self.mapped.map.as_ptr().wrapping_add(place);
        for line in 1..=AHEAD_LINES {
            // SAFETY: a prefetch reads and writes nothing, and no address makes it fault.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(next.wrapping_add(line * 64).cast()) };
        }
    }

    pub(super) fn mapped(&self) -> &Arc<Mapped> {
        &self.mapped
    }
}

impl Mapped {
    /// Copies the published bytes from `at` on into `buf`, as many as there are, and returns their number.
    pub(super) fn read_at(&self, at: u64, buf: &mut [u8]) -> usize {
        // Acquire: pairs with the store in `append`, so the bytes below this end are there.
        let end = self.published.load(Ordering::Acquire);
        let Some(left) = end.checked_sub(at) else { return 0 };
        let (Ok(place), Ok(left)) = (usize::try_from(at), usize::try_from(left)) else { return 0 };
        let count = left.min(buf.len());
        // SAFETY: `place <= end <= map.len()`, so the pointer stays inside the map or one past its end.
        let source = unsafe { self.map.as_ptr().add(place) };
        // SAFETY: `place + count <= end <= map.len()`, and the map lives as long as `self`. `buf` is an exclusive borrow of
        // ordinary memory, so the two do not overlap. The writer never stores below the published end again.
        unsafe { std::ptr::copy_nonoverlapping(source, buf.as_mut_ptr(), count) };
        count
    }

    /// Where the appended bytes end.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Drops the complete pages appended since the last call from the map, before they are synced. They stay in the page
    /// cache, and a later read maps them again.
    ///
    /// A sync write-protects every dirty page that is mapped, and interrupts all processors that use the map for each: under
    /// full load that costs the appending thread more than its stores. Dropping the range costs one interrupt.
    #[cfg(target_os = "linux")]
    pub(super) fn drop_complete_pages(&self) {
        let page = PAGE as u64;
        let end = self.published.load(Ordering::Acquire) / page * page;
        let start = self.dropped.load(Ordering::Relaxed);
        let (Ok(from), Ok(len)) = (usize::try_from(start), usize::try_from(end.saturating_sub(start))) else { return };
        if len < DROP_LEN_MIN {
            return;
        }
        self.dropped.store(end, Ordering::Relaxed);
        // SAFETY: the range is inside the map, which is a shared mapping of a file: dropped pages come back from the file's
        // page cache with the same bytes. No reference into the map exists; a copy that runs at the same time faults the
        // page in again.
        let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, len) };
        // Whether or not the kernel took the advice, the bytes are the same.
        drop(advised);
    }
}

/// Tells a forked child from the process that made it, by a page that the kernel zeroes in the child.
#[derive(Debug)]
pub(crate) struct ForkSentinel {
    /// Absent where the kernel does not know MADV_WIPEONFORK (Linux before 4.14).
    page: Option<MmapRaw>,
    pid: u32,
}

const PAGE: usize = 4096;
/// Two frames of small messages.
#[cfg(target_arch = "x86_64")]
const AHEAD_LINES: usize = 4;
/// Fewer pages than these are not worth a system call.
#[cfg(target_os = "linux")]
const DROP_LEN_MIN: usize = 8 * PAGE;
const PRESENT: u64 = 1;

impl ForkSentinel {
    pub(crate) fn new() -> io::Result<Self> {
        let page = MmapRaw::from(MmapMut::map_anon(PAGE)?);
        // SAFETY: the range is exactly one private anonymous mapping that this value owns and to which no reference
        // exists; the advice changes nothing in this process.
        let wiped =
            unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), rustix::mm::Advice::LinuxWipeOnFork) };
        let sentinel = Self { page: wiped.is_ok().then_some(page), pid: std::process::id() };
        if let Some(word) = sentinel.word() {
            word.store(PRESENT, Ordering::Relaxed);
        }
        Ok(sentinel)
    }

    pub(crate) fn is_forked(&self) -> bool {
        match self.word() {
            Some(word) => word.load(Ordering::Relaxed) != PRESENT,
            None => std::process::id() != self.pid,
        }
    }

    fn word(&self) -> Option<&AtomicU64> {
        let page = self.page.as_ref()?;
        // SAFETY: the page is mapped, writable, aligned to a page and zeroed at first, and outlives the returned borrow of
        // `self`. Every access in this process goes through this atomic.
        Some(unsafe { AtomicU64::from_ptr(page.as_mut_ptr().cast()) })
    }
}

/// Runs `check` in a forked child and returns its verdict.
#[cfg(test)]
pub(crate) fn in_child(check: impl Fn() -> bool + Send + Sync + 'static) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("true");
    let hook = move || if check() { Ok(()) } else { Err(io::Error::from_raw_os_error(1)) };
    // SAFETY: between fork and exec the hook takes no lock that another thread of the parent may have held: the checks read,
    // write and close descriptors and mappings of their own, and the allocator of the C library survives a fork.
    unsafe { command.pre_exec(hook) };
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn readers_see_published_bytes_only() {
        let mut writer = map_tail(&file_of(64), 64, Access::SyncOften).unwrap();
        let reader = writer.mapped().clone();
        let mut buf = [9; 64];
        assert_eq!(reader.read_at(0, &mut buf), 0);
        writer.append(8, &[b"ab", b"", b"cd"]).unwrap();
        assert_eq!((reader.read_at(0, &mut buf), &buf[..13]), (12, b"\0\0\0\0\0\0\0\0abcd\x09".as_slice()));
        for at in [12, 13, 64, 65, u64::MAX] {
            assert_eq!(reader.read_at(at, &mut buf), 0, "at {at}");
        }
        assert!(writer.append(11, &[b"x"]).is_err(), "published bytes never change");
        assert!(writer.append(12, &[&[0; 50], &[0; 3]]).is_err(), "the map ends at 64");
        assert!(writer.append(u64::MAX, &[b"x"]).is_err());
        assert_eq!(reader.published(), 12);
        writer.append(12, &[&[7; 52]]).unwrap();
        assert_eq!(reader.read_at(60, &mut buf), 4);
        writer.append(64, &[]).unwrap();
        assert!(writer.append(64, &[b"x"]).is_err());
    }

    #[test]
    fn stores_reach_the_file() {
        use std::os::unix::fs::FileExt;
        let file = file_of(8192);
        map_tail(&file, 8192, Access::SyncSeldom).unwrap().append(4094, &[b"abcd"]).unwrap();
        let mut buf = [0; 6];
        file.read_exact_at(&mut buf, 4093).unwrap();
        assert_eq!(&buf, b"\0abcd\0");
    }

    #[test]
    fn an_empty_map_takes_nothing() {
        let mut writer = map_tail(&file_of(0), 0, Access::SyncOften).unwrap();
        writer.append(0, &[]).unwrap();
        assert!(writer.append(0, &[b"x"]).is_err());
        assert_eq!(writer.mapped().read_at(0, &mut [0; 8]), 0);
    }

    #[test]
    fn a_forked_child_knows() {
        let sentinel = Arc::new(ForkSentinel::new().unwrap());
        assert!(sentinel.page.is_some(), "Linux 4.14 or newer");
        assert!(!sentinel.is_forked());
        let child = sentinel.clone();
        assert!(in_child(move || child.is_forked()));
        let child = sentinel.clone();
        assert!(!in_child(move || !child.is_forked()), "the harness reports what the child saw");
        assert!(!sentinel.is_forked(), "the parent keeps its word");
    }

    #[test]
    fn a_forked_child_knows_without_the_advice() {
        let sentinel = Arc::new(ForkSentinel { page: None, pid: std::process::id() });
        assert!(!sentinel.is_forked());
        let child = sentinel.clone();
        assert!(in_child(move || child.is_forked()));
    }
}
