//! Writing `STORE`: laying it out once, and its slots in turn.
//!
//! Never here: when a slot is due, and what is in it.

use super::header::Uuid;
use super::name::FileName;
use super::store_file::{Identity, OWNED_LEN, STORE_LEN, Slot};
use crate::disk::{Disk, File};
use crate::ids::Epoch;
use std::io;
use std::sync::Arc;

/// The file `STORE` and the slot that counts.
#[derive(Debug)]
pub(crate) struct Slots {
    file: Arc<dyn File>,
    uuid: Uuid,
    newest: Slot,
    /// Whether identity and newest slot are known to be durable.
    certain: bool,
}

impl Slots {
    /// Continues with what was read from the file.
    pub(crate) const fn found(file: Arc<dyn File>, uuid: Uuid, newest: Slot) -> Self {
        Self { file, uuid, newest, certain: false }
    }

    /// Lays the file out once its name is durable: slots first, and the identity only once they are durable.
    pub(crate) fn lay_out(disk: &dyn Disk) -> io::Result<Self> {
        // While the file is empty, whoever attaches next gives its name to another one: a sync that failed may be final.
        // seam: bytes in STORE before its name is durable
        disk.sync_dir()?;
        let file = disk.open(&FileName::Store.to_string())?;
        let mut uuid = [0; 16];
        let (low, high) = uuid.split_at_mut(8);
        low.copy_from_slice(&disk.random().to_le_bytes());
        high.copy_from_slice(&disk.random().to_le_bytes());
        let slots = [0, 1].map(|sequence| Slot { sequence, epoch: Epoch(0), clean: true, ..Slot::default() });
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
        Ok(Self { file, uuid, newest, certain: true })
    }

    pub(crate) const fn uuid(&self) -> &Uuid {
        &self.uuid
    }

    pub(crate) const fn newest(&self) -> &Slot {
        &self.newest
    }

    /// Makes durable what was read from the file: it may be in the page cache alone, even clean there after a sync that failed.
    /// Equal bytes over equal bytes endanger nothing.
    fn confirm(&mut self) -> io::Result<()> {
        if !self.certain {
            self.file.write_at(0, &Identity::encode(&self.uuid))?;
            self.file.write_at(Slot::position(self.newest.sequence), &self.newest.encode(&self.uuid))?;
            self.file.sync()?;
            self.certain = true;
        }
        Ok(())
    }

    /// Writes `change` of the newest slot over the other one, durably, once that is certain: a power cut must not tear both.
    pub(crate) fn write(&mut self, change: impl FnOnce(&mut Slot)) -> io::Result<()> {
        self.confirm()?;
        let mut slot = self.newest;
        change(&mut slot);
        slot.watermark = slot.watermark.max(self.newest.watermark);
        slot.epoch = slot.epoch.max(self.newest.epoch);
        // seam: a slot over itself
        slot.sequence = self.newest.sequence.saturating_add(1);
        self.file.write_at(Slot::position(slot.sequence), &slot.encode(&self.uuid))?;
        // seam: a slot without its sync
        self.file.sync()?;
        self.newest = slot;
        Ok(())
    }
}
