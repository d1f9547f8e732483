//! The index on sled. The one file that knows it.
//!
//! What has to be known of sled 0.34:
//! - *Large batches cost memory without bound*: what they replace is kept. A batch has at most [`BATCH_LEN_MAX`] changes.
//! - *Its threads are static.* One pool writes for all its databases of a process, and exists in the process that opened the
//!   first one: a forked child that opened another one would wait for writers that it does not have. So it is refused.
//! - *Cleaning belongs to its flusher*, a thread that also syncs, each time it wakes. Without it the file grows without end. It
//!   wakes every [`FLUSH_EVERY_MS`].
//! - *Dropping it returns before it is closed*: a writer may hold the locked file for moments more. And a flusher that has
//!   panicked leaves the drop waiting for ever. So a thread of ours drops it and waits for the lock of the file, and
//!   [`close`](IndexEngine::close) waits for that thread, for [`CLOSE_WAIT`] at most.
//! - *Its flush does not sync the device*: on Linux it starts the writing of some pages. The file is synced here.
//! - *It panics on some damage*, and the panic hook of the process reports that. Nothing of ours is printed.
//!
//! Never here: checks of what it returns.

use super::folder::sync_names;
use super::guarded::caught;
use super::{Direction, IndexChange, IndexEngine, IndexEntry, IndexError, KeyRange};
use crate::disk::ForkSentinel;
use crate::sync::Builder;
use ::sled::{Batch, Config, Db, IVec, Mode};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

const BATCH_LEN_MAX: usize = 100;
/// Its cache, in bytes. It takes several times as much.
const CACHE_BYTES: u64 = 16 << 20;
const FLUSH_EVERY_MS: u64 = 5_000;
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Tells whether this process has the threads of sled.
static THREADS: OnceLock<ForkSentinel> = OnceLock::new();

pub(super) struct SledEngine {
    db: Db,
    /// Of the file that has the entries, and the lock.
    file: PathBuf,
}

impl SledEngine {
    /// Also its name in the folder of the index.
    pub(super) const NAME: &str = "sled";

    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        let sentinel = ForkSentinel::new().map_err(fault("map a page to recognize forks by"))?;
        if THREADS.get_or_init(|| sentinel).is_forked() {
            return Err(IndexError::fault(
                Self::NAME,
                "its threads are those of the process that this one was forked from",
            ));
        }
        let config = Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = config.mode(Mode::LowSpace).open().map_err(fault("open"))?;
        Ok(Self { db, file: path.join("db") })
    }
}

/// What an error of sled or of the system is here.
fn fault<E: Into<::sled::Error>>(what: &'static str) -> impl FnOnce(E) -> IndexError {
    move |error| {
        let error = error.into();
        if let ::sled::Error::Io(error) = &error {
            return IndexError::io(SledEngine::NAME, what, error);
        }
        IndexError::fault(SledEngine::NAME, format_args!("could not {what}: {error}"))
    }
}

impl IndexEngine for SledEngine {
    fn batch_len_max(&self) -> usize {
        BATCH_LEN_MAX
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.db.get(key).map_err(fault("read"))?.map(|value| value.to_vec()))
    }

    fn scan(
        &mut self,
        range: KeyRange<'_>,
        direction: Direction,
        entries_max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), IndexError> {
        let mut entries = self.db.range::<&[u8], _>(range);
        for _ in 0..entries_max {
            let next = match direction {
                Direction::Ascending => entries.next(),
                Direction::Descending => entries.next_back(),
            };
            let Some(entry) = next else { break };
            let (key, value): (IVec, IVec) = entry.map_err(fault("scan"))?;
            out.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[IndexChange<'_>]) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        for change in changes {
            match change.value {
                Some(value) => batch.insert(change.key, value),
                None => batch.remove(change.key),
            }
        }
        self.db.apply_batch(batch).map_err(fault("write"))
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        self.db.flush().map_err(fault("flush"))?;
        let synced = File::open(&self.file).and_then(|file| file.sync_all());
        synced.and_then(|()| sync_names(&self.file)).map_err(fault("sync"))
    }

    fn close(self: Box<Self>) -> Result<(), IndexError> {
        let (give, given) = mpsc::channel::<Self>();
        let (tell, told) = mpsc::channel();
        let closing = move || {
            let Ok(Self { db, file }) = given.recv() else { return };
            let closed = caught(Self::NAME, || {
                drop(db);
                // Waits until no other handle has the lock. The lock goes with this one.
                File::open(&file).and_then(|file| file.lock()).map_err(fault("wait for the lock"))
            });
            // Nobody may listen any more.
            let _ = tell.send(closed);
        };
        let started = Builder::new().name("millpond-index-close".to_owned()).spawn(closing);
        if let Err(error) = started {
            // Dropping it here might never return.
            std::mem::forget(self);
            return Err(fault("start a thread to close it")(error));
        }
        if let Err(mpsc::SendError(engine)) = give.send(*self) {
            std::mem::forget(engine);
        }
        told.recv_timeout(CLOSE_WAIT)
            .unwrap_or_else(|error| Err(IndexError::fault(Self::NAME, format_args!("could not close: {error}"))))
    }
}
