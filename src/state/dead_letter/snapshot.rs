//! The settled dead letters of a group within a snapshot.
//!
//! ```text
//! floor, count of runs, each: gap and length; count of bitmaps, each: gap and 64 bytes
//! ```
//! A gap is the distance from the one before less one.

use crate::ids::Offset;
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::state::kit::offsets::{Bits, OffsetSet};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(in crate::state) fn encode(dead_letters: &OffsetSet, out: &mut Vec<u8>) {
    put_varint(out, dead_letters.floor());
    put_varint(out, dead_letters.full().len() as u64);
    let mut next = 0;
    for (first, end) in dead_letters.full() {
        put_varint(out, first - next);
        put_varint(out, end - first);
        next = *end;
    }
    put_varint(out, dead_letters.mixed().len() as u64);
    let mut next = 0;
    for (chunk, bits) in dead_letters.mixed() {
        put_varint(out, chunk - next);
        next = chunk + 1;
        for word in bits.iter() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>, end: Offset) -> Result<OffsetSet, DecodeError> {
    let floor = reader.varint()?;
    let (mut full, mut next) = (BTreeMap::new(), 0u64);
    for _ in 0..reader.count(2)? {
        let first = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = first.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        full.insert(first, next);
    }
    let (mut mixed, mut next) = (BTreeMap::new(), 0u64);
    for _ in 0..reader.count(1 + size_of::<Bits>())? {
        let chunk = next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        next = chunk.checked_add(1).ok_or(DecodeError::BadNumber)?;
        let mut bits = Bits::default();
        for (word, bytes) in bits.iter_mut().zip(reader.take(size_of::<Bits>())?.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        mixed.insert(chunk, Arc::new(bits));
    }
    OffsetSet::restore(floor, full, mixed, end).ok_or(DecodeError::Invalid("a set of dead letters that cannot be"))
}
