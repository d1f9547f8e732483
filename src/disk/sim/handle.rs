//! The simulated process's side: a disk, its files and tails.
//!
//! Never here: what a request does; see `world`.

use super::SharedWorld;
use super::world::World;
use crate::disk::{Access, Disk, Entry, FILE_LEN_MAX, File, LOCK_NAME, Tail, checked_end, checked_name, tail_range};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One attachment to a [`SimDisk`](super::SimDisk), exclusive until it and all its files are dropped or the process
/// crashes.
pub struct SimHandle {
    session: Arc<Session>,
}

/// The life of an attachment, shared by all its handles.
struct Session {
    world: SharedWorld,
    number: u64,
}

impl Session {
    fn with<T>(&self, request: impl FnOnce(&mut World, u64) -> T) -> T {
        request(&mut self.world.lock(), self.number)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.world.lock().release(self.number);
    }
}

impl SimHandle {
    pub(super) fn new(world: &SharedWorld) -> io::Result<Self> {
        let number = world.lock().attach()?;
        Ok(Self { session: Arc::new(Session { world: world.clone(), number }) })
    }

    fn file(&self, inode: u64, appended: Option<Arc<AtomicU64>>) -> SimFile {
        SimFile { session: self.session.clone(), inode, appended }
    }
}

impl fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHandle").field("session", &self.session.number).finish()
    }
}

impl Disk for SimHandle {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.session.with(World::list)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        checked_name(name)?;
        let inode = self.session.with(|world, session| world.open(session, name))?;
        Ok(Arc::new(self.file(inode, None)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        checked_name(name)?;
        checked_end(len, 0)?;
        let inode = self.session.with(|world, session| world.create(session, name, len))?;
        Ok(Arc::new(self.file(inode, None)))
    }

    fn create_tail(&self, name: &str, len: u64, _: Access) -> io::Result<Box<dyn Tail>> {
        checked_name(name)?;
        checked_end(len, 0)?;
        let end = Arc::new(AtomicU64::new(0));
        let inode = self.session.with(|world, session| {
            let number = world.create(session, name, len)?;
            let inode = world.inode(number)?;
            inode.has_tail = true;
            inode.appended = Arc::downgrade(&end);
            Ok::<_, io::Error>(number)
        })?;
        let (file, handle) = (self.file(inode, Some(end.clone())), self.session.clone());
        Ok(Box::new(SimTail { session: handle, inode, len, end, file: Arc::new(file) }))
    }

    fn prepare(&self, _name: &str, _range: std::ops::Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if checked_name(name)? == LOCK_NAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.session.with(|world, session| world.remove(session, name))
    }

    fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
        let inode = self.session.with(|world, session| world.replace_lock_file(session, bytes))?;
        Ok(Arc::new(self.file(inode, None)))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.session.with(World::sync_dir)
    }

    fn available(&self) -> io::Result<u64> {
        Ok(self.session.world.lock().available())
    }

    fn random(&self) -> u64 {
        self.session.with(|world, _| world.ids.next_u64())
    }

    fn detach(&self) {
        self.session.with(World::release);
    }

    fn is_forked(&self) -> bool {
        false
    }
}

struct SimFile {
    session: Arc<Session>,
    inode: u64,
    /// The end of what the tail has appended, of the handle that came from it.
    appended: Option<Arc<AtomicU64>>,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.session.with(|world, session| {
            world.check(session)?;
            Ok(world.inode(self.inode)?.cache.len())
        })
    }

    fn links(&self) -> io::Result<u64> {
        self.session.with(|world, session| {
            world.check(session)?;
            world.links(self.inode)
        })
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let buf = match &self.appended {
            Some(end) => {
                let left = end.load(Ordering::Acquire).saturating_sub(at);
                let count = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                &mut buf[..count]
            }
            None => {
                checked_end(at, buf.len())?;
                buf
            }
        };
        self.session.with(|world, session| world.read(session, self.inode, at.min(FILE_LEN_MAX), buf))
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        checked_end(at, 0)?;
        self.session.with(|world, session| world.data_from(session, self.inode, at))
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        checked_end(at, bytes.len())?;
        if self.appended.is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.session.with(|world, session| world.write(session, self.inode, at, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.session.with(|world, session| world.sync(session, self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.session.with(|world, session| world.set_len(session, self.inode, len))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.session.with(|world, session| {
            if let (Ok(()), Ok(inode)) = (world.check(session), world.inode(self.inode)) {
                inode.handles = inode.handles.saturating_sub(1);
            }
        });
    }
}

struct SimTail {
    session: Arc<Session>,
    inode: u64,
    len: u64,
    end: Arc<AtomicU64>,
    file: Arc<dyn File>,
}

impl fmt::Debug for SimTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTail").field("inode", &self.inode).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Tail for SimTail {
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let end = tail_range(self.end.load(Ordering::Relaxed), at, pieces, self.len)?;
        self.session.with(|world, session| {
            world.append(session, self.inode, at, pieces)?;
            self.end.store(end, Ordering::Release);
            Ok(())
        })
    }

    fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}

impl Drop for SimTail {
    fn drop(&mut self) {
        self.session.with(|world, session| {
            if let (Ok(()), Ok(inode)) = (world.check(session), world.inode(self.inode)) {
                inode.has_tail = false;
            }
        });
    }
}
