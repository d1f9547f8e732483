//! Maintenance: finishes full segments, writes checkpoints, retires and unlinks what is dead, cleans what is mostly dead.
//!
//! It reads the view and writes files through the file manager. It is not needed for safety: without it the directory grows,
//! and an open replays more. Never here: syncs that somebody waits for, threads (they call [`Engine::maintain`]).

mod age;
mod checkpoint;
mod clean;
mod copy;
mod filters;
mod finish;
pub(super) mod jobs;
mod retire;
mod shrink;
#[cfg(test)]
mod tests;

use self::jobs::passing;
use super::Engine;
use crate::error::{Error, Result};
use crate::ids::MonoMs;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use finish::finish_segments;
pub(super) use shrink::shrink_to_close;

/// After an I/O error a job is left alone for so long.
const PAUSE_MS: u64 = 5_000;

/// What needs room does not keep what gives room back from being done.
const JOBS: [fn(&Engine) -> Result<()>; 10] = [
    age::mark_retention,
    age::drop_old,
    filters::settle_filtered,
    shrink::shrink_at_rest,
    finish::finish_segments,
    checkpoint::checkpoint_if_due,
    retire::retire_dead_segments,
    clean::clean_if_due,
    retire::remove_leftovers,
    Engine::keep_index,
];

/// What maintenance remembers from run to run, and what the writer asks of it.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    /// When each job may run again after an I/O error.
    paused: Mutex<[MonoMs; JOBS.len()]>,
    /// Whether somebody was refused for want of room since there was some.
    wants_room: AtomicBool,
    /// How many pins there are, and how many there ever were.
    pins: AtomicUsize,
    pins_ever: AtomicUsize,
    /// What is known of files that may be cleaned.
    cleaning: Mutex<clean::CleaningNotes>,
    /// What is known of groups with filters.
    filters: Mutex<filters::FilterNotes>,
    /// How many bytes of messages were copied to clean files.
    copied: AtomicU64,
    /// How many of the files that were looked at hold a frame that does not prove itself.
    damaged: AtomicUsize,
}

/// While one is there no segment is retired: a start that was found stays one until the group is created there.
#[derive(Debug)]
pub(super) struct Pin<'a>(&'a Maintenance);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Maintenance {
    /// Says whether room is made also where that is otherwise not worth it.
    pub(super) fn want_room(&self, wanted: bool) {
        self.wants_room.store(wanted, Ordering::Release);
    }

    fn wants_room(&self) -> bool {
        self.wants_room.load(Ordering::Acquire)
    }

    /// Keeps every segment. A thread that locks the core afterwards sees all that was retired before.
    pub(super) fn pin(&self) -> Pin<'_> {
        self.pins.fetch_add(1, Ordering::AcqRel);
        self.pins_ever.fetch_add(1, Ordering::AcqRel);
        Pin(self)
    }

    fn note_cleaned(&self, bytes: u64) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes were copied, and how many files are damaged.
    pub(super) fn in_numbers(&self) -> (u64, usize) {
        (self.copied.load(Ordering::Relaxed), self.damaged.load(Ordering::Relaxed))
    }

    /// As [`Maintenance::pin`], of what reads files and begins nowhere.
    pub(super) fn keep_files(&self) -> Pin<'_> {
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pin(self)
    }

    /// How many pins there ever were: where there is another one, a group may begin at what was settled before.
    fn pins_ever(&self) -> usize {
        self.pins_ever.load(Ordering::Acquire)
    }

    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }
}

impl Engine {
    /// Runs every job of maintenance that is not paused.
    ///
    /// # Errors
    /// As [`Engine::pulse`].
    pub(crate) fn maintain(&self) -> Result<()> {
        self.enter()?;
        let mono = self.clock.monotonic();
        for (nth, job) in JOBS.iter().enumerate() {
            if self.maintenance.paused.lock()[nth] > mono {
                continue;
            }
            let done = passing(job(self));
            if done.is_err() {
                self.may_wait(done)?;
                self.maintenance.paused.lock()[nth] = mono.saturating_add(PAUSE_MS);
            }
        }
        Ok(())
    }

    /// Writes a checkpoint of what is appended now, unless nothing was since the last.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        checkpoint::checkpoint_if_new(self)
    }

    /// Writes two checkpoints of what is appended now, so that with one of them lost the other does not lead back behind it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn checkpoint_twice(&self) -> Result<()> {
        // seam: one checkpoint covers the damage
        (0..2).try_for_each(|_| checkpoint::write_checkpoint(self))
    }
}
