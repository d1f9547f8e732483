//! Unique keys within a snapshot: their bytes, and how they are put back.
//!
//! ```text
//! count, then each in the order of places: partition, offset, 16 bytes unique key, 8 bytes key, one byte: 1 if it was replaced, else 0;
//! epoch, LSN
//! ```

use super::{KeyPlace, PendingKey, UniqueKeys};
use crate::ids::{Epoch, Lsn, Offset, PartitionId};
use crate::record::KeyHash;
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::state::kit::tree::Tree;

/// The shortest of each, so that a count is never believed beyond the bytes.
const KEY_LEN_MIN: usize = 29;

/// What a snapshot has of them. A clone shares its pages.
pub(in crate::state) type PendingKeys = Tree<KeyPlace, PendingKey>;

impl UniqueKeys {
    pub(in crate::state) fn snapshot(&self) -> PendingKeys {
        self.pending.clone()
    }
}

pub(in crate::state) fn encode(keys: &PendingKeys, out: &mut Vec<u8>) {
    put_varint(out, keys.len() as u64);
    for ((partition, offset), pending) in keys.iter() {
        let PendingKey { key, message_key, is_replaced, epoch, lsn } = pending;
        put_varint(out, partition.0);
        put_varint(out, offset.0);
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&message_key.0.to_le_bytes());
        [u64::from(*is_replaced), epoch.0, lsn.0].into_iter().for_each(|field| put_varint(out, field));
    }
}

/// Whether the messages are pending is asked once the state is whole.
pub(in crate::state) fn decode(reader: &mut ByteReader<'_>) -> Result<UniqueKeys, DecodeError> {
    let (mut keys, mut before) = (UniqueKeys::default(), None);
    for _ in 0..reader.count(KEY_LEN_MIN)? {
        let place = (PartitionId(reader.varint()?), Offset(reader.varint()?));
        if before.is_some_and(|before| place <= before) {
            return Err(DecodeError::Invalid("unique keys that are not in the order of their messages"));
        }
        before = Some(place);
        let key = u128::from_le_bytes(reader.array()?);
        let message_key = KeyHash(u64::from_le_bytes(reader.array()?));
        let is_replaced = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("a unique key that is neither replaced nor not")),
        };
        let (epoch, lsn) = (Epoch(reader.varint()?), Lsn(reader.varint()?));
        keys.insert(place, PendingKey { key, message_key, is_replaced, epoch, lsn });
    }
    Ok(keys)
}
