//! Floors: the least that the machine needs for the same work, measured in the same run.
//!
//! A floor does no more than its name says: no topics, leases, recovery. Each checks its own result. Never here: millpond.

#![allow(unsafe_code, reason = "a file cannot be mapped without")]

use super::{now, ns_each, per_second, time};
use memmap2::{Advice, MmapMut};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Checksum and length before each record.
const HEAD: usize = 8;
/// What a lease or an ack of one message takes.
const SETTLE: usize = 16;
/// How much is read at a time.
const BLOCK: usize = 64 << 10;

/// Whether the file is mapped as in a store that syncs at every publish.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    SyncOften,
    SyncSeldom,
}

/// A mapped file with all its blocks allocated, appended to by plain stores.
pub(crate) struct Tail {
    file: File,
    map: MmapMut,
    at: usize,
}

/// A new file of `len` allocated bytes.
fn allocated(path: &Path, len: usize) -> File {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(path).expect("create a file");
    fallocate(&file, FallocateFlags::empty(), 0, len as u64).expect("allocate its blocks");
    rustix::fs::fsync(&file).expect("sync it");
    file
}

impl Tail {
    pub(crate) fn create(path: &Path, len: usize, mapping: Mapping) -> Self {
        let file = allocated(path, len);
        // SAFETY: the file was created just now under a name of this process alone, nobody cuts it while it is mapped, and it is
        // only written through this map.
        let map = unsafe { MmapMut::map_mut(&file) }.expect("map it");
        if mapping == Mapping::SyncOften {
            map.advise(Advice::Random).expect("advise");
        }
        Self { file, map, at: 0 }
    }

    /// Stores head and payload, with a checksum.
    #[inline]
    pub(crate) fn append(&mut self, payload: &[u8]) {
        let body = self.at + HEAD;
        let end = body + payload.len();
        self.map[self.at..self.at + 4].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.map[self.at + 4..body].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        self.map[body..end].copy_from_slice(payload);
        self.at = end.next_multiple_of(8);
    }

    /// Whether a record of `len` bytes still fits.
    #[inline]
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.at + HEAD + len + 8 <= self.map.len()
    }

    /// Grows to `at` by stores of zeros, and syncs.
    pub(crate) fn fill_to(&mut self, at: usize) {
        let zeros = [0; BLOCK];
        while self.at + BLOCK <= at {
            self.append(&zeros[HEAD..]);
        }
        self.sync();
    }

    pub(crate) fn sync(&self) {
        fdatasync(&self.file).expect("fdatasync");
    }

    /// Checks that the last bytes stored, which were `payload`, are in the file.
    fn check_last(&self, payload: &[u8]) {
        let mut found = vec![0; payload.len()];
        let at = self.at - payload.len().next_multiple_of(8);
        self.file.read_exact_at(&mut found, at as u64).expect("read back");
        assert_eq!(found, payload);
    }
}

/// Nanoseconds a payload of `len` bytes, `batch` of them under one checksum, stored into new mapped files one after
/// another. `rolls` files of `file_len` bytes are filled.
pub(crate) fn append_ns(directory: &Path, len: usize, batch: usize, rolls: usize, file_len: usize) -> f64 {
    let paths: Vec<_> = (0..rolls).map(|n| directory.join(format!("append-{n}"))).collect();
    let mut tails: Vec<_> = paths.iter().map(|path| Tail::create(path, file_len, Mapping::SyncSeldom)).collect();
    let record = vec![0x5a; len * batch];
    let mut count = 0;
    let elapsed = time(|| {
        for tail in &mut tails {
            while tail.has_room(record.len()) {
                tail.append(black_box(&record));
                count += batch as u64;
            }
        }
    });
    tails.iter().for_each(|tail| tail.check_last(&record));
    drop(tails);
    remove(&paths);
    ns_each(elapsed, count)
}

/// Appending and syncing one record, mapped and by positional write, in two files that grow alike.
pub(crate) struct Synced {
    mapped: Tail,
    written: File,
    at: u64,
}

impl Synced {
    pub(crate) fn create(path: &Path, len: usize) -> Self {
        let mapped = Tail::create(&path.with_extension("mapped"), len, Mapping::SyncOften);
        Self { mapped, written: allocated(&path.with_extension("written"), len), at: 0 }
    }

    /// Grows both files to `at`.
    pub(crate) fn fill_to(&mut self, at: u64) {
        self.mapped.fill_to(at as usize);
        while self.at + BLOCK as u64 <= at {
            self.written.write_all_at(&[0; BLOCK], self.at).expect("write");
            self.at += BLOCK as u64;
        }
        fdatasync(&self.written).expect("fdatasync");
    }

    /// The mean nanoseconds of append and sync: of the better of the two ways.
    pub(crate) fn mean_ns(&mut self, payload: &[u8], count: u64) -> f64 {
        let mapped = time(|| (0..count).for_each(|_| self.mapped_once(payload)));
        let written = time(|| (0..count).for_each(|_| self.written_once(payload)));
        self.mapped.check_last(payload);
        ns_each(mapped.min(written), count)
    }

    fn mapped_once(&mut self, payload: &[u8]) {
        self.mapped.append(payload);
        self.mapped.sync();
    }

