//! The flusher, as a plain function: `pulse` syncs the log and prepares what the next appends need.
//!
//! It is not needed for safety: a caller that needs a segment or a sync does that job itself. Never here: threads (they call
//! such functions), checkpoints and unlinking (`maintenance`).

use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::core::Core;
use crate::error::{Error, Result};
use crate::ids::{Lsn, MonoMs, WallMs};
use crate::log::{AppendError, ControlFrame, FileName, Parts, Reserve};
use crate::state::Command;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, yield_now};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A wall clock that moved this much more or less than the monotonic one has jumped.
const JUMP_MS: u64 = 1_000;

/// How much of the log's way memory is got ready for: twice what the last tick appended, within these bounds.
const AHEAD_LEN: RangeInclusive<u64> = 1 << 20..=32 << 20;

/// After this much log a tick begins early: a segment is to be durable before the one after it is full, else a publisher waits.
const BEAT_LEN_MAX: u64 = 16 << 20;

/// How long nothing was appended when the threads come to rest.
const REST_AFTER_MS: u64 = 1_000;

/// How often a thread at rest looks whether there is something to do after all: what a full disk kept from being done.
const REST_INTERVAL: Duration = Duration::from_secs(1);

/// A lack of room, memory or descriptors is no failure of a job: the call that needs them returns the error, and the next tick tries again.
pub(in crate::engine) fn passing(done: Result<()>) -> Result<()> {
    match done {
        Err(lack) if lack.is_passing() => Ok(()),
        other => other,
    }
}

/// When the threads run, and what the last tick saw of the clocks and did ahead.
#[derive(Debug)]
pub(crate) struct Jobs {
    signal: Mutex<Signal>,
    flusher_woken: Condvar,
    maintenance_woken: Condvar,
    clocks: Mutex<(MonoMs, WallMs)>,
    /// By how much the wall clock is ahead of the monotonic one, as of the last jump that was noted, or the last tick without one.
    wall_less_mono: AtomicU64,
    /// Since when the clocks have agreed.
    agreed_since: AtomicU64,
    ahead: Mutex<Ahead>,
}

/// One of the two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum JobThread {
    Flusher,
    Maintenance,
}

/// What the threads are told.
#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    /// Nothing is to be done until something is appended.
    rests: bool,
    /// How often they were woken, and how often the flusher alone.
    wakes: u64,
    flusher_wakes: u64,
}

/// For which bytes memory was got ready.
#[derive(Debug, Default)]
struct Ahead {
    /// The end of the log at the last tick.
    end: Lsn,
    /// Up to which place of the growing segment, and of the standby segment.
    upto: [Option<(FileName, u64)>; 2],
}

impl Jobs {
    /// What the clocks say when the store opens is what the first jump is measured against.
    pub(in crate::engine) fn new(clock: &dyn Clock) -> Self {
        let (mono, wall) = (clock.monotonic(), clock.wall());
        let clocks = Mutex::new((mono, wall));
        let wall_less_mono = AtomicU64::new(wall.0.wrapping_sub(mono.0));
        let agreed_since = AtomicU64::new(mono.0);
        Self {
            signal: Mutex::default(),
            flusher_woken: Condvar::new(),
            maintenance_woken: Condvar::new(),
            clocks,
            wall_less_mono,
            agreed_since,
            ahead: Mutex::default(),
        }
    }

    /// Since when the wall clock has gone on as the monotonic one did.
    pub(in crate::engine) fn agreed_since(&self) -> MonoMs {
        MonoMs(self.agreed_since.load(Ordering::Acquire))
    }

    /// What the wall clock would say but for a jump that is not noted yet.
    #[inline]
    pub(in crate::engine) fn steady(&self, mono: MonoMs) -> WallMs {
        WallMs(mono.0.wrapping_add(self.wall_less_mono.load(Ordering::Acquire)))
    }

    /// Ends the rest, and the wait of every thread: the next one of those that do not wait now.
    pub(in crate::engine) fn wake(&self) {
        let mut signal = self.signal.lock();
        signal.rests = false;
        signal.wakes = signal.wakes.wrapping_add(1);
        drop(signal);
        self.flusher_woken.notify_all();
        self.maintenance_woken.notify_all();
    }

    /// As [`Jobs::wake`], for the flusher alone: somebody waits for a sync, or something is due sooner than it knows.
    pub(in crate::engine) fn wake_flusher(&self) {
        let mut signal = self.signal.lock();
        signal.flusher_wakes = signal.flusher_wakes.wrapping_add(1);
        drop(signal);
        self.flusher_woken.notify_all();
    }

    /// Asks the threads to end.
    pub(in crate::engine) fn stop(&self) {
        self.signal.lock().stop = true;
        self.flusher_woken.notify_all();
        self.maintenance_woken.notify_all();
    }

    /// Lets the next waits be long, until somebody wakes the jobs.
    fn rest(&self) {
        self.signal.lock().rests = true;
    }

    #[cfg(any(test, feature = "simulation"))]
    /// Whether the threads rest.
    pub(crate) fn rests(&self) -> bool {
        self.signal.lock().rests
    }

