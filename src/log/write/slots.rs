//! Writing `STORE`: laying it out once, and its slots in turn.
//!
//! Never here: when a slot is due, and what is in it.

use crate::disk::{Disk, File};
use crate::error::Error;
use crate::ids::Epoch;
use crate::log::format::header::Uuid;
use crate::log::format::name::FileName;
use crate::log::format::store_file::{Identity, OWNED_LEN, STORE_LEN, Slot};
use crate::log::read::handles::read_up_to;
use std::io;
use std::sync::Arc;

/// The file `STORE` and the slot that counts.
#[derive(Debug)]
pub(crate) struct Slots {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    uuid: Uuid,
    newest: Slot,
    /// Whether identity and newest slot are known to be durable.
    certain: bool,
    /// Whether a sync failed: what is durable is then unknown for ever.
    sync_failed: bool,
}

impl Slots {
    /// Continues with what was read from the file: the slot that counts, with the features of both.
    pub(crate) const fn found(disk: Arc<dyn Disk>, file: Arc<dyn File>, uuid: Uuid, newest: Slot) -> Self {
        Self { disk, file, uuid, newest, certain: false, sync_failed: false }
    }

    /// Lays the file out once its name is durable: slots first, and the identity only once they are durable.
    pub(crate) fn lay_out(disk: Arc<dyn Disk>) -> io::Result<Self> {
        // While the file is empty, the next process that attaches gives its name to another one: a sync that failed may be final.
        // seam: bytes in STORE before its name is durable
        disk.sync_dir()?;
        let file = disk.open(&FileName::Store.to_string())?;
        let uuid = draw(&*disk);
        let first = Slot { epoch: Epoch(0), clean: true, ..Self::drawn(&*disk) };
        let slots = [0, 1].map(|sequence| Slot { sequence, ..first });
        file.write_at(0, &[0; OWNED_LEN])?;
        for slot in &slots {
            file.write_at(Slot::position(slot.sequence), &slot.encode(&uuid))?;
        }
        if file.len()? < STORE_LEN {
            file.set_len(STORE_LEN)?;
        }
        // seam: identity before the slots
        file.sync()?;
        file.write_at(0, &Identity::encode(&uuid))?;
        file.sync()?;
        let [_, newest] = slots;
        Ok(Self { disk, file, uuid, newest, certain: true, sync_failed: false })
    }

    /// A slot with an instance and a secret of its own.
    pub(in crate::log) fn drawn(disk: &dyn Disk) -> Slot {
        let [instance, secret] = [(); 2].map(|()| draw(disk));
        Slot { instance, secret, ..Slot::default() }
    }

    /// Puts a new file with this slot in the place of one that is damaged, which others may have links to.
    pub(in crate::log) fn replace(disk: &dyn Disk, uuid: &Uuid, slot: Slot) -> io::Result<()> {
        let mut bytes = vec![0; STORE_LEN as usize];
        let slots = [0, 1].map(|sequence| (Slot::position(sequence), Slot { sequence, ..slot }.encode(uuid)));
        for (at, control) in [(0, Identity::encode(uuid))].into_iter().chain(slots) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            bytes.iter_mut().skip(at).zip(&control).for_each(|(byte, control)| *byte = *control);
        }
        disk.replace_lock_file(&bytes)?;
        disk.sync_dir()
    }

    pub(crate) const fn uuid(&self) -> &Uuid {
        &self.uuid
    }

    pub(crate) const fn newest(&self) -> &Slot {
        &self.newest
    }

    /// Whether a write that failed with `error` may be tried again: nothing but the slot that does not count was changed, and no sync
    /// has failed.
    pub(crate) fn may_go_on(&self, error: &io::Error) -> bool {
        !self.sync_failed && Error::lack(error).is_some()
    }

    /// Sees to it that the file is this store's alone: one that others have links to gets its name taken by a copy, for it is never
    /// written to again. `false` where the file has lost its name.
    pub(crate) fn leave_links(&mut self) -> io::Result<bool> {
        let links = self.file.links()?;
        // seam: a linked STORE is written
        if links > 1 {
            let mut bytes = read_up_to(&*self.file, 0, OWNED_LEN)?;
            bytes.resize(STORE_LEN as usize, 0);
            let slot = self.newest.encode(&self.uuid);
            let places = [(0, Identity::encode(&self.uuid)), (Slot::position(self.newest.sequence), slot)];
            for (at, control) in places {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                bytes.iter_mut().skip(at).zip(&control).for_each(|(byte, control)| *byte = *control);
            }
            self.file = self.disk.replace_lock_file(&bytes)?;
            self.certain = true;
            let named = self.disk.sync_dir();
            self.note_sync(named)?;
        }
        Ok(links > 0)
    }

    /// Gives a copy that was never opened an instance of its own, durably. With the instance of its source the copy would take
    /// what was derived from the source's log for its own.
    pub(crate) fn leave_source(&mut self) -> io::Result<()> {
        if self.newest.is_copy() {
            let instance = draw(&*self.disk);
            self.write(|slot| {
                slot.instance = instance;
                slot.flags &= !Slot::COPY;
            })?;
        }
        Ok(())
    }

    fn note_sync(&mut self, synced: io::Result<()>) -> io::Result<()> {
        self.sync_failed |= synced.is_err();
        synced
    }

    /// Makes durable what was read from the file: it may be in the page cache alone, even clean there after a sync that failed.
    /// Equal bytes over equal bytes endanger nothing.
    fn confirm(&mut self) -> io::Result<()> {
        if !self.certain {
            self.file.write_at(0, &Identity::encode(&self.uuid))?;
            self.file.write_at(Slot::position(self.newest.sequence), &self.newest.encode(&self.uuid))?;
            let synced = self.file.sync();
            self.note_sync(synced)?;
            self.certain = true;
        }
        Ok(())
    }

    /// Writes `change` of the newest slot over the other one, durably, once that is certain: a power failure must not tear both.
    pub(crate) fn write(&mut self, change: impl FnOnce(&mut Slot)) -> io::Result<()> {
        if !self.leave_links()? {
            // What is written there no open would find.
            return Err(io::Error::new(io::ErrorKind::NotFound, "STORE was removed or renamed"));
        }
        self.confirm()?;
        let mut slot = self.newest;
        change(&mut slot);
        slot.watermark = slot.watermark.max(self.newest.watermark);
        slot.epoch = slot.epoch.max(self.newest.epoch);
        slot.features = slot.features.union(self.newest.features);
        // seam: a slot over itself
        slot.sequence = self.newest.sequence.saturating_add(1);
        self.file.write_at(Slot::position(slot.sequence), &slot.encode(&self.uuid))?;
        // seam: a slot without its sync
        let synced = self.file.sync();
        self.note_sync(synced)?;
        self.newest = slot;
        Ok(())
    }
}

/// 16 random bytes.
fn draw(disk: &dyn Disk) -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&disk.random().to_le_bytes());
    }
    bytes
}
