//! A stream of frames in a segment of a store that was not closed: recovered, which copies it to other bytes, and
//! recovered again.

use super::{SETTINGS, Take, UNSEALED, bounded, content, seal};
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, LOCK_NAME};
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::checksum::crc;
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{Outline, Parts, Spot, encode_front, frame_len};
use crate::log::format::header::{FileHeader, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::store_file::{Identity, STORE_LEN, Slot};
use crate::log::read::frames::{self, Frames, Lsns, Next};
use crate::log::{AppendError, OpenError, ReadError, Recovered, Reserve};
use std::sync::Arc;

const SALT: u64 = 0xfeed_f00d_1234_5678;
const NAME: FileName = FileName::Segment(FileNumber(1));

/// What the layers above see of a frame.
type SeenFrame = (Lsn, Option<Lsn>, Vec<u8>, Vec<Vec<u8>>);

/// The frames that are valid from the start on are the log, whatever stands behind them; opening again gives the same; and
/// what is appended then follows them.
pub fn stream(data: &[u8]) -> bool {
    let mut take = Take::new(data);
    let flags = take.byte();
    let disk = machine(flags, take.bytes(usize::MAX));
    let walked = walk(&disk);
    let before = disk.requests();
    let found = match attach(&disk) {
        Ok(log) => contents(&log),
        Err(error) => return refused(error),
    };
    let Some(walked) = walked else { return true };
    assert_eq!(found, walked, "recovery gives other frames than the file holds");
    disk.crash_process();
    let mut log = attach(&disk).unwrap_or_else(|error| panic!("a log that was recovered does not open: {error}"));
    assert_eq!(contents(&log), found, "opening twice gives two logs");
    append(&mut log, b"after", &[b"one", b""]);
    let end = log.appender.end();
    sync(&mut log);
    log.file_manager.close(end).unwrap();
    drop(log);
    let log = attach(&disk).unwrap_or_else(|error| panic!("a log that was closed does not open: {error}"));
    assert!(log.report.was_clean && log.report.end == end);
    let mut all = contents(&log);
    let (_, _, head, parts) = all.pop().unwrap();
    assert_eq!((head.as_slice(), parts), (&b"after"[..], vec![b"one".to_vec(), vec![]]));
    assert_eq!(all, found);
    bounded(&disk, before, data.len());
    !found.is_empty()
}

fn refused(error: OpenError) -> bool {
    match error {
        OpenError::Io { context, file, source } => panic!("{context} {file}: {source}"),
        // Bytes behind the start were taken for frames that tell of more.
        OpenError::Corrupt(corruption) => assert!(!corruption.file.is_empty() && !corruption.reason.is_empty()),
        OpenError::ForeignFile { .. } | OpenError::NewerFormat { .. } => {}
    }
    false
}

/// A store whose only segment holds its first frame and then `body`.
fn machine(flags: u8, body: &[u8]) -> SimDisk {
    let mut segment = FileHeader::appended(seal::UUID, FileNumber(1), SALT).encode().to_vec();
    let outline = Outline { lsn: Lsn(0), carries_lsn: true, epoch: Some(Epoch(1)), watermark: Some(Lsn(0)), log: true };
    write_frame(&mut segment, SALT, &outline, &ControlFrame::START_HEAD, &[]);
    segment.extend_from_slice(body);
    segment.resize((segment.len() + 64).next_multiple_of(512), 0);
    if flags & UNSEALED == 0 {
        seal::frames(&mut segment, SALT, true, None);
    }
    // Half of the machines say that the first frame was durable, the others that nothing was.
    let watermark = if flags & 2 == 0 { Lsn(0) } else { Lsn(32) };
    let slots = [2, 3].map(|sequence| Slot {
        sequence,
        epoch: Epoch(1),
        clean: false,
        watermark,
        newest_segment: FileNumber(1),
        newest_checkpoint: FileNumber(0),
        ..Slot::default()
    });
    let disk = SimDisk::new(u64::from(flags));
    disk.write_file(LOCK_NAME, &store_file(&slots));
    disk.write_file(&NAME.to_string(), &segment);
    disk
}

/// The bytes of `STORE` with these slots.
pub(super) fn store_file(slots: &[Slot]) -> Vec<u8> {
    let mut bytes = vec![0; STORE_LEN as usize];
    let identity = Identity::encode(&seal::UUID);
    bytes[..identity.len()].copy_from_slice(&identity);
    for slot in slots {
        let (at, slot) = (Slot::position(slot.sequence) as usize, slot.encode(&seal::UUID));
        bytes[at..at + slot.len()].copy_from_slice(&slot);
    }
    bytes
}

/// Appends a frame to the bytes of a segment's file.
pub(super) fn write_frame(file: &mut Vec<u8>, salt: u64, outline: &Outline, head: &[u8], parts: &[&[u8]]) {
    let bytes = parts.concat();
    let crcs: Vec<u32> = parts.iter().map(|part| crc(0, part)).collect();
    let mut end = 0;
    let ends: Vec<u32> = parts
        .iter()
        .map(|part| {
            end += part.len() as u32;
            end
        })
        .collect();
    let parts = Parts { bytes: &bytes, ends: &ends, crcs: &crcs };
    let len = frame_len(outline, head.len(), &parts);
    let at = u32::try_from(file.len()).unwrap();
    encode_front(file, Spot { salt, at }, outline, len as u32, head, &parts);
    file.extend_from_slice(&bytes);
    file.resize(file.len().next_multiple_of(8), 0);
}

/// The frames of the layers above up to the first that is not valid; `None` where control frames change which files
/// there are.
fn walk(disk: &SimDisk) -> Option<Vec<SeenFrame>> {
    let handle = disk.attach().unwrap();
    let file = handle.open(&NAME.to_string()).unwrap();
    let len = file.len().unwrap();
    let mut frames = Frames::new(file, SALT, Lsns::Placed { base: Lsn(0) }, HEADER_LEN as u64, len);
    let mut seen = Vec::new();
    while let Next::Frame(frame) = frames.next().unwrap() {
        match ControlFrame::decode(frame.head()) {
            _ if !frame.is_log() => seen.push(content(&frame)),
            Some(ControlFrame::SegmentStart | ControlFrame::Mark) => {}
            _ => return None,
        }
    }
    Some(seen)
}

pub(super) fn attach(disk: &SimDisk) -> Result<Recovered, OpenError> {
    crate::log::open(Arc::new(disk.attach().unwrap()), SETTINGS)
}

fn contents(log: &Recovered) -> Vec<SeenFrame> {
    let (mut found, mut heads) = (Vec::new(), Vec::new());
    for segment in log.contents.catalog.segments() {
        let whole = frames::for_each_whole::<ReadError>(segment, segment.base(), &mut |frame| {
            if !frame.is_log() {
                found.push(content(frame));
            }
            Ok(())
        });
        let without_parts = frames::for_each::<ReadError>(segment, segment.base(), &mut |frame| {
            heads.extend((!frame.is_log()).then(|| (frame.lsn, frame.head().to_vec())));
            Ok(())
        });
        whole.and(without_parts).unwrap_or_else(|error| panic!("what recovery served cannot be read: {error}"));
    }
    assert!(found.iter().map(|(lsn, _, head, _)| (*lsn, head.clone())).eq(heads));
    found
}

/// Appends, with all that a refusal asks for.
pub(super) fn append(log: &mut Recovered, head: &[u8], parts: &[&[u8]]) {
    let bytes = parts.concat();
    let crcs: Vec<u32> = parts.iter().map(|part| crc(0, part)).collect();
    let mut end = 0;
    let ends: Vec<u32> = parts
        .iter()
        .map(|part| {
            end += part.len() as u32;
            end
        })
        .collect();
    loop {
        let durable = log.appender.durable();
        match log.appender.append(head, Parts { bytes: &bytes, ends: &ends, crcs: &crcs }, durable, Reserve::Keep) {
            Ok(_) => return,
            Err(AppendError::NeedStandby { len, .. }) => {
                let standby = log.file_manager.create_standby(len, durable, Reserve::Keep, 0).unwrap();
                assert!(log.appender.add_standby(standby).is_none());
            }
            Err(AppendError::NeedSync { .. }) => sync(log),
            Err(refusal @ (AppendError::TooLarge { .. } | AppendError::Io(_))) => {
                panic!("an append was refused: {refusal:?}")
            }
        }
    }
}

/// Appends a control frame.
pub(crate) fn append_control(log: &mut Recovered, control: ControlFrame) {
    loop {
        let durable = log.appender.durable();
        match log.appender.append_control(control, durable) {
            Ok(_) => return,
            Err(AppendError::NeedStandby { len, .. }) => {
                let standby = log.file_manager.create_standby(len, durable, Reserve::Keep, 0).unwrap();
                assert!(log.appender.add_standby(standby).is_none());
            }
            Err(refusal @ (AppendError::NeedSync { .. } | AppendError::TooLarge { .. } | AppendError::Io(_))) => {
                panic!("an append was refused: {refusal:?}")
            }
        }
    }
}

pub(crate) fn sync(log: &mut Recovered) {
    while let Some(job) = log.appender.sync_job() {
        let upto = job.run().unwrap();
        log.appender.synced(upto);
    }
}
