//! Cleaning: what must stay of files that are mostly settled goes into a file of its class, and the files go. Here it is decided which.
//!
//! A file is worth it where half of its bytes or more are settled, so that no copy costs more than it gives back, and files take at
//! most twice what must stay. (Rosenblum and Ousterhout, "The design and implementation of a log-structured file system", 1992, weigh
//! age as well; a file of which something was settled since the last look is left alone instead.) Small files of a class that follow each
//! other become one. Never here: copying, and which messages must stay.

use super::copy::Range;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{FileNumber, Lsn, MonoMs, Offset, PartitionId};
use crate::log::{Catalog, Class, Classes, Index, Segment, class_frame_len};
use crate::state::LiveMessages;
use crate::sync::atomic::Ordering;
use crate::view::{LiveParts, Stay};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long files are left alone after a look that found nothing to do, and a file of which something was settled, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;
/// Such looks take at most this part of the time.
const LOOK_SHARE: u64 = 50;
/// And cleaning this part, so that others have most of the disk.
const CLEAN_SHARE: u64 = 4;
/// One look reads at most so many segments' worth of the log to count the bytes of what must stay.
const COUNT_SEGMENTS: u64 = 4;
/// A file of a class that is smaller than this part of a segment is small.
const SMALL_SHARE: u64 = 8;
/// So many small files of a class that follow each other become one: each byte is copied once more whenever files have become eight
/// times as long.
const SMALL_FILES: usize = 8;
/// The most files that become one.
const RUN_FILES_MAX: usize = 64;
/// The most epochs that those may have together: the table of a file has no room for more.
const RUN_EPOCHS_MAX: usize = 65_535;

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct CleaningNotes {
    next_look: MonoMs,
    /// As of a look that left nothing to do.
    idle_at: Idle,
    files: BTreeMap<FileNumber, FileNote>,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default)]
struct FileNote {
    /// What had to stay at the last look, and since when.
    stay: Stay,
    since: MonoMs,
    /// How many bytes the same takes, if they were counted.
    bytes: Option<u64>,
    /// Whether a frame of it does not prove itself: it stays as it is.
    is_damaged: bool,
}

/// The files as they were at one moment, and what had to stay of them.
pub(super) struct CleaningLook {
    catalog: Catalog,
    indexes: BTreeMap<FileNumber, Arc<Index>>,
    wanted: LiveMessages,
    /// Only what ends here or before is cleaned.
    below: Lsn,
    /// How many pins there ever were.
    pub(super) pins: usize,
    /// What is the same at the next look if nothing has happened until then.
    idle: Idle,
}

/// The end of the log, below what may be cleaned, and the count of pins.
type Idle = Option<(Lsn, Lsn, usize)>;

/// Cleans a run of files of each class, if some are worth it and the last look is long enough ago.
///
/// # Errors
/// The store's.
pub(super) fn clean_if_due(engine: &Engine) -> Result<()> {
    let begun = engine.clock.monotonic();
    let maintenance = &engine.maintenance;
    if begun < maintenance.cleaning.lock().next_look {
        return Ok(());
    }
    let Some(look) = CleaningLook::take(engine) else { return Ok(()) };
    let cleaned = look.clean(engine);
    let took = engine.clock.monotonic().0.saturating_sub(begun.0);
    // What gives room back goes on, and what found nothing to do is not done often.
    let pause = match cleaned {
        Ok(true) => took.saturating_mul(CLEAN_SHARE),
        Ok(false) | Err(_) if maintenance.wants_room() => LOOK_EVERY_MS,
        Ok(false) | Err(_) => LOOK_EVERY_MS.max(took.saturating_mul(LOOK_SHARE)),
    };
    maintenance.cleaning.lock().next_look = begun.saturating_add(pause);
    cleaned.map(drop)
}

impl CleaningLook {
    /// `None` where nothing may be cleaned now.
    pub(super) fn take(engine: &Engine) -> Option<Self> {
        let core = engine.lock_core();
        // First how many there ever were: one that comes now is counted later.
        let pins = engine.maintenance.pins_ever();
        if core.unwritten_open.is_some() || engine.maintenance.is_pinned() {
            return None;
        }
        let below = core.checkpoint.older_covers.min(engine.commit.watermark());
        let idle = Some((core.appender.end(), below, pins));
        if engine.maintenance.cleaning.lock().idle_at == idle {
            return None;
        }
        let catalog = core.view.catalog.clone();
        let numbers = catalog.segments().iter().filter(|file| file.end() <= below).map(|file| file.number());
        let indexes = numbers.filter_map(|number| Some((number, core.view.positions.index(number)?))).collect();
        let snapshot = core.view.state.snapshot();
        drop(core);
        Some(Self { catalog, indexes, wanted: LiveMessages::of(snapshot), below, pins, idle })
    }

