//! What happens every day: appending, rolling, closing, opening, checkpoints, retirement.

use super::rig::{Rig, append_numbered, attach, contents_from};
use crate::disk::sim::{Fault, Op, PowerOutcome, SimDisk};
use crate::ids::{Epoch, Lsn};
use crate::log::format::class::{Class, Classes};
use crate::log::format::control::ControlFrame;
use crate::log::format::name::FileName;
use crate::log::{
    AppendError, BlockCache, FrontCache, OpenError, PartReader, Parts, ReadError, Reserve, for_each_frame,
};

fn writes(disk: &SimDisk) -> u64 {
    [Op::Write, Op::Append, Op::Create, Op::Remove, Op::SetLen, Op::Sync, Op::SyncDir]
        .iter()
        .map(|op| disk.requests_of(*op))
        .sum()
}

#[test]
fn an_empty_directory_becomes_a_store_and_opening_again_writes_nothing() {
    let disk = SimDisk::new(1);
    let log = attach(&disk).unwrap();
    assert_eq!((log.appender.end(), log.appender.epoch().count()), (Lsn(0), 1));
    assert!(log.previous.clean && log.contents.checkpoint.is_none());
    drop(log);
    let before = writes(&disk);
    for _ in 0..2 {
        let mut log = attach(&disk).unwrap();
        assert!(log.report.was_clean);
        log.file_manager.close(log.appender.end()).unwrap();
    }
    assert_eq!(writes(&disk), before);
    disk.crash_power(PowerOutcome::LoseAll);
    assert_eq!(attach(&disk).unwrap().appender.epoch().count(), 1);
}

#[test]
fn what_was_closed_comes_back_and_opening_writes_nothing() {
    let disk = SimDisk::new(2);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..60 {
        append_numbered(&mut rig, frame).unwrap();
    }
    assert!(rig.catalog.segments().len() >= 4, "{}", rig.catalog.segments().len());
    let written = rig.close().unwrap();
    let before = writes(&disk);
    for _ in 0..2 {
        let rig = Rig::open(&disk, &written, written.len());
        assert!(rig.log.previous.clean && rig.log.report.was_clean);
        assert_eq!((rig.log.appender.epoch().count(), rig.log.report.dropped), (2, None));
        rig.close().unwrap();
    }
    assert_eq!(writes(&disk), before);
}

/// Each process begins a segment and an epoch of its own, and none of what came before moves.
#[test]
fn many_processes_one_after_another() {
    let disk = SimDisk::new(3);
    let mut written = Vec::new();
    let mut before = Epoch(0);
    for process in 1..20u32 {
        let mut rig = Rig::open(&disk, &written, written.len());
        let epoch = rig.log.appender.epoch();
        assert_eq!((epoch.count(), rig.log.previous.epoch), (process, before));
        append_numbered(&mut rig, process as usize).unwrap();
        if process % 5 == 0 {
            rig.checkpoint().unwrap();
        }
        rig.tidy().unwrap();
        written = rig.close().unwrap();
        assert_eq!(written.last().unwrap().epoch, epoch);
        before = epoch;
    }
}

#[test]
fn checkpoints_cover_what_they_say_and_two_are_kept() {
    let disk = SimDisk::new(4);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..40 {
        append_numbered(&mut rig, frame).unwrap();
        if frame % 10 == 5 {
            rig.checkpoint().unwrap();
        }
    }
    assert_eq!(rig.log.file_manager.checkpoints().len(), 2);
    let written = rig.close().unwrap();
    let checkpoints: Vec<_> = disk.files().into_iter().filter(|entry| entry.name.ends_with(".ckp")).collect();
    assert_eq!(checkpoints.len(), 2);
    let rig = Rig::open(&disk, &written, written.len());
    let covers = rig.log.contents.checkpoint.as_ref().unwrap().covers;
    assert_eq!(rig.log.report.checkpoint_lsn, Some(covers));
    assert_eq!(contents_from(&rig.log.contents.catalog, Lsn(0)).unwrap(), written);
    drop(rig);
    // F05: the newest one is damaged: the older one and more frames give the same.
    let newest = &checkpoints.iter().map(|entry| entry.name.clone()).max().unwrap();
    let whole = disk.read_file(newest).unwrap();
    for len in (0..whole.len()).step_by(9) {
        disk.write_file(newest, &whole[..len]);
        let rig = Rig::open(&disk, &written, written.len());
        assert!(rig.log.report.checkpoint_lsn.unwrap() < covers);
    }
}

