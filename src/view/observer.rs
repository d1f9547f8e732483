//! A view of a store that another process may be writing to, of what is durable there.
//!
//! Takes no lock of the directory and changes no byte there. What is found damaged is looked at again: what was met twice, though the files
//! were read anew, is damage, for a look sees all that was durable when the one before it ended. Never here: what of a log is durable.

use super::follow::FrameAt;
use super::log_scan::LogHolder;
use super::read::{ReplayError, decode_frame};
use super::{Fold, ReadCaches, View, ViewHolder, open_error};
use crate::disk::Disk;
use crate::error::{Corruption, Error, Result};
use crate::ids::{FileNumber, Lsn};
use crate::log::{self, LogProgress, Met, ObservedEnd, Segment};
use crate::record::Record;
use crate::state::StreamTails;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often the log is looked at anew before a writer that is faster than any look is told of.
const LOOKS_MAX: usize = 256;

/// Reads a store and never writes to it.
#[derive(Debug)]
pub(crate) struct ObservedView {
    disk: Arc<dyn Disk>,
    /// Held while files are looked at; the view's lock is taken after it.
    place: Mutex<LookState>,
    seen: Mutex<ObservedState>,
    /// The end of what is known, for those who take no lock.
    end: AtomicU64,
    caches: ReadCaches,
}

/// Where the next look goes on.
#[derive(Debug)]
struct LookState {
    end: ObservedEnd,
    /// The view could not take in what came: it is no state of the store.
    is_lost: bool,
}

/// The view, and the end of the log that it is of.
#[derive(Debug)]
struct ObservedState {
    view: View,
    end: Lsn,
}

impl ObservedView {
    /// The store on `disk`, which errors call `dir`; `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt`, `NewerFormat`, `ForeignFile`, `Io`.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>> {
        let Some((view, end)) = load(&disk)? else { return Ok(None) };
        let seen = Mutex::new(ObservedState { view, end: end.end() });
        let place = Mutex::new(LookState { end, is_lost: false });
        let end = AtomicU64::new(seen.lock().end.0);
        Ok(Some(Self { disk, place, seen, end, caches: ReadCaches::new(dir.to_path_buf()) }))
    }

    /// The end of what it knows.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Acquire))
    }

    /// Whether this process is a forked child of the one that opened it. Takes no lock.
    pub(crate) fn is_forked(&self) -> bool {
        self.disk.is_forked()
    }

    /// The directory.
    pub(crate) const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Looks at the view and the end of the log that it is of.
    pub(crate) fn with_state<R>(&self, look: impl FnOnce(&View, Lsn) -> R) -> R {
        let seen = self.seen.lock();
        look(&seen.view, seen.end)
    }

    /// Takes in what became durable since. Whether anything did.
    ///
    /// # Errors
    /// As [`ObservedView::open`]; `NotFound` where the store has gone. What it knows stays.
    pub(crate) fn refresh(&self) -> Result<bool> {
        let mut place = self.place.lock();
        if !place.is_lost {
            // What cannot be read is judged by a look at all files.
            match place.end.look(&*self.disk).unwrap_or(LogProgress::Elsewhere) {
                LogProgress::Nothing => return Ok(false),
                LogProgress::Grown(to) if self.advance(&mut place, to).is_ok() => return Ok(true),
                LogProgress::Grown(_) | LogProgress::Elsewhere => {}
            }
        }
        self.look_anew(&mut place)
    }

    /// Looks at all files. Whether anything became durable since the last look.
    fn look_anew(&self, place: &mut LookState) -> Result<bool> {
        let missing = || Error::NotFound { what: "store", name: self.caches.dir.display().to_string() };
        let (view, end) = load(&self.disk)?.ok_or_else(missing)?;
        let mut seen = self.seen.lock();
        let is_more = end.end() != seen.end || place.is_lost;
        *seen = ObservedState { view, end: end.end() };
        self.end.store(seen.end.0, Ordering::Release);
        *place = LookState { end, is_lost: false };
        Ok(is_more)
    }

    /// Takes in the frames of the segment up to `to`.
    fn advance(&self, place: &mut LookState, to: Lsn) -> Result<()> {
        let Some(segment) = place.end.segment().cloned() else { return Ok(()) };
        let from = place.end.end();
        // Until all is taken in.
        place.is_lost = true;
        place.end.advance(to);
        let frames = records_of(&segment, from)?;
        let mut seen = self.seen.lock();
        let ObservedState { view, end } = &mut *seen;
        for (records, frame) in &frames {
            view.follow(records, frame).map_err(|_| Error::Corrupt(Corruption::of(segment.name(), None, STRANGE)))?;
            view.visible.advance(frame.end, |_| ());
            drop(view.state.take_removed());
        }
        view.streams = StreamTails::new(to);
        *end = to;
        self.end.store(to.0, Ordering::Release);
        place.is_lost = false;
        Ok(())
    }
}

