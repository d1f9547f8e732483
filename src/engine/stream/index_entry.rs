//! The entries of the index of streams.
//!
//! The key of an entry is partition, hash of the stream's key, and version, so that the events of a stream stand together and in order. An
//! entry says where the messages of one append stand; the one behind all versions says which event is the first that is there. Under the
//! hidden partition of notes in place of the stream's stand the snapshots in the same way: each by its version, with the offset of its note,
//! and behind them the version below which they are gone.
//! Never here: asking, and filling.

use crate::ids::Offset;
use crate::index::IndexEntry;
use crate::record::StreamId;
use crate::state::{StreamRun, Touch, VERSION_MAX};

/// In place of a version: the first one that is there.
pub(in crate::engine) const FIRST_OF: u64 = u64::MAX;
const _: () = assert!(VERSION_MAX < FIRST_OF - 1);

const KEY_LEN: usize = 32;

/// Big-endian, for keys are ordered by their bytes.
#[allow(clippy::big_endian_bytes, reason = "keys are ordered by their bytes")]
pub(in crate::engine) fn key(stream: StreamId, version: u64) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..8].copy_from_slice(&stream.partition.0.to_be_bytes());
    key[8..24].copy_from_slice(&stream.key.to_be_bytes());
    key[24..].copy_from_slice(&version.to_be_bytes());
    key
}

#[allow(clippy::big_endian_bytes, reason = "keys are ordered by their bytes")]
pub(in crate::engine) fn version_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(in crate::engine) fn run_of((key, value): &IndexEntry) -> Option<StreamRun> {
    let (offset, count) = value.split_first_chunk()?;
    let (offset, count) = (Offset(u64::from_le_bytes(*offset)), u32::from_le_bytes(count.try_into().ok()?));
    version_of(key).map(|version| StreamRun { version, offset, count })
}

/// What a touch writes: always the same, whatever the index has.
pub(in crate::engine) fn entries_of(stream: StreamId, touch: Touch) -> impl Iterator<Item = ([u8; KEY_LEN], Vec<u8>)> {
    let notes = |partition| StreamId { partition, ..stream };
    let first_of = |stream, first: u64| (key(stream, FIRST_OF), first.to_le_bytes().to_vec());
    let (entry, other) = match touch {
        Touch::Appended(StreamRun { version, offset, count }) => {
            ((key(stream, version), [&offset.0.to_le_bytes()[..], &count.to_le_bytes()].concat()), None)
        }
        Touch::TruncatedTo(head, partition) => {
            // seam: a deleted stream keeps its snapshot
            let deleted = head.last().is_none().then(|| first_of(notes(partition), head.first));
            (first_of(stream, head.first), deleted)
        }
        Touch::Saved { version, partition, offset } => {
            ((key(notes(partition), version), offset.0.to_le_bytes().to_vec()), None)
        }
    };
    [Some(entry), other].into_iter().flatten()
}
