//! Files that changed at rest: the same content, or an error that names what is lost; never less with `Ok` (G12).

use super::rig::{Rig, Written, append_numbered, attach, contents_from};
use crate::disk::sim::{PowerOutcome, SimDisk};
use crate::ids::Lsn;
use crate::log::format::header::HEADER_LEN;
use crate::log::format::name::FileName;
use crate::log::{BlockCache, ControlFrame, Dropped, FrontCache, OpenError, PartReader, Reserve};

/// A small store, closed cleanly: cut segments, a full one, an empty standby segment of a dead process, two checkpoints, marks.
fn store(checkpointed: bool) -> (SimDisk, Vec<Written>) {
    let disk = SimDisk::new(1);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..9 {
        append_numbered(&mut rig, frame).unwrap();
        if checkpointed && frame % 4 == 3 {
            rig.checkpoint().unwrap();
        }
    }
    rig.control(ControlFrame::Mark).unwrap();
    rig.tidy().unwrap();
    let written = rig.close().unwrap();
    let mut rig = Rig::open(&disk, &written, written.len());
    append_numbered(&mut rig, 9).unwrap();
    rig.tidy().unwrap();
    (disk, rig.close().unwrap())
}

/// Opens what was changed, and reads all of it: the same, or a typed error. Says whether it was the same.
fn same_or_told(disk: &SimDisk, written: &[Written], what: &dyn Fn() -> String) -> bool {
    let log = match attach(disk) {
        Ok(log) => log,
        Err(OpenError::Corrupt(corruption)) => {
            assert!(!corruption.file.is_empty() && !corruption.reason.is_empty());
            return false;
        }
        Err(OpenError::ForeignFile { .. } | OpenError::NewerFormat { .. }) => return false,
        Err(OpenError::Io { .. }) => panic!("{}", what()),
    };
    match contents_from(&log.contents.catalog, Lsn(0)) {
        Ok(found) => {
            assert!(found == written, "{}: {} frames of {}", what(), found.len(), written.len());
            true
        }
        Err(_) => false,
    }
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().map(|entry| entry.name).collect()
}

/// F20, F21: every bit of every file.
#[test]
fn any_changed_bit() {
    for checkpointed in [false, true] {
        let (disk, written) = store(checkpointed);
        let (mut same, mut told) = (0, 0);
        for name in names(&disk) {
            let whole = disk.read_file(&name).unwrap();
            for byte in 0..whole.len() {
                // The empty pages of STORE and the unused rest of a segment hold nothing: one byte in many will do.
                let idle = whole[byte.saturating_sub(16)..whole.len().min(byte + 16)].iter().all(|byte| *byte == 0);
                if idle && byte % 61 != 0 {
                    continue;
                }
                for bit in 0..8 {
                    let mut damaged = whole.clone();
                    damaged[byte] ^= 1 << bit;
                    disk.write_file(&name, &damaged);
                    let what = || format!("{name}, byte {byte}, bit {bit}, checkpointed: {checkpointed}");
                    match same_or_told(&disk, &written, &what) {
                        true => same += 1,
                        false => told += 1,
                    }
                }
            }
            disk.write_file(&name, &whole);
        }
        assert!(same > 1000 && told > 1000, "{same} the same, {told} told");
        assert!(same_or_told(&disk, &written, &|| "restored".to_owned()));
    }
}

