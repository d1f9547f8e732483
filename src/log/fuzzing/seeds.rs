//! What the corpora of the log's targets are made of, and the segment beside which index files are tried.

use super::stream::{append, attach, store_file, sync, write_frame};
use super::{LSN, SPOT};
use crate::disk::sim::SimDisk;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::checkpoint::{self, Section};
use crate::log::format::class::{Class, Classes, Retired};
use crate::log::format::control::ControlFrame;
use crate::log::format::frame::Outline;
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::segment_info::SegmentInfo;
use crate::log::format::store_file::Slot;
use crate::log::{KeyRows, Row};
use std::sync::OnceLock;

/// Inputs by target and name.
pub(crate) type Seeds = Vec<(&'static str, String, Vec<u8>)>;

fn flagged(flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&[flags], bytes].concat()
}

fn plain(lsn: u64) -> Outline {
    Outline { lsn: Lsn(lsn), carries_lsn: false, epoch: None, watermark: None, log: false }
}

/// Parts of a frame: of no bytes, of one, across a sector, and many.
const PARTS: [&[&[u8]]; 6] =
    [&[], &[b""], &[b"payload"], &[b"one", b"", b"three"], &[&[7; 600]], &[b"xyz" as &[u8]; 40]];

/// The corpora of the targets in here.
pub(crate) fn all() -> Seeds {
    let mut seeds = Vec::new();
    frames(&mut seeds);
    streams(&mut seeds);
    headers(&mut seeds);
    sections(&mut seeds);
    let (disk, _) = indexed();
    let index = disk.read_file(&FileName::Index(FileNumber(1)).to_string()).unwrap();
    seeds.push(("index", "whole".to_owned(), flagged(0, &index)));
    seeds.push(("index", "unsealed".to_owned(), flagged(1, &index)));
    seeds.push(("index", "empty".to_owned(), flagged(0, &[])));
    seeds.push(("index", "header".to_owned(), flagged(0, &index[..80])));
    seeds
}

fn frames(seeds: &mut Seeds) {
    let outlines = [
        ("plain", plain(LSN.0)),
        ("watermark", Outline { watermark: Some(Lsn(LSN.0 - 800)), ..plain(LSN.0) }),
        ("carried", Outline { carries_lsn: true, epoch: Some(Epoch(3)), watermark: Some(Lsn(8)), ..plain(LSN.0) }),
    ];
    for (name, outline) in outlines {
        for (index, parts) in PARTS.iter().enumerate() {
            let mut file = vec![0; HEADER_LEN];
            write_frame(&mut file, SPOT.salt, &outline, b"head", parts);
            seeds.push(("frame", format!("{name}-{index}"), flagged(0, &file[HEADER_LEN..])));
        }
    }
    let mut file = vec![0; HEADER_LEN];
    let control = Outline { carries_lsn: true, epoch: Some(Epoch(1)), log: true, ..plain(LSN.0) };
    write_frame(&mut file, SPOT.salt, &control, &ControlFrame::START_HEAD, &[]);
    seeds.push(("frame", "start".to_owned(), flagged(3, &file[HEADER_LEN..])));
}

fn streams(seeds: &mut Seeds) {
    // Behind the header and the segment's first frame.
    let start = HEADER_LEN + 32;
    let mut every = vec![0; start];
    for (index, parts) in PARTS.iter().enumerate() {
        let mut file = vec![0; start];
        for _ in 0..=index {
            let outline = plain((file.len() - HEADER_LEN) as u64);
            let outline = if index % 2 == 0 { outline } else { Outline { watermark: Some(Lsn(0)), ..outline } };
            write_frame(&mut file, 0, &outline, format!("head {index}").as_bytes(), parts);
        }
        seeds.push(("stream", format!("frames-{index}"), flagged(index as u8 & 2, &file[start..])));
        let outline = plain((every.len() - HEADER_LEN) as u64);
        write_frame(&mut every, 0, &outline, b"head", parts);
    }
    let mut head = Vec::new();
    let (number, from, to) = (FileNumber(9), Lsn(0), Lsn(32));
    let added = |class| ControlFrame::FileAdded { number, from, to, generation: 2, salt: 5, class };
    let retired = ControlFrame::RangeRetired { from, to, classes: Classes::BOTH };
    let letters = ControlFrame::RangeRetired { from, to, classes: Classes::of(Class::DeadLetters) };
    let control = [
        ("mark", ControlFrame::Mark),
        ("retired", retired),
        ("letters-retired", letters),
        ("added", added(Class::Messages)),
        ("letters-added", added(Class::DeadLetters)),
    ];
    for (name, control) in control {
        let mut file = every.clone();
        control.encode(&mut head);
        let lsn = (file.len() - HEADER_LEN) as u64;
        write_frame(&mut file, 0, &Outline { log: true, watermark: Some(Lsn(0)), ..plain(lsn) }, &head, &[]);
        let outline = plain((file.len() - HEADER_LEN) as u64);
        write_frame(&mut file, 0, &outline, b"behind", &[b"part"]);
        seeds.push(("stream", name.to_owned(), flagged(0, &file[start..])));
    }
    seeds.push(("stream", "every".to_owned(), flagged(0, &every[start..])));
    seeds.push(("stream", "torn".to_owned(), flagged(0, &every[start..every.len() - 100])));
    seeds.push(("stream", "unsealed".to_owned(), flagged(1, &every[start..])));
    seeds.push(("stream", "empty".to_owned(), flagged(0, &[])));
}

