//! Makes the checksums of a file agree with its bytes, as far as its lengths fit into each other.
//!
//! So that a mutated input reaches what lies behind the checks. Never here: bytes that are no checksum or identity.

use crate::ids::Lsn;
use crate::log::format::bytes::u32_at;
use crate::log::format::checksum::{self, crc};
use crate::log::format::frame::{Claim, Spot};
use crate::log::format::header::{HEADER_LEN, Uuid};
use crate::log::format::name::FileName;
use crate::log::read::index::StoredRow;

/// The identity of the store that all sealed files belong to.
pub(crate) const UUID: Uuid = *b"of a fuzz target";

/// The file of this name.
pub(crate) fn file(name: &str, bytes: &mut [u8], uuid: &Uuid) {
    match FileName::parse(name) {
        Some(FileName::Store) => store(bytes, uuid),
        Some(FileName::Segment(_) | FileName::Messages(_) | FileName::DeadLetters(_)) => segment(bytes, uuid),
        Some(FileName::Checkpoint(_)) => checkpoint(bytes, uuid),
        Some(FileName::Index(_)) => {
            put(bytes, 16, uuid);
            index(bytes);
        }
        None => {}
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(value);
    }
}

/// Puts the CRC of the first `covered` bytes behind them.
fn put_crc(bytes: &mut [u8], covered: usize) {
    if let Some(covered_bytes) = bytes.get(..covered) {
        let sum = crc(0, covered_bytes);
        put(bytes, covered, &sum.to_le_bytes());
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// `STORE`: identity and slots.
pub(crate) fn store(bytes: &mut [u8], uuid: &Uuid) {
    put(bytes, 24, uuid);
    put_crc(bytes, 40);
    for position in [4096, 8192] {
        let Some(slot) = bytes.get(position..position + 508) else { continue };
        let seed = crc(checksum::low(checksum::step(position as u64)), uuid);
        let sum = crc(seed, slot);
        put(bytes, position + 508, &sum.to_le_bytes());
    }
}

/// The header page of a segment or checkpoint.
pub(crate) fn header(bytes: &mut [u8]) {
    put_crc(bytes, HEADER_LEN - 4);
}

/// A segment or a file of a class: its header, its table, and frame after frame.
pub(crate) fn segment(bytes: &mut [u8], uuid: &Uuid) {
    put(bytes, 16, uuid);
    let (Some(salt), Some(kind)) = (u64_at(bytes, 40), u32_at(bytes, 12)) else { return };
    if kind != 1 {
        table(bytes);
    }
    header(bytes);
    let copied = u64_at(bytes, 48).zip(u64_at(bytes, 56)).filter(|(from, to)| kind == 1 && from < to);
    frames(bytes, salt, kind == 1, copied.map(|(from, _)| from));
}

fn table(bytes: &mut [u8]) {
    let (Some(body), Some(len)) = (u64_at(bytes, 64), u64_at(bytes, 72)) else { return };
    let at = (HEADER_LEN as u64).saturating_add(body);
    let end = at.saturating_add(len);
    let range = usize::try_from(at).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
    if let Some(table) = bytes.get(range) {
        let sum = crc(0, table);
        put(bytes, 88, &sum.to_le_bytes());
    }
}

/// All frames behind the header; where they are `placed`, the `base` or else the first one tells the LSNs of all.
pub(crate) fn frames(bytes: &mut [u8], salt: u64, placed: bool, base: Option<u64>) {
    let mut base = base;
    let mut at = HEADER_LEN;
    while let Some(rest) = bytes.get_mut(at..) {
        let told = base.map(|base: u64| Lsn(base.wrapping_add((at - HEADER_LEN) as u64)));
        let Ok(place) = u32::try_from(at) else { return };
        let Some((len, lsn)) = frame(rest, Spot { salt, at: place }, told) else { return };
        if placed && base.is_none() {
            base = Some(lsn.0);
        }
        at += len;
    }
}

/// One frame. Its length with padding and its LSN, if there is room for it.
pub(crate) fn frame(bytes: &mut [u8], spot: Spot, told: Option<Lsn>) -> Option<(usize, Lsn)> {
    let claim = Claim::parse(bytes)?;
    if claim.padded() as usize > bytes.len() {
        return None;
    }
    let lsn = claim.lsn.or(told)?;
    let last_end = if claim.parts > 1 { u32_at(bytes, claim.entry_at(claim.parts - 1))? } else { 0 };
    let parts_at = claim.parts_at(last_end)? as usize;
    let mask = spot.mask(lsn);
    for index in 0..claim.parts {
        let range = claim.part_range(index, |at| u32_at(bytes, at))?;
        let part = bytes.get(parts_at.checked_add(range.start as usize)?..parts_at.checked_add(range.end as usize)?)?;
        let check = crc(0, part) ^ mask;
        put(bytes, claim.check_at(index), &check.to_le_bytes());
    }
    let sum = spot.checksum(bytes.get(4..parts_at)?);
    put(bytes, 0, &sum.to_le_bytes());
    Some((claim.padded() as usize, lsn))
}

/// A checkpoint: where its lengths do not fit, the section keeps its own and the state gets the rest.
pub(crate) fn checkpoint(bytes: &mut [u8], uuid: &Uuid) {
    put(bytes, 16, uuid);
    let (Some(body), Some(table_len)) = (u64_at(bytes, 64), u64_at(bytes, 72)) else { return };
    let Some(room) = bytes.len().checked_sub(HEADER_LEN) else { return };
    if body.checked_add(table_len).is_none_or(|len| len > room as u64) {
        let rest = (room as u64).saturating_sub(table_len);
        put(bytes, 64, &rest.to_le_bytes());
        put(bytes, 72, &(room as u64 - rest).to_le_bytes());
    }
    if let Some(state) = u64_at(bytes, 64).and_then(|len| bytes.get(HEADER_LEN..HEADER_LEN + len as usize)) {
        let sum = crc(0, state);
        put(bytes, 84, &sum.to_le_bytes());
    }
    table(bytes);
    header(bytes);
}

/// An index: header, directory, and the rows that the directory tells of.
pub(crate) fn index(bytes: &mut [u8]) {
    let (Some(count), Some(salt)) = (u32_at(bytes, 12), u64_at(bytes, 48)) else { return };
    let Some(rows_at) = (count as usize).checked_mul(44).and_then(|len| len.checked_add(80)) else { return };
    if let Some(directory) = bytes.get(80..rows_at) {
        let sum = crc(0, directory);
        let entries: Vec<(u64, u32, u64)> = directory
            .chunks_exact(44)
            .filter_map(|entry| Some((u64_at(entry, 0)?, u32_at(entry, 40)?, u64_at(entry, 32)?)))
            .collect();
        put(bytes, 72, &sum.to_le_bytes());
        for (key, rows, from) in entries {
            rows_of(bytes, rows_at, salt, key, rows, from);
        }
    }
    put_crc(bytes, 76);
}

fn rows_of(bytes: &mut [u8], rows_at: usize, salt: u64, key: u64, rows: u32, from: u64) {
    for number in (0..u64::from(rows)).map_while(|row| from.checked_add(row)) {
        let at = usize::try_from(number).ok().and_then(|n| n.checked_mul(24)).and_then(|n| n.checked_add(rows_at));
        let Some(at) = at.filter(|at| *at < bytes.len()) else { return };
        let Some(row) = stored_row(bytes, at) else { return };
        put(bytes, at + 20, &row.check(salt, key, number).to_le_bytes());
    }
}

fn stored_row(bytes: &[u8], at: usize) -> Option<StoredRow> {
    let word = |nth: usize| u32_at(bytes, at + 8 + nth * 4);
    Some(StoredRow { difference: u64_at(bytes, at)?, count: word(0)?, at: word(1)?, part: word(2)? })
}