/// A read of one part takes the record block with it: a bit that changed in either, or anywhere before them, is told.
#[test]
fn a_part_is_not_read_beside_a_changed_head() {
    let disk = SimDisk::new(2);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 3).unwrap();
    rig.sync().unwrap();
    let (number, at) = rig.places[0];
    let segment = rig.catalog.segment(number).unwrap();
    let expected = &rig.written[0];
    let read = || {
        let (cache, fronts) = (BlockCache::new(1 << 20), FrontCache::new(1 << 20));
        let mut reader = PartReader::<()>::default();
        let read = reader.read((&cache, &fronts), segment, at, 0, 1).ok()?;
        Some((read.head.to_vec(), read.bytes.to_vec()))
    };
    assert_eq!(read(), Some((expected.head.clone(), expected.parts[0].clone())));
    let name = segment.name().to_string();
    let whole = disk.read_file(&name).unwrap();
    let part = whole.windows(expected.parts[0].len()).position(|bytes| bytes == expected.parts[0]).unwrap();
    for byte in at as usize..part + expected.parts[0].len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << bit;
            disk.write_file(&name, &damaged);
            assert_eq!(read(), None, "byte {byte}, bit {bit}");
        }
    }
}

/// F05, F22: every file cut to every length, and every block of it zeroed.
#[test]
fn any_cut_and_any_zeroed_block() {
    for checkpointed in [false, true] {
        let (disk, written) = store(checkpointed);
        for name in names(&disk) {
            let whole = disk.read_file(&name).unwrap();
            for len in (0..whole.len()).rev() {
                if len % 512 == 0 || whole[len..].iter().take(32).any(|byte| *byte != 0) {
                    disk.write_file(&name, &whole[..len]);
                    same_or_told(&disk, &written, &|| format!("{name} cut to {len}"));
                }
            }
            for block in [512, 4096] {
                for at in (0..whole.len()).step_by(block) {
                    let mut zeroed = whole.clone();
                    let end = whole.len().min(at + block);
                    zeroed[at..end].fill(0);
                    disk.write_file(&name, &zeroed);
                    same_or_told(&disk, &written, &|| format!("{name}, {block} zeros at {at}"));
                }
            }
            disk.write_file(&name, &whole);
        }
    }
}

/// F16: files that are missing, exchanged, doubled, or from an earlier day of the same store.
#[test]
fn files_missing_exchanged_doubled_aged() {
    for checkpointed in [false, true] {
        let (disk, written) = store(checkpointed);
        let names = names(&disk);
        let content: Vec<Vec<u8>> = names.iter().map(|name| disk.read_file(name).unwrap()).collect();
        for (index, name) in names.iter().enumerate() {
            let missing = disk.snapshot();
            missing.remove_file(name);
            same_or_told(&missing, &written, &|| format!("{name} missing"));
            for (other, bytes) in names.iter().zip(&content) {
                let exchanged = disk.snapshot();
                exchanged.write_file(name, bytes);
                exchanged.write_file(other, &content[index]);
                same_or_told(&exchanged, &written, &|| format!("{name} and {other} exchanged"));
            }
            let doubled = disk.snapshot();
            let suffix = &name[name.len().min(16)..];
            doubled.write_file(&format!("00000000000000aa{suffix}"), &content[index]);
            if suffix.starts_with('.') {
                assert!(same_or_told(&doubled, &written, &|| format!("{name} doubled")));
            }
        }
    }
    let disk = SimDisk::new(1);
    let mut rig = Rig::open(&disk, &[], 0);
    let mut days = Vec::new();
    for frame in 0..12 {
        append_numbered(&mut rig, frame).unwrap();
        rig.sync().unwrap();
        if frame == 7 {
            rig.checkpoint().unwrap();
        }
        days.push(disk.snapshot());
    }
    let written = rig.close().unwrap();
    for day in days {
        for name in names(&day) {
            let aged = disk.snapshot();
            aged.write_file(&name, &day.read_file(&name).unwrap());
            same_or_told(&aged, &written, &|| format!("{name} aged"));
        }
    }
}

/// F28: strays are counted and change nothing.
#[test]
fn strays_are_ignored() {
    let (disk, written) = store(true);
    for stray in [".DS_Store", "._0000000000000001.seg", "0000000000000001.seg~", "notes.txt"] {
        disk.write_file(stray, b"stray");
    }
    let rig = Rig::open(&disk, &written, written.len());
    assert_eq!(rig.log.report.files_ignored, 4);
}

