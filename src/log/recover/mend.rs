//! What a repair does to files: each is copied under another name before it is changed or removed.
//!
//! Never here: what is to be done.

use crate::disk::Disk;
use crate::ids::FileNumber;
use crate::log::error::{Corruption, OpenError};
use crate::log::format::header::FileHeader;
use crate::log::format::name::FileName;
use crate::log::format::store_file::Slot;
use crate::log::read::handles::{Handles, read_up_to};
use crate::log::recover::repair::Assessment;
use crate::log::write::slots::Slots;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// How much is copied at a time.
const CHUNK_LEN: u64 = 1 << 20;

/// What is to be done to a file, once there is a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// `STORE` is written anew, with this slot.
    Store(Slot),
    /// The header is written again, as the checkpoint's list tells it.
    Header(FileNumber, FileHeader),
    /// It is as long as the list says again, with zeros at its end.
    Length(FileName, u64),
    /// Nothing tells what it holds, or it is not whole.
    Remove(FileName),
    /// It stays as it is: what is damaged in it lies below the new checkpoint.
    Keep(FileName),
}

impl Mend {
    pub(super) const fn name(&self) -> FileName {
        match self {
            Self::Store(_) => FileName::Store,
            Self::Header(number, _) => FileName::Segment(*number),
            Self::Length(name, _) | Self::Remove(name) | Self::Keep(name) => *name,
        }
    }
}

impl Assessment {
    /// Copies what is damaged, and then makes the directory one that `plan` can be carried out in. Returns the names of the copies.
    ///
    /// # Errors
    /// Reads and writes that fail. The damage is still there then, and so are the copies that were made.
    pub(in crate::log) fn mend(&self, disk: &Arc<dyn Disk>, handles: &Handles) -> Result<Vec<String>, OpenError> {
        let mut taken: BTreeSet<String> =
            disk.list().map_err(OpenError::io("list", FileName::Store))?.into_iter().map(|entry| entry.name).collect();
        let mut copies = Vec::new();
        let names: BTreeSet<FileName> = self.mends.iter().map(Mend::name).collect();
        // seam: nothing is copied aside
        for name in names {
            let copy = (1..=u32::MAX).map(|number| damaged_name(name, number)).find(|name| !taken.contains(name));
            // Nothing is changed of which there is no copy.
            let copy = copy.ok_or_else(|| Corruption::of(name, None, "it has more copies than there are names"))?;
            let copied = quarantine(&**disk, name, &copy);
            if copied.is_err() {
                // What is there of it is no copy. The first error is told.
                drop(disk.remove(&copy));
            }
            if copied? {
                taken.insert(copy.clone());
                copies.push(copy);
            }
        }
        disk.sync_dir().map_err(OpenError::io("sync the directory of", FileName::Store))?;
        for mend in &self.mends {
            self.carry_out(mend, disk, handles).map_err(OpenError::io("mend", mend.name()))?;
        }
        Ok(copies)
    }

    fn carry_out(&self, mend: &Mend, disk: &Arc<dyn Disk>, handles: &Handles) -> io::Result<()> {
        let name = mend.name();
        handles.forget(name);
        match mend {
            Mend::Store(slot) => {
                let Some(uuid) = self.scanned.directory.uuid else { return Ok(()) };
                Slots::replace(&**disk, &uuid, *slot)
            }
            // A copy of links to these files has the same damage and the same list: they are mended for both.
            Mend::Header(_, header) => {
                let file = disk.open(&name.to_string())?;
                file.write_at(0, &header.encode())?;
                file.sync()
            }
            Mend::Length(_, len) => {
                let file = disk.open(&name.to_string())?;
                file.set_len(*len)?;
                file.sync()
            }
            Mend::Remove(_) => disk.remove(&name.to_string()),
            Mend::Keep(_) => Ok(()),
        }
    }
}

/// A name that is none of ours, so that the copy is left alone.
fn damaged_name(name: FileName, number: u32) -> String {
    if number == 1 { format!("{name}.damaged") } else { format!("{name}.damaged-{number}") }
}

/// A durable copy of a file under another name; `false` where there is no such file.
fn quarantine(disk: &dyn Disk, name: FileName, copy: &str) -> Result<bool, OpenError> {
    let io = || OpenError::io("copy", name);
    let source = match disk.open(&name.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(io())?,
    };
    let len = source.len().map_err(io())?;
    let target = disk.create(copy, len).map_err(io())?;
    let mut at = 0;
    while at < len {
        let bytes = read_up_to(&*source, at, CHUNK_LEN.min(len - at) as usize).map_err(io())?;
        if bytes.is_empty() {
            break;
        }
        target.write_at(at, &bytes).map_err(io())?;
        at += bytes.len() as u64;
    }
    target.sync().map_err(io())?;
    Ok(true)
}
