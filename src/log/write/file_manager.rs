//! Keeping the files: creating, cutting and removing them, and noting it in `STORE`.
//!
//! Cold paths only, under a mutex of its own. After a failed write or sync of what the log rests on the file manager refuses everything:
//! the store is poisoned. A lack of room, memory or descriptors that left all as it was is no such failure, nor is a file that
//! could not be unlinked or cut. A file that others have links to is never written to nor cut. Never here: which file is no longer
//! needed.

use crate::disk::{Access, Disk, File};
use crate::error::Error;
use crate::ids::{Epoch, FileNumber, Lsn};
use crate::log::format::checkpoint;
use crate::log::format::header::{FileHeader, FileKind, HEADER_LEN};
use crate::log::format::name::FileName;
use crate::log::format::store_file::Slot;
use crate::log::read::catalog::Catalog;
use crate::log::read::handles::Handles;
use crate::log::read::segment::Segment;
use crate::log::write::reserve::Reserve;
use crate::log::write::room::DiskRoom;
use crate::log::write::slots::Slots;
use crate::log::write::standby::Standby;
use std::io;
use std::sync::Arc;

/// How many checkpoints are kept.
const CHECKPOINTS_KEPT: usize = 2;

/// A checkpoint that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointInfo {
    pub(crate) number: FileNumber,
    /// It is the state at this LSN.
    pub(crate) covers: Lsn,
    /// The length of its state.
    pub(crate) len: u64,
}

/// What recovery hands over to the file manager.
#[derive(Debug)]
pub(in crate::log) struct Found {
    pub(in crate::log) slots: Slots,
    pub(in crate::log) handles: Arc<Handles>,
    /// The highest file number that was ever used.
    pub(in crate::log) last_number: FileNumber,
    /// From oldest to newest.
    pub(in crate::log) checkpoints: Vec<CheckpointInfo>,
    /// Files that are no part of the log, but for those in `unfinished`.
    pub(in crate::log) leftovers: Vec<FileName>,
    /// Segments that no slot ever told of, so that header or name may not be durable.
    pub(in crate::log) unfinished: Vec<FileName>,
    /// The end of the log.
    pub(in crate::log) end: Lsn,
    /// The epoch of this process.
    pub(in crate::log) epoch: Epoch,
}

/// Creates, truncates and unlinks the store's files, and writes `STORE`.
#[derive(Debug)]
pub(crate) struct FileManager {
    disk: Arc<dyn Disk>,
    access: Access,
    found: Found,
    /// No part of the log either; but a slot that could not be written may name them, until the next one is.
    uncertain: Vec<FileName>,
    room: DiskRoom,
    begun: bool,
    failed: bool,
}

impl FileManager {
    pub(in crate::log) fn new(disk: Arc<dyn Disk>, access: Access, found: Found) -> Self {
        let room = DiskRoom::default();
        Self { disk, access, found, uncertain: Vec::new(), room, begun: false, failed: false }
    }

    /// Bounds what all files take together, from now on.
    pub(crate) fn limit(&mut self, max_bytes: Option<u64>) {
        self.room.limit(max_bytes);
    }

    /// Whether a write or a sync failed, so that the store must be poisoned.
    pub(crate) const fn is_failed(&self) -> bool {
        self.failed
    }

    /// The checkpoints that are kept, from oldest to newest.
    pub(crate) fn checkpoints(&self) -> &[CheckpointInfo] {
        &self.found.checkpoints
    }

