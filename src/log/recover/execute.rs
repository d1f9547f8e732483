//! Doing what the plan says: the only way to an [`Appender`].
//!
//! Writes only new files, and the slots. Crashing anywhere in here and recovering again gives the same log. Never here:
//! decisions.

use crate::disk::{Disk, File};
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::error::{Corruption, OpenError};
use crate::log::format::checksum::low;
use crate::log::format::class::{Classes, Retired};
use crate::log::format::frame::{Frame, Spot};
use crate::log::format::header::{FileHeader, HEADER_LEN, Uuid};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::catalog::Catalog;
use crate::log::read::frames::{Frames, Lsns, Next};
use crate::log::read::handles::Handles;
use crate::log::read::index::Indexes;
use crate::log::read::segment::Segment;
use crate::log::recover::directory::CheckpointLoaded;
use crate::log::recover::plan::{Plan, Stretch};
use crate::log::recover::scan::Scanned;
use crate::log::write::appender::Appender;
use crate::log::write::file_manager::{CheckpointInfo, FileManager, Found};
use crate::log::write::slots::Slots;
use crate::log::{Checkpoint, Contents, Dropped, Previous, Recovered, Report, Settings};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How much of a copy is gathered before it is written.
const CHUNK_LEN: usize = 1 << 20;

/// Carries out the plan and hands over the log.
pub(in crate::log) fn execute(
    disk: Arc<dyn Disk>,
    handles: Arc<Handles>,
    settings: &Settings,
    plan: Plan,
    scanned: Scanned,
) -> Result<Recovered, OpenError> {
    let Plan::Continue { copies, mut segments, retired, epochs, end, epoch_count } = plan else {
        return lay_out(disk, handles, settings, &scanned);
    };
    let io = OpenError::io;
    let store = disk.open(&FileName::Store.to_string()).map_err(io("open", FileName::Store))?;
    let Some(uuid) = scanned.directory.uuid else {
        return Err(Corruption::of(FileName::Store, None, "no identity").into());
    };
    let mut slots = Slots::found(Arc::clone(&disk), store, uuid, scanned.slot);
    slots.leave_source().map_err(io("write", FileName::Store))?;
    let epoch = draw_epoch(&*disk, epoch_count);
    let mut last_number = last_number(&scanned, &segments);
    let mut copied = 0;
    for stretch in &copies {
        last_number = last_number.saturating_add(1);
        let (info, len) = copy(&*disk, &handles, &uuid, last_number, stretch)?;
        copied += len;
        segments.push(info);
    }
    if !copies.is_empty() {
        // seam: a copy's name is not synced
        disk.sync_dir().map_err(io("sync the directory of", FileName::Store))?;
        // From here on the copies count: the slot tells of them.
        let write = slots.write(|slot| {
            slot.watermark = end;
            slot.clean = false;
        });
        // Both do: until this process appends, nothing else proves the copies, and one slot may be damaged at rest.
        write.and_then(|()| slots.write(|_| {})).map_err(io("write", FileName::Store))?;
    }
    // seam: a dead recovery's copy is believed
    if copies.is_empty() && rests_on_slot(&scanned, &segments) {
        slots.write(|_| {}).map_err(io("write", FileName::Store))?;
    }
    let leftovers = leftovers(&scanned, &segments);
    let report = report(&scanned, end, copied, leftovers.len());
    let newest = scanned.slot.newest_segment;
    let never_told_of = |name: &FileName| matches!(name, FileName::Segment(number) if *number > newest);
    let (unfinished, leftovers) = leftovers.into_iter().partition(never_told_of);
    let found = Found {
        slots,
        handles: Arc::clone(&handles),
        last_number,
        checkpoints: checkpoints(&scanned),
        leftovers,
        unfinished,
        end,
        epoch,
    };
    let previous = Previous { epoch: scanned.facts.epoch, clean: scanned.clean };
    Ok(Recovered {
        contents: contents(scanned, &handles, (segments, retired, epochs), end)?,
        appender: Appender::new(end, epoch, settings.segment_len_first, settings.segment_len_max),
        file_manager: FileManager::new(disk, settings.access, found),
        report,
        previous,
    })
}

