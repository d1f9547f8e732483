//! The history of a message within a snapshot: count of failures, then each: cause, time, text, \[turn\]; of a full one, how many were
//! before: nacks, expiries, crashes.

use super::{History, Past};
use crate::limits::HISTORY_LEN;
use crate::record::codec;
use crate::record::wire::{ByteReader, DecodeError, put_varint};

/// More turns than any group lives to see, and far from where counting them would overflow.
pub(in crate::state) const TURNS_MAX: u64 = 1 << 62;

/// The shortest failure.
const PAST_LEN_MIN: usize = 3;

pub(in crate::state) fn encode_history(history: &History, out: &mut Vec<u8>) {
    put_varint(out, history.past.len() as u64);
    for past in &history.past {
        codec::put_failure(out, &past.failure);
        if !past.failure.text.is_empty() {
            put_varint(out, past.turn);
        }
    }
    codec::put_earlier(out, history.past.len(), history.earlier);
}

pub(in crate::state) fn decode_history(reader: &mut ByteReader<'_>, turns: u64) -> Result<History, DecodeError> {
    let count = reader.count(PAST_LEN_MIN)?;
    if count == 0 || count > HISTORY_LEN {
        return Err(DecodeError::Invalid("a history without failures, or with too many"));
    }
    let mut past = Vec::with_capacity(count);
    for _ in 0..count {
        let failure = codec::failure(reader)?;
        let turn = if failure.text.is_empty() { 0 } else { reader.varint()? };
        if turn > turns || (turn == 0) != failure.text.is_empty() {
            return Err(DecodeError::Invalid("a failure at no time"));
        }
        past.push(Past { failure, turn });
    }
    Ok(History { past, earlier: codec::earlier(reader, count)? })
}
