//! The keys of messages that a group looks at before it leases them, read outside the lock.
//!
//! Never here: what order says.

use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::ids::{Offset, PartitionId};
use crate::record::{KeyHash, Record};
use crate::state::KeyRun;
use crate::view::{MessageLocation, Reader, Stored, ViewHolder};
use smallvec::SmallVec;

/// How many bytes of messages are read for their keys in one go, but for the last of them.
const READ_LEN_MAX: usize = 1 << 20;

/// The keys of messages next to each other.
#[derive(Debug, Default)]
pub(in crate::engine) struct KnownKeys {
    partition: PartitionId,
    first: Offset,
    keys: Vec<KeyHash>,
    /// How many bytes were read for them.
    len: usize,
}

impl KnownKeys {
    pub(in crate::engine) fn run(&self) -> Option<KeyRun<'_>> {
        let Self { partition, first, keys, .. } = self;
        (!keys.is_empty()).then_some(KeyRun { partition: *partition, first: *first, keys })
    }

    fn add(&mut self, stored: &Stored) {
        self.len += stored.len();
        self.keys.extend((0..stored.count()).map(|nth| KeyHash::of(stored.view(nth).key())));
    }
}

impl Engine {
    /// Reads the keys of up to `count` messages, of one at least. A message that cannot be read has none.
    ///
    /// # Errors
    /// What the system lacks for a while.
    pub(in crate::engine) fn read_keys(
        &self,
        (partition, first, count): (PartitionId, Offset, u32),
        keys: &mut KnownKeys,
    ) -> Result<()> {
        *keys = KnownKeys { partition, first, ..KnownKeys::default() };
        let mut places = SmallVec::<[(Offset, u32, Option<MessageLocation>); 1]>::new();
        let catalog = {
            let core = self.lock_core();
            core.view.positions.find(partition, first, count, |first, count, place| {
                places.push((first, count, place));
            });
            core.view.catalog.clone()
        };
        let mut reader = Reader::default();
        for (first, count, place) in places {
            let located = place.as_ref().and_then(|place| Some((place, catalog.segment(place.segment())?)));
            let mut done = 0;
            while done < count && keys.len < READ_LEN_MAX {
                let of = (partition, first.saturating_add(u64::from(done)));
                let read = match located {
                    Some((place, segment)) => {
                        self.gather(&mut reader, segment, place, (done, count - done), of, |stored| keys.add(&stored))
                    }
                    None => self.fetch(of.0, of.1).map(|stored| {
                        reader.take().iter().for_each(|before| keys.add(before));
                        keys.add(&stored);
                        1
                    }),
                };
                match read {
                    Ok(read) => done += read,
                    // seam: passing trouble hides a key
                    Err(error) if error.kind() == ErrorKind::Retry => return Err(error),
                    Err(_) => {
                        reader.take().iter().for_each(|before| keys.add(before));
                        keys.keys.push(KeyHash::NONE);
                        done += 1;
                    }
                }
            }
        }
        reader.take().iter().for_each(|stored| keys.add(stored));
        Ok(())
    }
}

/// How many messages a record looks at.
pub(in crate::engine) fn considered_count(record: &Record) -> u64 {
    if let Record::Considered { keys, .. } = record { keys.len() as u64 } else { 0 }
}