const STRANGE: &str = "a record that does not follow from those before it";

/// The records of each frame from `from` on, with its place.
fn records_of(segment: &Segment, from: Lsn) -> Result<Vec<(Vec<Record>, FrameAt)>> {
    let mut frames = Vec::new();
    let walked = log::for_each_left::<ReplayError>(segment, from, Lsn(0), &mut |met| {
        let Met::Frame(frame) = met else { return Ok(()) };
        if !frame.is_log() {
            let mut records = Vec::new();
            decode_frame(segment, frame, &mut records)?;
            let end = frame.lsn.saturating_add(frame.padded().into());
            let place = Some((segment.number(), frame.at));
            frames.push((records, FrameAt { lsn: frame.lsn, end, place }));
        }
        Ok(())
    });
    walked.map(|()| frames).map_err(|failure| failure.0)
}

/// The state of the log, as far as it is durable.
fn load(disk: &Arc<dyn Disk>) -> Result<Option<(View, ObservedEnd)>> {
    until_it_holds(|| {
        let Some((contents, end)) = log::observe(disk, Lsn(0)).map_err(open_error)? else { return Ok(None) };
        let mut view = Fold::of(&contents, true)?.view;
        // An observer asks no index of streams.
        view.streams = StreamTails::new(end.end());
        Ok(Some((view, end)))
    })
}

/// What a look at all files gives. What seems to be damage, or was not there, is looked at again.
pub(super) fn until_it_holds<T>(look: impl Fn() -> Result<T>) -> Result<T> {
    let mut damage: Option<Corruption> = None;
    for _ in 0..LOOKS_MAX {
        match look() {
            // seam: what is met once is damage
            Err(Error::Corrupt(met)) if damage.as_ref() != Some(&met) => damage = Some(met),
            // A file went away between two reads.
            // seam: a file that went away is not looked for again
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(Error::io("observe a store that changes too fast", io::ErrorKind::WouldBlock.into()))
}

impl ViewHolder for ObservedView {
    fn with_view<R>(&self, look: impl FnOnce(&mut View) -> R) -> R {
        look(&mut self.seen.lock().view)
    }

    fn caches(&self) -> &ReadCaches {
        &self.caches
    }
}

impl LogHolder for ObservedView {
    fn log_end(&self) -> Lsn {
        self.end()
    }

    /// A file may have gone though no watermark tells of the frame yet that took it off the list: a look at all files finds that frame, and
    /// where the messages are now.
    fn is_there(&self, file: FileNumber) -> bool {
        let name = self.with_view(|view| view.catalog.segment(file).map(|segment| segment.name()));
        let Some(name) = name else { return false };
        let opened = self.disk.open(&name.to_string());
        if opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // What the look meets is met again by the read that goes on.
            let _ = self.look_anew(&mut self.place.lock());
        }
        self.with_view(|view| view.catalog.segment(file).is_some())
    }
}