/// What is to be read of the log that stands in `segments`.
pub(in crate::log) fn contents(
    scanned: Scanned,
    handles: &Arc<Handles>,
    (segments, retired, epochs): (Vec<SegmentInfo>, Retired, Vec<(Lsn, Epoch)>),
    end: Lsn,
) -> Result<Contents, OpenError> {
    let uuid = scanned.directory.uuid.ok_or_else(|| Corruption::of(FileName::Store, None, "no identity"))?;
    let closed = |info| Arc::new(Segment::closed(info, Arc::clone(handles)));
    let checkpoint =
        scanned.checkpoint.map(|CheckpointLoaded { number, covers, state, .. }| Checkpoint { number, covers, state });
    Ok(Contents {
        checkpoint,
        catalog: Catalog::new(segments.into_iter().map(closed).collect(), retired, epochs),
        indexes: Indexes::new(Arc::clone(handles), uuid),
        end,
    })
}

fn lay_out(
    disk: Arc<dyn Disk>,
    handles: Arc<Handles>,
    settings: &Settings,
    scanned: &Scanned,
) -> Result<Recovered, OpenError> {
    let slots = Slots::lay_out(Arc::clone(&disk)).map_err(OpenError::io("create", FileName::Store))?;
    let indexes = Indexes::new(Arc::clone(&handles), *slots.uuid());
    let (end, epoch) = (Lsn(0), draw_epoch(&*disk, 1));
    let found = Found {
        slots,
        handles,
        last_number: FileNumber(0),
        checkpoints: Vec::new(),
        leftovers: Vec::new(),
        unfinished: Vec::new(),
        end,
        epoch,
    };
    Ok(Recovered {
        contents: Contents { checkpoint: None, catalog: Catalog::default(), indexes, end },
        appender: Appender::new(end, epoch, settings.segment_len_first, settings.segment_len_max),
        file_manager: FileManager::new(disk, settings.access, found),
        report: Report {
            created: true,
            was_clean: true,
            files_ignored: scanned.directory.ignored,
            ..Report::default()
        },
        previous: Previous { epoch: Epoch(0), clean: true },
    })
}

/// A store that goes on from a copy of its files counts as it did before: only the random bits tell its epochs from those of its
/// other life.
fn draw_epoch(disk: &dyn Disk, count: u32) -> Epoch {
    Epoch::of(count, low(disk.random()))
}

/// Whether the log holds a copy that counts only because a slot tells of it. The process that made the copy may have died
/// before that slot was durable.
fn rests_on_slot(scanned: &Scanned, segments: &[SegmentInfo]) -> bool {
    let listed = scanned.checkpoint.iter().flat_map(|checkpoint| &checkpoint.section.files);
    let listed: BTreeSet<FileNumber> = listed.map(|info| info.number).collect();
    let is_copy = |info: &SegmentInfo| scanned.directory.segment(info.number).is_some_and(|seen| seen.header.is_copy());
    segments.iter().any(|info| is_copy(info) && !listed.contains(&info.number))
}

/// The highest number that any file has or had.
fn last_number(scanned: &Scanned, segments: &[SegmentInfo]) -> FileNumber {
    let of_names = scanned.directory.names.iter().filter_map(|name| name.number());
    let slots = scanned.directory.slots.iter().flatten();
    let of_slots = slots.flat_map(|slot| [slot.newest_segment, slot.newest_checkpoint]);
    let of_list = segments.iter().map(|info| info.number);
    of_names.chain(of_slots).chain(of_list).max().unwrap_or(FileNumber(0))
}

fn checkpoints(scanned: &Scanned) -> Vec<CheckpointInfo> {
    let seen = scanned.directory.checkpoints.iter().map(|seen| &seen.header);
    seen.map(|header| CheckpointInfo { number: header.number, covers: header.to, len: header.body_len }).collect()
}

/// Files of ours that are no part of the log.
fn leftovers(scanned: &Scanned, segments: &[SegmentInfo]) -> Vec<FileName> {
    let needed: BTreeSet<FileNumber> = segments.iter().map(|info| info.number).collect();
    let named: BTreeSet<FileName> = segments.iter().map(SegmentInfo::name).collect();
    let is_left = |name: &&FileName| match **name {
        FileName::Store => false,
        FileName::Segment(_) | FileName::Messages(_) | FileName::DeadLetters(_) => !named.contains(*name),
        FileName::Index(number) => !needed.contains(&number),
        FileName::Checkpoint(number) => !scanned.directory.checkpoints.iter().any(|seen| seen.header.number == number),
    };
    scanned.directory.names.iter().filter(is_left).copied().collect()
}

