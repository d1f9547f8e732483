//! Looking at a log that another process may be writing: what of it is durable, as watermarks in frames and slots say.
//!
//! Reads only. A file may be made, cut or removed between any two reads, and a frame may be met before all of it is there. So what seems to
//! be damage is none yet: the caller looks again (`view::observer`). Never here: records, and when to look.

use crate::disk::Disk;
use crate::ids::{FileNumber, Lsn};
use crate::log::error::OpenError;
use crate::log::format::control::ControlFrame;
use crate::log::format::header::{HEADER_LEN, Uuid};
use crate::log::format::name::FileName;
use crate::log::format::store_file::Slot;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::Handles;
use crate::log::read::segment::Segment;
use crate::log::recover::directory::{DirectoryScan, StoreRead, segment_of};
use crate::log::recover::execute;
use crate::log::recover::plan::{Plan, plan};
use crate::log::recover::scan;
use crate::log::{Checkpoint, Contents};
use std::sync::Arc;

/// Where an observer stands.
#[derive(Debug)]
pub(crate) struct ObservedEnd {
    uuid: Uuid,
    slot: Slot,
    /// The one that held the end.
    segment: Option<Arc<Segment>>,
    end: Lsn,
}

/// What has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogProgress {
    /// Nothing that is known to be durable.
    Nothing,
    /// The segment that holds the end is durable up to here.
    Grown(Lsn),
    /// The log goes on in another file, or another process writes it: it is to be observed anew.
    Elsewhere,
}

/// What a frame behind the known end tells.
struct FrameEnd {
    end: Lsn,
    /// The one in it.
    watermark: Lsn,
    /// Whether it changes which files belong to the log.
    changes_files: bool,
}

/// What is durable of the log in a directory, which is at least all below `known`; `None` where there is no log.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn observe(disk: &Arc<dyn Disk>, known: Lsn) -> Result<Option<(Contents, ObservedEnd)>, OpenError> {
    let handles = Arc::new(Handles::new(Arc::clone(disk)));
    let scanned = scan::scan(&**disk, &handles, Some(known))?;
    let Plan::Continue { segments, retired, epochs, .. } = plan(&scanned.facts)? else { return Ok(None) };
    let (end, slot) = (scanned.facts.watermark, scanned.slot);
    let Some(uuid) = scanned.directory.uuid else { return Ok(None) };
    let mut contents = execute::contents(scanned, &handles, (segments, retired, epochs), end)?;
    let last = contents.catalog.segments().last().filter(|last| last.kind().class().is_none() && last.end() == end);
    let segment = match last {
        Some(last) => {
            let file = handles.get(last.name()).map_err(OpenError::io("open", last.name()))?;
            // It may grow: nothing of it is kept as if it were complete.
            Some(Arc::new(Segment::open(last.info(), file)))
        }
        None => None,
    };
    segment.iter().for_each(|segment| contents.catalog.replace(Arc::clone(segment)));
    Ok(Some((contents, ObservedEnd { uuid, slot, segment, end })))
}

/// The checkpoints that are kept, from oldest to newest, and the files of those that are not whole.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn checkpoints(disk: &Arc<dyn Disk>) -> Result<(Vec<Checkpoint>, Vec<FileName>), OpenError> {
    let handles = Handles::new(Arc::clone(disk));
    DirectoryScan::read(&**disk, &handles)?.load_all_checkpoints(&handles)
}

impl ObservedEnd {
    /// The end of what is known.
    pub(crate) const fn end(&self) -> Lsn {
        self.end
    }

    /// The lineage of the store.
    pub(in crate::log) const fn uuid(&self) -> &Uuid {
        &self.uuid
    }

    /// The slot that counted when the log was observed.
    pub(in crate::log) const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The segment that holds the end.
    pub(crate) const fn segment(&self) -> Option<&Arc<Segment>> {
        self.segment.as_ref()
    }

    /// The log up to `end`, which [`ObservedEnd::look`] has told of, is known from now on.
    pub(crate) fn advance(&mut self, end: Lsn) {
        if let Some(segment) = &self.segment {
            segment.publish(end);
        }
        self.end = end;
    }

