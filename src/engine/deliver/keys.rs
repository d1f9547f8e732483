//! The keys of messages that a group looks at before it leases them, read outside the lock.
//!
//! Never here: what order says.

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{Offset, PartitionId};
use crate::record::KeyHash;
use crate::state::{KeyRun, ParkedMax};
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
    parked_max: ParkedMax,
}

impl KnownKeys {
    pub(in crate::engine) fn run(&self) -> Option<KeyRun<'_>> {
        let &Self { partition, first, ref keys, parked_max, .. } = self;
        (!keys.is_empty()).then_some(KeyRun { partition, first, keys, parked_max })
    }

    fn add(&mut self, stored: &Stored) {
        self.len += stored.len();
        self.keys.extend((0..stored.count()).map(|nth| KeyHash::of(stored.view(nth).key())));
    }
}

impl Engine {
    /// Reads the keys of up to `count` messages, of one at least. A message that cannot be read has [`KeyHash::LOST`].
    ///
    /// # Errors
    /// What the system lacks for a while.
    pub(in crate::engine) fn read_keys(
        &self,
        (partition, first, count): (PartitionId, Offset, u32),
        keys: &mut KnownKeys,
    ) -> Result<()> {
        *keys = KnownKeys { partition, first, keys: Vec::new(), len: 0, parked_max: self.setup.parked_max };
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
                    // Only what is damaged is lost: a message that can be read later must not be skipped for another one.
                    // seam: passing trouble hides a key
                    Err(error) if error.corruption().is_none() => return Err(error),
                    Err(_) => {
                        reader.take().iter().for_each(|before| keys.add(before));
                        keys.keys.push(KeyHash::LOST);
                        done += 1;
                    }
                }
            }
        }
        reader.take().iter().for_each(|stored| keys.add(stored));
        Ok(())
    }
}