    /// Creates a segment for the appender, if `leave` bytes remain on the disk then. The first one of a process raises the epoch
    /// durably before that.
    ///
    /// # Errors
    /// `StorageFull` and whatever else creating a file says, with nothing changed; what [`FileManager::is_failed`] tells of.
    pub(crate) fn create_standby(
        &mut self,
        len: u64,
        watermark: Lsn,
        reserve: Reserve,
        leave: u64,
    ) -> io::Result<Standby> {
        self.check()?;
        self.check_room(len, leave)?;
        self.begin()?;
        // seam: unfinished segments stay unfinished
        self.finish_unfinished()?;
        let number = self.next_number()?;
        let name = FileName::Segment(number);
        self.found.unfinished.push(name);
        let mut tail = self.disk.create_tail(&name.to_string(), len, self.access)?;
        let salt = self.disk.random();
        let header = FileHeader::appended(*self.found.slots.uuid(), number, salt).encode();
        // One that lacks its header is unfinished, and stays among those.
        let written = tail.append(0, &[&header]);
        self.note_unless_lacking(written)?;
        let synced = tail
            .file()
            // seam: no sync of a new segment's header
            .sync()
            // seam: no directory sync after a creation
            .and_then(|()| self.disk.sync_dir());
        self.note(synced)?;
        self.write_slot(|slot| {
            slot.watermark = watermark;
            slot.newest_segment = number;
        })?;
        self.found.unfinished.pop();
        Ok(Standby { number, salt, len, reserve, tail })
    }

    /// Removes a standby segment that was superseded.
    pub(crate) fn discard_standby(&mut self, standby: Standby) {
        // A newer segment stands in the slot by now; where not, the file is what the slot calls the newest.
        self.found.leftovers.push(FileName::Segment(standby.number));
    }

    /// Writes the state at `covers`. The caller guarantees that all below it is durable.
    ///
    /// # Errors
    /// As [`FileManager::create_standby`]; `InvalidInput` where `catalog` is not that of the log below `covers`.
    pub(crate) fn write_checkpoint(
        &mut self,
        covers: Lsn,
        catalog: &Catalog,
        state: &[u8],
        watermark: Lsn,
    ) -> io::Result<CheckpointInfo> {
        self.check()?;
        if covers > watermark || self.found.checkpoints.last().is_some_and(|last| last.covers > covers) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let section = catalog.section(covers);
        if !section.tiles(covers) || !section.tells_epochs(covers) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // One that no slot has named may cover an end that the log lost, and would count once this one is named: a sync comes before that.
        // seam: a checkpoint that was never named comes to count
        self.remove_left(|name| matches!(name, FileName::Checkpoint(_)))?;
        let number = self.next_number()?;
        let section = section.encode();
        let header = checkpoint::header(*self.found.slots.uuid(), number, self.disk.random(), covers, state, &section);
        let name = FileName::Checkpoint(number);
        let (_, len) = header.extent().ok_or(io::ErrorKind::InvalidInput)?;
        self.check_room(len, 0)?;
        let created = self.disk.create(&name.to_string(), len);
        // What a failed creation may have left is nobody's.
        let file = created.inspect_err(|_| self.found.leftovers.push(name))?;
        let written = write_built(&*file, &header, &[state, &section]).and_then(|()| self.disk.sync_dir());
        self.note_or_remove(name, written)?;
        let slot = self.write_slot(|slot| {
            slot.watermark = watermark;
            slot.newest_checkpoint = number;
        });
        slot.inspect_err(|_| self.uncertain.push(name))?;
        let info = CheckpointInfo { number, covers, len: state.len() as u64 };
        self.found.checkpoints.push(info);
        Ok(info)
    }

    /// Removes all checkpoints but the two newest. What cannot be removed now is a leftover.
    ///
    /// # Errors
    /// What [`FileManager::is_failed`] tells of.
    pub(crate) fn prune_checkpoints(&mut self) -> io::Result<()> {
        self.check()?;
        while self.found.checkpoints.len() > CHECKPOINTS_KEPT {
            let Some(oldest) = self.found.checkpoints.first() else { break };
            self.remove_or_leave(FileName::Checkpoint(oldest.number));
            self.found.checkpoints.remove(0);
        }
        Ok(())
    }

    /// Cuts a segment that will not be appended to any more to its end, and gives it back as it will be from now on. One that others
    /// have links to keeps its length.
    ///
    /// # Errors
    /// Whatever opening or cutting says; the segment stays as it was.
    pub(crate) fn cut(&mut self, segment: &Segment) -> io::Result<Arc<Segment>> {
        self.check()?;
        let file = self.disk.open(&segment.name().to_string())?;
        self.room.changed();
        // seam: a linked file is cut
        if segment.kind() == FileKind::Appended && file.len()? > segment.limit() && file.links()? <= 1 {
            // seam: a segment is cut too short
            file.set_len(segment.limit())?;
        }
        Ok(Arc::new(Segment::closed(segment.info(), Arc::clone(&self.found.handles))))
    }

