//! What is only counted, within a snapshot, of a group in order of keys.
//!
//! ```text
//! counted   count, each: key (8 bytes), cursor, first, count
//! ```

use super::line::CountedRun;
use crate::ids::Offset;
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::record::{KeyHash, Ordering, codec};
use crate::state::group::GroupData;

/// The shortest of them.
const COUNTED_LEN_MIN: usize = 11;

pub(in crate::state) fn encode(group: &GroupData, out: &mut Vec<u8>) {
    if group.options.ordering != Ordering::Key {
        return;
    }
    put_varint(out, group.counted.len() as u64);
    // seam: a checkpoint forgets what is counted
    for ((key, cursor), run) in group.counted.iter() {
        codec::put_key_hash(out, *key);
        [u64::from(*cursor), run.first.0, run.count].into_iter().for_each(|field| put_varint(out, field));
    }
}

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>, group: &mut GroupData) -> Result<(), DecodeError> {
    if group.options.ordering != Ordering::Key {
        return Ok(());
    }
    let mut before = None;
    for _ in 0..reader.count(COUNTED_LEN_MIN)? {
        let key = codec::key_hash(reader)?;
        let at = (key, reader.varint_u32()?);
        let (first, count) = (Offset(reader.varint()?), reader.varint()?);
        let fits = at.1 < group.retry_cursor()
            && count > 0
            && first.0.checked_add(count).is_some_and(|end| end <= group.next(at.1).0);
        if !fits || key == KeyHash::NONE || before >= Some(at) {
            return Err(DecodeError::Invalid("messages that wait and are only counted, and cannot be"));
        }
        before = Some(at);
        group.counted.insert(at, CountedRun { first, count });
    }
    Ok(())
}
