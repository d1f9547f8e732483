//! Files of classes in the place of segments: made in steps, found, listed, and judged where something is wrong with them.

use super::rig::{Rig, Written, append_numbered, attach, contents_from};
use crate::disk::sim::{PowerOutcome, SimDisk};
use crate::ids::Lsn;
use crate::log::format::class::{Class, Classes};
use crate::log::format::header::HEADER_LEN;
use crate::log::fuzzing::whole::WholeFile;
use crate::log::fuzzing::{append_control, sync};
use crate::log::read::segment::Segment;
use crate::log::{ControlFrame, OpenError, ReadError, Recovered, for_each_whole};
use std::sync::Arc;

/// A closed store, what was written there, and its segments; two checkpoints cover the first two.
fn store() -> (SimDisk, Vec<Written>, Vec<Arc<Segment>>) {
    let disk = SimDisk::new(22);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..60 {
        append_numbered(&mut rig, frame).unwrap();
    }
    rig.tidy().unwrap();
    let segments = rig.catalog.segments().to_vec();
    assert!(segments.len() > 3);
    for frame in 60..62 {
        rig.checkpoint().unwrap();
        append_numbered(&mut rig, frame).unwrap();
    }
    rig.tidy().unwrap();
    let written = rig.close().unwrap();
    // The segments keep files of the disk open, and with them its lock.
    (disk.snapshot(), written, segments)
}

type Content = Vec<(Lsn, Vec<u8>, Vec<Vec<u8>>)>;

/// The frames of records of a file.
fn content(segment: &Segment) -> Content {
    let mut found = Vec::new();
    for_each_whole::<ReadError>(segment, segment.base(), &mut |frame| {
        if !frame.is_log() {
            let parts = (0..frame.parts()).map(|index| frame.part(index).unwrap().to_vec()).collect();
            found.push((frame.lsn, frame.head().to_vec(), parts));
        }
        Ok(())
    })
    .unwrap();
    found
}

/// A file of a class with every second frame of some segments, and its frames.
fn whole(disk: &SimDisk, class: Class, number: u64, segments: &[Arc<Segment>]) -> (WholeFile, Content) {
    let uuid = disk.read_file("STORE").unwrap()[24..40].try_into().unwrap();
    let range = (segments[0].base(), segments.last().unwrap().end());
    let mut file = WholeFile::new(uuid, class, number, range, 1);
    let kept: Content = segments.iter().flat_map(|segment| content(segment)).step_by(2).collect();
    for (lsn, head, parts) in &kept {
        let segment = segments.iter().find(|segment| *lsn < segment.end()).unwrap();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.add((*lsn, segment.epoch_at(*lsn)), head, &parts);
    }
    (file, kept)
}

/// A process that appends a control frame.
fn append(disk: &SimDisk, control: ControlFrame) {
    let mut log = attach(disk).unwrap();
    append_control(&mut log, control);
    sync(&mut log);
    log.file_manager.close(log.appender.end()).unwrap();
}

fn opened(disk: &SimDisk, written: &[Written]) -> Rig {
    Rig::open(disk, written, written.len())
}

/// What a file in the catalog serves.
fn serves(log: &Recovered, segment: &Segment) -> Option<Classes> {
    log.contents.catalog.segment(segment.number()).map(|segment| segment.serves())
}

