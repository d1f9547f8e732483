//! Fuzz targets of the log: frames, headers, streams of frames, sections, indexes; and `seal`, which makes checksums agree.
//!
//! Each target takes any bytes and panics where a promise is broken. It says whether the bytes got behind the outer checks:
//! a run in which few do has tested little. Never here: records and state.

#![allow(clippy::unwrap_used, reason = "a target panics where a promise is broken")]

pub(crate) mod seal;
pub(crate) mod seeds;
mod stream;
pub(crate) mod whole;

pub use stream::stream;
pub(crate) use stream::{append_control, sync};

use crate::disk::Access;
use crate::disk::sim::SimDisk;
use crate::ids::Lsn;
use crate::log::format::bytes::ByteCursor;
use crate::log::format::checkpoint::{self, Section};
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::{Covered, Frame, Outline, Parts, Probe, Spot, encode_front, frame_len};
use crate::log::format::header::{FileHeader, HeaderRead};
use crate::log::format::name::FileName;
use crate::log::format::store_file::{Identity, Slot};
use crate::log::read::cache::BlockCache;
use crate::log::{Row, Settings};
use std::sync::Arc;

/// Of all logs that are made here.
const SETTINGS: Settings = Settings { segment_len_first: 4096, segment_len_max: 8192, access: Access::SyncOften };
const SPOT: Spot = Spot { salt: 0x0123_4567_89ab_cdef, at: 128 };
const LSN: Lsn = Lsn(1 << 20);
/// In the first byte of an input: leave the checksums as they are.
pub(crate) const UNSEALED: u8 = 1;

/// One frame: whatever is taken for one can be written anew and is then the same; and no more bytes are asked for than
/// there could be.
pub fn frame(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    let told = (flags & 2 == 0).then_some(LSN);
    if flags & UNSEALED == 0 {
        seal::frame(&mut bytes, SPOT, told);
    }
    let Some(covered) = probe_in_steps(&bytes) else { return false };
    let Some(frame) = covered.verify(&bytes, SPOT, told) else { return false };
    let again = write_anew(&frame, Spot { salt: 99, at: 4096 });
    let Probe::Covered(covered) = Covered::probe(&again, again.len() as u64, Spot { salt: 99, at: 4096 }) else {
        panic!("a frame that was just written is none");
    };
    let other = covered.verify(&again, Spot { salt: 99, at: 4096 }, told).unwrap();
    assert_eq!(content(&frame), content(&other));
    let len = unpadded(&frame);
    // Varints of the prefix may be longer than they need to be; apart from that there is one form.
    if bytes[4..7] == write_anew(&frame, SPOT)[4..7] {
        assert_eq!(write_anew(&frame, SPOT)[8..len], bytes[8..len]);
    }
    if frame.is_log() {
        control_frame(frame.head());
    }
    true
}

fn unpadded(frame: &Frame<'_>) -> usize {
    frame_len(&outline(frame), frame.head().len(), &parts_of(frame, &mut Vec::new(), &mut Vec::new()))
}

/// Looks for a frame as a reader does that gets the bytes little by little.
fn probe_in_steps(bytes: &[u8]) -> Option<Covered> {
    let room = bytes.len() as u64;
    let mut have = 0;
    loop {
        match Covered::probe(&bytes[..have], room, SPOT) {
            Probe::More(wanted) => {
                assert!(
                    wanted > have && wanted as u64 <= room,
                    "{wanted} bytes asked for, {have} there, {room} in all"
                );
                have = wanted;
            }
            Probe::Covered(covered) => return Some(covered),
            Probe::Nothing => return None,
        }
    }
}

fn outline(frame: &Frame<'_>) -> Outline {
    Outline {
        lsn: frame.lsn,
        carries_lsn: frame.carries_lsn(),
        epoch: frame.epoch(),
        watermark: frame.watermark,
        log: frame.is_log(),
    }
}

fn parts_of<'a>(frame: &Frame<'a>, ends: &'a mut Vec<u32>, crcs: &'a mut Vec<u32>) -> Parts<'a> {
    for index in 0..frame.parts() {
        ends.push(frame.part_range(index).unwrap().end);
        crcs.push(frame.part_crc(index).unwrap());
    }
    Parts { bytes: frame.all_parts(), ends, crcs }
}

/// The bytes of a frame with this content at another place.
fn write_anew(frame: &Frame<'_>, spot: Spot) -> Vec<u8> {
    let (mut ends, mut crcs) = (Vec::new(), Vec::new());
    let parts = parts_of(frame, &mut ends, &mut crcs);
    let len = frame_len(&outline(frame), frame.head().len(), &parts);
    let mut out = Vec::new();
    encode_front(&mut out, spot, &outline(frame), len as u32, frame.head(), &parts);
    out.extend_from_slice(parts.bytes);
    assert_eq!(out.len(), len);
    out.resize(len.next_multiple_of(8), 0);
    out
}

/// What a frame says.
fn content(frame: &Frame<'_>) -> (Lsn, Option<Lsn>, Vec<u8>, Vec<Vec<u8>>) {
    let parts = (0..frame.parts()).map(|index| frame.part(index).unwrap().to_vec()).collect();
    (frame.lsn, frame.watermark, frame.head().to_vec(), parts)
}

fn control_frame(head: &[u8]) {
    if let Some(control) = ControlFrame::decode(head) {
        let mut out = Vec::new();
        control.encode(&mut out);
        assert_eq!(out, head);
    }
}

