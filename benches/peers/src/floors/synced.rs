//! Payloads written to an allocated file and synced: alone, and by many threads of which one syncs for all.

use crate::machine::Flushes;
use crate::payload::{PAYLOAD_LEN, Payload, Tally};
use crate::queue::Result;
use crate::workloads::{Outcome, Scale, from_threads, repeat};
use parking_lot::{Condvar, Mutex};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const FILE_LEN: u64 = 64 << 20;

pub(super) fn alone(dir: &Path, scale: Scale) -> Result<Outcome> {
    let file = allocated(dir)?;
    let flushes = Flushes::begin(dir);
    let (count, elapsed) = repeat(scale.messages, 1, scale, |number| {
        file.write_all_at(Payload::new(number).bytes(), number * PAYLOAD_LEN as u64)?;
        Ok(file.sync_data()?)
    })?;
    let note = flushes.note(count, "message");
    let fault = read_back(&file, count)?.fault_against(Tally::of_first(count));
    Ok(Outcome { fault, note, ..Outcome::rate(count, elapsed) })
}

/// What was not written yet, and where the file ends with it.
#[derive(Default)]
struct Tail {
    unwritten: Vec<u8>,
    end: u64,
}

/// The file of many threads. A thread that finds nobody at it writes and syncs for all that was appended by then.
struct Led {
    file: File,
    tail: Mutex<Tail>,
    synced: AtomicU64,
    /// Apart from `tail`, so that those who wake do not hold up those who append.
    is_led: Mutex<bool>,
    moved: Condvar,
}

pub(super) fn led(dir: &Path, scale: Scale) -> Result<Outcome> {
    let led = Led {
        file: allocated(dir)?,
        tail: Mutex::default(),
        synced: AtomicU64::new(0),
        is_led: Mutex::new(false),
        moved: Condvar::new(),
    };
    let flushes = Flushes::begin(dir);
    let (expected, elapsed) = from_threads(scale, |payload| led.append(payload))?;
    let note = flushes.note(expected.count, "message");
    let fault = read_back(&led.file, expected.count)?.fault_against(expected);
    Ok(Outcome { fault, note, ..Outcome::rate(expected.count, elapsed) })
}

impl Led {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let end = {
            let mut tail = self.tail.lock();
            tail.unwritten.extend_from_slice(payload);
            tail.end += payload.len() as u64;
            tail.end
        };
        while self.synced.load(Ordering::Acquire) < end {
            let mut is_led = self.is_led.lock();
            if *is_led {
                if self.synced.load(Ordering::Acquire) < end {
                    self.moved.wait(&mut is_led);
                }
                continue;
            }
            *is_led = true;
            drop(is_led);
            let done = self.sync();
            *self.is_led.lock() = false;
            self.moved.notify_all();
            done?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let (batch, end) = {
            let mut tail = self.tail.lock();
            (std::mem::take(&mut tail.unwritten), tail.end)
        };
        self.file.write_all_at(&batch, end - batch.len() as u64)?;
        self.file.sync_data()?;
        self.synced.store(end, Ordering::Release);
        Ok(())
    }
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