/// A segment is left class by class, and its file goes when it serves none. A checkpoint lists what is there.
#[test]
fn classes_leave_a_segment_one_by_one() {
    let (disk, written, segments) = store();
    for order in [Class::EACH, [Class::DeadLetters, Class::Messages]] {
        let disk = disk.snapshot();
        let mut left = Classes::BOTH;
        let mut files = Vec::new();
        for (class, number) in order.into_iter().zip([0x1000, 0x2000]) {
            let (file, kept) = whole(&disk, class, number, &segments[..2]);
            let (name, control) = (file.name(), file.added());
            disk.write_file(&name, &file.finish());
            let before = opened(&disk, &written);
            assert_eq!(serves(&before.log, &segments[1]), Some(left), "nothing told of the file");
            drop(before);
            append(&disk, control);
            left = left.without(Classes::of(class));
            files.push((name, class, kept));
            let rig = opened(&disk, &written);
            assert_eq!(serves(&rig.log, &segments[1]), (!left.is_empty()).then_some(left));
            assert_eq!(serves(&rig.log, &segments[2]), Some(Classes::BOTH));
        }
        for round in 0..2 {
            let mut rig = opened(&disk, &written);
            for (name, class, kept) in &files {
                let segment =
                    rig.catalog.segments().iter().find(|segment| segment.name().to_string() == *name).unwrap();
                assert_eq!((&content(segment), segment.serves()), (kept, Classes::of(*class)), "round {round}");
                let epoch = written[0].epoch;
                assert!(kept.iter().all(|(lsn, ..)| segment.epoch_at(*lsn) == epoch));
            }
            let above = contents_from(&rig.catalog, segments[1].end()).unwrap();
            assert!(written.ends_with(&above) && !above.is_empty());
            append_control(&mut rig.log, ControlFrame::Mark);
            rig.sync().unwrap();
            rig.log.file_manager.remove_leftovers(rig.log.appender.durable()).unwrap();
            assert!(segments[..2].iter().all(|segment| disk.read_file(&segment.name().to_string()).is_none()));
            drop(rig);
            disk.crash_process();
        }
        // A checkpoint tells of the files.
        let mut rig = opened(&disk, &written);
        append_numbered(&mut rig, 70).unwrap();
        rig.checkpoint().unwrap();
        drop(rig);
        disk.crash_process();
        let log = attach(&disk).unwrap();
        let listed = files
            .iter()
            .all(|(name, ..)| log.contents.catalog.segments().iter().any(|of| of.name().to_string() == *name));
        assert!(listed && serves(&log, &segments[0]).is_none());
    }
}

/// Wherever the making of a file ends, the log is whole; and the file counts once the frame that tells of it is there.
#[test]
fn crash_at_any_step_leaves_the_log_whole() {
    const STEPS: usize = 9;
    let (disk, written, segments) = store();
    for (steps, outcome) in (0..=STEPS).flat_map(|steps| PowerOutcome::EACH.map(|outcome| (steps, outcome))) {
        let disk = disk.snapshot();
        let (letters, _) = whole(&disk, Class::DeadLetters, 0x1000, &segments[..1]);
        let (name, control) = (letters.name(), letters.added());
        disk.write_file(&name, &letters.finish());
        append(&disk, control);
        let (file, _) = whole(&disk, Class::Messages, 0x2000, &segments[..1]);
        let (name, control, bytes) = (file.name(), file.added(), file.finish());
        let mut log = attach(&disk).unwrap();
        let (header, body) = bytes.split_at(HEADER_LEN);
        for step in 0..steps {
            let file = || log.file_manager.disk().open(&name).unwrap();
            match step {
                0 => drop(log.file_manager.disk().create(&name, bytes.len() as u64).unwrap()),
                1 => file().write_at(HEADER_LEN as u64, body).unwrap(),
                2 | 4 => file().sync().unwrap(),
                3 => file().write_at(0, header).unwrap(),
                5 => log.file_manager.disk().sync_dir().unwrap(),
                6 => append_control(&mut log, control),
                7 => sync(&mut log),
                _ => log.file_manager.remove_segment(&segments[0]).unwrap(),
            }
        }
        disk.crash_power(outcome);
        drop(log);
        let rig = opened(&disk, &written);
        let counts = rig.catalog.segments().iter().any(|segment| segment.name().to_string() == name);
        assert!(counts || steps < 8, "a frame that is durable counts: {steps} steps, {outcome:?}");
        assert!(!counts || steps > 6, "nothing told of it: {steps} steps, {outcome:?}");
        assert_eq!(serves(&rig.log, &segments[0]).is_none(), counts);
    }
}

/// The name of the file, and what is said of it.
fn refused(disk: &SimDisk) -> (String, &'static str) {
    match attach(disk) {
        Err(OpenError::Corrupt(corruption)) => (corruption.file, corruption.reason),
        other => panic!("{:?}", other.map(drop)),
    }
}