/// What files say of themselves: names, headers, `STORE`, control frames. What is taken has one form.
pub fn header(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    let mut taken = false;
    if let Ok(text) = std::str::from_utf8(&bytes)
        && let Some(name) = FileName::parse(text)
    {
        assert_eq!(name.to_string(), text);
        taken = true;
    }
    control_frame(&bytes);
    if flags & UNSEALED == 0 {
        seal::header(&mut bytes);
    }
    if let HeaderRead::Valid(header) = FileHeader::decode(&bytes) {
        // Bytes behind the fields are for later formats, and zero in this one.
        let again = header.encode();
        assert_eq!(again[..100], bytes[..100]);
        assert_eq!(FileHeader::decode(&again), HeaderRead::Valid(header.clone()));
        assert!(header.extent().is_none_or(|(table, end)| table <= end));
        taken = true;
    }
    if flags & UNSEALED == 0 {
        seal::store(&mut bytes, &seal::UUID);
    }
    if let Identity::Valid(uuid) = Identity::decode(&bytes) {
        let again = Identity::encode(&uuid);
        assert_eq!(again, bytes[..again.len()]);
        taken = true;
    }
    for slot in Slot::both(&bytes, &seal::UUID).into_iter().flatten() {
        let (at, again) = (Slot::position(slot.sequence) as usize, slot.encode(&seal::UUID));
        // The bytes between fields and check are for later versions, and zero in this one.
        assert_eq!(again[..96], bytes[at..at + 96]);
        assert_eq!(Slot::decode(&[&bytes[..at], &again].concat(), &seal::UUID, at as u64), Some(slot));
        taken = true;
    }
    taken
}

/// The log's section of a checkpoint: refused, or of the one form, with ends that do not wrap.
pub fn section(data: &[u8]) -> bool {
    let Some(section) = Section::decode(data) else { return false };
    assert_eq!(section.encode(), data);
    for file in &section.files {
        assert!(file.limit().is_some() && !file.epochs.is_empty() && file.base <= file.end);
        assert!(file.epoch_at(file.base) <= file.last_epoch());
    }
    section.tiles(Lsn(0));
    section.overlapping();
    section.tells_epochs(Lsn(8));
    section.tiles(section.files.last().map_or(Lsn(8), |file| file.end));
    true
}

/// A checkpoint's file: its state's bytes, where header, state and section prove themselves.
pub(crate) fn checkpoint_state(bytes: &[u8]) -> Option<Vec<u8>> {
    let HeaderRead::Valid(header) = FileHeader::decode(bytes) else { return None };
    let (table_at, end) = header.extent()?;
    if end > bytes.len() as u64 {
        return None;
    }
    let (table_at, end) = (usize::try_from(table_at).ok()?, usize::try_from(end).ok()?);
    let (state, table) = (bytes.get(crate::log::format::header::HEADER_LEN..table_at)?, bytes.get(table_at..end)?);
    checkpoint::verify(&header, state, table)?;
    Some(state.to_vec())
}

/// An index file beside the segment that it is made for: of no use, or right; with forged checksums, at least bounded.
pub fn index(data: &[u8]) -> bool {
    let Some((flags, bytes)) = data.split_first() else { return false };
    let (disk, rows) = seeds::indexed();
    let mut bytes = bytes.to_vec();
    let sealed = flags & UNSEALED == 0;
    if sealed {
        seal::index(&mut bytes);
    }
    disk.write_file(&FileName::Index(crate::ids::FileNumber(1)).to_string(), &bytes);
    let log = super::open(Arc::new(disk.attach().unwrap()), SETTINGS).unwrap();
    let segment = log.contents.catalog.segments().first().unwrap();
    let Ok(Some(index)) = log.contents.indexes.open(segment) else { return false };
    let cache = BlockCache::new(1 << 16);
    let known: Vec<u64> = index.keys().iter().map(|key| key.key).chain(0..4).collect();
    for key in known {
        let first = index.key(key).map_or(0, |entry| entry.first);
        for ordinal in (0..24).map(|n| first.saturating_add(n)).chain([u64::MAX]) {
            let mut found = Vec::new();
            let whole = index.look_up(&cache, key, ordinal, 3, &mut found);
            assert!(found.len() <= 3);
            // A forged place may lie where no file reaches: an error, and to the engine the index is of no use.
            if !sealed && whole.unwrap() {
                let right: Vec<Row> = seeds::look_up(&rows, key, ordinal, 3);
                assert_eq!(found, right, "key {key}, ordinal {ordinal}");
            }
        }
    }
    true
}

/// What an input of several parts is read from: whatever is missing is zero.
pub(crate) struct Take<'a>(ByteCursor<'a>);

impl<'a> Take<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(ByteCursor::new(bytes))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.left() == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.u8().unwrap_or(0)
    }

    pub(crate) fn short(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Up to `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        self.0.take(len.min(self.0.left())).unwrap_or(&[])
    }
}

/// Refuses more requests than any honest reading of so many bytes makes: the bound on time that needs no clock.
pub(crate) fn bounded(disk: &SimDisk, before: u64, bytes: usize) {
    let requests = disk.requests() - before;
    let most = 20_000 + 4 * bytes as u64;
    assert!(requests <= most, "{requests} requests for {bytes} bytes");
}
