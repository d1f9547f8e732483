//! Segment indexes: derived files that say where a segment holds which ordinals of which keys.
//!
//! To the log a key is a number, and so is an ordinal. A *row* says that from some ordinal on, frame and part are these, and
//! that the ordinals behind it are the parts behind it, up to the next row. A row proves itself, so that nothing needs to be
//! read but what a look-up touches. Whatever is wrong with an index, it counts as absent, and is made again from its
//! segment. Never here: what keys mean, and the truth.

use super::bytes::{Cursor, u32_at};
use super::cache::BlockCache;
use super::handles::Handles;
use super::header::{FORMAT, Uuid};
use super::keeper::Keeper;
use super::mix;
use super::name::FileName;
use super::segment::Segment;
use super::survey::read_up_to;
use crate::disk::File;
use crate::ids::{FileNumber, Lsn};
use std::io;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"\x89IDX\r\n\x1a\n";
/// Magic, format, count of keys, uuid, segment, its salt, own salt, LSN range, CRC of the directory, CRC.
const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 * 5 + 4 + 4;
const ENTRY_LEN: usize = 8 + 4 + 8 + 8 + 8;
const ROW_LEN: usize = 16;
/// Header and directory of an index of few keys.
const FIRST_READ_LEN: usize = 1024;
/// How much is written at a time.
const SLICE_LEN: usize = 256 << 10;
/// How many rows are read at a time.
const ROWS_MAX: usize = 16;

/// Where some ordinals of a key are: those from `first` on are the parts from `part` on of the frame at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) first: u64,
    pub(crate) at: u32,
    pub(crate) part: u32,
}

/// What an index is made of, for one key. Rows are in the order of their ordinals and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRows {
    pub(crate) key: u64,
    /// The number of ordinals, from the first row's on.
    pub(crate) count: u64,
    pub(crate) rows: Vec<Row>,
}

/// What the directory of an index says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexKey {
    pub(crate) key: u64,
    rows: u32,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// The number of its first row.
    rows_from: u64,
}

/// An index that was found whole; its rows prove themselves when they are read.
#[derive(Debug)]
pub(crate) struct Index {
    name: FileName,
    salt: u64,
    keys: Vec<IndexKey>,
    handles: Arc<Handles>,
}

/// Header and directory of an index of `segment`; `None` where rows or keys are out of order or too far apart.
fn encode_front(uuid: &Uuid, segment: &Segment, salt: u64, keys: &[KeyRows]) -> Option<Vec<u8>> {
    let ordered = keys.is_sorted_by(|a, b| a.key < b.key)
        && keys.iter().all(|key| key.rows.is_sorted_by(|a, b| a.first < b.first));
    let mut directory = Vec::with_capacity(keys.len() * ENTRY_LEN);
    let mut rows_from = 0u64;
    for key in keys {
        let (first, last) = (key.rows.first()?.first, key.rows.last()?.first);
        let row_count = u32::try_from(key.rows.len()).ok()?;
        u32::try_from(last.checked_sub(first)?).ok()?;
        directory.extend_from_slice(&key.key.to_le_bytes());
        directory.extend_from_slice(&row_count.to_le_bytes());
        for field in [first, key.count, rows_from] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        rows_from = rows_from.checked_add(u64::from(row_count))?;
    }
    let mut out = MAGIC.to_vec();
    for word in [FORMAT, u32::try_from(keys.len()).ok()?] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(uuid);
    for field in [segment.number().0, segment.salt(), salt, segment.base().0, segment.end().0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&mix::crc(0, &directory).to_le_bytes());
    let sum = mix::crc(0, &out);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&directory);
    ordered.then_some(out)
}