    /// Waits for `interval`, longer at rest, or for a wake-up; not at all after one since the thread's last wait, whose count of
    /// them is `seen`. `false` when it is time to end.
    pub(in crate::engine) fn wait(&self, thread: JobThread, interval: Duration, seen: &mut u64) -> bool {
        let (woken, also) = match thread {
            JobThread::Flusher => (&self.flusher_woken, true),
            JobThread::Maintenance => (&self.maintenance_woken, false),
        };
        let wakes = |signal: &Signal| signal.wakes.wrapping_add(if also { signal.flusher_wakes } else { 0 });
        let mut signal = self.signal.lock();
        if !signal.stop && wakes(&signal) == *seen {
            let interval = if signal.rests { interval.max(REST_INTERVAL) } else { interval };
            woken.wait_for(&mut signal, interval);
        }
        *seen = wakes(&signal);
        !signal.stop
    }
}

impl Engine {
    /// One tick: syncs what is due, leaves a mark when idle, prepares the next segment, notices a jump of the clock.
    ///
    /// # Errors
    /// The store's; a lack of room, memory or descriptors is no error here, for the call that needs them returns it.
    pub(crate) fn pulse(&self) -> Result<()> {
        let entered = self.enter();
        // A store may be stopped under locks, where no future is woken.
        #[cfg(feature = "async")]
        if entered.is_err() {
            self.wake_durable();
        }
        entered?;
        self.may_wait(self.look_at_files())?;
        passing(self.note_clock_jump())?;
        self.extend_kept()?;
        self.deliver_due()?;
        let (due, idle, wanted) = {
            let mut core = self.lock_core();
            let watermark = self.commit.watermark();
            let (due, end) = (core.appender.wanted(), core.appender.end());
            // At rest the next append is to wake the threads, also during this tick.
            if core.wake_beyond != end {
                core.wake_beyond = end.saturating_add(BEAT_LEN_MAX);
            }
            (due, due <= watermark, core.appender.standby_wanted())
        };
        if let Some(len) = wanted {
            self.may_wait(self.make_standby(len, len.min(crate::engine::reserve::SMALL_LEN), Reserve::Keep))?;
        }
        self.prepare_ahead();
        // A consumer that was woken meanwhile does not wait until the sync has begun as well.
        yield_now();
        if idle {
            // seam: a mark without room stops the store
            passing(self.leave_mark())?
        } else {
            self.wait_durable(due)?
        }
        self.rest_when_idle();
        Ok(())
    }

    /// Lets the threads rest where nothing was appended for a while, all is done, and nothing depends on the wall clock. The
    /// next append wakes them.
    fn rest_when_idle(&self) {
        let mono = self.clock.monotonic();
        let mut core = self.lock_core();
        let Core { appender, checkpoint, view, .. } = &*core;
        let (end, watermark) = (appender.end(), self.commit.watermark());
        let quiet = checkpoint.end_seen == appender.wanted()
            && mono.0.saturating_sub(checkpoint.end_seen_at.0) >= REST_AFTER_MS;
        let done =
            appender.wanted() <= watermark && !appender.mark_wanted(watermark) && appender.standby_wanted().is_none();
        if quiet && done && !view.state.has_due_times() && self.kept.next().is_none() {
            core.wake_beyond = end;
            self.jobs.rest();
        }
    }

    /// Gets memory ready for what will be appended until the next tick, so that no append waits for that. Not where syncs are
    /// frequent: there the pages are to stay small.
    fn prepare_ahead(&self) {
        if self.setup.durable_only {
            return;
        }
        let (end, places) = {
            let core = self.lock_core();
            (core.appender.end(), core.appender.ahead())
        };
        let mut ahead = self.jobs.ahead.lock();
        let grown = end.0.saturating_sub(ahead.end.0);
        if grown == 0 {
            return;
        }
        ahead.end = end;
        let mut left = grown.saturating_mul(2).clamp(*AHEAD_LEN.start(), *AHEAD_LEN.end());
        let before = std::mem::take(&mut ahead.upto);
        for (upto, place) in ahead.upto.iter_mut().zip(places) {
            let Some((name, range)) = place else { continue };
            let known =
                before.iter().flatten().find(|(known, _)| *known == name).map_or(range.start, |(_, upto)| *upto);
            let target = range.end.min(range.start.saturating_add(left));
            left -= target.saturating_sub(range.start);
            let from = known.max(range.start);
            *upto = Some((name, target.max(from)));
            // Nothing depends on it: where it fails, appending waits.
            let _ = self.disk.prepare(&name.to_string(), from..target);
        }
    }

    /// What a step of a job gave: a lack of something passes, and so does an I/O error that has not stopped the store. Whatever the log
    /// rests on has stopped it where it failed; this was a file that can wait.
    pub(in crate::engine) fn may_wait(&self, done: Result<()>) -> Result<()> {
        match passing(done) {
            Err(Error::Io { .. }) if self.health.check().is_ok() => Ok(()),
            other => other,
        }
    }