fn headers(seeds: &mut Seeds) {
    let of_classes = ["00000000000000ab.msg", "00000000000000ab.dead"];
    let others = ["STORE", "00000000000000ab.seg", "00000000000000ab.ckp", "ffffffffffffffff.idx", "notes.txt"];
    for name in of_classes.into_iter().chain(others) {
        seeds.push(("header", format!("name-{name}"), flagged(1, name.as_bytes())));
    }
    let appended = FileHeader::appended(super::seal::UUID, FileNumber(7), 8);
    let copy = FileHeader { from: Lsn(64), to: Lsn(128), epoch: Epoch(1), ..appended.clone() };
    let messages = FileHeader {
        kind: FileKind::Messages,
        from: Lsn(64),
        to: Lsn(128),
        body_len: 80,
        table_len: 20,
        generation: 1,
        ..appended.clone()
    };
    seeds.push(("header", "appended".to_owned(), flagged(0, &appended.encode())));
    let letters = FileHeader { kind: FileKind::DeadLetters, ..messages.clone() };
    for (name, header) in [("copy", copy), ("messages", messages), ("dead-letters", letters)] {
        seeds.push(("header", name.to_owned(), flagged(0, &header.encode())));
    }
    let slots = [2, 3].map(|sequence| Slot { sequence, epoch: Epoch(1), watermark: Lsn(64), ..Slot::default() });
    let store = store_file(&slots);
    // Up to the end of the second slot.
    seeds.push(("header", "store".to_owned(), flagged(0, &store[..8192 + 512])));
    let mut head = Vec::new();
    ControlFrame::RangeRetired { from: Lsn(0), to: Lsn(8), classes: Classes::BOTH }.encode(&mut head);
    seeds.push(("header", "retired".to_owned(), flagged(1, &head)));
    seeds.push(("header", "mark".to_owned(), flagged(1, &[2])));
}

fn info(number: u64, kind: FileKind, base: u64, end: u64) -> SegmentInfo {
    let body_len = if kind == FileKind::Appended { 0 } else { 80 };
    let serves = kind.class().map_or(Classes::BOTH, Classes::of);
    let (base, end) = (Lsn(base), Lsn(end));
    let epochs = vec![(base, Epoch(1)), (Lsn(base.0 + 8), Epoch(2))];
    SegmentInfo { number: FileNumber(number), kind, salt: number, generation: 0, base, end, body_len, epochs, serves }
}

fn sections(seeds: &mut Seeds) {
    let mut retired = Retired::default();
    retired.add(Classes::BOTH, Lsn(0), Lsn(64));
    let messages = info(4, FileKind::Messages, 128, 256);
    let letters = info(5, FileKind::DeadLetters, 128, 192);
    let partly = SegmentInfo { serves: letters.serves, ..info(2, FileKind::Appended, 192, 256) };
    let files = vec![info(1, FileKind::Appended, 64, 128), messages, letters, partly];
    let epochs = vec![(Lsn(0), Epoch(1)), (Lsn(72), Epoch(2))];
    let whole = Section { files, retired, epochs };
    for (name, section) in [("empty", Section::default()), ("whole", whole.clone())] {
        seeds.push(("section", name.to_owned(), section.encode()));
    }
    let one = Section { files: whole.files[..1].to_vec(), ..Section::default() };
    seeds.push(("section", "gap".to_owned(), one.encode()));
}

/// The file of a checkpoint that holds `state` and lists nothing.
pub(crate) fn checkpoint_file(state: &[u8]) -> Vec<u8> {
    let section = Section::default().encode();
    let header = checkpoint::header(super::seal::UUID, FileNumber(2), 1, Lsn(0), state, &section);
    [&header.encode()[..], state, &section].concat()
}

/// A closed log of one segment, its index file, and what that holds.
pub(super) fn indexed() -> (SimDisk, Vec<KeyRows>) {
    static MADE: OnceLock<SimDisk> = OnceLock::new();
    let rows = rows();
    let disk = MADE.get_or_init(|| {
        let disk = SimDisk::new(3);
        let mut log = attach(&disk).unwrap();
        for number in 0..9u8 {
            append(&mut log, &[number], &[b"part", b"other"]);
        }
        sync(&mut log);
        let segment = log.appender.active().map(std::sync::Arc::clone).unwrap();
        let end = log.appender.end();
        log.file_manager.write_index(&segment, &rows, 0).unwrap();
        log.file_manager.close(end).unwrap();
        drop(log);
        disk
    });
    (disk.snapshot(), rows)
}

/// Keys whose rows have these gaps before them and counts.
fn rows() -> Vec<KeyRows> {
    let key = |key: u64, first: u64, runs: &[(u64, u32)]| {
        let mut next = first;
        let row = |(&(gap, count), index): (&(u64, u32), u32)| {
            let row = Row { first: next + gap, count, at: 160 + 40 * index, part: index % 2 };
            next = row.end();
            row
        };
        KeyRows { key, time_ms: 7, rows: runs.iter().zip(0u32..).map(row).collect() }
    };
    let far = u64::from(u32::MAX) + 1;
    vec![
        key(0, 10, &[(0, 1), (0, 1), (0, 5), (2, 1), (0, 2)]),
        key(1, 0, &[(0, 1); 12]),
        key(3, 7, &[(0, 3), (far, 2)]),
    ]
}

/// What a whole index answers.
pub(super) fn look_up(keys: &[KeyRows], key: u64, ordinal: u64, max: usize) -> Vec<Row> {
    let Some(found) = keys.iter().find(|rows| rows.key == key) else { return Vec::new() };
    let holding = found.rows.iter().position(|row| row.holds(ordinal));
    holding.map_or_else(Vec::new, |from| found.rows[from..].iter().take(max).copied().collect())
}
