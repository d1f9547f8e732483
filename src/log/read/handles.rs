//! A bounded number of open files for reading.
//!
//! A log may have thousands of segments and a process may have few descriptors. Never here: what the files hold.

use crate::disk::{Disk, File};
use crate::log::format::name::FileName;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// How many files stay open.
const OPEN_MAX: usize = 32;

/// The least recently used handles are closed first.
#[derive(Debug)]
pub(crate) struct Handles {
    disk: Arc<dyn Disk>,
    open: Mutex<Vec<(FileName, Arc<dyn File>)>>,
}

impl Handles {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::new(Vec::with_capacity(OPEN_MAX)) }
    }

    /// The file of this name, for reading.
    pub(crate) fn get(&self, name: FileName) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.recall(name) {
            return Ok(file);
        }
        let file = self.disk.open(&name.to_string())?;
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push((name, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes the handle, before the file is removed or made anew.
    pub(crate) fn forget(&self, name: FileName) {
        self.open.lock().retain(|(open, _)| *open != name);
    }

    fn recall(&self, name: FileName) -> Option<Arc<dyn File>> {
        let mut open = self.open.lock();
        let index = open.iter().position(|(open, _)| *open == name)?;
        let found = open.remove(index);
        let file = Arc::clone(&found.1);
        open.push(found);
        Some(file)
    }
}

/// Up to `len` bytes from `at` on: fewer only at the end of the file.
pub(in crate::log) fn read_up_to(file: &dyn File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(file, at, len, &mut bytes)?;
    Ok(bytes)
}

/// As [`read_up_to`], in place of what `bytes` held.
pub(in crate::log) fn read_into(file: &dyn File, at: u64, len: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.try_reserve_exact(len.saturating_sub(bytes.len())).map_err(io::Error::other)?;
    bytes.resize(len, 0);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = file.read_at(at.saturating_add(filled as u64), rest)?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    bytes.truncate(filled);
    Ok(())
}
