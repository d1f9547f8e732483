//! Ids and producers within a snapshot: their bytes, and how they are put back.
//!
//! ```text
//! windows    count, then each: gap, count of ids, then each, oldest first:
//!            partition, offset, 16 bytes id, 8 bytes body, epoch, LSN, time
//! producers  count of topics that have some, then each: gap, count, then each in the order of their names: name, sequence
//! ```
//! A gap is that of the topics' numbers. How many ids a window has room for, and for how long, the topic's options say.

use super::window::{Acceptance, Window};
use super::{Dedup, Produced};
use crate::ids::{Epoch, Lsn, Offset, PartitionId, StoreMs, TopicId};
use crate::limits::{DEDUP_IDS_MAX, PRODUCERS_MAX};
use crate::record::codec;
use crate::record::wire::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::state::Role;
use crate::state::kit::named::{Named, NamedSnapshot};
use crate::state::kit::ring::Ring;
use crate::state::snapshot::{Gaps, put_gap};
use crate::state::topic::TopicCatalog;

/// The shortest of each, so that a count is never believed beyond the bytes.
const ID_LEN_MIN: usize = 29;
const WINDOW_LEN_MIN: usize = 2;
const PRODUCER_LEN_MIN: usize = 3;

/// What a snapshot has of them. A clone shares its pages.
#[derive(Clone, Debug)]
pub(in crate::state) struct Ids {
    windows: Vec<(TopicId, Ring<Acceptance>)>,
    producers: Vec<(TopicId, NamedSnapshot<Produced>)>,
}

impl Dedup {
    pub(in crate::state) fn snapshot(&self) -> Ids {
        Ids {
            windows: self.windows.iter().map(|(topic, window)| (*topic, window.snapshot())).collect(),
            producers: self.producers.iter().map(|(topic, named)| (*topic, named.snapshot())).collect(),
        }
    }

    /// How many pointers a snapshot of the ids copies.
    #[cfg(test)]
    pub(in crate::state) fn pages(&self) -> usize {
        self.windows.values().map(|window| window.snapshot().pointers()).sum()
    }
}

pub(in crate::state) fn encode(ids: &Ids, out: &mut Vec<u8>) {
    put_varint(out, ids.windows.len() as u64);
    let mut next = 0;
    for (topic, accepted) in &ids.windows {
        put_gap(out, topic.0, &mut next);
        let numbers = accepted.numbers();
        put_varint(out, numbers.end - numbers.start);
        for (_, acceptance) in accepted.iter() {
            let Acceptance { id, body, partition, offset, epoch, lsn, time } = acceptance;
            put_varint(out, partition.0);
            put_varint(out, offset.0);
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&body.to_le_bytes());
            [epoch.0, lsn.0, time.0].into_iter().for_each(|field| put_varint(out, field));
        }
    }
    put_varint(out, ids.producers.len() as u64);
    let mut next = 0;
    for (topic, producers) in &ids.producers {
        put_gap(out, topic.0, &mut next);
        let sorted = producers.sorted();
        put_varint(out, sorted.len() as u64);
        for (name, produced) in sorted {
            put_bytes(out, name.as_bytes());
            put_varint(out, produced.sequence);
        }
    }
}

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>, catalog: &TopicCatalog) -> Result<Dedup, DecodeError> {
    let mut dedup = Dedup::default();
    let mut gaps = Gaps::default();
    for _ in 0..reader.count(WINDOW_LEN_MIN)? {
        let topic = TopicId(gaps.next(reader)?);
        let options = catalog.topic(topic).ok_or(DecodeError::Invalid("ids of a topic that does not exist"))?.options;
        dedup.reserved += u64::from(options.dedup_ids);
        if dedup.reserved > u64::from(DEDUP_IDS_MAX) {
            return Err(DecodeError::Invalid("more ids than a store remembers"));
        }
        let mut window = Window::new(options.dedup_ids, options.dedup_window_ms);
        let count = reader.count(ID_LEN_MIN)?;
        if count as u64 > window.capacity() {
            return Err(DecodeError::Invalid("more ids than a topic remembers"));
        }
        for _ in 0..count {
            window.put(acceptance(reader, topic, catalog)?);
        }
        dedup.windows.insert(topic, window);
    }
    let mut gaps = Gaps::default();
    for _ in 0..reader.count(WINDOW_LEN_MIN)? {
        let topic = TopicId(gaps.next(reader)?);
        catalog.topic(topic).ok_or(DecodeError::Invalid("producers of a topic that does not exist"))?;
        let named = producers(reader)?;
        dedup.producers_len += named.len();
        dedup.producers.insert(topic, named);
    }
    if dedup.producers_len > PRODUCERS_MAX {
        return Err(DecodeError::Invalid("more producers than a store has"));
    }
    Ok(dedup)
}

fn acceptance(reader: &mut ByteReader<'_>, topic: TopicId, catalog: &TopicCatalog) -> Result<Acceptance, DecodeError> {
    let (partition, offset) = (PartitionId(reader.varint()?), Offset(reader.varint()?));
    let is_there = matches!(
        catalog.role(partition),
        Some(Role::Topic { topic: of, .. } | Role::Schedule { topic: of }) if of == topic
    );
    if !is_there || offset >= catalog.end(partition) {
        return Err(DecodeError::Invalid("an id of a message that is not there"));
    }
    let (id, body) = (u128::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
    let (epoch, lsn, time) = (Epoch(reader.varint()?), Lsn(reader.varint()?), StoreMs(reader.varint()?));
    Ok(Acceptance { id, body, partition, offset, epoch, lsn, time })
}

fn producers(reader: &mut ByteReader<'_>) -> Result<Named<Produced>, DecodeError> {
    let (mut named, mut before) = (Named::default(), "");
    let count = reader.count(PRODUCER_LEN_MIN)?;
    if count == 0 {
        return Err(DecodeError::Invalid("a topic without producers is not among those that have some"));
    }
    for _ in 0..count {
        let name = codec::name(reader)?;
        if name <= before {
            return Err(DecodeError::Invalid("producers that are not in the order of their names"));
        }
        before = name;
        named.set(name, Produced { sequence: reader.varint()?, at: Lsn(0) });
    }
    Ok(named)
}