/// A frame never crosses a segment; one that is longer than segments are gets a segment of its length.
#[test]
fn long_frames_get_long_segments_and_too_long_ones_are_refused() {
    let disk = SimDisk::new(5);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 3).unwrap();
    rig.append(b"long", &[&[7; 100_000]]).unwrap();
    rig.append(b"next", &[b"short"]).unwrap();
    let end = rig.log.appender.end();
    let huge = vec![0; 33 << 20];
    let parts = Parts { bytes: &huge, ends: &[33 << 20], crcs: &[0] };
    assert!(matches!(rig.log.appender.append(b"", parts, Lsn(0), Reserve::Keep), Err(AppendError::TooLarge { .. })));
    assert!(matches!(
        rig.log.appender.append(&huge[..5 << 20], Parts::default(), Lsn(0), Reserve::Keep),
        Err(AppendError::TooLarge { .. })
    ));
    let crossed = Parts { bytes: b"abc", ends: &[2, 1, 3], crcs: &[0, 0, 0] };
    assert!(matches!(rig.log.appender.append(b"", crossed, Lsn(0), Reserve::Keep), Err(AppendError::Io(_))));
    assert_eq!(rig.log.appender.end(), end);
    let written = rig.close().unwrap();
    Rig::open(&disk, &written, written.len());
}

/// Parts that are skipped must be there all the same.
#[test]
fn a_file_that_ends_within_the_last_parts_is_damaged() {
    let disk = SimDisk::new(25);
    let mut rig = Rig::open(&disk, &[], 0);
    rig.append(b"long", &[&[b'x'; 50_000]]).unwrap();
    rig.close().unwrap();
    let log = attach(&disk).unwrap();
    let segment = log.contents.catalog.segments().last().unwrap();
    let name = segment.name().to_string();
    let whole = disk.read_file(&name).unwrap();
    let walk = || {
        let mut seen = false;
        let walked = for_each_frame::<ReadError>(segment, segment.base(), &mut |frame| {
            seen |= frame.head() == b"long";
            Ok(())
        });
        (seen, walked.is_ok())
    };
    assert_eq!(walk(), (true, true));
    let last = whole.iter().rposition(|byte| *byte == b'x').unwrap();
    disk.write_file(&name, &whole[..last]);
    assert_eq!(walk(), (false, false));
}