    /// Looks for what has come since.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn look(&self, disk: &dyn Disk) -> Result<LogProgress, OpenError> {
        let Some(told) = self.told(disk)? else { return Ok(LogProgress::Elsewhere) };
        let Some(segment) = &self.segment else {
            let is_begun = told > self.end || goes_on(disk, &self.uuid, FileNumber(0), self.end)?;
            return Ok(if is_begun { LogProgress::Elsewhere } else { LogProgress::Nothing });
        };
        let frames = self.frames_of(segment)?;
        let known = frames.iter().map(|frame| frame.watermark).max().unwrap_or_default().max(told);
        let valid_end = frames.last().map_or(self.end, |frame| frame.end);
        // seam: an observer sees what is not durable
        let durable = frames.iter().rposition(|frame| frame.end <= known);
        let is_durable = |nth: usize| durable.is_some_and(|last| nth <= last);
        let files_change = frames.iter().enumerate().any(|(nth, frame)| frame.changes_files && is_durable(nth));
        if known > valid_end || files_change || goes_on(disk, &self.uuid, segment.number(), valid_end)? {
            return Ok(LogProgress::Elsewhere);
        }
        let last = durable.and_then(|last| frames.get(last));
        Ok(last.map_or(LogProgress::Nothing, |frame| LogProgress::Grown(frame.end)))
    }

    /// Up to where the log is durable as slots tell; `None` where another process has begun to write, or this is another store by now.
    fn told(&self, disk: &dyn Disk) -> Result<Option<Lsn>, OpenError> {
        let Some(StoreRead { uuid, slots }) = StoreRead::read(disk)? else { return Ok(None) };
        let newest = slots.iter().flatten().max_by_key(|slot| slot.sequence);
        let is_own =
            |slot: &&Slot| (uuid, slot.instance, slot.epoch) == (self.uuid, self.slot.instance, self.slot.epoch);
        Ok(newest.filter(is_own).map(|_| Slot::certain_watermark(&slots)))
    }

    /// The frames that stand behind the known end.
    fn frames_of(&self, segment: &Segment) -> Result<Vec<FrameEnd>, OpenError> {
        let io = || OpenError::io("read", segment.name());
        let file = segment.file().map_err(io())?;
        let len = file.len().map_err(io())?;
        let lsns = Lsns::Placed { base: segment.base() };
        let mut frames = Frames::new(file, segment.salt(), lsns, segment.limit(), len);
        let mut ends = Vec::new();
        while let Next::Frame(frame) = frames.next().map_err(io())? {
            let control = frame.is_log().then(|| ControlFrame::decode(frame.head())).flatten();
            ends.push(FrameEnd {
                end: frame.lsn.saturating_add(frame.padded().into()),
                watermark: frame.watermark.unwrap_or_default(),
                changes_files: control.is_some_and(|control| !control.is_idle()),
            });
        }
        Ok(ends)
    }
}

/// Whether a segment with a number above `after` begins at `at` and holds a watermark above that.
fn goes_on(disk: &dyn Disk, uuid: &Uuid, after: FileNumber, at: Lsn) -> Result<bool, OpenError> {
    let entries = disk.list().map_err(OpenError::io("list", FileName::Store))?;
    let later = entries.iter().filter_map(|entry| match FileName::parse(&entry.name) {
        Some(name @ FileName::Segment(number)) if number > after => Some((name, entry.len)),
        _ => None,
    });
    for (name, len) in later {
        let file = match disk.open(&name.to_string()) {
            // It was removed since: it had no part of the log.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.map_err(OpenError::io("open", name))?,
        };
        let seen = segment_of(&*file, name, len, uuid).map_err(OpenError::io("read", name))?;
        let Some(seen) = seen else { continue };
        if seen.start.is_none_or(|start| start.base != at) || seen.header.is_copy() {
            continue;
        }
        let (salt, lsns) = (seen.header.salt, Lsns::Placed { base: at });
        let mut frames = Frames::new(file, salt, lsns, HEADER_LEN as u64, len);
        while let Next::Frame(frame) = frames.next().map_err(OpenError::io("read", name))? {
            if frame.watermark.is_some_and(|watermark| watermark > at) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
