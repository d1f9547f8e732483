//! A state as it was at one moment, and its bytes: what a checkpoint holds.
//!
//! A [`Snapshot`] shares its pages with the state, so taking one copies pointers. Its bytes are canonical: equal states have equal
//! bytes, and no other bytes are taken for them. Only what cannot be worked out from the rest is written; queues and totals are rebuilt.
//! Numbers are varints as in the records. Never here: checksums (the file around has them), or trust in them: any bytes give
//! an error or a state that keeps its invariants.
//!
//! ```text
//! version | epoch | next topic | next group | next partition
//! topics     count, then each: gap, name, first partition, count of partitions, options, end of each partition
//! groups     count, then each as in `group`
//! exclusive  flags, [awaited], [out]
//! ```
//! A gap is the distance from the number before less one.

mod group;

use super::State;
use super::exclusive::{Awaited, Exclusive, Out, Place};
use super::group::Kept;
use super::queue::{Class, class};
use super::topic::{Catalog, NextIds, Tables};
use crate::ids::{Epoch, GroupId, MonoMs, Offset, PartitionId, TopicId};
use crate::record::codec;
use crate::record::message::checksum;
use crate::record::wire::{DecodeError, Newer, Reader, put_bytes, put_varint};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const AWAITED: u8 = 0x01;
const OUT: u8 = 0x02;

/// The shortest topic and the shortest group, so that a count is never believed beyond the bytes.
const TOPIC_LEN_MIN: usize = 7;
const GROUP_LEN_MIN: usize = 18;

/// What a state was. Nothing in it changes any more.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    epoch: Epoch,
    tables: Tables,
    groups: Vec<(GroupId, Kept)>,
    exclusive: Exclusive,
}

impl Snapshot {
    pub(super) fn of(state: &State) -> Self {
        let groups = state.groups.iter().map(|(id, group)| (*id, group.kept.clone())).collect();
        Self { epoch: state.epoch, tables: state.catalog.tables().clone(), groups, exclusive: state.exclusive }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn all_groups(&self) -> &[(GroupId, Kept)] {
        &self.groups
    }

    /// Zero for a partition that does not exist.
    pub(crate) fn end(&self, partition: PartitionId) -> Offset {
        self.tables.partitions.get(partition.0).map(|partition| partition.end).unwrap_or_default()
    }

    /// Appends the state's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let NextIds { topic, group, partition } = self.tables.next;
        [self.epoch.0, topic.0, group.0, partition.0].into_iter().for_each(|field| put_varint(out, field));
        put_varint(out, self.tables.topics.len());
        let mut next = 0;
        for (id, topic) in self.tables.topics.iter() {
            put_varint(out, id - next);
            next = id + 1;
            put_bytes(out, topic.name.as_bytes());
            put_varint(out, topic.first.0);
            put_varint(out, u64::from(topic.count));
            codec::put_topic_options(out);
            topic.partitions().for_each(|partition| put_varint(out, self.end(partition).0));
        }
        put_varint(out, self.groups.len() as u64);
        let mut next = 0;
        for (id, group) in &self.groups {
            put_varint(out, id.0 - next);
            next = id.0 + 1;
            group::encode(group, |partition| self.end(partition), out);
        }
        encode_exclusive(&self.exclusive, out);
    }

    /// A hash of the state's bytes: equal for equal states, and only good for comparing.
    pub(crate) fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(bytes.len() as u64, |hash, word| checksum(hash ^ u64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, &byte| checksum(hash ^ u64::from(byte)))
    }
}