    /// Looks whether the files that are written to are the store's alone. One that others have links to, as a backup makes them, is
    /// left to them. One that has lost its name is lost with all that is written to it: the store stops.
    fn look_at_files(&self) -> Result<()> {
        // Another thread holds the file manager; the next tick checks.
        let Some(mut file_manager) = self.file_manager.try_lock() else { return Ok(()) };
        if let Ok(available) = file_manager.available() {
            self.note_room(&mut self.lock_core(), available);
        }
        // The segments first: leaving one needs no room, as a new `STORE` does.
        let files: Vec<_> = self.lock_core().appender.files().collect();
        let mut looked = Ok(());
        for (name, file) in files {
            match file.links() {
                // seam: a lost segment goes unnoticed
                Ok(0) => return Err(self.lost(name)),
                Ok(links) if links > 1 => {
                    if let Some(standby) = self.lock_core().appender.leave(name) {
                        file_manager.discard_standby(standby);
                    }
                }
                Ok(_) => {}
                Err(error) => looked = looked.and(Err(Error::io("look at a segment", error))),
            }
        }
        match file_manager.leave_links() {
            Ok(true) => looked,
            Ok(false) => Err(self.lost(FileName::Store)),
            Err(error) => looked.and(Err(self.file_manager_error(&file_manager, error))),
        }
    }

    fn lost(&self, name: FileName) -> Error {
        self.fail(&format!("the file {name} was removed or renamed while the store was open"))
    }

    /// Writes the watermark into the log if no frame has carried it yet, so that damage below it can be told from a torn
    /// tail. Asks for no sync.
    fn leave_mark(&self) -> Result<()> {
        let mut core = self.lock_core();
        self.health.check()?;
        let watermark = self.commit.watermark();
        if !core.appender.mark_wanted(watermark) {
            return Ok(());
        }
        match core.append_control(ControlFrame::Mark, watermark) {
            // A mark is worth no new segment and no sync.
            Ok(_) | Err(AppendError::NeedStandby { .. } | AppendError::NeedSync { .. }) => Ok(()),
            Err(error) => {
                drop(core);
                self.make_way(error)
            }
        }
    }

    /// Records a jump of the wall clock, so that no delay grows by it.
    fn note_clock_jump(&self) -> Result<()> {
        let (mono, wall) = (self.clock.monotonic(), self.clock.wall());
        let (mono_before, wall_before) = std::mem::replace(&mut *self.jobs.clocks.lock(), (mono, wall));
        let expected = wall_before.0.saturating_add(mono.0.saturating_sub(mono_before.0));
        let note = || self.jobs.wall_less_mono.store(wall.0.wrapping_sub(mono.0), Ordering::Release);
        if expected.abs_diff(wall.0) >= JUMP_MS {
            self.jobs.agreed_since.store(mono.0, Ordering::Release);
        }
        // A process that only looks writes nothing, unless something would wait longer for it.
        // seam: a clock jump is not noticed
        if expected.abs_diff(wall.0) < JUMP_MS || !self.lock_core().view.state.counts_time() {
            note();
            return Ok(());
        }
        // Under the lock, so that the record and what is measured against it change together.
        let noted = self.submit(&Command::NoteClockJump, Parts::default(), |_, _| note());
        let noted = noted.and_then(|noted| noted.map_err(|rejection| self.rejected(rejection)));
        if noted.is_err() {
            // The next tick sees it again. What is due by the new clock is ready all the same.
            *self.jobs.clocks.lock() = (mono_before, wall_before);
            self.lock_core().waiters.wake_each();
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Outgoing, Setup};
    use crate::ids::PartitionId;
    use crate::record::TopicOptions;
    use std::sync::Arc;

    /// The threads do not sleep out their interval while much waits for a sync, and every tick sees to that anew.
    #[test]
    fn a_beat_begins_early_where_much_waits() {
        let setup = Setup::quiet(64 << 20);
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, setup, Arc::new(SimClock::new(WallMs(1)))).unwrap();
        engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let publish = || {
            let mut outgoing = Outgoing::default();
            outgoing.add(PartitionId(0), None, std::iter::empty(), &[7; 1000], 1 << 20).unwrap();
            engine.publish(&outgoing).unwrap().unwrap();
        };
        let wakes = || engine.jobs.signal.lock().wakes;
        for _ in 0..3 {
            engine.pulse().unwrap();
            let before = wakes();
            let room = {
                let core = engine.lock_core();
                core.wake_beyond.0 - core.appender.end().0
            };
            // But for the mark that the tick may have left.
            assert!((BEAT_LEN_MAX - 100..=BEAT_LEN_MAX).contains(&room), "{room}");
            publish();
            assert_eq!(wakes(), before, "little waits");
            // As if only half a message had been missing.
            engine.lock_core().wake_beyond.0 -= BEAT_LEN_MAX - 1500;
            publish();
            assert_eq!(wakes(), before + 1);
            publish();
            assert_eq!(wakes(), before + 1, "they know");
        }
    }
}
