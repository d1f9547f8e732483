//! Cleaning: what must stay of files that are mostly settled goes into a file of its class, and the files go. Here it is decided which.
//!
//! A file is worth it where half of its bytes or more are settled, so that no copy costs more than it gives back, and files take at
//! most twice what must stay. (Rosenblum and Ousterhout, "The design and implementation of a log-structured file system", 1992, weigh
//! age as well; a file of which something was settled since the last look is left alone instead.) Small files of a class that follow each
//! other become one. Never here: copying, and which messages must stay.

use super::copy::Range;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{FileNumber, Lsn, MonoMs, Offset, PartitionId};
use crate::log::{Catalog, Class, Classes, Index, Segment, class_frame_len};
use crate::state::LiveMessages;
use crate::sync::atomic::Ordering;
use crate::view::{LiveParts, Stay};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long files are left alone after a look that found nothing to do, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;
/// Such looks take at most this part of the time.
const LOOK_SHARE: u64 = 50;
/// And cleaning this part, so that others have most of the disk.
const CLEAN_SHARE: u64 = 4;
/// The bytes of what must stay are counted in as much of the log as so many segments in a look.
const COUNT_SEGMENTS: u64 = 4;
/// A file of a class that is smaller than this part of a segment is small.
const SMALL_SHARE: u64 = 8;
/// So many small files of a class that follow each other become one: each byte is copied once more whenever files have become eight
/// times as long.
const SMALL_FILES: usize = 8;
/// The most files that become one.
const RUN_FILES_MAX: usize = 256;
/// The most epochs that those may have together: the table of a file has no room for more.
const RUN_EPOCHS_MAX: usize = 65_535;

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct CleaningNotes {
    next_look: MonoMs,
    files: BTreeMap<FileNumber, FileNote>,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default)]
struct FileNote {
    /// What had to stay at the last look.
    stay: Stay,
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
}

/// Cleans a run of files of each class, if some are worth it and the last look is long enough ago.
///
/// # Errors
/// The store's.
pub(super) fn clean_if_due(engine: &Engine) -> Result<()> {
    let begun = engine.clock.monotonic();
    let maintenance = &engine.maintenance;
    if begun < maintenance.cleaning.lock().next_look && !maintenance.wants_room() {
        return Ok(());
    }
    let Some(look) = CleaningLook::take(engine) else { return Ok(()) };
    let before = maintenance.cleaned();
    let cleaned = look.clean(engine);
    let took = engine.clock.monotonic().0.saturating_sub(begun.0);
    // What gives room back goes on, and what found nothing to do is not done often.
    let is_of_use = maintenance.cleaned() != before;
    let pause =
        if is_of_use { took.saturating_mul(CLEAN_SHARE) } else { LOOK_EVERY_MS.max(took.saturating_mul(LOOK_SHARE)) };
    maintenance.cleaning.lock().next_look = begun.saturating_add(pause);
    cleaned
}

impl CleaningLook {
    /// `None` where nothing may be cleaned now.
    pub(super) fn take(engine: &Engine) -> Option<Self> {
        let core = engine.lock_core();
        if core.unwritten_open.is_some() || engine.maintenance.is_pinned() {
            return None;
        }
        let below = core.checkpoint.older_covers.min(engine.commit.watermark());
        let catalog = core.view.catalog.clone();
        let numbers = catalog.segments().iter().filter(|file| file.end() <= below).map(|file| file.number());
        let indexes = numbers.filter_map(|number| Some((number, core.view.positions.index(number)?))).collect();
        let snapshot = core.view.state.snapshot();
        let pins = engine.maintenance.pins_ever();
        drop(core);
        Some(Self { catalog, indexes, wanted: LiveMessages::of(snapshot), below, pins })
    }

    /// The files that may be cleaned, in the order of the log.
    fn files(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let all = self.catalog.segments().iter();
        all.filter(|file| file.is_closed() && file.end() <= self.below && self.indexes.contains_key(&file.number()))
    }

    /// Those of them that serve a class and lie within a range.
    pub(super) fn within(&self, class: Class, (from, to): (Lsn, Lsn)) -> Vec<Arc<Segment>> {
        let of_class = self.files().filter(|file| file.serves().contains(class));
        of_class.filter(|file| file.base() >= from && file.end() <= to).map(Arc::clone).collect()
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
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Takes note of the files, and cleans a run of each class.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn clean(&self, engine: &Engine) -> Result<()> {
        self.note_files(engine)?;
        let runs = {
            let notes = engine.maintenance.cleaning.lock();
            Class::EACH.map(|class| self.run(class, engine.setup.segment_bytes_max, &notes.files))
        };
        for (class, run) in Class::EACH.into_iter().zip(runs) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let range = (first.base(), last.end());
            self.clean_range(engine, class, range)?;
            // A segment goes when both classes have left it.
            if run.iter().any(|file| file.serves() == Classes::BOTH) {
                self.clean_range(engine, class.other(), range)?;
            }
        }
        Ok(())
    }

