//! A crash at each request, in each way: the log is a prefix that holds what was durable (G1 to G3), recovering again gives
//! the same, and the next process goes on.

use super::rig::{History, Rig, append_numbered, attach, contents_from};
use crate::disk::sim::{Fault, Op, PowerOutcome, SimDisk};
use crate::ids::Lsn;
use crate::log::format::class::Classes;
use crate::log::{ControlFrame, OpenError};
use std::io;

const CRASHES: [Fault; 3] = [Fault::CrashBefore, Fault::CrashMiddle, Fault::CrashAfter];

/// Two processes' work: rolls, syncs, marks, checkpoints, cuts, a retirement, and two closes.
fn work(disk: &SimDisk) -> History {
    let Ok(log) = attach(disk) else { return History::default() };
    let mut rig = Rig::trusting(log, History::default());
    let first = first_process(&mut rig);
    let history = rig.history();
    drop(rig);
    if first.is_err() {
        return history;
    }
    let Ok(log) = attach(disk) else { return history };
    let mut rig = Rig::trusting(log, history);
    let _ = second_process(&mut rig);
    rig.history()
}

fn first_process(rig: &mut Rig) -> io::Result<()> {
    for frame in 0..18 {
        append_numbered(rig, frame)?;
        match frame {
            4 | 11 => rig.sync()?,
            8 => rig.checkpoint()?,
            13 => rig.tidy()?,
            _ => {}
        }
    }
    rig.sync()?;
    rig.control(ControlFrame::Mark)?;
    rig.sync()?;
    rig.log.file_manager.close(rig.log.appender.end())
}

fn second_process(rig: &mut Rig) -> io::Result<()> {
    for frame in 18..26 {
        append_numbered(rig, frame)?;
    }
    rig.checkpoint()?;
    rig.tidy()?;
    let end = rig.catalog.segments()[0].end();
    let gone = rig.catalog.retire(Lsn(0), end, Classes::BOTH);
    rig.control(ControlFrame::RangeRetired { from: Lsn(0), to: end, classes: Classes::BOTH })?;
    rig.sync()?;
    for segment in gone {
        rig.log.file_manager.remove_segment(&segment)?;
    }
    append_numbered(rig, 26)?;
    rig.checkpoint()?;
    append_numbered(rig, 27)?;
    rig.sync()?;
    append_numbered(rig, 28)?;
    rig.control(ControlFrame::Mark)?;
    append_numbered(rig, 29)?;
    Ok(())
}

/// Opens, looks, opens again, goes on, closes, and opens once more.
fn check(disk: &SimDisk, history: &History) {
    let rig = Rig::recover(disk, history);
    let (first, report) = (rig.written.clone(), rig.log.report.clone());
    drop(rig);
    let mut rig = Rig::open(disk, &first, first.len());
    let again = &rig.log.report;
    assert_eq!((again.end, again.copied_bytes, again.was_clean), (report.end, 0, report.was_clean), "recovered twice");
    for frame in 30..33 {
        append_numbered(&mut rig, frame).unwrap();
    }
    rig.tidy().unwrap();
    let written = rig.close().unwrap();
    let mut rig = Rig::open(disk, &written, written.len());
    assert!(rig.log.previous.clean);
    rig.append(b"more", &[b"more"]).unwrap();
    rig.checkpoint().unwrap();
    rig.close().unwrap();
}

/// The history of a run that meets `fault` at request `at`, and the machine after that.
fn run(at: u64, fault: Fault) -> (SimDisk, History) {
    let disk = SimDisk::new(at);
    disk.fail_at(at, fault);
    let history = work(&disk);
    (disk, history)
}

fn requests() -> u64 {
    let disk = SimDisk::new(0);
    let history = work(&disk);
    assert_eq!(history.written.len(), 30, "the work gets to its end");
    disk.requests()
}

/// After the death of a process nothing that returned is lost; after a power failure nothing that was durable.
#[test]
fn a_crash_at_each_request() {
    for at in 0..requests() {
        for fault in CRASHES {
            let (disk, history) = run(at, fault);
            let process = disk.snapshot();
            process.crash_process();
            check(&process, &History { durable: history.written.len(), ..history.clone() });
            for (seed, outcome) in (1..).zip(PowerOutcome::EACH) {
                let power = disk.snapshot();
                power.reseed(at ^ seed << 32);
                power.crash_power(outcome);
                check(&power, &history);
            }
        }
    }
}

/// F08, F11: a crash at each request of a recovery, after which nothing has changed for the next one: by a process crash
/// or by a power failure.
#[test]
fn a_crash_at_each_request_of_a_recovery() {
    let mut copied = 0;
    for at in (0..requests()).rev().step_by(5) {
        let (disk, history) = run(at, Fault::CrashMiddle);
        disk.crash_process();
        let whole = History { durable: history.written.len(), ..history.clone() };
        let probe = disk.snapshot();
        copied += usize::from(Rig::recover(&probe, &whole).log.report.copied_bytes > 0);
        for request in disk.requests()..probe.requests() {
            for fault in CRASHES {
                let dying = disk.snapshot();
                dying.reseed(request);
                dying.fail_at(request, fault);
                // It may die after its last request, having found all.
                drop(attach(&dying));
                let process = dying.snapshot();
                process.crash_process();
                check(&process, &whole);
                for (seed, outcome) in (1..).zip(PowerOutcome::EACH) {
                    let power = dying.snapshot();
                    power.reseed(request ^ seed << 32);
                    power.crash_power(outcome);
                    check(&power, &history);
                }
            }
        }
    }
    assert!(copied > 10, "{copied} recoveries had something to copy");
}