    /// Removes a segment or a file of a class, and its index. The caller guarantees that nothing is looked for there, durably. What
    /// cannot be removed now is a leftover.
    ///
    /// # Errors
    /// What [`FileManager::is_failed`] tells of.
    pub(crate) fn remove_segment(&mut self, segment: &Segment) -> io::Result<()> {
        self.check()?;
        for name in [FileName::Index(segment.number()), segment.name()] {
            self.remove_or_leave(name);
        }
        Ok(())
    }

    /// Removes what earlier processes left behind, once the log below `durable` is: this process's first frame ends all
    /// files of earlier epochs, and before it is durable a power failure could bring them back. Returns how many remain.
    ///
    /// # Errors
    /// Whatever removing says.
    pub(crate) fn remove_leftovers(&mut self, durable: Lsn) -> io::Result<usize> {
        self.check()?;
        if self.begun && durable > self.found.end {
            self.remove_left(|_| true)?;
        }
        Ok(self.found.leftovers.len())
    }

    /// Removes the leftovers that are meant, but for what the slot names, and keeps in mind what cannot be removed now.
    fn remove_left(&mut self, is_meant: impl Fn(&FileName) -> bool) -> io::Result<()> {
        let newest = self.found.slots.newest();
        let named = [FileName::Segment(newest.newest_segment), FileName::Checkpoint(newest.newest_checkpoint)];
        let (mut left, mut refused) = (std::mem::take(&mut self.found.leftovers), Ok(()));
        left.retain(|name| {
            let removed = if named.contains(name) || !is_meant(name) { return true } else { self.remove(*name) };
            let stays = removed.is_err();
            refused = std::mem::replace(&mut refused, Ok(())).and(removed);
            stays
        });
        self.found.leftovers = left;
        refused
    }

    /// Notes that the log ends at `watermark`, all of it durable. A process that appended nothing writes nothing: whether
    /// the one before it was stopped cleanly is still to be told to the next that appends.
    ///
    /// # Errors
    /// What [`FileManager::is_failed`] tells of.
    pub(crate) fn close(&mut self, watermark: Lsn) -> io::Result<()> {
        self.check()?;
        if !self.begun {
            return Ok(());
        }
        self.write_slot(|slot| {
            slot.watermark = watermark;
            slot.clean = true;
        })
    }

    /// Cuts a standby segment that nothing will be appended to. It may be the file that the slot calls the newest: it stays, and takes no room.
    ///
    /// # Errors
    /// Whatever cutting says.
    pub(crate) fn cut_standby(&mut self, standby: Standby) -> io::Result<()> {
        self.check()?;
        let file = Arc::clone(standby.tail.file());
        drop(standby);
        if file.links()? <= 1 { file.set_len(HEADER_LEN as u64) } else { Ok(()) }
    }

    /// What tells this directory from its copies.
    pub(crate) fn instance(&self) -> &[u8; 16] {
        &self.found.slots.newest().instance
    }

    /// By which hashes of what callers choose are keyed. The same in all copies of a store.
    pub(crate) fn secret(&self) -> &[u8; 16] {
        &self.found.slots.newest().secret
    }

    /// Leaves `STORE` to the other links to it. `false` where it has lost its name.
    ///
    /// # Errors
    /// As [`FileManager::create_standby`].
    pub(crate) fn leave_links(&mut self) -> io::Result<bool> {
        self.check()?;
        let left = self.found.slots.leave_links();
        self.note_slot(left)
    }

