//! What is read of messages before they are leased, outside the lock: their keys, and whether they pass a filter.
//!
//! Never here: what order says, and what becomes of messages that do not pass.

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{GroupId, Offset, PartitionId};
use crate::record::message::MessageView;
use crate::record::{Filter, KeyHash, Ordering};
use crate::state::{FilterVerdict, KeyRun, ParkedMax};
use crate::view::{MessageLocation, Reader, Stored, View, ViewHolder};
use smallvec::SmallVec;
use std::sync::Arc;

/// How many bytes of messages are read in one go, but for the last of them.
const READ_LEN_MAX: usize = 1 << 20;

/// The keys of messages next to each other.
#[derive(Debug)]
pub(in crate::engine) struct KnownKeys {
    partition: PartitionId,
    first: Offset,
    keys: Vec<KeyHash>,
    parked_max: ParkedMax,
}

impl KnownKeys {
    /// None yet.
    pub(in crate::engine) fn new(parked_max: ParkedMax) -> Self {
        Self { partition: PartitionId(0), first: Offset(0), keys: Vec::new(), parked_max }
    }

    pub(in crate::engine) fn run(&self) -> KeyRun<'_> {
        let &Self { partition, first, ref keys, parked_max } = self;
        KeyRun { partition, first, keys, parked_max }
    }
}

/// Messages that are read ahead: each goes to `each`, one that is damaged as `None`.
struct ReadAhead<'a> {
    each: &'a mut dyn FnMut(Option<MessageView<'_>>),
    /// How many bytes were read.
    len: usize,
}

impl ReadAhead<'_> {
    fn add(&mut self, stored: &Stored) {
        self.len += stored.len();
        (0..stored.count()).for_each(|nth| (self.each)(Some(stored.view(nth))));
    }
}

impl Engine {
    /// Reads the keys of up to `count` messages, of one at least. A message that cannot be read has [`KeyHash::LOST`]. One of the topic that
    /// does not pass the group's filter has none.
    ///
    /// # Errors
    /// What the system lacks for a while.
    pub(in crate::engine) fn read_keys(
        &self,
        group: GroupId,
        (partition, first, count): (PartitionId, Offset, u32),
        keys: &mut KnownKeys,
    ) -> Result<()> {
        *keys = KnownKeys { partition, first, keys: Vec::new(), parked_max: self.setup.parked_max };
        let filter = {
            let core = self.lock_core();
            let of_topic = core.view.state.group(group).filter(|group| group.retry != partition);
            of_topic.and_then(|group| group.options.filter.clone())
        };
        self.read_ahead((partition, first, count), &mut |message| {
            let key = match message {
                None => KeyHash::LOST,
                // seam: a message that does not pass is recalled
                Some(message) if filter.as_ref().is_some_and(|filter| !filter.passes(&message)) => KeyHash::NONE,
                Some(message) => KeyHash::of(message.key()),
            };
            keys.keys.push(key);
        })
    }

    /// Asks the group's filter about up to `count` of its next messages, one at least, and notes what it says. A message that is damaged passes.
    /// Returns how many were read.
    ///
    /// # Errors
    /// What the system lacks for a while.
    pub(in crate::engine) fn read_verdicts(
        &self,
        id: GroupId,
        (partition, first, count): (PartitionId, Offset, u32),
    ) -> Result<u32> {
        let options = self.lock_core().view.state.group(id).map(|group| group.options.clone());
        let Some((filter, ordering)) = options.and_then(|options| Some((options.filter?, options.ordering))) else {
            return Ok(0);
        };
        let (mut read, mut verdicts) = (0, Vec::new());
        self.read_ahead((partition, first, count), &mut |message| {
            read += 1;
            verdicts.push(verdict(&filter, ordering, message));
        })?;
        let mut core = self.lock_core();
        let View { state, verdicts: known, .. } = &mut core.view;
        if let Some(group) = state.group(id) {
            known.add((id, group, partition), (&filter, first), verdicts);
        }
        Ok(read)
    }

    fn read_ahead(
        &self,
        (partition, first, count): (PartitionId, Offset, u32),
        each: &mut dyn FnMut(Option<MessageView<'_>>),
    ) -> Result<()> {
        let mut ahead = ReadAhead { each, len: 0 };
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
            while done < count && ahead.len < READ_LEN_MAX {
                let of = (partition, first.saturating_add(u64::from(done)));
                let read = match located {
                    Some((place, segment)) => {
                        self.gather(&mut reader, segment, place, (done, count - done), of, |stored| ahead.add(&stored))
                    }
                    None => self.fetch(of.0, of.1).map(|stored| {
                        reader.take().iter().for_each(|before| ahead.add(before));
                        ahead.add(&stored);
                        1
                    }),
                };
                match read {
                    Ok(read) => done += read,
                    // Only what is damaged is lost: a message that can be read later must not be skipped for another one.
                    // seam: passing trouble hides a key
                    Err(error) if error.corruption().is_none() => return Err(error),
                    Err(_) => {
                        reader.take().iter().for_each(|before| ahead.add(before));
                        (ahead.each)(None);
                        done += 1;
                    }
                }
            }
        }
        reader.take().iter().for_each(|stored| ahead.add(stored));
        Ok(())
    }
}

fn verdict(filter: &Arc<Filter>, ordering: Ordering, message: Option<MessageView<'_>>) -> FilterVerdict {
    // seam: a damaged message does not pass
    let Some(message) = message else { return FilterVerdict::Passes(KeyHash::LOST) };
    // seam: a group in order of keys has no filter
    if !filter.passes(&message) {
        return FilterVerdict::Filtered(1);
    }
    FilterVerdict::Passes(match ordering {
        Ordering::Key => KeyHash::of(message.key()),
        Ordering::None | Ordering::Partition => KeyHash::NONE,
    })
}
