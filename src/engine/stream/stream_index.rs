//! The index of streams: filled behind the log, asked where the log would have to be searched.
//!
//! What its entries are is in `index_entry`. The index
//! never follows what is not durable, and nothing is believed of it but what its stamp covers. On any doubt it is thrown away and filled
//! again from the log; calls that need it meanwhile are told how far that is. Never here: decisions.

use crate::engine::Engine;
use crate::engine::stream::opened::{Opened, OpenedKind};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Lsn, Offset};
use crate::index::{Direction, IndexError, IndexHome, IndexStamp, in_memory};
use crate::log::Class;
use crate::record::{Record, StreamId};
use crate::state::{StreamFact, StreamHead, StreamRun, Touch};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::view::for_each_frame_of_records;

/// How much of the log a call reads for the index before it says how far that is.
const FILL_LEN: u64 = 64 << 20;
/// How many touches go into the index at a time: a call that asks the index waits for no more.
const TOUCHES_AT_ONCE: usize = 256;
/// How many entries an index has that stands in for another: some 50 MB.
const STAND_IN_ENTRIES: usize = 1 << 18;
/// How often a call makes the index anew.
const TRIES: usize = 3;
/// After so much log the index is flushed.
const FLUSH_LEN: u64 = 16 << 20;
/// How much longer the log may be than what the index follows where no stream is touched.
const BEHIND_MAX: u64 = 4 << 20;

/// The index of a store.
#[derive(Debug)]
pub(in crate::engine) struct StreamIndex {
    home: Box<dyn IndexHome>,
    instance: [u8; 16],
    pub(in crate::engine) opened: Mutex<Option<Opened>>,
    /// Set under the lock of `opened`: it is not opened any more.
    closed: AtomicBool,
    /// Set under the lock of `opened`: it had no room for what was appended, and nothing more is.
    full: AtomicBool,
}

/// What the index knows of a stretch of a stream.
#[derive(Debug, Default)]
pub(in crate::engine) struct Indexed {
    pub(in crate::engine) head: StreamHead,
    /// In order.
    pub(in crate::engine) runs: Vec<StreamRun>,
    pub(in crate::engine) as_of: Lsn,
}

impl StreamIndex {
    pub(in crate::engine) fn new(home: Box<dyn IndexHome>, instance: [u8; 16]) -> Self {
        Self { home, instance, opened: Mutex::new(None), closed: AtomicBool::new(false), full: AtomicBool::new(false) }
    }

    /// Opens the index, or an empty one where what is there is of no use.
    fn open(&self, engine: &Engine) -> Result<Opened, IndexError> {
        let kind = if self.home.has_files() { OpenedKind::Files } else { OpenedKind::Memory };
        match self.home.open().and_then(|mut index| Ok((index.stamp()?, index))) {
            Ok((None, index)) => return Ok(Opened { index, at: Lsn(0), flushed: Lsn(0), kind }),
            // seam: any stamp counts
            Ok((Some(stamp), index)) if self.counts(engine, stamp) => {
                return Ok(Opened { index, at: stamp.lsn, flushed: stamp.lsn, kind });
            }
            // It is closed before its files go.
            // seam: an index is discarded while it is open
            Ok((Some(_), index)) => drop(index),
            Err(lacking @ IndexError::Lacking { .. }) => return Err(lacking),
            Err(IndexError::Full { .. } | IndexError::Fault { .. }) => {}
        }
        self.home.discard()?;
        Ok(Opened { index: self.home.open()?, at: Lsn(0), flushed: Lsn(0), kind })
    }

    /// Whether a stamp names an end of this log.
    fn counts(&self, engine: &Engine, stamp: IndexStamp) -> bool {
        let core = engine.lock_core();
        let known = epoch_below(core.view.catalog.epochs(), stamp.lsn);
        stamp.instance == self.instance && stamp.lsn <= engine.commit.watermark() && known == Some(stamp.epoch)
    }

    /// Closes it for good, with all that it follows safe from a power failure.
    pub(in crate::engine) fn close(&self) {
        let mut opened = self.opened.lock();
        self.closed.store(true, Ordering::Release);
        if let Some(mut opened) = opened.take() {
            // What is lost of it is filled again.
            drop(opened.index.flush().and_then(|()| opened.index.close()));
        }
    }
}

