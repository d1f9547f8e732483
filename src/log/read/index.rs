//! Segment indexes: derived files that say where a segment holds which ordinals of which keys.
//!
//! To the log a key is a number, and so is an ordinal. A *row* stands for consecutive ordinals: it has the frame and part of
//! the first, and the others are the parts behind it. What lies between two rows is not in the segment. A row proves itself, so
//! that nothing needs to be read but what a look-up touches. Whatever is wrong with an index, it counts as absent, and is made
//! again from its segment. Never here: what keys mean, and the truth.

use crate::ids::{FileNumber, Lsn};
use crate::log::format::bytes::{ByteCursor, u32_at};
use crate::log::format::checksum;
use crate::log::format::header::{FORMAT, Uuid};
use crate::log::format::name::FileName;
use crate::log::read::cache::BlockCache;
use crate::log::read::handles::Handles;
use crate::log::read::handles::read_up_to;
use crate::log::read::segment::Segment;
use std::io;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"\x89IDX\r\n\x1a\n";
/// Magic, format, count of keys, uuid, segment, its salt, own salt, LSN range, CRC of the directory, CRC.
const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 * 5 + 4 + 4;
/// Key, first ordinal, end, time, number of the first row, count of rows.
const ENTRY_LEN: usize = 8 * 5 + 4;
/// Difference, count, frame, part, check.
pub(in crate::log) const ROW_LEN: usize = 8 + 4 * 4;
/// Header and directory of an index of few keys.
const FIRST_READ_LEN: usize = 1024;
/// How many rows are read at a time.
const ROWS_MAX: usize = 16;

/// Where some ordinals of a key are: the `count` from `first` on are the parts from `part` on of the frame at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) first: u64,
    /// Not 0.
    pub(crate) count: u32,
    pub(crate) at: u32,
    pub(crate) part: u32,
}

impl Row {
    /// The ordinal after the last.
    pub(crate) const fn end(&self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// Whether the row stands for `ordinal`.
    pub(crate) const fn holds(&self, ordinal: u64) -> bool {
        self.first <= ordinal && ordinal < self.end()
    }
}

/// What an index is made of, for one key. Rows are apart, in the order of their ordinals, and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRows {
    pub(crate) key: u64,
    /// When the first of the ordinals was written, in milliseconds.
    pub(crate) time_ms: u64,
    pub(crate) rows: Vec<Row>,
}

/// What the directory of an index says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexKey {
    pub(crate) key: u64,
    pub(crate) first: u64,
    /// The ordinal after the last. Some in between may not be there.
    pub(crate) end: u64,
    /// When the first of the ordinals was written, in milliseconds.
    pub(crate) time_ms: u64,
    /// The number of its first row.
    rows_from: u64,
    rows: u32,
}

/// An index that was found whole; its rows prove themselves when they are read.
#[derive(Debug)]
pub(crate) struct Index {
    name: FileName,
    salt: u64,
    keys: Vec<IndexKey>,
    handles: Arc<Handles>,
}

/// Whether the rows of a key are such as an index can hold.
fn are_apart(rows: &[Row]) -> bool {
    let whole = rows.iter().all(|row| row.count > 0 && row.first.checked_add(u64::from(row.count)).is_some());
    whole && rows.is_sorted_by(|a, b| a.end() <= b.first)
}

/// Header and directory of an index of `segment`; `None` where rows or keys are out of order.
pub(in crate::log) fn encode_front(uuid: &Uuid, segment: &Segment, salt: u64, keys: &[KeyRows]) -> Option<Vec<u8>> {
    let ordered = keys.is_sorted_by(|a, b| a.key < b.key) && keys.iter().all(|key| are_apart(&key.rows));
    let mut directory = Vec::with_capacity(keys.len() * ENTRY_LEN);
    let mut rows_from = 0u64;
    for key in keys {
        let (first, end) = (key.rows.first()?.first, key.rows.last()?.end());
        let row_count = u32::try_from(key.rows.len()).ok()?;
        for field in [key.key, first, end, key.time_ms, rows_from] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
        directory.extend_from_slice(&row_count.to_le_bytes());
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
    out.extend_from_slice(&checksum::crc(0, &directory).to_le_bytes());
    let sum = checksum::crc(0, &out);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&directory);
    ordered.then_some(out)
}