/// The rows of an index, whose front could be encoded, one after another.
fn encoded_rows(salt: u64, keys: &[KeyRows]) -> impl Iterator<Item = [u8; ROW_LEN]> {
    let rows = keys.iter().flat_map(|key| key.rows.iter().map(move |row| (key, row)));
    (0u64..).zip(rows).map(move |(number, (key, row))| {
        let first = key.rows.first().map_or(0, |row| row.first);
        let delta = row.first.saturating_sub(first) as u32;
        let mut bytes = [0; ROW_LEN];
        let fields = [delta, row.at, row.part, row_check(salt, key.key, number, delta, row.at, row.part)];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    })
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

/// What makes a row prove itself: it is this row, of this key, of this file.
pub(super) fn row_check(salt: u64, key: u64, number: u64, delta: u32, at: u32, part: u32) -> u32 {
    let place = mix::place(salt, number);
    let fields = mix::step(place ^ key ^ u64::from(delta) << 32);
    mix::low(mix::step(fields ^ u64::from(at) ^ u64::from(part) << 32))
}

impl Keeper {
    /// Writes the index of a segment that is complete, in place of any other. It is not synced: after a power cut a row that
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
        if self.disk().available()? < len.saturating_add(leave) {
            return Err(io::ErrorKind::StorageFull.into());
        }
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

    /// The index of a segment, or `None` where there is none that is of use.
    ///
    /// # Errors
    /// Whatever reading says, but for a file that is not there.
    pub(crate) fn open_index(&self, segment: &Segment) -> io::Result<Option<Index>> {
        Index::open(self.handles(), self.uuid(), segment)
    }
}

impl Index {
    fn open(handles: &Arc<Handles>, uuid: &Uuid, segment: &Segment) -> io::Result<Option<Self>> {
        let name = FileName::Index(segment.number());
        let file = match handles.get(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut front = read_up_to(&*file, 0, FIRST_READ_LEN)?;
        let Some((salt, count, directory_crc)) = decode_header(&front, uuid, segment) else { return Ok(None) };
        let front_len = HEADER_LEN as u64 + u64::from(count) * ENTRY_LEN as u64;
        if front_len > FIRST_READ_LEN as u64 {
            if front_len > file.len()? {
                return Ok(None);
            }
            front = read_up_to(&*file, 0, front_len as usize)?;
        }
        let Some(directory) = front.get(HEADER_LEN..front_len as usize) else { return Ok(None) };
        if mix::crc(0, directory) != directory_crc {
            return Ok(None);
        }
        let keys = decode_directory(directory);
        Ok(keys.map(|keys| Self { name, salt, keys, handles: Arc::clone(handles) }))
    }

    /// The keys, sorted.
    pub(crate) fn keys(&self) -> &[IndexKey] {
        &self.keys
    }

    /// What the directory says of `key`.
    pub(crate) fn key(&self, key: u64) -> Option<&IndexKey> {
        self.keys.binary_search_by_key(&key, |entry| entry.key).ok().and_then(|found| self.keys.get(found))
    }

    /// Puts into `out` the rows of `key` from the one that holds `ordinal` on, at most `max` of them, and returns the ordinal
    /// after the last one's. Nothing is put there for an ordinal that the segment does not hold. `None` where a row does
    /// not prove itself: the index is of no use then.
    ///
    /// # Errors
    /// Whatever reading says.
    pub(crate) fn look_up(
        &self,
        cache: &BlockCache,
        key: u64,
        ordinal: u64,
        max: usize,
        out: &mut Vec<Row>,
    ) -> io::Result<Option<u64>> {
        out.clear();
        let Some(entry) = self.key(key) else { return Ok(Some(ordinal)) };
        let end = entry.first.saturating_add(entry.count);
        if ordinal < entry.first || ordinal >= end {
            return Ok(Some(ordinal));
        }
        // The row sought is the last that begins at the ordinal or before it; the first row of a key does. Frames of equal
        // counts lie on a line, so a guess and the row after it mostly end the search before it begins.
        let (mut low, mut high) = (0, entry.rows);
        let guess = u128::from(ordinal - entry.first) * u128::from(entry.rows) / u128::from(entry.count);
        let mut probes = [guess as u32, (guess as u32).saturating_add(1)].into_iter();
        while high - low > 1 {
            let probe = probes.next().filter(|probe| (low + 1..high).contains(probe));
            let middle = probe.unwrap_or(low + (high - low) / 2);
            match self.row(cache, entry, middle)? {
                None => return Ok(None),
                Some(row) if row.first <= ordinal => low = middle,
                Some(_) => high = middle,
            }
        }
        let wanted = (entry.rows - low).min(u32::try_from(max).unwrap_or(u32::MAX));
        if !self.rows(cache, entry, low, wanted, out)? {
            return Ok(None);
        }
        if low + wanted == entry.rows {
            return Ok(Some(end));
        }
        Ok(self.row(cache, entry, low + wanted)?.map(|next| next.first))
    }

    fn row(&self, cache: &BlockCache, entry: &IndexKey, index: u32) -> io::Result<Option<Row>> {
        let mut bytes = [0; ROW_LEN];
        let read = self.read_rows(cache, entry, index, &mut bytes)?;
        let number = entry.rows_from.saturating_add(u64::from(index));
        Ok(if read == ROW_LEN { self.decode_row(entry, number, &bytes) } else { None })
    }

    fn rows(
        &self,
        cache: &BlockCache,
        entry: &IndexKey,
        from: u32,
        count: u32,
        out: &mut Vec<Row>,
    ) -> io::Result<bool> {
        let mut bytes = [0; ROWS_MAX * ROW_LEN];
        let mut next = from;
        let end = from.saturating_add(count);
        while next < end {
            let len = (end - next).min(ROWS_MAX as u32) as usize * ROW_LEN;
            let chunk = bytes.get_mut(..len).unwrap_or(&mut []);
            let read = self.read_rows(cache, entry, next, chunk)?;
            let number = entry.rows_from.saturating_add(u64::from(next));
            for (number, row) in (number..).zip(chunk.chunks_exact(ROW_LEN)) {
                let Some(row) = self.decode_row(entry, number, row).filter(|_| read == len) else { return Ok(false) };
                out.push(row);
            }
            next += (len / ROW_LEN) as u32;
        }
        Ok(true)
    }

    fn read_rows(&self, cache: &BlockCache, entry: &IndexKey, index: u32, buf: &mut [u8]) -> io::Result<usize> {
        let rows_at = (HEADER_LEN + self.keys.len() * ENTRY_LEN) as u64;
        let number = entry.rows_from.saturating_add(u64::from(index));
        let at = rows_at.saturating_add(number.saturating_mul(ROW_LEN as u64));
        cache.read_at(self.salt, &|| self.handles.get(self.name), at, buf)
    }

    fn decode_row(&self, entry: &IndexKey, number: u64, bytes: &[u8]) -> Option<Row> {
        let mut cursor = Cursor::new(bytes);
        let (delta, at, part, check) = (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let first = entry.first.checked_add(u64::from(delta))?;
        (check == row_check(self.salt, entry.key, number, delta, at, part)).then_some(Row { first, at, part })
    }
}

/// Own salt, count of keys and CRC of the directory, if this is an index of all that `segment` holds.
fn decode_header(header: &[u8], uuid: &Uuid, segment: &Segment) -> Option<(u64, u32, u32)> {
    let covered = header.get(..HEADER_LEN - 4)?;
    if !covered.starts_with(&MAGIC) || u32_at(header, HEADER_LEN - 4)? != mix::crc(0, covered) {
        return None;
    }
    let mut cursor = Cursor::new(covered);
    cursor.take(MAGIC.len())?;
    let (format, count) = (cursor.u32()?, cursor.u32()?);
    let same_store = cursor.array()? == *uuid;
    let same_number = FileNumber(cursor.u64()?) == segment.number();
    // seam: an index of another life counts
    let same_salt = cursor.u64()? == segment.salt();
    let salt = cursor.u64()?;
    let same_range = Lsn(cursor.u64()?) == segment.base() && Lsn(cursor.u64()?) == segment.end();
    (format == FORMAT && same_store && same_number && same_salt && same_range).then_some((salt, count, cursor.u32()?))
}

fn decode_directory(directory: &[u8]) -> Option<Vec<IndexKey>> {
    let mut cursor = Cursor::new(directory);
    let mut keys = Vec::with_capacity(directory.len() / ENTRY_LEN);
    while cursor.left() > 0 {
        let (key, rows) = (cursor.u64()?, cursor.u32()?);
        let (first, count, rows_from) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        keys.push(IndexKey { key, rows, first, count, rows_from });
    }
    let whole = keys.iter().all(|key| key.rows > 0 && key.count > 0 && key.first.checked_add(key.count).is_some());
    (whole && keys.is_sorted_by(|a, b| a.key < b.key)).then_some(keys)
}

#[cfg(test)]
mod tests;