/// The epoch of a frame that ends at `end`.
fn epoch_below(epochs: &[(Lsn, Epoch)], end: Lsn) -> Option<Epoch> {
    epochs.iter().rev().find(|(from, _)| *from < end).map(|(_, epoch)| *epoch)
}

impl Engine {
    /// What the index says of a stream.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    pub(in crate::engine) fn stream_fact(&self, stream: StreamId) -> Result<StreamFact> {
        self.with_index(&mut self.index.opened.lock(), |opened| opened.fact(stream))
    }

    /// What the index says of a stretch of a stream.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    pub(in crate::engine) fn indexed_runs(
        &self,
        stream: StreamId,
        from: u64,
        direction: Direction,
        max: usize,
    ) -> Result<Indexed> {
        self.with_index(&mut self.index.opened.lock(), |opened| {
            let head = opened.head(stream)?;
            let from = match direction {
                // What was truncated is not counted.
                Direction::Ascending => from.max(head.first),
                Direction::Descending => from,
            };
            let runs = opened.runs(stream, from, direction, max)?;
            Ok(Indexed { head, runs, as_of: opened.at })
        })
    }

    /// What the index says of the snapshots of a stream: the highest versions, at most `max`; and up to where it follows the log.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    pub(in crate::engine) fn indexed_snapshots(
        &self,
        notes: StreamId,
        max: usize,
    ) -> Result<(Vec<(u64, Offset)>, Lsn)> {
        self.with_index(&mut self.index.opened.lock(), |opened| Ok((opened.snapshots(notes, max)?, opened.at)))
    }

    /// Asks the index, once it follows the log as far as is needed.
    ///
    /// # Errors
    /// `IndexRebuilding` where it does not, for the log is long or the index failed; `Corrupt` where the log cannot be read; `DiskFull` and
    /// `LimitReached` where it has no room; `TooManyOpenFiles`, `OutOfMemory`, `Closed`.
    pub(in crate::engine) fn with_index<T>(
        &self,
        opened: &mut MutexGuard<'_, Option<Opened>>,
        mut ask: impl FnMut(&mut Opened) -> Result<T, IndexError>,
    ) -> Result<T> {
        // One that failed is made anew, which takes no longer than a moment where the log is short.
        let mut last = None;
        for _ in 0..TRIES {
            let error = match self.filled(opened) {
                Ok(index) => match ask(index) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => self.index_failed(opened, &error),
                },
                Err(error) => error,
            };
            if opened.is_some() {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| self.index_rebuilding(Lsn(0))))
    }

    /// The index, open, and following the log up to the floor of what is known beside it.
    fn filled<'a>(&self, opened: &'a mut MutexGuard<'_, Option<Opened>>) -> Result<&'a mut Opened> {
        if opened.is_none() {
            if self.index.closed.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            **opened = Some(self.open_index()?);
        }
        let Some(index) = opened.as_mut() else { return Err(self.index_rebuilding(Lsn(0))) };
        let floor = self.lock_core().view.streams.floor();
        // seam: an index that lags is believed
        if index.at < floor {
            let from = index.at;
            match self.fill(index, floor) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.index_failed(opened, &error)),
                // A stamp that names no end of a frame is as good as none.
                Err(Error::Corrupt(_)) if from > Lsn(0) => return Err(self.doubted(opened)),
                Err(Error::DiskFull) => {
                    // The next try has one that stands in for it.
                    **opened = None;
                    return Err(Error::DiskFull);
                }
                Err(error) => return Err(error),
            }
        }
        match opened.as_mut() {
            Some(index) if index.at >= floor => Ok(index),
            Some(index) => Err(self.index_rebuilding(index.at)),
            None => Err(self.index_rebuilding(Lsn(0))),
        }
    }

    /// Opens the index. Where its files have no room, or can be neither used nor made anew, one in memory stands in for it.
    fn open_index(&self) -> Result<Opened> {
        if self.has_room_for(self.index.home.has_files())? {
            match self.index.open(self) {
                Ok(index) => return Ok(index),
                Err(IndexError::Lacking { os }) => {
                    return Err(Error::io("open the index", std::io::Error::from_raw_os_error(os)));
                }
                Err(IndexError::Full { .. } | IndexError::Fault { .. }) => {}
            }
        }
        // seam: nothing stands in for an index
        match in_memory(STAND_IN_ENTRIES) {
            Ok(index) => Ok(Opened { index, at: Lsn(0), flushed: Lsn(0), kind: OpenedKind::StandIn }),
            Err(_) => Err(self.index_rebuilding(Lsn(0))),
        }
    }

    /// Whether an index may grow, which only one with files needs room for.
    fn has_room_for(&self, has_files: bool) -> Result<bool> {
        if !has_files {
            return Ok(true);
        }
        match self.check_room_for_index() {
            Ok(()) => Ok(true),
            Err(Error::DiskFull) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the store's own index again, if one in memory stands in for it and that need not be any longer.
    fn replace_stand_in(&self) -> Result<()> {
        let stands_in =
            |opened: &Option<Opened>| opened.as_ref().is_some_and(|opened| opened.kind == OpenedKind::StandIn);
        if !stands_in(&self.index.opened.lock()) || !self.has_room_for(true)? {
            return Ok(());
        }
        // What cannot be opened or filled now is tried again; how far it came is in its stamp.
        let Ok(mut own) = self.index.open(self) else { return Ok(()) };
        let floor = self.lock_core().view.streams.floor();
        if own.at < floor && !matches!(self.fill(&mut own, floor), Ok(Ok(()))) {
            return Ok(());
        }
        let mut opened = self.index.opened.lock();
        if stands_in(&opened) && own.at >= self.lock_core().view.streams.floor() {
            *opened = Some(own);
            return Ok(());
        }
        drop(opened);
        // Some engines keep nothing else over a close; what is lost is filled again.
        drop(own.index.flush());
        Ok(())
    }

    /// Reads the log for the index, up to `floor` or as far as a call may.
    fn fill(&self, index: &mut Opened, floor: Lsn) -> Result<Result<(), IndexError>> {
        if !self.has_room_for(index.kind == OpenedKind::Files)? {
            return Err(Error::DiskFull);
        }
        // What is read is not unlinked meanwhile.
        let _pin = self.maintenance.pin();
        let (catalog, epochs) = {
            let core = self.lock_core();
            (core.view.catalog.clone(), core.view.catalog.epochs().to_vec())
        };
        let (begin, stop) = (index.at, index.at.saturating_add(FILL_LEN));
        let of_messages = catalog.segments().iter().filter(|segment| segment.serves().contains(Class::Messages));
        for segment in of_messages.filter(|segment| segment.end() > begin && segment.base() < floor) {
            let (mut touches, mut end, mut is_whole) = (Vec::new(), index.at, true);
            for_each_frame_of_records(segment, (index.at.max(segment.base()), floor), &mut |records, frame_end| {
                touches.extend(records.iter().filter_map(|record| touch_of(record, frame_end)));
                end = frame_end;
                is_whole = touches.len() < 64 * TOUCHES_AT_ONCE && frame_end < stop;
                is_whole
            })?;
            if is_whole {
                end = end.max(segment.end().min(floor));
            }
            // Older than what is known of epochs: the stamp will not count, and that is all.
            let known = epoch_below(&epochs, end).or(epochs.first().map(|(_, epoch)| *epoch));
            let Some(epoch) = known else { return Ok(Ok(())) };
            if let Err(error) = index.apply(self.index.instance, &touches, (epoch, end)) {
                return Ok(Err(error));
            }
            if !is_whole {
                return Ok(Ok(()));
            }
        }
        // All that there is was read: of what is gone, no topic of streams had anything.
        index.at = index.at.max(floor);
        Ok(Ok(()))
    }

    /// An index that is full can be asked, and where something is lacking later; any other failure ends it.
    fn index_failed(&self, opened: &mut Option<Opened>, error: &IndexError) -> Error {
        if matches!(error, IndexError::Full { .. }) {
            // seam: a full index is appended beyond
            self.index.full.store(true, Ordering::Relaxed);
        }
        match error {
            // It stands in for one that has no room.
            IndexError::Full { .. } if opened.as_ref().is_some_and(|opened| opened.kind == OpenedKind::StandIn) => {
                Error::DiskFull
            }
            IndexError::Full { .. } => Error::LimitReached { what: "streams in an index in memory" },
            IndexError::Lacking { os } => Error::io("open the index", std::io::Error::from_raw_os_error(*os)),
            IndexError::Fault { .. } => self.doubted(opened),
        }
    }

    fn doubted(&self, opened: &mut Option<Opened>) -> Error {
        *opened = None;
        // What cannot be removed now is tried again when it is opened.
        drop(self.index.home.discard());
        self.index_rebuilding(Lsn(0))
    }

    fn index_rebuilding(&self, done: Lsn) -> Error {
        Error::IndexRebuilding { done: done.0, of: self.lock_core().view.streams.floor().0 }
    }

    /// The index gave an answer that the log does not bear out: it is thrown away.
    pub(in crate::engine) fn doubt_index(&self) -> Error {
        self.doubted(&mut self.index.opened.lock())
    }

    /// The job of maintenance. What keeps the index from following is told to those that need the index.
    ///
    /// # Errors
    /// The store's.
    pub(in crate::engine) fn keep_index(&self) -> Result<()> {
        match self.replace_stand_in().and_then(|()| self.advance_index()) {
            Ok(()) | Err(Error::IndexRebuilding { .. } | Error::LimitReached { .. } | Error::Corrupt(_)) => Ok(()),
            // The next call tries again.
            Err(Error::TooManyOpenFiles | Error::OutOfMemory) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Lets the index follow what is durable, and forgets what it knows by then.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    pub(in crate::engine) fn advance_index(&self) -> Result<()> {
        let watermark = self.commit.watermark();
        while self.advance_index_some(watermark)? {}
        let mut opened = self.index.opened.lock();
        self.follow_other_frames(&mut opened)?;
        self.flush_index(&mut opened)
    }

    /// Whether the index has room for what is appended, as far as that is known.
    ///
    /// # Errors
    /// As [`Engine::with_index`].
    pub(in crate::engine) fn check_index_room(&self) -> Result<()> {
        if self.index.full.load(Ordering::Relaxed) {
            self.advance_index()?;
            self.index.full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets the index take in some touches below `watermark`. Returns whether there were any. Its lock is free in between, for those that
    /// ask it meanwhile.
    fn advance_index_some(&self, watermark: Lsn) -> Result<bool> {
        let mut opened = self.index.opened.lock();
        let (touches, epoch) = {
            let core = self.lock_core();
            (core.view.streams.first(watermark, TOUCHES_AT_ONCE), core.appender.epoch())
        };
        let Some(&(end, ..)) = touches.last() else { return Ok(false) };
        let index = self.filled(&mut opened)?;
        if !self.has_room_for(index.kind == OpenedKind::Files)? {
            return Err(Error::DiskFull);
        }
        if let Err(error) = index.apply(self.index.instance, &touches, (epoch, end)) {
            return Err(self.index_failed(&mut opened, &error));
        }
        while self.lock_core().view.streams.forget(end, TOUCHES_AT_ONCE) {}
        Ok(true)
    }

    /// Where no stream was touched for long, the next process need not read that again.
    fn follow_other_frames(&self, opened: &mut Option<Opened>) -> Result<()> {
        let Some(index) = opened.as_mut() else { return Ok(()) };
        let stamp = {
            let core = self.lock_core();
            let watermark = self.commit.watermark();
            let streams = &core.view.streams;
            let is_known = streams.floor() <= index.at && streams.first(watermark, 1).is_empty();
            let is_far = index.at.saturating_add(BEHIND_MAX) < watermark;
            epoch_below(core.view.catalog.epochs(), watermark)
                .filter(|_| is_known && is_far)
                .map(|epoch| (epoch, watermark))
        };
        let Some((epoch, watermark)) = stamp else { return Ok(()) };
        if let Err(error) = index.apply(self.index.instance, &[], (epoch, watermark)) {
            return Err(self.index_failed(opened, &error));
        }
        self.lock_core().view.streams.forget(watermark, 0);
        Ok(())
    }

    /// Makes what the index follows safe from a crash, as often as there is something to lose.
    fn flush_index(&self, opened: &mut Option<Opened>) -> Result<()> {
        let due = opened.as_mut().filter(|index| index.flushed.saturating_add(FLUSH_LEN) < index.at);
        let Some(index) = due else { return Ok(()) };
        match index.index.flush() {
            Ok(()) => {
                index.flushed = index.at;
                Ok(())
            }
            Err(error) => Err(self.index_failed(opened, &error)),
        }
    }
}

fn touch_of(record: &Record, end: Lsn) -> Option<(Lsn, StreamId, Touch)> {
    Touch::of(record).map(|(stream, touch, _)| (end, stream, touch))
}