    /// How many more bytes files may take.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn available(&self) -> io::Result<u64> {
        self.room.available(&*self.disk)
    }

    /// As [`DiskRoom::check`].
    pub(in crate::log) fn check_room(&self, len: u64, leave: u64) -> io::Result<()> {
        self.room.check(&*self.disk, len, leave)
    }

    /// Files that are open for reading.
    pub(crate) const fn handles(&self) -> &Arc<Handles> {
        &self.found.handles
    }

    pub(in crate::log) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(in crate::log) const fn uuid(&self) -> &crate::log::format::header::Uuid {
        self.found.slots.uuid()
    }

    /// Makes the new epoch durable, and with it `STORE` itself: before any other file exists that only it explains.
    fn begin(&mut self) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        let (epoch, end) = (self.found.epoch, self.found.end);
        self.write_slot(|slot| {
            // seam: the epoch is not written
            slot.epoch = epoch;
            slot.clean = false;
            slot.watermark = end;
        })?;
        let synced = self.disk.sync_dir();
        self.note(synced)?;
        self.begun = true;
        Ok(())
    }

    /// Gives a header to whatever may lack one, and makes it durable: up to the segment that a slot names no file may be without. Under
    /// a new salt nothing in the file is a frame. (Its removal would do, were no sync of the directory ever to fail: then the name may
    /// come back, with whatever the file held.)
    fn finish_unfinished(&mut self) -> io::Result<()> {
        while let Some(name) = self.found.unfinished.last().copied() {
            let number = name.number().unwrap_or_default();
            let header = FileHeader::appended(*self.found.slots.uuid(), number, self.disk.random()).encode();
            self.found.handles.forget(name);
            match self.disk.open(&name.to_string()) {
                // Its name goes before the next segment is told of: the directory is synced in between.
                Ok(file) if file.links()? > 1 => self.remove(name)?,
                Ok(file) => {
                    let written = file.write_at(0, &header).and_then(|()| file.sync());
                    self.note_or_remove(name, written)?;
                    self.uncertain.push(name);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.found.unfinished.pop();
        }
        Ok(())
    }

    pub(in crate::log) fn next_number(&mut self) -> io::Result<FileNumber> {
        self.check()?;
        self.found.last_number = self.found.last_number.saturating_add(1);
        Ok(self.found.last_number)
    }

    /// Makes names durable.
    pub(in crate::log) fn sync_names(&mut self) -> io::Result<()> {
        let synced = self.disk.sync_dir();
        self.note(synced)
    }

    /// Removes the name; that it is gone already is as good.
    pub(in crate::log) fn remove(&self, name: FileName) -> io::Result<()> {
        self.found.handles.forget(name);
        self.room.changed();
        match self.disk.remove(&name.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the name, now or later.
    pub(in crate::log) fn remove_or_leave(&mut self, name: FileName) {
        if self.remove(name).is_err() {
            self.found.leftovers.push(name);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("an earlier write or sync failed")) } else { Ok(()) }
    }

    fn note(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.failed |= result.is_err();
        result
    }

    /// A lack that left all as it was fails nothing.
    fn note_unless_lacking(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if Error::lack(&error).is_some() => Err(error),
            other => self.note(other),
        }
    }

    fn write_slot(&mut self, change: impl FnOnce(&mut Slot)) -> io::Result<()> {
        let written = self.found.slots.write(change);
        self.note_slot(written)?;
        self.found.leftovers.append(&mut self.uncertain);
        Ok(())
    }

    fn note_slot<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.failed |= result.as_ref().is_err_and(|error| !self.found.slots.may_go_on(error));
        result
    }

    /// A full disk while a file is being built only means that there is no such file.
    fn note_or_remove(&mut self, name: FileName, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.remove_or_leave(name);
                Err(error)
            }
            other => self.note(other),
        }
    }
}

/// Writes a complete file: body, sync, header, sync. Its name is the caller's to sync.
pub(in crate::log) fn write_built(file: &dyn File, header: &FileHeader, pieces: &[&[u8]]) -> io::Result<()> {
    let mut at = HEADER_LEN as u64;
    for piece in pieces {
        file.write_at(at, piece)?;
        at += piece.len() as u64;
    }
    file.sync()?;
    file.write_at(0, &header.encode())?;
    // seam: a checkpoint is not synced
    file.sync()
}
