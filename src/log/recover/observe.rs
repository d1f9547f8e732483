//! Looking at a log that another process may be writing: what of it is durable, as watermarks in frames and slots say.
//!
//! Reads only. A file may be made, cut or removed between any two reads, and a frame may be met before all of it is there. So what seems to
//! be damage is none yet: the caller looks again (`view::observer`). Never here: records, and when to look.

use crate::disk::Disk;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::OpenError;
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
    instance: [u8; 16],
    /// The highest that a process may have appended under.
    epoch: Epoch,
    /// The one that held the end.
    segment: Option<Arc<Segment>>,
    end: Lsn,
}

/// What has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing that is known to be durable.
    Nothing,
    /// The segment that holds the end is durable up to here.
    Grown(Lsn),
    /// The log goes on in another file, or another process writes it: it is to be observed anew.
    Elsewhere,
}

/// What is durable of the log in a directory; `None` where there is no log.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn observe(disk: &Arc<dyn Disk>) -> Result<Option<(Contents, ObservedEnd)>, OpenError> {
    let handles = Arc::new(Handles::new(Arc::clone(disk)));
    let scanned = scan::scan(&**disk, &handles)?;
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
    Ok(Some((contents, ObservedEnd { uuid, instance: slot.instance, epoch: slot.epoch, segment, end })))
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
    pub(crate) fn look(&self, disk: &dyn Disk) -> Result<Progress, OpenError> {
        let Some(slot) = self.own_slot(disk)? else { return Ok(Progress::Elsewhere) };
        let Some(segment) = &self.segment else {
            let is_begun = slot.watermark > self.end;
            return Ok(if is_begun { Progress::Elsewhere } else { Progress::Nothing });
        };
        let ends = self.frames_of(segment)?;
        let known = ends.iter().map(|(_, watermark)| *watermark).max().unwrap_or_default().max(slot.watermark);
        let valid_end = ends.last().map_or(self.end, |(end, _)| *end);
        if known > valid_end || goes_on(disk, &self.uuid, segment.number(), valid_end)? {
            return Ok(Progress::Elsewhere);
        }
        // seam: an observer sees what is not durable
        let durable = ends.iter().rev().find(|(end, _)| *end <= known);
        Ok(durable.map_or(Progress::Nothing, |(end, _)| Progress::Grown(*end)))
    }

    /// The slot that counts, unless another process has begun to write, or this is another store by now.
    fn own_slot(&self, disk: &dyn Disk) -> Result<Option<Slot>, OpenError> {
        let StoreRead::Valid { uuid, slots } = StoreRead::read(disk)? else { return Ok(None) };
        let slot = slots.iter().flatten().max_by_key(|slot| slot.sequence).copied();
        let is_own = |slot: &Slot| (uuid, slot.instance, slot.epoch) == (self.uuid, self.instance, self.epoch);
        Ok(slot.filter(is_own))
    }

    /// Where the frames end that stand behind the known end, each with the watermark in it.
    fn frames_of(&self, segment: &Segment) -> Result<Vec<(Lsn, Lsn)>, OpenError> {
        let io = || OpenError::io("read", segment.name());
        let file = segment.file().map_err(io())?;
        let len = file.len().map_err(io())?;
        let lsns = Lsns::Placed { base: segment.base() };
        let mut frames = Frames::new(file, segment.salt(), lsns, segment.limit(), len);
        let mut ends = Vec::new();
        while let Next::Frame(frame) = frames.next().map_err(io())? {
            ends.push((frame.lsn.saturating_add(frame.padded().into()), frame.watermark.unwrap_or_default()));
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
