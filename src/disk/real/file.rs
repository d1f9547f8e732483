//! Open files and tails on the kernel's descriptors.
//!
//! Every handle that this process has to one file shares a [`RealInode`], found by the file's number: what one of them learns
//! (a failed sync, a tail that still writes) binds all. Never here: names.

use super::attach::{self, Attachment};
use super::fs_kind::FsKind;
use super::sync::{self, SyncOnce};
use crate::disk::map::{self, Mapped, Writer};
use crate::disk::{Access, File, Tail, checked_end, tail_range};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// How many bytes are read or written at a time by those who can wait.
pub(super) const SLICE_LEN: usize = 32 << 10;

/// Yields to a thread that was woken meanwhile and waits for this processor.
pub(super) fn give_way() {
    rustix::thread::sched_yield();
}

/// What all handles to one file share.
#[derive(Debug, Default)]
pub(super) struct RealInode {
    syncs: SyncOnce,
    /// Set from the creation of the file with a [`Tail`] until that tail is dropped.
    has_tail: AtomicBool,
    /// Where appended bytes may still be read through a handle from [`Tail::file`].
    appended: OnceLock<ReadableEnd>,
}

#[derive(Debug)]
enum ReadableEnd {
    Mapped(Weak<Mapped>),
    Written(Weak<AtomicU64>),
}

impl RealInode {
    /// The end of the appended bytes, while a handle that reads up to it lives.
    fn readable_end(&self) -> Option<u64> {
        match self.appended.get()? {
            ReadableEnd::Mapped(mapped) => Some(mapped.upgrade()?.published()),
            ReadableEnd::Written(end) => Some(end.upgrade()?.load(Ordering::Acquire)),
        }
    }
}

/// Which bytes a handle reads, and how.
#[derive(Debug)]
enum FileView {
    /// The whole file, by system calls.
    Whole,
    /// What a tail has appended, through its map.
    Mapped(Arc<Mapped>),
    /// What a tail has appended, by system calls. Only the tail stores the end.
    Written(Arc<AtomicU64>),
}

#[derive(Debug)]
pub(super) struct RealFile {
    file: std::fs::File,
    /// By which it was opened or created.
    name: Box<str>,
    view: FileView,
    inode: Arc<RealInode>,
    /// Keeps the lock.
    attachment: Arc<Attachment>,
}

impl RealFile {
    pub(super) fn new(file: std::fs::File, name: &str, inode: Arc<RealInode>, attachment: Arc<Attachment>) -> Self {
        Self { file, name: name.into(), view: FileView::Whole, inode, attachment }
    }
}