/// A row as it stands in a file: the difference from its key's first ordinal, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct StoredRow {
    pub(in crate::log) difference: u64,
    pub(in crate::log) count: u32,
    pub(in crate::log) at: u32,
    pub(in crate::log) part: u32,
}

impl StoredRow {
    /// What makes a row prove itself: it is this row, of this key, of this file.
    pub(in crate::log) fn check(&self, salt: u64, key: u64, number: u64) -> u32 {
        let of_key = checksum::step(checksum::position_seed(salt, number) ^ key);
        let of_place =
            checksum::step(checksum::step(of_key ^ self.difference) ^ u64::from(self.at) ^ u64::from(self.part) << 32);
        // seam: the check of a row leaves its count out
        checksum::low(checksum::step(of_place ^ u64::from(self.count)))
    }

    fn encode(&self, check: u32) -> [u8; ROW_LEN] {
        let mut bytes = [0; ROW_LEN];
        let (difference, words) = bytes.split_at_mut(8);
        difference.copy_from_slice(&self.difference.to_le_bytes());
        for (place, word) in words.chunks_exact_mut(4).zip([self.count, self.at, self.part, check]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// A row and its check.
    fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let mut cursor = ByteCursor::new(bytes);
        let difference = cursor.u64()?;
        let row = Self { difference, count: cursor.u32()?, at: cursor.u32()?, part: cursor.u32()? };
        Some((row, cursor.u32()?))
    }
}

/// The rows of an index, whose front could be encoded, one after another.
pub(in crate::log) fn encoded_rows(salt: u64, keys: &[KeyRows]) -> impl Iterator<Item = [u8; ROW_LEN]> {
    let rows = keys.iter().flat_map(|key| key.rows.iter().map(move |row| (key, row)));
    (0u64..).zip(rows).map(move |(number, (key, row))| {
        let first = key.rows.first().map_or(0, |row| row.first);
        let difference = row.first.saturating_sub(first);
        let stored = StoredRow { difference, count: row.count, at: row.at, part: row.part };
        stored.encode(stored.check(salt, key.key, number))
    })
}

/// Opens the index files of a log.
#[derive(Clone, Debug)]
pub(crate) struct Indexes {
    handles: Arc<Handles>,
    uuid: Uuid,
}

impl Indexes {
    pub(in crate::log) const fn new(handles: Arc<Handles>, uuid: Uuid) -> Self {
        Self { handles, uuid }
    }

    /// The index of a segment, or `None` where there is none that is of use.
    ///
    /// # Errors
    /// Whatever reading says, but for a file that is not there.
    pub(crate) fn open(&self, segment: &Segment) -> io::Result<Option<Index>> {
        Index::open(&self.handles, &self.uuid, segment)
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
        if checksum::crc(0, directory) != directory_crc {
            return Ok(None);
        }
        let keys = decode_directory(directory);
        Ok(keys.map(|keys| Self { name, salt, keys, handles: Arc::clone(handles) }))
    }

    /// The file.
    pub(crate) const fn name(&self) -> FileName {
        self.name
    }

    /// The keys, sorted.
    pub(crate) fn keys(&self) -> &[IndexKey] {
        &self.keys
    }

    /// What the directory says of `key`.
    pub(crate) fn key(&self, key: u64) -> Option<&IndexKey> {
        self.keys.binary_search_by_key(&key, |entry| entry.key).ok().and_then(|found| self.keys.get(found))
    }