/// What is wrong with a file that the log needs is told at the open, and names the file.
#[test]
fn file_that_is_needed_is_judged() {
    let (disk, written, segments) = store();
    let (file, _) = whole(&disk, Class::Messages, 0x1000, &segments[..2]);
    let (name, control, bytes) = (file.name(), file.added(), file.finish());
    disk.write_file(&name, &bytes);
    let unadded = disk.snapshot();
    append(&disk, control);
    let absent = disk.snapshot();
    assert!(absent.remove_file(&name));
    assert_eq!(refused(&absent), (name.clone(), "a listed file is absent or has no valid header"));
    let damaged = |at: usize| {
        let (disk, mut bytes) = (disk.snapshot(), bytes.clone());
        bytes[at] ^= 1;
        disk.write_file(&name, &bytes);
        disk
    };
    assert_eq!(refused(&damaged(50)), (name.clone(), "a listed file is absent or has no valid header"));
    let table = damaged(bytes.len() - 1);
    assert_eq!(refused(&table), (name.clone(), "a file whose epochs are not known"));
    let short = disk.snapshot();
    short.write_file(&name, &bytes[..bytes.len() / 2]);
    assert_eq!(refused(&short), (name.clone(), "a listed file is too short"));
    let ControlFrame::FileAdded { number, from, to, salt, class, .. } = control else { panic!("{control:?}") };
    let told = |from, to, generation| {
        let disk = unadded.snapshot();
        append(&disk, ControlFrame::FileAdded { number, from, to, generation, salt, class });
        refused(&disk)
    };
    assert_eq!(told(from, to, 2), (name.clone(), "a listed file is another one"));
    let covers = attach(&unadded).unwrap().contents.checkpoint.unwrap().covers;
    assert_eq!(told(from, Lsn(covers.0 + 8), 1), (name.clone(), "a file was added for what no checkpoint covers"));
    // The file says that it holds less than a segment that still serves its class.
    let uuid = disk.read_file("STORE").unwrap()[24..40].try_into().unwrap();
    let part = WholeFile::new(uuid, Class::Messages, 0x1000, (from, Lsn(to.0 - 8)), 1);
    let (over, control) = (unadded.snapshot(), part.added());
    over.write_file(&name, &part.finish());
    append(&over, control);
    assert_eq!(refused(&over), (name.clone(), "a file that lies over another of its class"));
    // What the checkpoint lists takes the place of a table.
    let mut rig = opened(&disk, &written);
    append_numbered(&mut rig, 70).unwrap();
    rig.checkpoint().unwrap();
    rig.close().unwrap();
    let mut cut = disk.read_file(&name).unwrap();
    cut.truncate(bytes.len() - 4);
    disk.write_file(&name, &cut);
    let log = attach(&disk).unwrap();
    let segment = log.contents.catalog.segment(number).unwrap();
    assert_eq!(segment.epoch_at(from), written[0].epoch);
}

/// What has the name of a file of a class and nothing that tells of it does not exist: it is removed in time, whatever is in it.
#[test]
fn file_that_nothing_tells_of_goes() {
    let (disk, written, segments) = store();
    let (file, _) = whole(&disk, Class::DeadLetters, 0x1000, &segments[..1]);
    let (name, bytes) = (file.name(), file.finish());
    for content in [&bytes[..], &[], &[0; 400], &bytes[..HEADER_LEN]] {
        // Below the newest segment, where a segment without its header is damage.
        for name in [&name, "0000000000000002.dead", "0000000000000002.msg"] {
            let disk = disk.snapshot();
            disk.write_file(name, content);
            let mut rig = opened(&disk, &written);
            append_numbered(&mut rig, 70).unwrap();
            rig.sync().unwrap();
            rig.tidy().unwrap();
            assert!(disk.read_file(name).is_none(), "{name} with {} bytes", content.len());
        }
    }
}

/// A file takes the place of one of its class that lies within its range, as after a second cleaning; it may hold nothing.
#[test]
fn file_takes_the_place_of_one_of_its_class() {
    let (disk, written, segments) = store();
    let (first, _) = whole(&disk, Class::Messages, 0x1000, &segments[..1]);
    let uuid = disk.read_file("STORE").unwrap()[24..40].try_into().unwrap();
    let second = WholeFile::new(uuid, Class::Messages, 0x2000, (segments[0].base(), segments[1].end()), 2);
    let names = [first.name(), second.name()];
    for file in [first, second] {
        let (name, control) = (file.name(), file.added());
        disk.write_file(&name, &file.finish());
        append(&disk, control);
    }
    let mut rig = opened(&disk, &written);
    let of_classes: Vec<_> = rig.catalog.segments().iter().filter(|of| of.kind().class().is_some()).collect();
    assert_eq!(of_classes.iter().map(|of| of.name().to_string()).collect::<Vec<_>>(), names[1..]);
    assert_eq!(content(of_classes[0]), []);
    append_numbered(&mut rig, 70).unwrap();
    rig.sync().unwrap();
    rig.tidy().unwrap();
    assert_eq!(names.map(|name| disk.read_file(&name).is_some()), [false, true]);
}