#[test]
fn a_file_of_another_store_is_refused() {
    let (disk, _) = store(true);
    let other = SimDisk::new(99);
    let mut rig = Rig::open(&other, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.close().unwrap();
    let name = FileName::Segment(crate::ids::FileNumber(1)).to_string();
    disk.write_file(&name, &other.read_file(&name).unwrap());
    assert!(matches!(attach(&disk), Err(OpenError::ForeignFile { file }) if file == name));
    let (disk, _) = store(true);
    disk.write_file("STORE", &other.read_file("STORE").unwrap());
    assert!(matches!(attach(&disk), Err(OpenError::ForeignFile { .. })));
}

/// A store without `STORE` is not initialized anew over its files; a creation that was interrupted is.
#[test]
fn nothing_is_laid_out_over_files() {
    let (disk, _) = store(false);
    for bytes in [&[][..], &[0; 16384]] {
        disk.write_file("STORE", bytes);
        let Err(OpenError::Corrupt(corruption)) = attach(&disk) else { panic!("opened") };
        assert_eq!(corruption.file, "STORE");
    }
    for bytes in [vec![], vec![0; 100], vec![0xff; 16384], vec![0xff; 20000]] {
        let disk = SimDisk::new(1);
        disk.write_file("STORE", &bytes);
        let mut rig = Rig::open(&disk, &[], 0);
        append_numbered(&mut rig, 1).unwrap();
        let written = rig.close().unwrap();
        Rig::open(&disk, &written, 1);
    }
}

/// An unclean store with three synced frames in its last segment and three that are not.
fn unclean(marks: bool) -> (SimDisk, Rig) {
    let disk = SimDisk::new(5);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..3 {
        append_numbered(&mut rig, frame + 1).unwrap();
    }
    rig.sync().unwrap();
    if marks {
        rig.control(ControlFrame::Mark).unwrap();
    }
    for frame in 3..6 {
        append_numbered(&mut rig, frame + 1).unwrap();
    }
    (disk, rig)
}

/// F20: what a later frame proves to have been durable is missed, wherever the damage is, and named.
#[test]
fn damage_below_the_watermark_is_told_from_a_torn_tail() {
    for marks in [false, true] {
        let (disk, rig) = unclean(marks);
        let (written, places) = (rig.written.clone(), rig.places.clone());
        let end = rig.log.appender.end();
        drop(rig);
        disk.crash_process();
        let name = FileName::Segment(places[0].0).to_string();
        let whole = disk.read_file(&name).unwrap();
        for (index, (_, at)) in places.iter().enumerate() {
            let damaged_at = *at as usize + 12;
            let mut damaged = whole.clone();
            damaged[damaged_at] ^= 0x10;
            disk.write_file(&name, &damaged);
            let durable = index < 3;
            match attach(&disk.snapshot()) {
                Err(OpenError::Corrupt(corruption)) => {
                    assert!(durable, "frame {index} was never proven");
                    assert_eq!((&corruption.file, corruption.offset), (&name, Some(u64::from(*at))));
                    let (from, to) = corruption.lsns.unwrap();
                    assert_eq!(from, written[index].lsn);
                    assert!(to > from && to <= written[3].lsn);
                }
                Ok(log) => {
                    assert!(!durable, "frame {index} was durable");
                    let rig = Rig::resume(log, &written, index);
                    assert_eq!(rig.written.len(), index);
                    let Some(Dropped { segment, offset, bytes }) = rig.log.report.dropped else { panic!("not told") };
                    assert_eq!((segment, offset), (places[0].0, u64::from(*at)));
                    assert!(bytes > 0 && bytes <= end.0 - written[index].lsn.0);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// The first frame of a segment is gone, and with it the segment's base; frames behind it still prove what was durable.
#[test]
fn a_lost_first_frame_is_missed() {
    let disk = SimDisk::new(6);
    let mut rig = Rig::open(&disk, &[], 0);
    let mut frame = 0;
    while rig.catalog.segments().len() < 2 {
        append_numbered(&mut rig, frame).unwrap();
        frame += 1;
    }
    rig.sync().unwrap();
    append_numbered(&mut rig, frame).unwrap();
    append_numbered(&mut rig, frame + 1).unwrap();
    let last = rig.catalog.segments()[1].clone();
    let written = rig.written.clone();
    disk.crash_process();
    let name = last.name().to_string();
    let whole = disk.read_file(&name).unwrap();
    let mut damaged = whole.clone();
    damaged[HEADER_LEN + 8] ^= 1;
    disk.write_file(&name, &damaged);
    let Err(OpenError::Corrupt(corruption)) = attach(&disk) else { panic!("opened") };
    let (from, to) = corruption.lsns.unwrap();
    assert!(from <= last.base() && to > last.base());
    // Nothing of it had been durable: the same loss is a torn tail.
    disk.write_file(&name, &whole);
    let log = attach(&disk).unwrap();
    Rig::resume(log, &written, written.len());
}

/// The same where a copy of one frame ends at that base: all of it counts, so that what stands behind is not taken to begin earlier.
#[test]
fn a_lost_first_frame_behind_a_copy_is_missed() {
    let disk = SimDisk::new(8);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.sync().unwrap();
    rig.control(ControlFrame::Mark).unwrap();
    rig.append(b"long", &[&[7; 1500]]).unwrap();
    let history = rig.history();
    drop(rig);
    disk.crash_process();
    let mut rig = Rig::recover(&disk, &history);
    assert!(rig.log.report.copied_bytes > 1500, "the long frame was not proven");
    rig.append(b"short", &[]).unwrap();
    rig.sync().unwrap();
    rig.control(ControlFrame::Mark).unwrap();
    let name = rig.log.appender.active().unwrap().name().to_string();
    drop(rig);
    disk.crash_process();
    let mut damaged = disk.read_file(&name).unwrap();
    damaged[HEADER_LEN + 25] ^= 4;
    disk.write_file(&name, &damaged);
    assert!(matches!(attach(&disk), Err(OpenError::Corrupt(_))));
}

/// The header of the segment that was appended to last is gone, and all that proves anything with it, while the slot tells of the
/// standby segment behind it.
#[test]
fn a_lost_header_is_missed() {
    let (disk, mut rig) = unclean(false);
    let active = rig.log.appender.active().unwrap().name();
    let standby = rig.log.file_manager.create_standby(4096, Lsn(0), Reserve::Keep, 0).unwrap();
    assert!(standby.number > active.number().unwrap());
    drop((rig, standby));
    disk.crash_process();
    let name = active.to_string();
    let whole = disk.read_file(&name).unwrap();
    for byte in 0..HEADER_LEN {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        disk.write_file(&name, &damaged);
        match attach(&disk) {
            Err(OpenError::Corrupt(corruption)) => {
                assert_eq!((corruption.file, corruption.offset), (name.clone(), Some(0)))
            }
            other => panic!("byte {byte}: {:?}", other.map(|log| log.report)),
        }
    }
    disk.write_file(&name, &whole[..HEADER_LEN - 1]);
    assert!(matches!(attach(&disk), Err(OpenError::Corrupt(_))));
}

/// A store opened after a power failure that left only later sectors of the unsynced tail: none of them is believed.
#[test]
fn holes_end_the_log() {
    for seed in 0..300 {
        let (disk, rig) = unclean(seed % 2 == 0);
        let history = rig.history();
        drop(rig);
        disk.reseed(seed);
        disk.crash_power(PowerOutcome::EACH[seed as usize % 10]);
        let rig = Rig::recover(&disk, &history);
        assert!(rig.written.len() >= 3);
    }
}