impl State {
    /// The state that `bytes` are of.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            0 => return Err(DecodeError::Invalid("a snapshot of version 0")),
            version => {
                let (number, known_max) = (u64::from(version), u64::from(VERSION));
                return Err(DecodeError::Newer(Newer { what: "state version", number, known_max }));
            }
        }
        let epoch = Epoch(reader.varint()?);
        let next = NextIds {
            topic: TopicId(reader.varint()?),
            group: GroupId(reader.varint()?),
            partition: PartitionId(reader.varint()?),
        };
        let mut catalog = Catalog::restore(next);
        let mut ids = Ids::default();
        for _ in 0..reader.count(TOPIC_LEN_MIN)? {
            let id = ids.next(reader)?;
            decode_topic(reader, TopicId(id), &mut catalog)?;
        }
        let (mut ids, mut groups) = (Ids::default(), BTreeMap::new());
        for _ in 0..reader.count(GROUP_LEN_MIN)? {
            let id = GroupId(ids.next(reader)?);
            let group = group::decode(reader, id, &mut catalog)?;
            groups.insert(id, Box::new(group));
        }
        let exclusive = decode_exclusive(reader)?;
        if !super::topic::has_room_for_group(groups.len().saturating_sub(1)) {
            return Err(DecodeError::Invalid("more groups than a store has"));
        }
        let state = Self { epoch, catalog, groups, exclusive, removed: Vec::new() };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("bytes after the end"));
        }
        if state.exclusive_fits() { Ok(state) } else { Err(DecodeError::Invalid("an exclusive lease that cannot be")) }
    }

    /// Whether what the exclusive lease says is what its message says.
    pub(super) fn exclusive_fits(&self) -> bool {
        let find = |place: Place| {
            let group = self.groups.get(&place.group)?;
            group.entry(group.cursor_of(place.partition)?, place.offset)
        };
        let awaited = self
            .exclusive
            .awaited
            .is_none_or(|awaited| find(awaited.place).is_some_and(|entry| class(entry) == Class::Exclusive));
        let out = self.exclusive.out.is_none_or(|out| {
            let lease = find(out.place).and_then(|entry| entry.lease());
            lease.is_some_and(|lease| lease.exclusive && lease.until == out.until)
        });
        awaited && out
    }
}

/// Rising numbers, each as its distance from the one before less one.
#[derive(Default)]
struct Ids {
    next: u64,
}

impl Ids {
    fn next(&mut self, reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
        let id = self.next.checked_add(reader.varint()?).ok_or(DecodeError::BadNumber)?;
        self.next = id.checked_add(1).ok_or(DecodeError::BadNumber)?;
        Ok(id)
    }
}

fn decode_topic(reader: &mut Reader<'_>, id: TopicId, catalog: &mut Catalog) -> Result<(), DecodeError> {
    let name = codec::name(reader)?;
    let first = PartitionId(reader.varint()?);
    let count = reader.count(1)?;
    codec::topic_options(reader)?;
    let ends = (0..count).map(|_| reader.varint().map(Offset)).collect::<Result<Vec<_>, _>>()?;
    catalog.restore_topic(id, name, first, &ends).ok_or(DecodeError::Invalid("a topic that cannot be"))
}

fn encode_exclusive(exclusive: &Exclusive, out: &mut Vec<u8>) {
    out.push(if exclusive.awaited.is_some() { AWAITED } else { 0 } | if exclusive.out.is_some() { OUT } else { 0 });
    if let Some(Awaited { place, since }) = exclusive.awaited {
        put_place(out, place);
        put_varint(out, since.0);
    }
    if let Some(Out { place, since, until }) = exclusive.out {
        put_place(out, place);
        put_varint(out, since.0);
        put_varint(out, until.0);
    }
}

fn decode_exclusive(reader: &mut Reader<'_>) -> Result<Exclusive, DecodeError> {
    let flags = reader.byte()?;
    if flags & !(AWAITED | OUT) != 0 {
        return Err(DecodeError::Invalid("an unknown flag of the exclusive lease"));
    }
    let mut exclusive = Exclusive::default();
    if flags & AWAITED != 0 {
        exclusive.awaited = Some(Awaited { place: place(reader)?, since: MonoMs(reader.varint()?) });
    }
    if flags & OUT != 0 {
        let (place, since) = (place(reader)?, MonoMs(reader.varint()?));
        exclusive.out = Some(Out { place, since, until: MonoMs(reader.varint()?) });
    }
    Ok(exclusive)
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    put_varint(out, place.group.0);
    put_varint(out, place.partition.0);
    put_varint(out, place.offset.0);
}

fn place(reader: &mut Reader<'_>) -> Result<Place, DecodeError> {
    Ok(Place {
        group: GroupId(reader.varint()?),
        partition: PartitionId(reader.varint()?),
        offset: Offset(reader.varint()?),
    })
}