    /// Puts into `out` the rows of `key` from the one that holds `ordinal` on, at most `max` of them. Nothing is put there for an
    /// ordinal that the segment does not hold. `false` where a row does not prove itself: the index is of no use then.
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
    ) -> io::Result<bool> {
        if !self.look_up_from(cache, key, ordinal, max, out)? {
            return Ok(false);
        }
        // seam: a gap is filled
        if !out.first().is_some_and(|row| row.holds(ordinal)) {
            out.clear();
        }
        Ok(true)
    }

    /// As [`Index::look_up`], but from the first row on that goes beyond `ordinal`, whether it holds it or not.
    ///
    /// # Errors
    /// Whatever reading says.
    pub(crate) fn look_up_from(
        &self,
        cache: &BlockCache,
        key: u64,
        ordinal: u64,
        max: usize,
        out: &mut Vec<Row>,
    ) -> io::Result<bool> {
        out.clear();
        let Some(entry) = self.key(key) else { return Ok(true) };
        if ordinal >= entry.end {
            return Ok(true);
        }
        let ordinal = ordinal.max(entry.first);
        // The row sought is the last that begins at the ordinal or before it; the first row of a key does. Frames of equal
        // counts lie on a line, so a guess and the row after it mostly end the search before it begins.
        let (mut low, mut high) = (0, entry.rows);
        let guess = u128::from(ordinal - entry.first) * u128::from(entry.rows) / u128::from(entry.end - entry.first);
        let mut probes = [guess as u32, (guess as u32).saturating_add(1)].into_iter();
        while high - low > 1 {
            let probe = probes.next().filter(|probe| (low + 1..high).contains(probe));
            let middle = probe.unwrap_or(low + (high - low) / 2);
            match self.row(cache, entry, middle)? {
                None => return Ok(false),
                Some(row) if row.first <= ordinal => low = middle,
                Some(_) => high = middle,
            }
        }
        let wanted = (entry.rows - low).min(u32::try_from(max).unwrap_or(u32::MAX));
        if !self.rows(cache, entry, low, wanted, out)? {
            return Ok(false);
        }
        if out.first().is_some_and(|row| row.end() <= ordinal) {
            // It lies in a gap, and the rows behind that are sought.
            out.clear();
            let wanted = wanted.min(entry.rows - low - 1);
            return self.rows(cache, entry, low + 1, wanted, out);
        }
        Ok(true)
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
        let (stored, check) = StoredRow::decode(bytes)?;
        let StoredRow { count, at, part, .. } = stored;
        let first = entry.first.checked_add(stored.difference)?;
        let lies_within = count > 0 && first.checked_add(u64::from(count))? <= entry.end;
        let proves_itself = check == stored.check(self.salt, entry.key, number);
        (lies_within && proves_itself).then_some(Row { first, count, at, part })
    }
}

/// Control salt, count of keys and CRC of the directory, if this is an index of all that `segment` holds.
fn decode_header(header: &[u8], uuid: &Uuid, segment: &Segment) -> Option<(u64, u32, u32)> {
    let covered = header.get(..HEADER_LEN - 4)?;
    if !covered.starts_with(&MAGIC) || u32_at(header, HEADER_LEN - 4)? != checksum::crc(0, covered) {
        return None;
    }
    let mut cursor = ByteCursor::new(covered);
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
    let mut cursor = ByteCursor::new(directory);
    let mut keys = Vec::with_capacity(directory.len() / ENTRY_LEN);
    while cursor.left() > 0 {
        let (key, first, end, time_ms) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let (rows_from, rows) = (cursor.u64()?, cursor.u32()?);
        keys.push(IndexKey { key, first, end, time_ms, rows_from, rows });
    }
    let whole = keys.iter().all(|key| key.rows > 0 && key.first < key.end);
    (whole && keys.is_sorted_by(|a, b| a.key < b.key)).then_some(keys)
}

#[cfg(test)]
mod tests;
