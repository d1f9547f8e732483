//! The block device: a file served through FUSE, every write and flush of which is kept, in order, with its bytes.
//!
//! A loop device on that file passes the requests of a file system on: its writes as writes, its flushes as fsyncs. Never
//! here: what a file system or a store means by them.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "device";
/// The kernel need not ask again: nobody else changes it.
const FOREVER: Duration = Duration::from_secs(3_600);

/// A request that the device answered.
pub enum Event {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    /// Every write before it is durable.
    Flush,
}

struct Device {
    bytes: Vec<u8>,
    events: Vec<Event>,
    /// Holds the number of events, for another process to read.
    position: File,
}

impl Device {
    /// Keeps the event before the request is answered.
    fn keep(&mut self, event: Event) {
        self.events.push(event);
        let position = self.events.len() as u64;
        self.position.write_all_at(&position.to_le_bytes(), 0).expect("memory can be written");
    }
}

/// Reads how many requests a [`Recorder`] has answered, from the process that works. That is not the one that serves the device: a
/// process that waits for its own device is stuck for ever.
pub struct Watch(File);

impl Watch {
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// A promise that was made before this call rests on so many requests alone.
    pub fn position(&self) -> usize {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).expect("memory can be read");
        u64::from_le_bytes(bytes) as usize
    }
}

/// The device, and what was asked of it.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Device>>);

impl Recorder {
    /// A device of `len` zero bytes, which writes its position to the file `position`.
    pub fn new(len: usize, position: &Path) -> io::Result<Self> {
        let position = File::create(position)?;
        position.write_all_at(&[0; 8], 0)?;
        Ok(Self(Arc::new(Mutex::new(Device { bytes: vec![0; len], events: Vec::new(), position }))))
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests were answered so far.
    pub fn position(&self) -> usize {
        self.device().events.len()
    }

    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.device().events)
    }

    /// Serves the device below `dir`, as the file that is returned, until the session is dropped.
    pub fn serve(&self, dir: &Path) -> io::Result<(BackgroundSession, PathBuf)> {
        let session = fuser::spawn_mount(Served(self.clone()), dir, &Config::default())?;
        Ok((session, dir.join(NAME)))
    }
}

struct Served(Recorder);

impl Served {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = self.0.device().bytes.len() as u64;
        let (kind, size) = if ino == FILE { (FileType::RegularFile, size) } else { (FileType::Directory, 0) };
        let never = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: never,
            mtime: never,
            ctime: never,
            crtime: never,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let device = self.0.device();
        let from = (offset as usize).min(device.bytes.len());
        let to = from.saturating_add(size as usize).min(device.bytes.len());
        reply.data(&device.bytes[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut device = self.0.device();
        let at = offset as usize;
        match device.bytes.get_mut(at..at.saturating_add(data.len())) {
            Some(place) => {
                place.copy_from_slice(data);
                device.keep(Event::Write { at, bytes: data.to_vec() });
                reply.written(data.len() as u32);
            }
            None => reply.error(Errno::ENOSPC),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.device().keep(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A descriptor was closed: that says nothing about durability.
        reply.ok();
    }
}
