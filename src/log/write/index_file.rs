//! Writing and removing the index files of segments. For their bytes and for reading them see `read::index`.

use crate::disk::File;
use crate::ids::FileNumber;
use crate::log::format::name::FileName;
use crate::log::read::index::{Indexes, KeyRows, ROW_LEN, encode_front, encoded_rows};
use crate::log::read::segment::Segment;
use crate::log::write::file_manager::FileManager;
use std::io;
use std::sync::Arc;

/// How much is written at a time.
const SLICE_LEN: usize = 256 << 10;

impl FileManager {
    /// Writes the index of a segment that is complete, in place of any other. It is not synced: after a power failure a row that
    /// does not prove itself is one that was never written.
    ///
    /// # Errors
    /// `StorageFull` where less than `leave` bytes would remain on the disk; `InvalidInput` where the rows are not in order; whatever
    /// creating and writing says. There is no index then that is of use.
    pub(crate) fn write_index(&mut self, segment: &Segment, keys: &[KeyRows], leave: u64) -> io::Result<()> {
        let salt = self.disk().random();
        let front = encode_front(self.uuid(), segment, salt, keys).ok_or(io::ErrorKind::InvalidInput)?;
        self.remove_index(segment.number())?;
        let name = FileName::Index(segment.number());
        let rows: usize = keys.iter().map(|key| key.rows.len()).sum();
        let len = (front.len() + rows * ROW_LEN) as u64;
        self.check_room(len, leave)?;
        let file = self.disk().create(&name.to_string(), len)?;
        let written = write_slices(&*file, front, encoded_rows(salt, keys));
        if written.is_err() {
            self.remove_index(segment.number())?;
        }
        written
    }

    /// Removes the index of a segment, if there is one.
    ///
    /// # Errors
    /// Whatever removing says.
    pub(crate) fn remove_index(&mut self, number: FileNumber) -> io::Result<()> {
        self.remove(FileName::Index(number))
    }

    /// For opening the index files of the log.
    pub(crate) fn indexes(&self) -> Indexes {
        Indexes::new(Arc::clone(self.handles()), *self.uuid())
    }
}

/// Writes `front` and the rows behind it, a slice at a time: others wait for nothing that is long, and memory stays small.
fn write_slices(file: &dyn File, front: Vec<u8>, rows: impl Iterator<Item = [u8; ROW_LEN]>) -> io::Result<()> {
    let (mut at, mut slice) = (0, front);
    for row in rows {
        slice.extend_from_slice(&row);
        if let Some(full) = slice.get(..SLICE_LEN) {
            file.write_at(at, full)?;
            at += SLICE_LEN as u64;
            slice.drain(..SLICE_LEN);
        }
    }
    file.write_at(at, &slice)
}