    fn written_once(&mut self, payload: &[u8]) {
        let mut record = Vec::with_capacity(HEAD + payload.len());
        record.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(payload);
        self.written.write_all_at(&record, self.at).expect("write");
        self.at += record.len() as u64;
        fdatasync(&self.written).expect("fdatasync");
    }
}

/// A mapped file that many threads append to, where the first who waits syncs for all.
struct Shared {
    tail: Mutex<Tail>,
    file: File,
    durable: AtomicU64,
    leading: Mutex<bool>,
    moved: Condvar,
}

impl Shared {
    fn append(&self, payload: &[u8]) -> u64 {
        let mut tail = self.tail.lock();
        tail.append(payload);
        tail.at as u64
    }

    fn wait_durable(&self, end: u64) {
        while self.durable.load(Ordering::Acquire) < end {
            let mut leading = self.leading.lock();
            if *leading {
                if self.durable.load(Ordering::Acquire) < end {
                    self.moved.wait(&mut leading);
                }
                continue;
            }
            *leading = true;
            drop(leading);
            let upto = self.tail.lock().at as u64;
            fdatasync(&self.file).expect("fdatasync");
            self.durable.store(upto, Ordering::Release);
            *self.leading.lock() = false;
            self.moved.notify_all();
        }
    }
}

/// Records a second that `threads` threads make durable, each waiting for its own before the next.
pub(crate) fn leader_sync_rate(path: &Path, threads: u64, each: u64, payload: &[u8]) -> f64 {
    let len = threads * each * (HEAD + payload.len() + 8) as u64 + (1 << 20);
    let tail = Tail::create(path, len as usize, Mapping::SyncOften);
    let file = tail.file.try_clone().expect("another descriptor");
    let (tail, leading) = (Mutex::new(tail), Mutex::new(false));
    let shared = Shared { tail, file, durable: AtomicU64::new(0), leading, moved: Condvar::new() };
    let elapsed = time(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..each).for_each(|_| shared.wait_durable(shared.append(payload))));
            }
        });
    });
    let step = (HEAD + payload.len()).next_multiple_of(8) as u64;
    assert_eq!(shared.durable.into_inner(), threads * each * step, "every record is durable");
    remove(&[path]);
    per_second(elapsed, threads * each)
}

/// Records a second that one thread makes durable when it syncs once for every `run` of them.
pub(crate) fn pipelined_rate(path: &Path, runs: u64, run: u64, payload: &[u8]) -> f64 {
    let len = runs * run * (HEAD + payload.len() + 8) as u64 + (1 << 20);
    let mut tail = Tail::create(path, len as usize, Mapping::SyncOften);
    let elapsed = time(|| {
        for _ in 0..runs {
            (0..run).for_each(|_| tail.append(payload));
            tail.sync();
        }
    });
    tail.check_last(payload);
    remove(&[path]);
    per_second(elapsed, runs * run)
}

/// Nanoseconds a message for reading `count` records in order, checking and copying out each, and appending for every `batch` of
/// them two small records (the lease and the ack).
pub(crate) fn settle_ns(directory: &Path, count: u64, batch: u64, payload: &[u8]) -> f64 {
    let (source_path, settled_path) = (directory.join("source"), directory.join("settled"));
    let step = (HEAD + payload.len()).next_multiple_of(8);
    let source_len = (count as usize * step).next_multiple_of(BLOCK) + BLOCK;
    let mut source = Tail::create(&source_path, source_len, Mapping::SyncSeldom);
    (0..count).for_each(|_| source.append(payload));
    source.sync();
    let settled_len = (count / batch + 1) as usize * 2 * (HEAD + SETTLE) + BLOCK;
    let mut settled = Tail::create(&settled_path, settled_len, Mapping::SyncSeldom);
    let per_block = BLOCK / step;
    let mut block = vec![0; per_block * step];
    let mut read = 0;
    let start = now();
    while read < count {
        source.file.read_exact_at(&mut block, read * step as u64).expect("read");
        for record in block.chunks_exact(step).take((count - read) as usize) {
            let body = &record[HEAD..HEAD + payload.len()];
            assert_eq!(crc32fast::hash(body).to_le_bytes(), record[..4], "the record is whole");
            black_box(body.to_vec());
            read += 1;
            if read % batch == 0 {
                settled.append(&[1; SETTLE]);
                settled.append(&[2; SETTLE]);
            }
        }
    }
    let elapsed = start.elapsed();
    settled.check_last(&[2; SETTLE]);
    remove(&[source_path, settled_path]);
    ns_each(elapsed, count)
}

/// Copies `len` bytes `count` times, one after another through 16 MiB of memory.
pub(crate) fn copy(len: usize, count: u64) -> Duration {
    let source = vec![0x5a_u8; len];
    let mut target = vec![0; (16 << 20) / len * len];
    let mut at = 0;
    time(|| {
        for _ in 0..count {
            target[at..at + len].copy_from_slice(black_box(&source));
            at = (at + len) % target.len();
        }
        black_box(&target);
    })
}

fn remove(paths: &[impl AsRef<Path>]) {
    paths.iter().for_each(|path| std::fs::remove_file(path).expect("remove a file"));
}
