//! Copying what must stay of some files into one, and putting that in their place.
//!
//! In this order: the body, durably; header and name, durably; the frame that tells of the file, durably; and only then what served is
//! unlinked. A crash before that frame leaves a file that nothing tells of. What was decided by a look is done only while it still
//! holds. Never here: which files.

use super::clean::CleaningLook;
use super::retire::unlink;
use crate::engine::Engine;
use crate::engine::core::Core;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::{Class, ClassFile, Classes, CleanedRange, ControlFrame, Reserve, Segment};
use crate::view::{SegmentRuns, share_of};
use std::sync::Arc;

/// The files that serve a class in a range of the log: they follow each other.
pub(super) struct Range<'a> {
    pub(super) look: &'a CleaningLook,
    pub(super) class: Class,
    pub(super) files: Vec<Arc<Segment>>,
}

/// Files that serve nothing any more, once the log is durable up to the LSN.
type Gone = (Vec<Arc<Segment>>, Lsn);

/// What takes the place of files.
enum Replacement {
    /// A file that is durable, and where messages stand in it.
    File {
        file: Arc<Segment>,
        runs: SegmentRuns,
        added: ControlFrame,
    },
    Nothing,
}

impl Range<'_> {
    /// Puts one file of the class in the place of all of them, or none where nothing must stay.
    ///
    /// # Errors
    /// The store's. Where one of the files cannot be read nothing is changed.
    pub(super) fn clean(&self, engine: &Engine) -> Result<()> {
        let (Some(first), Some(last)) = (self.files.first(), self.files.last()) else { return Ok(()) };
        let mut bytes = 0u64;
        for file in &self.files {
            match self.look.measure(self.class, file) {
                Ok(of_file) => bytes = bytes.saturating_add(of_file),
                Err(error) => return self.look.unreadable(engine, file, error),
            }
        }
        let taken = if bytes == 0 {
            self.take_place(engine, Replacement::Nothing)?
        } else {
            let generation = self.files.iter().map(|file| file.info().generation).max().unwrap_or_default();
            let range = CleanedRange { class: self.class, from: first.base(), to: last.end(), generation };
            let mut copy = create(engine, range, bytes)?;
            let taken = self.copied(engine, &mut copy);
            // Where appending failed, a frame may tell of it all the same, and the store has stopped.
            // seam: a file goes that a frame may tell of
            let is_nobodys = !matches!(taken, Ok(Some(_))) && engine.health.check().is_ok();
            if is_nobodys {
                engine.file_manager.lock().abandon_class_file(&copy);
            }
            taken?
        };
        let Some((gone, end)) = taken else { return Ok(()) };
        engine.maintenance.note_cleaned(bytes);
        unlink(engine, &gone, end)
    }

    /// Fills the file, and puts it in the place of the others, if it can be.
    fn copied(&self, engine: &Engine, copy: &mut ClassFile) -> Result<Option<Gone>> {
        let Some(runs) = self.copy(engine, copy)? else { return Ok(None) };
        let (file, added) = {
            let mut file_manager = engine.file_manager.lock();
            let finished = file_manager.finish_class_file(copy);
            finished.map_err(|error| engine.file_manager_error(&file_manager, error))?
        };
        self.take_place(engine, Replacement::File { file, runs, added })
    }

    /// Copies what must stay of each file. Returns where it stands; `None` where one of them cannot be read.
    fn copy(&self, engine: &Engine, copy: &mut ClassFile) -> Result<Option<SegmentRuns>> {
        let mut runs = SegmentRuns::new(copy.number());
        let io = |error| Error::io("write a file of messages or dead letters", error);
        for file in &self.files {
            let mut written = Ok(());
            let read = self.look.kept(self.class, file.number()).for_each(file, true, &mut |frame, kept| {
                match copy.add(frame, file.epoch_at(frame.lsn), &kept.head, &kept.parts) {
                    Ok(at) => runs.push_all(&kept.records, at),
                    Err(error) => written = Err(io(error)),
                }
                written.is_ok()
            });
            written?;
            if let Err(error) = read {
                return self.look.unreadable(engine, file, error).map(|()| None);
            }
        }
        copy.seal().map_err(io)?;
        Ok(Some(runs))
    }

    /// Records what takes the place of the files, and goes by it, in one hold of the lock. Returns which files serve nothing any more, once
    /// the log is durable up to the LSN; `None` where the files are no longer what they were, or somebody may have come to want what was
    /// settled.
    fn take_place(&self, engine: &Engine, replacement: Replacement) -> Result<Option<Gone>> {
        let (Some(first), Some(last)) = (self.files.first(), self.files.last()) else { return Ok(None) };
        let (from, to, classes) = (first.base(), last.end(), Classes::of(self.class));
        let control = match &replacement {
            Replacement::File { added, .. } => *added,
            Replacement::Nothing => ControlFrame::RangeRetired { from, to, classes },
        };
        let (mut guard, end) = loop {
            let mut core = engine.lock_core();
            engine.health.check()?;
            if !self.still_holds(engine, &core) {
                return Ok(None);
            }
            match core.append_control(control, engine.commit.watermark()) {
                Ok(end) => break (core, end),
                Err(error) => {
                    drop(core);
                    engine.make_way(error)?;
                }
            }
        };
        let view = &mut guard.view;
        let gone = match replacement {
            Replacement::File { file, runs, .. } => {
                view.positions.set_unindexed(runs);
                view.catalog.take_place(file)
            }
            Replacement::Nothing => view.catalog.retire(from, to, classes),
        };
        for file in &self.files {
            match view.catalog.segment(file.number()) {
                Some(file) => view.positions.share_again(file.number(), share_of(&view.state, file)),
                None => view.positions.forget(file.number()),
            }
        }
        Ok(Some((gone, end)))
    }

    /// Whether the files still serve the class, and no others within the range, and since the look no pin was taken and no cursor holds more.
    fn still_holds(&self, engine: &Engine, core: &Core) -> bool {
        // seam: a cleaner ignores a pin
        let is_pinned = engine.maintenance.is_pinned() || engine.maintenance.pins_ever() != self.look.pins;
        let (Some(first), Some(last)) = (self.files.first(), self.files.last()) else { return false };
        let now = core.view.catalog.serving(self.class, (first.base(), last.end()));
        let are_the_same = now.map(|file| file.number()).eq(self.files.iter().map(|file| file.number()));
        let holds = self.files.iter().flat_map(|file| self.look.holds(file.number()));
        // seam: a cleaner ignores what a cursor has come to hold
        let no_more_is_held = holds.into_iter().all(|(partition, before)| {
            let now = core.view.state.held_from(partition);
            now.is_none_or(|now| before.is_some_and(|before| before <= now))
        });
        !is_pinned && no_more_is_held && are_the_same
    }
}

/// Cleaning may use what is kept for leases, for it gives room back.
fn create(engine: &Engine, range: CleanedRange, bytes: u64) -> Result<ClassFile> {
    let mut file_manager = engine.file_manager.lock();
    engine.health.check()?;
    let available = file_manager.available().map_err(|error| engine.file_manager_error(&file_manager, error))?;
    let leave = engine.reserved_len(&engine.lock_core(), Reserve::Share, available);
    let created = file_manager.create_class_file(range, bytes, leave);
    created.map_err(|error| engine.file_manager_error(&file_manager, error))
}