/// F17, F29: an error at each request stops the process; what was durable stays, and the next process goes on. A failed sync
/// may take back what was not.
#[test]
fn an_error_at_each_request() {
    for at in 0..requests() {
        for fault in [Fault::Io, Fault::NoSpace, Fault::TooManyFiles] {
            let (disk, history) = run(at, fault);
            disk.crash_process();
            check(&disk.snapshot(), &history);
            for (seed, outcome) in (1..).zip(PowerOutcome::EACH) {
                let power = disk.snapshot();
                power.reseed(at ^ seed << 32);
                power.crash_power(outcome);
                check(&power, &history);
            }
        }
    }
}

/// A read error fails the open: it is never taken for an end of the log or for damage. The next open finds all.
#[test]
fn an_error_at_each_request_of_an_open() {
    let disk = SimDisk::new(1);
    let history = work(&disk);
    disk.crash_process();
    let whole = History { durable: history.written.len(), ..history };
    let probe = disk.snapshot();
    Rig::recover(&probe, &whole);
    for request in disk.requests()..probe.requests() {
        for fault in [Fault::Io, Fault::NoSpace, Fault::TooManyFiles, Fault::ShortRead] {
            let failing = disk.snapshot();
            failing.fail_at(request, fault);
            match attach(&failing) {
                Ok(log) => {
                    failing.clear_faults();
                    drop(Rig::resume_after(log, &whole));
                }
                Err(OpenError::Io { .. }) => {}
                Err(other) => panic!("{fault:?} at {request}: {other}"),
            }
            failing.clear_faults();
            check(&failing, &whole);
        }
    }
}

/// F07, F08: crash after crash in one directory, at random places and in random ways.
#[test]
fn crash_after_crash() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let mut rng = crate::disk::sim::Rng::new(seed);
        let mut history = History::default();
        for round in 0..12 {
            disk.fail_at(disk.requests() + rng.below(60), CRASHES[rng.index(3)]);
            if let Ok(log) = attach(&disk) {
                disk.clear_faults();
                let mut rig = Rig::resume_after(log, &history);
                disk.fail_at(disk.requests() + rng.below(60), CRASHES[rng.index(3)]);
                for frame in 0..rng.below(30) as usize {
                    let step = match rng.below(8) {
                        0 => rig.sync(),
                        1 => rig.control(ControlFrame::Mark).map(drop),
                        2 if rng.below(4) == 0 => rig.checkpoint(),
                        2 => rig.tidy(),
                        _ => append_numbered(&mut rig, frame + 100 * round),
                    };
                    if step.is_err() {
                        break;
                    }
                }
                history = rig.history();
            }
            disk.clear_faults();
            if rng.coin() {
                disk.crash_process();
                // An attempt that fails leaves the next process to decide about it, once.
                history.durable = history.written.len();
            } else {
                disk.crash_power(PowerOutcome::EACH[rng.index(10)]);
            }
            let rig = Rig::recover(&disk, &history);
            history = rig.history();
            let all = contents_from(&rig.log.contents.catalog, Lsn(0)).unwrap();
            assert_eq!(all, history.written, "seed {seed} round {round}");
        }
    }
}

/// F17: the next process relies on nothing that a dead one left in the page cache: written and not synced, or clean after a
/// sync that failed. Power failures while it begins show what it relied on.
#[test]
fn a_power_cut_while_the_next_process_begins() {
    let sound = SimDisk::new(0);
    work(&sound);
    let deaths = [Op::Sync, Op::SyncDir].map(|op| [Fault::Io, Fault::CrashBefore].map(|fault| (op, fault)));
    let deaths =
        deaths.concat().into_iter().map(|(op, fault)| (0..sound.requests_of(op)).map(move |at| (op, at, fault)));
    for (op, at, fault) in deaths.flatten() {
        for seed in 0..4 {
            let disk = SimDisk::new(at << 8 | seed);
            disk.fail_op_at(op, at, fault);
            let history = work(&disk);
            disk.crash_process();
            let probe = disk.snapshot();
            let _ = begin(&probe, &history);
            for request in disk.requests()..probe.requests() {
                let next = disk.snapshot();
                next.reseed(at << 16 ^ request << 8 ^ seed);
                next.fail_at(request, Fault::CrashMiddle);
                let history = begin(&next, &history);
                let outcome = PowerOutcome::EACH[(seed * 3 + request) as usize % 10];
                next.crash_power(outcome);
                check(&next, &history);
            }
        }
    }
}

/// Opens, appends and syncs, as far as that goes.
fn begin(disk: &SimDisk, history: &History) -> History {
    let Ok(log) = attach(disk) else { return history.clone() };
    let Ok(found) = contents_from(&log.contents.catalog, log.report.checkpoint_lsn.unwrap_or(Lsn(0))) else {
        return history.clone();
    };
    let recovered = found.last().map_or(log.report.checkpoint_lsn.unwrap_or(Lsn(0)), |last| Lsn(last.lsn.0 + 1));
    let mut all = history.written.clone();
    all.retain(|written| written.lsn < recovered);
    if let Some(last) = found.last().filter(|last| all.last().is_none_or(|written| written.lsn < last.lsn)) {
        all.push(last.clone());
    }
    // What this process has seen is durable from here on.
    let mut rig = Rig::trusting(log, History { durable: all.len(), written: all, attempt: None });
    let _ = append_numbered(&mut rig, 40).and_then(|()| rig.sync());
    rig.history()
}