/// W enters a segment only when the one before is durable, and no third unsynced one begins.
#[test]
fn at_most_two_segments_are_unsynced() {
    let disk = SimDisk::new(6);
    let mut rig = Rig::open(&disk, &[], 0);
    let mut refusals = 0;
    let filler = vec![1; 3000];
    for _ in 0..12 {
        let parts = Parts { bytes: &filler, ends: &[3000], crcs: &[crate::log::format::checksum::crc(0, &filler)] };
        match rig.log.appender.append(b"h", parts, Lsn(0), Reserve::Keep) {
            Ok(_) => {}
            Err(AppendError::NeedSync { upto }) => {
                refusals += 1;
                let end = rig.log.appender.end();
                let again = rig.log.appender.append(b"h", parts, Lsn(0), Reserve::Keep);
                assert!(matches!(again, Err(AppendError::NeedSync { upto: same }) if same == upto));
                assert_eq!(rig.log.appender.end(), end, "a refusal changes nothing");
                // One file each, the older first; only the first is waited for.
                for reaches in if refusals == 1 { vec![upto] } else { vec![upto, end] } {
                    let before = disk.requests_of(Op::Sync);
                    let synced = rig.log.appender.sync_job().unwrap().run().unwrap();
                    assert_eq!((synced, disk.requests_of(Op::Sync) - before), (reaches, 1));
                    rig.log.appender.synced(synced);
                }
                assert_eq!(rig.log.appender.sync_job().is_none(), refusals != 1);
            }
            Err(AppendError::NeedStandby { len, .. }) => {
                let standby = rig.log.file_manager.create_standby(len, Lsn(0), Reserve::Keep, 0).unwrap();
                assert!(rig.log.appender.add_standby(standby).is_none());
                assert_eq!(rig.log.appender.standby_wanted(), None);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refusals >= 2);
}

/// Marks carry the watermark, ask for no sync, and leave no trace in the next process.
#[test]
fn an_idle_process_that_dies_leaves_nothing_to_copy() {
    let disk = SimDisk::new(7);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.sync().unwrap();
    let end = rig.log.appender.end();
    rig.control(ControlFrame::Mark).unwrap();
    assert!(rig.log.appender.wanted() < rig.log.appender.end() && rig.log.appender.sync_job().is_some());
    let written = rig.written.clone();
    disk.crash_process();
    let before = writes(&disk);
    let mut rig = Rig::open(&disk, &written, 1);
    let report = &rig.log.report;
    assert_eq!((report.end, report.watermark, report.copied_bytes, report.dropped), (end, end, 0, None));
    assert!(!report.was_clean);
    assert_eq!(writes(&disk), before);
    append_numbered(&mut rig, 2).unwrap();
    let written = rig.close().unwrap();
    Rig::open(&disk, &written, 2);
}

/// A process that only looked does not make an unclean end clean: the next one that appends must know.
#[test]
fn looking_does_not_make_clean() {
    let disk = SimDisk::new(8);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    let written = rig.written.clone();
    disk.crash_process();
    for _ in 0..2 {
        let rig = Rig::open(&disk, &written, 1);
        assert!(!rig.log.previous.clean);
        rig.close().unwrap();
    }
}

/// F11: what a process saw after the death of another survives the power failure that follows.
#[test]
fn what_recovery_served_is_durable() {
    for outcome in PowerOutcome::EACH {
        let disk = SimDisk::new(9);
        let mut rig = Rig::open(&disk, &[], 0);
        for frame in 0..25 {
            append_numbered(&mut rig, frame).unwrap();
        }
        let (written, durable) = (rig.written.clone(), rig.durable);
        disk.crash_process();
        let rig = Rig::open(&disk, &written, written.len());
        assert!(durable < written.len() && rig.log.report.copied_bytes > 0);
        disk.crash_power(outcome);
        let rig = Rig::open(&disk, &written, written.len());
        assert_eq!(rig.log.report.copied_bytes, 0, "{outcome:?}");
        assert_eq!(rig.log.report.dropped, None);
    }
}

/// A retirement that is durable allows files to be absent; without one they are missed.
#[test]
fn retired_segments_may_be_absent() {
    let disk = SimDisk::new(10);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..60 {
        append_numbered(&mut rig, frame).unwrap();
    }
    rig.checkpoint().unwrap();
    append_numbered(&mut rig, 60).unwrap();
    rig.checkpoint().unwrap();
    let (first, end) = (rig.catalog.segments()[0].number(), rig.catalog.segments()[1].end());
    let unretired = disk.snapshot();
    let gone = rig.catalog.retire(Lsn(0), end, Classes::BOTH);
    assert_eq!(gone.len(), 2);
    rig.control(ControlFrame::RangeRetired { from: Lsn(0), to: end, classes: Classes::BOTH }).unwrap();
    rig.sync().unwrap();
    for segment in gone {
        rig.log.file_manager.remove_segment(&segment).unwrap();
    }
    let again = disk.snapshot();
    rig.checkpoint().unwrap();
    let written = rig.close().unwrap();
    for disk in [disk, again] {
        let rig = Rig::open(&disk, &written, written.len());
        for class in Class::EACH {
            assert_eq!(rig.log.contents.catalog.retired().of(class), [(Lsn(0), end)]);
        }
        assert!(rig.log.contents.catalog.segment(first).is_none());
    }
    assert!(unretired.remove_file(&FileName::Segment(first).to_string()));
    let Err(OpenError::Corrupt(corruption)) = attach(&unretired) else { panic!("opened") };
    assert_eq!(corruption.file, FileName::Segment(first).to_string());
    assert!(corruption.lsns.is_some_and(|(from, to)| from == Lsn(0) && to > from));
}

/// Every message of every frame can be read by its place, from open segments and from closed ones.
#[test]
fn parts_are_read_by_their_places() {
    let disk = SimDisk::new(11);
    let mut rig = Rig::open(&disk, &[], 0);
    let mut frames: Vec<usize> = (0..40).collect();
    for frame in &frames {
        append_numbered(&mut rig, *frame).unwrap();
    }
    let large: Vec<Vec<u8>> = (0..40u8).map(|index| vec![index; 1000 + usize::from(index)]).collect();
    let large: Vec<&[u8]> = large.iter().map(Vec::as_slice).collect();
    rig.append(b"large", &large).unwrap();
    frames.push(40);
    rig.sync().unwrap();
    let (cache, fronts) = (BlockCache::new(1 << 20), FrontCache::new(1 << 20));
    // One that goes on from where it was, in order and backwards, and one that is new for every frame.
    let mut going_on = PartReader::<()>::default();
    for round in 0..2 {
        let places: Vec<_> = frames.iter().zip(&rig.places).collect();
        for (frame, (number, at)) in places.iter().chain(places.iter().rev()) {
            let segment = rig.catalog.segment(*number).unwrap();
            let written = &rig.written[**frame];
            for reader in [&mut going_on, &mut PartReader::<()>::default()] {
                for (index, expected) in (0..).zip(&written.parts) {
                    let read = reader.read((&cache, &fronts), segment, *at, index, 1).unwrap();
                    assert_eq!((read.lsn, read.epoch), (written.lsn, written.epoch));
                    assert_eq!((read.head, read.bytes), (&written.head[..], &expected[..]), "{round}");
                }
                let beyond = written.parts.len() as u32;
                assert!(reader.read((&cache, &fronts), segment, *at, beyond, 1).is_err());
                assert!(reader.read((&cache, &fronts), segment, *at + 8, 0, 1).is_err());
                assert!(reader.read((&cache, &fronts), segment, u32::MAX - 7, 0, 1).is_err());
            }
        }
        rig.tidy().unwrap();
    }
    let cut = rig.catalog.segments()[0].clone();
    assert!(cut.is_closed());
    let entry = disk.files().into_iter().find(|entry| entry.name == cut.name().to_string()).unwrap();
    assert_eq!(entry.len, cut.limit());
}

/// The same through a copy made by recovery, where LSNs are carried.
#[test]
fn parts_of_copied_frames_are_read_by_their_places() {
    let disk = SimDisk::new(12);
    let mut rig = Rig::open(&disk, &[], 0);
    for frame in 0..25 {
        append_numbered(&mut rig, frame).unwrap();
    }
    let written = rig.written.clone();
    disk.crash_process();
    let rig = Rig::open(&disk, &written, written.len());
    let (cache, fronts) = (BlockCache::new(1 << 20), FrontCache::new(1 << 20));
    let mut reader = PartReader::<()>::default();
    let mut seen = 0;
    for segment in rig.catalog.segments() {
        let mut places = Vec::new();
        rig.catalog
            .replay(segment.base(), &mut |frame, of| -> Result<(), crate::log::ReadError> {
                if of.number() == segment.number() && !frame.is_log() {
                    places.push((frame.at, frame.lsn));
                }
                Ok(())
            })
            .unwrap();
        for (at, lsn) in places {
            let written = written.iter().find(|written| written.lsn == lsn).unwrap();
            for (index, expected) in (0..).zip(&written.parts) {
                let read = reader.read((&cache, &fronts), segment, at, index, 1).unwrap();
                assert_eq!((read.lsn, read.bytes), (lsn, &expected[..]));
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 25);
}

/// G14: a full disk refuses a segment, changes nothing, and is over when there is room.
#[test]
fn a_full_disk_is_a_refusal() {
    let disk = SimDisk::new(13);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    disk.set_capacity(Some(30_000));
    let mut error = None;
    for frame in 2..60 {
        if let Err(found) = append_numbered(&mut rig, frame) {
            error = Some((frame, found));
            break;
        }
    }
    let (frame, error) = error.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(!rig.log.file_manager.is_failed());
    disk.set_capacity(None);
    append_numbered(&mut rig, frame).unwrap();
    let written = rig.close().unwrap();
    Rig::open(&disk, &written, written.len());
}

/// A frame that would begin a segment meets a full disk where appending is a call: the log goes on in the segment before, and
/// what the failed append left counts for nothing, also after a crash.
#[test]
fn a_segment_that_could_not_begin_is_none() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut rig = Rig::open(&disk, &[], 0);
        let (small, large) = ([7; 40], [8; 3000]);
        rig.append(b"large", &[&large]).unwrap();
        let rolls = rig.log.appender.active().map(|segment| segment.number());
        disk.fail_op_at(Op::Append, disk.requests_of(Op::Append) + 1, Fault::NoSpace);
        assert_eq!(rig.append(b"begins", &[&large]).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        rig.attempt = None;
        rig.append(b"goes on", &[&small]).unwrap();
        assert_eq!(rig.log.appender.active().map(|segment| segment.number()), rolls, "in the segment before");
        let mut history = rig.history();
        history.durable = history.written.len();
        drop(rig);
        disk.crash_process();
        Rig::recover(&disk, &history);
    }
}

/// G13: after a failed sync the file manager does nothing more.
#[test]
fn a_failed_sync_ends_the_keeper() {
    let disk = SimDisk::new(14);
    let mut rig = Rig::open(&disk, &[], 0);
    disk.fail_op_at(Op::Sync, disk.requests_of(Op::Sync) + 1, Fault::Io);
    assert!(append_numbered(&mut rig, 1).is_err());
    assert!(rig.log.file_manager.is_failed());
    let before = writes(&disk);
    assert!(append_numbered(&mut rig, 1).is_err());
    assert!(rig.log.file_manager.close(Lsn(0)).is_err());
    assert_eq!(writes(&disk), before);
}

/// G13: the sync of the directory that makes `STORE` certain failed, and later ones have nothing to do: the next process makes
/// another `STORE`.
#[test]
fn a_store_whose_name_could_not_be_made_certain_gets_a_new_one() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.fail_op_at(Op::SyncDir, 0, Fault::Io);
        assert!(matches!(attach(&disk), Err(OpenError::Io { .. })));
        disk.crash_process();
        let mut rig = Rig::open(&disk, &[], 0);
        append_numbered(&mut rig, 1).unwrap();
        rig.sync().unwrap();
        let written = rig.written.clone();
        drop(rig);
        disk.crash_power(PowerOutcome::LoseAll);
        Rig::open(&disk, &written, 1);
    }
}

/// What a dead process left behind goes only once this one's first frame is durable, and never what a slot names.
#[test]
fn leftovers_go_when_their_end_is_durable() {
    let disk = SimDisk::new(15);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.sync().unwrap();
    let standby = rig.log.file_manager.create_standby(4096, rig.log.appender.durable(), Reserve::Keep, 0).unwrap();
    let left = FileName::Segment(standby.number).to_string();
    let written = rig.written.clone();
    drop(standby);
    disk.crash_process();
    let mut rig = Rig::open(&disk, &written, 1);
    assert_eq!(rig.log.report.leftovers, 1);
    let is_there = |name: &String| disk.files().iter().any(|entry| entry.name == *name);
    let end = rig.log.appender.end();
    assert_eq!(rig.log.file_manager.remove_leftovers(end).unwrap(), 1);
    append_numbered(&mut rig, 2).unwrap();
    assert_eq!(rig.log.file_manager.remove_leftovers(rig.log.appender.durable()).unwrap(), 1);
    assert!(is_there(&left));
    rig.sync().unwrap();
    // A standby segment that another one supersedes: the smaller one, though it is the newest.
    let large = rig.log.file_manager.create_standby(8192, end, Reserve::Keep, 0).unwrap();
    let small = rig.log.file_manager.create_standby(4096, end, Reserve::Keep, 0).unwrap();
    let newest = FileName::Segment(small.number).to_string();
    assert!(rig.log.appender.add_standby(large).is_none());
    let superseded = rig.log.appender.add_standby(small).unwrap();
    rig.log.file_manager.discard_standby(superseded);
    assert_eq!(rig.log.file_manager.remove_leftovers(rig.log.appender.durable()).unwrap(), 1);
    assert!(!is_there(&left) && is_there(&newest));
    let written = rig.written.clone();
    disk.crash_process();
    Rig::open(&disk, &written, 2);
}

/// A checkpoint counts once a slot names it: before that it may lie in the page cache alone, clean after a failed sync.
#[test]
fn a_checkpoint_that_failed_to_sync_is_none() {
    let disk = SimDisk::new(16);
    let mut rig = Rig::open(&disk, &[], 0);
    append_numbered(&mut rig, 1).unwrap();
    rig.sync().unwrap();
    disk.fail_op_at(Op::Sync, disk.requests_of(Op::Sync) + 1, Fault::Io);
    assert!(rig.checkpoint().is_err() && rig.log.file_manager.is_failed());
    let written = rig.written.clone();
    disk.crash_process();
    let rig = Rig::open(&disk, &written, 1);
    assert_eq!((rig.log.report.checkpoint_lsn, rig.log.file_manager.checkpoints().len()), (None, 0));
}

/// Where the epochs of the log began is known, from a checkpoint and from what stands behind it, whatever came of the processes. A
/// process that appended nothing that stayed has none.
#[test]
fn epochs_of_the_log_are_kept() {
    let disk = SimDisk::new(31);
    let (mut written, mut expected) = (Vec::new(), Vec::new());
    for process in 0..12 {
        let mut rig = Rig::open(&disk, &written, written.len());
        assert_eq!(rig.log.contents.catalog.epochs(), expected, "before process {process}");
        if process % 4 == 3 {
            // It says nothing that is worth keeping.
            rig.control(ControlFrame::Mark).unwrap();
            drop(rig);
            disk.crash_process();
            continue;
        }
        let begun = rig.log.appender.end();
        for frame in 0..20 {
            append_numbered(&mut rig, process * 20 + frame).unwrap();
        }
        expected.push((begun, rig.log.appender.epoch()));
        assert_eq!(rig.catalog.epochs(), expected);
        if process % 4 == 1 {
            rig.checkpoint().unwrap();
            append_numbered(&mut rig, 1000 + process).unwrap();
        }
        if process % 2 == 0 {
            written = rig.close().unwrap();
        } else {
            // Recovery has something to copy.
            written = rig.written.clone();
            drop(rig);
            disk.crash_process();
        }
    }
}