/// Fills `buf` from position `at` of a file, as far as it goes.
pub(super) fn pread(file: &std::fs::File, at: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buf.len() {
        match rustix::io::pread(file, &mut buf[count..], at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// The next range at or after `at` of bytes that may be other than zeros.
pub(super) fn data_from(file: &std::fs::File, at: u64, kind: FsKind) -> io::Result<Option<Range<u64>>> {
    checked_end(at, 0)?;
    let len = file.metadata()?.len();
    // Elsewhere a file system may be of another opinion than its reads for a moment after a write.
    if kind != FsKind::Mappable {
        return Ok((at < len).then_some(at..len));
    }
    let seek = |to| rustix::io::retry_on_intr(|| rustix::fs::seek(file, to));
    let start = match seek(SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        found => found?,
    };
    Ok(Some(start..seek(SeekFrom::Hole(start))?))
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        attach::links(&self.attachment.dir, &self.name, &self.file)
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        match &self.view {
            FileView::Mapped(mapped) => Ok(mapped.read_at(at, buf)),
            FileView::Whole => {
                checked_end(at, buf.len())?;
                pread(&self.file, at, buf)
            }
            FileView::Written(end) => {
                let left = end.load(Ordering::Acquire).saturating_sub(at);
                let count = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                pread(&self.file, at, &mut buf[..count])
            }
        }
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        data_from(&self.file, at, self.attachment.kind)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        checked_end(at, bytes.len())?;
        if !matches!(self.view, FileView::Whole) || self.inode.has_tail.load(Ordering::Acquire) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = at;
        for slice in bytes.chunks(SLICE_LEN) {
            write_all(&self.file, at, &mut [IoSlice::new(slice)])?;
            at += slice.len() as u64;
            if slice.len() == SLICE_LEN {
                give_way();
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let FileView::Mapped(mapped) = &self.view {
            mapped.drop_complete_pages();
        }
        self.inode.syncs.run(|| sync::data(&self.file))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Neither answer can turn worse before the cut: a file never gets a second tail, a dropped tail appends nothing,
        // and a handle that reads the appended bytes can only be cloned from one that lives.
        let refused = self.inode.has_tail.load(Ordering::Acquire)
            || self.inode.readable_end().is_some_and(|end| len < end)
            || checked_end(len, 0).is_err();
        if refused {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.file, len))?)
    }
}

/// Writes all of `slices` at `at`: one call, and more only where it was interrupted or wrote less.
fn write_all(file: &std::fs::File, mut at: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // drops leading empty slices, so that a count of 0 is an error
    while !slices.is_empty() {
        // No more slices go into one call than the kernel takes: `pwritev` sees to that.
        match rustix::io::pwritev(file, slices, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What the kernel never tears where it begins at a multiple of it.
const WORD: u64 = 8;

/// Writes `pieces` one after another at `at`, the rest of the first word in a call of its own when all else is there: a disk
/// that turns out to be full in the middle leaves that word as it was.
fn write_first_word_last(file: &std::fs::File, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
    let mut left = (WORD - at % WORD) as usize;
    let mut after = at;
    let (mut first, mut rest) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(pieces.len()));
    for piece in pieces {
        let (head, tail) = piece.split_at(left.min(piece.len()));
        left -= head.len();
        after += head.len() as u64;
        first.push(IoSlice::new(head));
        rest.push(IoSlice::new(tail));
    }
    write_all(file, after, &mut rest)?;
    write_all(file, at, &mut first)
}

/// Says that the tail is gone, when it is dropped.
#[derive(Debug)]
struct Alive(Arc<RealInode>);

impl Alive {
    fn new(inode: &Arc<RealInode>, appended: ReadableEnd) -> Self {
        let fresh = inode.appended.set(appended).is_ok();
        debug_assert!(fresh, "a file has one tail, from its creation");
        inode.has_tail.store(true, Ordering::Release);
        Self(inode.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.has_tail.store(false, Ordering::Release);
    }
}

/// In a file that is synced often an append of so many bytes is written by a system call: a sync would otherwise meet each of its pages as
/// one that was mapped and stored to by itself. At 1.6 MB an append and its sync take 0.7 ms in place of 2.6, at 16 KiB 148 us in place of
/// 168 (ext4).
const LARGE_LEN: usize = 16 << 10;
/// And so many at a time: the page cache keeps what is written at once in one folio, and a sync writes folios whole.
const LARGE_SLICE_LEN: usize = 64 << 10;

/// A tail that appends through a map.
#[derive(Debug)]
pub(super) struct MappedTail {
    writer: Writer,
    real: Arc<RealFile>,
    file: Arc<dyn File>,
    /// Whether large appends are written.
    writes_large: bool,
    _alive: Alive,
}

impl MappedTail {
    /// `file` is the handle to a file of `len` bytes that was just created, with all its blocks.
    pub(super) fn new(mut file: RealFile, len: u64, access: Access) -> io::Result<Self> {
        if len > 0 {
            // So that the first store finds its page in memory: a fault there would get ready as many bytes as the device's
            // read-ahead says, which may be megabytes, before anybody needs them.
            write_all(&file.file, 0, &mut [IoSlice::new(&[0])])?;
        }
        let writer = map::map_tail(&file.file, len, access)?;
        let alive = Alive::new(&file.inode, ReadableEnd::Mapped(Arc::downgrade(writer.mapped())));
        file.view = FileView::Mapped(writer.mapped().clone());
        let real = Arc::new(file);
        let writes_large = access == Access::SyncOften;
        Ok(Self { writer, file: Arc::clone(&real) as _, real, writes_large, _alive: alive })
    }
}

/// Writes pieces one after another at `at`, in slices: the first word of all last.
fn write_large(file: &std::fs::File, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
    let (mut place, mut held) = (at, None);
    for piece in pieces {
        let mut left = *piece;
        if held.is_none() && !left.is_empty() {
            let (first, rest) = left.split_at(left.len().min((WORD - at % WORD) as usize));
            held = Some(first);
            left = rest;
            place += first.len() as u64;
        }
        for slice in left.chunks(LARGE_SLICE_LEN) {
            write_all(file, place, &mut [IoSlice::new(slice)])?;
            place += slice.len() as u64;
        }
    }
    write_all(file, at, &mut [IoSlice::new(held.unwrap_or_default())])
}

impl Tail for MappedTail {
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        if self.writes_large && pieces.iter().map(|piece| piece.len()).sum::<usize>() >= LARGE_LEN {
            let Self { writer, real, .. } = self;
            return writer.append_written(at, pieces, || write_large(&real.file, at, pieces));
        }
        self.writer.append(at, pieces)
    }

    fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}

/// A tail that appends by system calls.
#[derive(Debug)]
pub(super) struct WrittenTail {
    descriptor: std::fs::File,
    len: u64,
    end: Arc<AtomicU64>,
    file: Arc<dyn File>,
    _alive: Alive,
}

impl WrittenTail {
    /// `file` is the handle to a file of `len` bytes that was just created.
    pub(super) fn new(mut file: RealFile, len: u64) -> io::Result<Self> {
        let (descriptor, end) = (file.file.try_clone()?, Arc::new(AtomicU64::new(0)));
        let alive = Alive::new(&file.inode, ReadableEnd::Written(Arc::downgrade(&end)));
        file.view = FileView::Written(end.clone());
        Ok(Self { descriptor, len, end, file: Arc::new(file), _alive: alive })
    }
}

impl Tail for WrittenTail {
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let end = tail_range(self.end.load(Ordering::Relaxed), at, pieces, self.len)?;
        write_first_word_last(&self.descriptor, at, pieces)?;
        self.end.store(end, Ordering::Release);
        Ok(())
    }

    fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, SealFlags};

    /// A file that must not grow takes what fits and refuses the rest, as a full disk does.
    #[test]
    fn an_append_that_fails_in_the_middle_leaves_its_first_word_alone() {
        for (at, len) in [(0, 9000), (8, 4089), (4080, 17), (4000, 5000), (13, 6000), (4088, 9)] {
            let descriptor = rustix::fs::memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
            let file = std::fs::File::from(descriptor);
            file.set_len(4096).unwrap();
            rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
            let bytes = vec![0xAA; len];
            for pieces in
                [vec![&bytes[..]], vec![&bytes[..3], &bytes[3..3], &bytes[3..11.min(len)], &bytes[11.min(len)..]]]
            {
                write_first_word_last(&file, at, &pieces).unwrap_err();
            }
            let mut left = vec![0; 4096];
            assert_eq!(rustix::io::pread(&file, &mut left[..], 0).unwrap(), 4096);
            let word = (at / WORD + 1) * WORD;
            assert!(left[..word as usize].iter().all(|byte| *byte == 0), "{len} bytes at {at}");
            let end = at + len as u64;
            if end > 4096 && word < 4096 {
                assert!(left[word as usize..].iter().all(|byte| *byte == 0xAA), "the disk was full in the middle");
            }
        }
    }
}
