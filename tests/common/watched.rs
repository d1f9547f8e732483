//! A disk that tells of each request before and after it is made: what stands between the engine and the real one.
//!
//! It changes nothing. The watcher may count, wait, or end the process.

#![allow(dead_code, reason = "each test that includes this uses some of it")]

use millpond::simulation::{Access, Disk, Entry, File, Op, Tail};
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) op: Op,
    /// The file's name; that of the directory is empty.
    pub(crate) file: &'a str,
}

impl Request<'_> {
    /// What is asked of which kind of file: `Create .seg`, `Write STORE`, `SyncDir`.
    pub(crate) fn kind(self) -> String {
        let suffix = self.file.find('.').map_or(self.file, |dot| &self.file[dot..]);
        format!("{:?} {suffix}", self.op).trim_end().to_owned()
    }
}

pub(crate) trait Watch: Debug + Send + Sync + 'static {
    fn before(&self, request: Request<'_>);
    fn after(&self, _request: Request<'_>) {}
}

#[derive(Debug)]
pub(crate) struct WatchedDisk<W> {
    inner: Arc<dyn Disk>,
    watch: Arc<W>,
}

#[derive(Debug)]
struct WatchedFile<W> {
    name: String,
    inner: Arc<dyn File>,
    watch: Arc<W>,
}

#[derive(Debug)]
struct WatchedTail<W> {
    inner: Box<dyn Tail>,
    file: Arc<dyn File>,
    name: String,
    watch: Arc<W>,
}

fn watched<W: Watch, T>(watch: &W, op: Op, file: &str, run: impl FnOnce() -> T) -> T {
    let request = Request { op, file };
    watch.before(request);
    let done = run();
    watch.after(request);
    done
}

impl<W: Watch> WatchedDisk<W> {
    pub(crate) fn new(inner: Arc<dyn Disk>, watch: Arc<W>) -> Self {
        Self { inner, watch }
    }

    fn file(&self, name: &str, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(WatchedFile { name: name.to_owned(), inner, watch: Arc::clone(&self.watch) })
    }

    fn watched<T>(&self, op: Op, file: &str, run: impl FnOnce() -> T) -> T {
        watched(&*self.watch, op, file, run)
    }
}

impl<W: Watch> Disk for WatchedDisk<W> {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.watched(Op::List, "", || self.inner.list())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(name, self.watched(Op::Open, name, || self.inner.open(name))?))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        Ok(self.file(name, self.watched(Op::Create, name, || self.inner.create(name, len))?))
    }

    fn create_tail(&self, name: &str, len: u64, access: Access) -> io::Result<Box<dyn Tail>> {
        let inner = self.watched(Op::Create, name, || self.inner.create_tail(name, len, access))?;
        let file = self.file(name, Arc::clone(inner.file()));
        Ok(Box::new(WatchedTail { inner, file, name: name.to_owned(), watch: Arc::clone(&self.watch) }))
    }

    fn prepare(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<()> {
        self.inner.prepare(name, range)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.watched(Op::Remove, name, || self.inner.remove(name))
    }

    fn replace_lock_file(&self, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
        Ok(self.file("STORE", self.watched(Op::Create, "STORE", || self.inner.replace_lock_file(bytes))?))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.watched(Op::SyncDir, "", || self.inner.sync_dir())
    }

    fn available(&self) -> io::Result<u64> {
        self.inner.available()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn detach(&self) {
        self.inner.detach();
    }

    fn is_forked(&self) -> bool {
        self.inner.is_forked()
    }
}

impl<W: Watch> File for WatchedFile<W> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.inner.links()
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        watched(&*self.watch, Op::Read, &self.name, || self.inner.read_at(at, buf))
    }

    fn data_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        watched(&*self.watch, Op::Read, &self.name, || self.inner.data_from(at))
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        watched(&*self.watch, Op::Write, &self.name, || self.inner.write_at(at, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        watched(&*self.watch, Op::Sync, &self.name, || self.inner.sync())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        watched(&*self.watch, Op::SetLen, &self.name, || self.inner.set_len(len))
    }
}

impl<W: Watch> Tail for WatchedTail<W> {
    fn append(&mut self, at: u64, pieces: &[&[u8]]) -> io::Result<()> {
        watched(&*self.watch, Op::Append, &self.name, || self.inner.append(at, pieces))
    }

    fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}