    /// Whether a file may be cleaned.
    fn is_ready(&self, file: &Segment) -> bool {
        file.is_closed() && file.end() <= self.below && self.indexes.contains_key(&file.number())
    }

    /// The files that may be cleaned, in the order of the log.
    fn files(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.catalog.segments().iter().filter(|file| self.is_ready(file))
    }

    /// The files that serve a class within a range. None where one of them may not be cleaned: a file takes the place of all.
    fn within(&self, class: Class, range: (Lsn, Lsn)) -> Vec<Arc<Segment>> {
        let all: Vec<_> = self.catalog.serving(class, range).map(Arc::clone).collect();
        if all.iter().all(|file| self.is_ready(file)) { all } else { Vec::new() }
    }

    /// What of a file must stay.
    pub(super) fn kept(&self, class: Class, number: FileNumber) -> LiveParts {
        let keys = self.indexes.get(&number).into_iter().flat_map(|index| index.keys());
        LiveParts::of(&self.wanted, class, keys.map(|key| (PartitionId(key.key), Offset(key.first), Offset(key.end))))
    }

    /// From where on cursors hold each partition of a file.
    pub(super) fn holds(&self, number: FileNumber) -> impl Iterator<Item = (PartitionId, Option<Lsn>)> {
        let keys = self.indexes.get(&number).into_iter().flat_map(|index| index.keys());
        keys.map(|key| (PartitionId(key.key), self.wanted.held_from(PartitionId(key.key))))
    }

    /// How many bytes what must stay of a file takes in a file of the class.
    pub(super) fn measure(&self, class: Class, file: &Segment) -> Result<u64> {
        let mut bytes = 0u64;
        self.kept(class, file.number()).for_each(file, false, &mut |frame, kept| {
            bytes = bytes.saturating_add(class_frame_len(kept.head.len(), frame, &kept.parts));
            true
        })?;
        Ok(bytes)
    }