fn report(scanned: &Scanned, end: Lsn, copied_bytes: u64, leftovers: usize) -> Report {
    let tail_scan = &scanned.tail_scan;
    let dropped = tail_scan.stop.filter(|_| tail_scan.dropped > 0);
    Report {
        created: false,
        was_clean: scanned.clean,
        watermark: scanned.facts.watermark,
        end,
        copied_bytes,
        dropped: dropped.map(|(segment, offset)| Dropped { segment, offset, bytes: tail_scan.dropped }),
        checkpoint_lsn: scanned.checkpoint.as_ref().map(|checkpoint| checkpoint.covers),
        checkpoints_damaged: scanned.directory.checkpoints_damaged,
        files_ignored: scanned.directory.ignored,
        leftovers,
    }
}

/// Copies a stretch into a segment of its own: the same LSNs and the same frames, on fresh blocks.
pub(in crate::log) fn copy(
    disk: &dyn Disk,
    handles: &Handles,
    uuid: &Uuid,
    number: FileNumber,
    stretch: &Stretch,
) -> Result<(SegmentInfo, u64), OpenError> {
    let name = FileName::Segment(number);
    let file = disk.create(&name.to_string(), HEADER_LEN as u64).map_err(OpenError::io("create", name))?;
    let mut copy = Copy { file: &*file, name, salt: disk.random(), at: HEADER_LEN as u64, buf: Vec::new() };
    copy.frames(handles, stretch)?;
    copy.flush()?;
    let (from, to) = (stretch.from, stretch.to);
    let epoch = stretch.source.epoch_at(from);
    let header = FileHeader { from, to, epoch, ..FileHeader::appended(*uuid, number, copy.salt) };
    file.sync().map_err(OpenError::io("sync", name))?;
    file.write_at(0, &header.encode()).map_err(OpenError::io("write", name))?;
    // seam: a copy's header is not synced
    file.sync().map_err(OpenError::io("sync", name))?;
    let epochs = vec![(from, epoch)];
    let info = SegmentInfo {
        number,
        salt: copy.salt,
        generation: 0,
        base: from,
        end: to,
        epochs,
        serves: Classes::BOTH,
        ..stretch.source.clone()
    };
    Ok((info, to.0 - from.0))
}

/// A segment that is being made.
struct Copy<'a> {
    file: &'a dyn File,
    name: FileName,
    salt: u64,
    /// Where `buf` goes.
    at: u64,
    buf: Vec<u8>,
}

impl Copy<'_> {
    fn frames(&mut self, handles: &Handles, stretch: &Stretch) -> Result<(), OpenError> {
        let source = &stretch.source;
        let name = FileName::Segment(source.number);
        let io = || OpenError::io("read", name);
        let file = handles.get(name).map_err(io())?;
        let place = |lsn: Lsn| HEADER_LEN as u64 + lsn.0.saturating_sub(source.base.0);
        let lsns = Lsns::Placed { base: source.base };
        let mut frames = Frames::new(file, source.salt, lsns, place(stretch.from), place(stretch.to));
        loop {
            let at = frames.at();
            match frames.next().map_err(io())? {
                Next::Frame(frame) => self.frame(&frame)?,
                Next::End => return Ok(()),
                Next::Invalid => {
                    let lsns = Some((stretch.from, stretch.to));
                    let reason = "a frame that was valid is not any more, or the watermark lies within a frame";
                    return Err(Corruption { lsns, ..Corruption::of(name, Some(at), reason) }.into());
                }
            }
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), OpenError> {
        let Ok(at) = u32::try_from(self.at + self.buf.len() as u64) else {
            return Err(Corruption::of(self.name, None, "the unproven part of a segment is too long").into());
        };
        frame.put_at(Spot { salt: self.salt, at }, &mut self.buf);
        if self.buf.len() >= CHUNK_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        self.file.write_at(self.at, &self.buf).map_err(OpenError::io("write", self.name))?;
        self.at += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}
