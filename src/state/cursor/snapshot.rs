//! Cursors within a snapshot: their bytes, and how they are put back.
//!
//! ```text
//! count, then each in the order of their names: name, value, 0 or 1, and behind a 1 the topic that it holds and from which LSN on
//! ```

use super::{CursorState, Cursors};
use crate::ids::Lsn;
use crate::limits::CURSORS_MAX;
use crate::record::codec;
use crate::record::wire::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::state::kit::named::NamedSnapshot;

/// The shortest cursor, so that a count is never believed beyond the bytes.
const CURSOR_LEN_MIN: usize = 4;

pub(in crate::state) fn encode(cursors: &NamedSnapshot<CursorState>, out: &mut Vec<u8>) {
    let sorted = cursors.sorted();
    put_varint(out, sorted.len() as u64);
    for (name, cursor) in sorted {
        put_bytes(out, name.as_bytes());
        put_bytes(out, &cursor.value);
        out.push(u8::from(cursor.hold.is_some()));
        cursor.hold.iter().for_each(|hold| codec::put_hold(out, *hold));
    }
}

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>) -> Result<Cursors, DecodeError> {
    let mut cursors = Cursors::default();
    let mut before = "";
    let count = reader.count(CURSOR_LEN_MIN)?;
    if count > CURSORS_MAX {
        return Err(DecodeError::Invalid("more cursors than a store has"));
    }
    for _ in 0..count {
        let name = codec::name(reader)?;
        if name <= before {
            return Err(DecodeError::Invalid("cursors that are not in the order of their names"));
        }
        before = name;
        let value = codec::cursor_value(reader)?.into();
        let hold = match reader.byte()? {
            0 => None,
            1 => Some(codec::hold(reader)?),
            _ => return Err(DecodeError::Invalid("what is yes or no is neither")),
        };
        cursors.set(name, CursorState { value, hold, set_at: Lsn(0) });
    }
    Ok(cursors)
}
