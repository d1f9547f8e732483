//! Copies over segments, and over each other: where each is entered and left.

use super::rig::{Rig, append_numbered};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::ids::{FileNumber, Lsn};
use crate::log::format::segment_info::SegmentInfo;
use crate::log::read::handles::Handles;
use crate::log::recover::execute::copy;
use crate::log::recover::plan::Stretch;
use std::sync::Arc;

/// A closed store of several segments, and what its first one is.
fn store() -> (SimDisk, Vec<super::rig::Written>, SegmentInfo) {
    let disk = SimDisk::new(21);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..30 {
        append_numbered(&mut rig, frame).unwrap();
    }
    rig.tidy().unwrap();
    rig.sync().unwrap();
    let first = rig.catalog.segments()[0].info();
    assert!(rig.catalog.segments().len() > 1);
    (disk, rig.close().unwrap(), first)
}

/// Makes a copy of the frames `from..to` of `source`, as recovery does.
fn copied(disk: &SimDisk, number: u64, source: &SegmentInfo, (from, to): (Lsn, Lsn)) {
    let uuid = uuid(disk);
    let handle: Arc<dyn Disk> = Arc::new(disk.attach().unwrap());
    let handles = Handles::new(Arc::clone(&handle));
    let stretch = Stretch { source: source.clone(), from, to };
    copy(&*handle, &handles, &uuid, FileNumber(number), &stretch).unwrap();
    handle.sync_dir().unwrap();
}

fn uuid(disk: &SimDisk) -> [u8; 16] {
    disk.read_file("STORE").unwrap()[24..40].try_into().unwrap()
}

/// The log is the same whichever files it stands in, in this process and after a checkpoint that lists them.
fn opens_as(disk: &SimDisk, written: &[super::rig::Written]) {
    let mut rig = Rig::open(disk, written, written.len());
    for round in 0..3 {
        append_numbered(&mut rig, 100 + round).unwrap();
        rig.checkpoint().unwrap();
        append_numbered(&mut rig, 200 + round).unwrap();
        let written = if round == 1 {
            rig.sync().unwrap();
            let written = rig.written.clone();
            drop(rig);
            disk.crash_process();
            written
        } else {
            rig.close().unwrap()
        };
        rig = Rig::open(disk, &written, written.len());
        // What a checkpoint covers is read as well.
        assert_eq!(super::rig::contents_from(&rig.catalog, Lsn(0)).unwrap(), written);
    }
}

/// A segment is left where a copy begins: within it, and at its end; and a copy for a later one.
#[test]
fn a_segment_is_left_for_its_copy() {
    let (disk, written, first) = store();
    let ends: Vec<Lsn> = written.iter().map(|frame| frame.lsn).filter(|lsn| *lsn < first.end).collect();
    assert!(ends.len() > 6);
    let last = ends.len() - 1;
    for (begin, left) in [(0, 1), (0, last), (1, 2), (2, last / 2), (last / 2, last), (last - 1, last)] {
        let disk = disk.snapshot();
        copied(&disk, 1000, &first, (ends[begin], first.end));
        copied(&disk, 1001, &first, (ends[left], first.end));
        opens_as(&disk, &written);
    }
    // The whole segment, and each within the one before.
    copied(&disk, 1000, &first, (first.base, first.end));
    copied(&disk, 1001, &first, (ends[2], first.end));
    copied(&disk, 1002, &first, (ends[4], first.end));
    opens_as(&disk, &written);
}

/// A copy that nothing proven tells of may lie in the page cache alone: its source counts, whatever is in it.
#[test]
fn a_copy_that_ends_above_what_is_proven_does_not_count() {
    let disk = SimDisk::new(22);
    let mut rig = Rig::open(&disk, &[], 0);
    let mut frames: Vec<Lsn> = Vec::new();
    // The first frame of the last segment is durable, the others are not.
    for frame in 0..40 {
        append_numbered(&mut rig, frame).unwrap();
        let base = rig.catalog.segments().last().unwrap().base();
        frames = rig.written.iter().map(|frame| frame.lsn).filter(|lsn| *lsn > base).collect();
        match frames.len() {
            1 => rig.sync().unwrap(),
            5.. => break,
            _ => {}
        }
    }
    assert!(frames.len() >= 5);
    let (written, end) = (rig.written.clone(), rig.log.appender.end());
    let source = SegmentInfo { end, ..rig.catalog.segments().last().unwrap().info() };
    drop(rig);
    disk.crash_process();
    for first in frames {
        let disk = disk.snapshot();
        copied(&disk, 1000, &source, (first, end));
        let name = format!("{:016x}.seg", 1000);
        let mut bytes = disk.read_file(&name).unwrap();
        bytes[130] ^= 1;
        disk.write_file(&name, &bytes);
        Rig::open(&disk, &written, written.len());
    }
}

/// No copy of the same range is entered where another one is damaged: it would begin with what was taken in already.
#[test]
fn damage_behind_the_first_frame_of_a_copy_is_told() {
    let (disk, written, first) = store();
    let frames: Vec<Lsn> = written.iter().map(|frame| frame.lsn).filter(|lsn| *lsn < first.end).collect();
    for (older, newer) in [(0, 0), (0, 3), (3, 3)] {
        let disk = disk.snapshot();
        copied(&disk, 1000, &first, (frames[older], first.end));
        copied(&disk, 1001, &first, (frames[newer], first.end));
        let name = format!("{:016x}.seg", 1001);
        let whole = disk.read_file(&name).unwrap();
        for frame in &frames[newer..] {
            let mut bytes = whole.clone();
            bytes[128 + (frame.0 - frames[newer].0) as usize + 2] ^= 1;
            disk.write_file(&name, &bytes);
            let opened = super::rig::attach(&disk.snapshot());
            assert!(matches!(opened, Err(crate::log::OpenError::Corrupt(_))), "{older} {newer} {frame}");
        }
    }
}

/// A copy counts though its source is whole: what is damaged there is told, as it was durable.
#[test]
fn a_damaged_copy_is_told() {
    let (disk, written, first) = store();
    let frames: Vec<Lsn> = written.iter().map(|frame| frame.lsn).filter(|lsn| *lsn < first.end).collect();
    copied(&disk, 1000, &first, (frames[0], first.end));
    copied(&disk, 1001, &first, (frames[3], first.end));
    let name = format!("{:016x}.seg", 1001);
    let mut bytes = disk.read_file(&name).unwrap();
    bytes[130] ^= 1;
    disk.write_file(&name, &bytes);
    let opened = super::rig::attach(&disk);
    assert!(matches!(opened, Err(crate::log::OpenError::Corrupt(_))), "told, as it was durable");
}