    fn clean_range(&self, engine: &Engine, class: Class, range: (Lsn, Lsn)) -> Result<()> {
        match (Range { look: self, class, files: self.within(class, range) }).clean(engine) {
            Err(Error::Corrupt(corruption)) => {
                let damaged = self.files().find(|file| file.name().to_string() == corruption.file);
                let mut notes = engine.maintenance.cleaning.lock();
                if let Some(note) = damaged.and_then(|file| notes.files.get_mut(&file.number())) {
                    note.is_damaged = true;
                    engine.maintenance.damaged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Notes what must stay of each file, and counts the bytes of that in some of those of which something was settled, but nothing since
    /// the last look.
    pub(super) fn note_files(&self, engine: &Engine) -> Result<()> {
        let mut notes = std::mem::take(&mut engine.maintenance.cleaning.lock().files);
        let noted = self.note_in(engine, &mut notes);
        let damaged = notes.values().filter(|note| note.is_damaged).count();
        engine.maintenance.damaged.store(damaged, Ordering::Relaxed);
        engine.maintenance.cleaning.lock().files = notes;
        noted
    }

    fn note_in(&self, engine: &Engine, notes: &mut BTreeMap<FileNumber, FileNote>) -> Result<()> {
        notes.retain(|number, _| self.indexes.contains_key(number));
        let mut uncounted = Vec::new();
        for file in self.files() {
            let classes = Class::EACH.into_iter().filter(|class| file.serves().contains(*class));
            let stays = classes.map(|class| self.kept(class, file.number()).stay(file.end()));
            let stay = stays.reduce(Stay::and).unwrap_or_default();
            let note = notes.entry(file.number()).or_default();
            let is_stable = note.stay == stay || engine.maintenance.wants_room();
            if note.stay != stay {
                *note = FileNote { stay, bytes: None, ..*note };
            }
            if is_stable && note.bytes.is_none() && !note.is_damaged && !self.is_whole(file, stay) {
                uncounted.push(file);
            }
        }
        let mut left = engine.setup.segment_bytes_max.saturating_mul(COUNT_SEGMENTS);
        for file in uncounted {
            let Some(note) = notes.get_mut(&file.number()) else { continue };
            let classes = Class::EACH.into_iter().filter(|class| file.serves().contains(*class));
            match classes.map(|class| self.measure(class, file)).sum::<Result<u64>>() {
                Ok(bytes) => note.bytes = Some(bytes),
                Err(Error::Corrupt(_)) => note.is_damaged = true,
                Err(error) => return Err(error),
            }
            left = left.saturating_sub(file.limit());
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether all of a segment must stay: it has every message between its first ones and its last.
    fn is_whole(&self, file: &Segment, stay: Stay) -> bool {
        let keys = self.indexes.get(&file.number()).into_iter().flat_map(|index| index.keys());
        let had: u64 = keys.map(|key| key.end.saturating_sub(key.first)).sum();
        file.kind().class().is_none() && stay.count >= had
    }

    /// The files of a class that are to become one: the first of which half is settled, with those that follow it and are worth it, or
    /// many small ones.
    fn run(&self, class: Class, segment_len: u64, notes: &BTreeMap<FileNumber, FileNote>) -> Vec<Arc<Segment>> {
        let mut run = Run::default();
        for file in self.files().filter(|file| file.serves().contains(class)) {
            let note = notes.get(&file.number()).filter(|note| !note.is_damaged);
            let halved = note.and_then(|note| note.bytes).filter(|bytes| bytes.saturating_mul(2) <= file.limit());
            let is_small = file.kind().class().is_some() && file.limit() <= segment_len / SMALL_SHARE;
            let len = halved.or(note.map(|_| file.limit()).filter(|_| is_small));
            // What serves both is cleaned as one of messages.
            let len = len.filter(|_| class == Class::Messages || !file.serves().contains(Class::Messages));
            if len.is_some_and(|len| run.takes(file, len, segment_len)) {
                run.is_worth_it |= halved.is_some();
            } else if run.is_done() {
                break;
            } else {
                run = Run::default();
                // It may begin the next one.
                if let Some(len) = len {
                    run.is_worth_it = run.takes(file, len, segment_len) && halved.is_some();
                }
            }
        }
        if run.is_done() { run.files } else { Vec::new() }
    }
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
    fn takes(&mut self, file: &Arc<Segment>, len: u64, segment_len: u64) -> bool {
        let (len, epochs) = (self.len.saturating_add(len), self.epochs + file.info().epochs.len());
        let fits = self.files.len() < RUN_FILES_MAX && epochs <= RUN_EPOCHS_MAX && len <= segment_len;
        if fits || self.files.is_empty() {
            (self.len, self.epochs) = (len, epochs);
            self.files.push(Arc::clone(file));
            return true;
        }
        false
    }

    fn is_done(&self) -> bool {
        self.is_worth_it || self.files.len() >= SMALL_FILES
    }
}