    /// Takes note of the files, and cleans a run of each class. Returns whether there was one.
    ///
    /// # Errors
    /// The store's; where a run of one class has no room, one of the other is cleaned.
    pub(super) fn clean(&self, engine: &Engine) -> Result<bool> {
        let is_settled = self.note_files(engine)?;
        let limits = RunLimits { len: engine.setup.segment_bytes_max, room: engine.room_for_cleaning()? };
        let runs = {
            let notes = engine.maintenance.cleaning.lock();
            Class::EACH.map(|class| self.run(class, limits, &notes.files))
        };
        let is_idle = is_settled && runs.iter().all(Vec::is_empty);
        engine.maintenance.cleaning.lock().idle_at = if is_idle { self.idle } else { None };
        let mut cleaned = Ok(());
        for (class, run) in Class::EACH.into_iter().zip(runs) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = (first.base(), last.end());
            let of_class = self.clean_range(engine, class, range);
            // A segment goes when both classes have left it.
            let has_both = run.iter().any(|file| file.serves() == Classes::BOTH);
            let of_other = if has_both { self.clean_range(engine, class.other(), range) } else { Ok(()) };
            cleaned = cleaned.and(of_class).and(of_other);
        }
        cleaned.map(|()| !is_idle)
    }

    fn clean_range(&self, engine: &Engine, class: Class, range: (Lsn, Lsn)) -> Result<()> {
        Range { look: self, class, files: self.within(class, range) }.clean(engine)
    }

    /// Says what becomes of a file that cannot be read: what passes is an error, and any other file stays as it is.
    ///
    /// # Errors
    /// What passes.
    pub(super) fn unreadable(&self, engine: &Engine, file: &Segment, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Retry {
            return Err(error);
        }
        // seam: a file that cannot be read is tried again
        engine.maintenance.cleaning.lock().files.entry(file.number()).or_default().is_damaged = true;
        Ok(())
    }

    /// Notes what must stay of each file, and counts the bytes of that in some of those of which something was settled, but nothing for a
    /// while. Returns whether nothing has changed and all are counted.
    pub(super) fn note_files(&self, engine: &Engine) -> Result<bool> {
        let (mut uncounted, mut is_settled, now) = (Vec::new(), true, engine.clock.monotonic());
        {
            let notes = &mut engine.maintenance.cleaning.lock().files;
            notes.retain(|number, _| self.catalog.segment(*number).is_some());
            for file in self.files() {
                let classes = Class::EACH.into_iter().filter(|class| file.serves().contains(*class));
                let stays = classes.map(|class| self.kept(class, file.number()).stay(file.end()));
                let stay = stays.reduce(Stay::and).unwrap_or_default();
                let note = notes.entry(file.number()).or_default();
                if note.stay != stay || note.since == MonoMs(0) {
                    *note = FileNote { stay, since: now, bytes: None, ..*note };
                }
                let is_stable = now.0.saturating_sub(note.since.0) >= LOOK_EVERY_MS || engine.maintenance.wants_room();
                is_settled &= is_stable;
                if is_stable && note.bytes.is_none() && !note.is_damaged && !self.is_whole(file, stay) {
                    uncounted.push(Arc::clone(file));
                }
            }
        }
        let mut left = engine.setup.segment_bytes_max.saturating_mul(COUNT_SEGMENTS);
        for file in uncounted {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(file.limit());
            let classes = Class::EACH.into_iter().filter(|class| file.serves().contains(*class));
            match classes.map(|class| self.measure(class, &file)).sum::<Result<u64>>() {
                Ok(bytes) => {
                    engine.maintenance.cleaning.lock().files.entry(file.number()).or_default().bytes = Some(bytes)
                }
                Err(error) => self.unreadable(engine, &file, error)?,
            }
        }
        let damaged = engine.maintenance.cleaning.lock().files.values().filter(|note| note.is_damaged).count();
        engine.maintenance.damaged.store(damaged, Ordering::Relaxed);
        Ok(is_settled && left > 0)
    }

    /// Whether all of a segment must stay: it has every message between its first ones and its last.
    fn is_whole(&self, file: &Segment, stay: Stay) -> bool {
        let keys = self.indexes.get(&file.number()).into_iter().flat_map(|index| index.keys());
        let had: u64 = keys.map(|key| key.end.saturating_sub(key.first)).sum();
        file.kind().class().is_none() && stay.count >= had
    }

    /// The files of a class that are to become one: the first of which half is settled, with those that follow it and are worth it, or
    /// many small ones. Each file that serves the class and is not worth it ends a run.
    fn run(&self, class: Class, limits: RunLimits, notes: &BTreeMap<FileNumber, FileNote>) -> Vec<Arc<Segment>> {
        let mut run = Run::default();
        for file in self.catalog.segments().iter().filter(|file| file.serves().contains(class)) {
            let note = notes.get(&file.number()).filter(|note| !note.is_damaged && self.is_ready(file));
            let halved = note.and_then(|note| note.bytes).filter(|bytes| bytes.saturating_mul(2) <= file.limit());
            let is_small = file.kind().class().is_some() && file.limit() <= limits.len / SMALL_SHARE;
            let len = halved.or(note.map(|_| file.limit()).filter(|_| is_small));
            // What serves both is cleaned as one of messages.
            let len = len.filter(|_| class == Class::Messages || !file.serves().contains(Class::Messages));
            if len.is_some_and(|len| run.takes(file, len, limits)) {
                run.is_worth_it |= halved.is_some();
            } else if run.is_done() {
                break;
            } else {
                run = Run::default();
                // It may begin the next one.
                if let Some(len) = len {
                    run.is_worth_it = run.takes(file, len, limits) && halved.is_some();
                }
            }
        }
        if run.is_done() { run.files } else { Vec::new() }
    }
}

/// How long the file may be that takes the place of a run.
#[derive(Clone, Copy)]
struct RunLimits {
    /// Of more than one.
    len: u64,
    /// What there is room for.
    room: u64,
}

/// Files that follow each other.
#[derive(Default)]
struct Run {
    files: Vec<Arc<Segment>>,
    len: u64,
    epochs: usize,
    is_worth_it: bool,
}

impl Run {
    /// Adds a file of which `len` bytes must stay, if it fits.
    fn takes(&mut self, file: &Arc<Segment>, len: u64, limits: RunLimits) -> bool {
        let (len, epochs) = (self.len.saturating_add(len), self.epochs + file.info().epochs.len());
        let joins = self.files.len() < RUN_FILES_MAX && epochs <= RUN_EPOCHS_MAX && len <= limits.len;
        let fits = (self.files.is_empty() || joins) && len <= limits.room;
        if fits {
            (self.len, self.epochs) = (len, epochs);
            self.files.push(Arc::clone(file));
        }
        fits
    }

    fn is_done(&self) -> bool {
        self.is_worth_it || self.files.len() >= SMALL_FILES
    }
}
