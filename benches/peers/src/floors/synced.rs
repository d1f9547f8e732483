//! Payloads written to an allocated file and synced: alone, and by many threads of which one syncs for all.

use crate::payload::{PAYLOAD_LEN, Payload, Tally};
use crate::queue::Result;
use crate::workloads::{Outcome, Scale, from_threads, repeat};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE_LEN: u64 = 64 << 20;

pub(super) fn alone(dir: &Path, scale: Scale) -> Result<Outcome> {
    let file = allocated(dir)?;
    let (count, elapsed) = repeat(scale.messages, 1, scale, |number| {
        file.write_all_at(Payload::new(number).bytes(), number * PAYLOAD_LEN as u64)?;
        Ok(file.sync_data()?)
    })?;
    Ok(Outcome {
        fault: read_back(&file, count)?.fault_against(Tally::of_first(count)),
        ..Outcome::rate(count, elapsed)
    })
}

/// What was not written yet, where it goes, how far the file is synced, and whether somebody is at it.
#[derive(Default)]
struct State {
    unwritten: Vec<u8>,
    end: u64,
    synced: u64,
    is_led: bool,
}

pub(super) fn led(dir: &Path, scale: Scale) -> Result<Outcome> {
    let file = allocated(dir)?;
    let state = Mutex::new(State::default());
    let synced = Condvar::new();
    let (expected, elapsed) = from_threads(scale, |payload| {
        let mut at = state.lock();
        at.unwritten.extend_from_slice(payload);
        at.end += payload.len() as u64;
        let end = at.end;
        while at.synced < end {
            if at.is_led {
                synced.wait(&mut at);
                continue;
            }
            at.is_led = true;
            let (batch, from, through) = (std::mem::take(&mut at.unwritten), at.synced, at.end);
            let done = MutexGuard::unlocked(&mut at, || {
                file.write_all_at(&batch, from)?;
                file.sync_data()
            });
            at.is_led = false;
            synced.notify_all();
            done?;
            at.synced = through;
        }
        Ok(())
    })?;
    Ok(Outcome {
        fault: read_back(&file, expected.count)?.fault_against(expected),
        ..Outcome::rate(expected.count, elapsed)
    })
}

fn allocated(dir: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(dir.join("floor"))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_LEN)?;
    file.sync_all()?;
    Ok(file)
}

fn read_back(file: &File, count: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut payload = [0; PAYLOAD_LEN];
    for number in 0..count {
        file.read_exact_at(&mut payload, number * PAYLOAD_LEN as u64)?;
        tally.add(&payload);
    }
    Ok(tally)
}
