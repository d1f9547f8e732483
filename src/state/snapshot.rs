//! The bytes of a whole state: what a checkpoint holds.
//!
//! Canonical: equal states have equal bytes, and no other bytes are taken for them. Only what cannot be worked out from
//! the rest is written; queues and totals are rebuilt. Numbers are varints as in the records. Never here: checksums (the
//! file around has them), or trust in them: any bytes give an error or a state that keeps its invariants.
//!
//! ```text
//! version | epoch | 1 + partition of a copy, or 0
//! ends of all partitions   count, then each
//! topics                   count, then each: name, first partition, count of partitions, options
//! groups                   count, then each as in `group`
//! lone                     flags, [awaited], [out]
//! ```

mod group;

use super::State;
use super::lone::{Awaited, Lone, Out, Place};
use super::queue::Class;
use super::topic::{Catalog, Restore};
use crate::ids::{Epoch, GroupId, MonoMs, Offset, PartitionId};
use crate::record::codec;
use crate::record::message::mix;
use crate::record::wire::{DecodeError, Newer, Reader, put_bytes, put_varint};

const VERSION: u8 = 1;
const AWAITED: u8 = 0x01;
const OUT: u8 = 0x02;

/// The shortest topic and the shortest group, so that a count is never believed beyond the bytes.
const TOPIC_LEN_MIN: usize = 5;
const GROUP_LEN_MIN: usize = 16;

impl State {
    /// Appends the state's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.epoch.0);
        put_varint(out, self.copied.map_or(0, |partition| partition.0.saturating_add(1)));
        put_varint(out, self.catalog.ends().len() as u64);
        for end in self.catalog.ends() {
            put_varint(out, end.0);
        }
        put_varint(out, self.catalog.topics().len() as u64);
        for topic in self.catalog.topics() {
            put_bytes(out, topic.name.as_bytes());
            put_varint(out, topic.first.0);
            put_varint(out, u64::from(topic.count));
            codec::put_topic_options(out);
        }
        put_varint(out, self.groups.len() as u64);
        for group in &self.groups {
            group::encode(group, &self.catalog, out);
        }
        encode_lone(&self.lone, out);
    }

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
        let copied = reader.varint()?.checked_sub(1);
        let ends = (0..reader.count(1)?).map(|_| reader.varint().map(Offset)).collect::<Result<_, _>>()?;
        let mut catalog = Catalog::restore(ends).ok_or(DecodeError::Invalid("more partitions than a store has"))?;
        for _ in 0..reader.count(TOPIC_LEN_MIN)? {
            decode_topic(reader, &mut catalog)?;
        }
        let count = reader.count(GROUP_LEN_MIN)?;
        let mut groups = Vec::with_capacity(count);
        for id in 0..count {
            let id = GroupId(id as u64);
            groups.push(group::decode(reader, id, &mut catalog)?);
        }
        let catalog = catalog.finish().ok_or(DecodeError::Invalid("a partition belongs to nobody"))?;
        let lone = decode_lone(reader)?;
        let copied = match copied {
            None => None,
            Some(id) if id < u64::from(catalog.partition_count()) => Some(PartitionId(id)),
            Some(_) => return Err(DecodeError::Invalid("a copy in a partition that does not exist")),
        };
        let state = Self { epoch, catalog, groups, lone, copied };
        if !reader.is_empty() {
            return Err(DecodeError::Invalid("bytes after the end"));
        }
        if state.lone_fits() { Ok(state) } else { Err(DecodeError::Invalid("a lone lease that cannot be")) }
    }

    /// A hash of the state's bytes: equal for equal states, and only good for comparing.
    pub(crate) fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, &byte| mix(hash ^ u64::from(byte)))
    }

    /// Whether what the lone lease says is what its message says.
    pub(super) fn lone_fits(&self) -> bool {
        let find = |place: Place| {
            let group = self.groups.get(place.group.0 as usize)?;
            Some((group, group.slot(group.cursor_of(place.partition)?, place.offset)?))
        };
        let awaited = self
            .lone
            .awaited
            .is_none_or(|awaited| find(awaited.place).is_some_and(|(group, slot)| group.class(slot) == Class::Lone));
        let out = self.lone.out.is_none_or(|out| {
            let lease = find(out.place).and_then(|(_, slot)| slot.lease());
            lease.is_some_and(|lease| lease.lone && lease.until == out.until)
        });
        awaited && out
    }
}

fn decode_topic(reader: &mut Reader<'_>, catalog: &mut Restore) -> Result<(), DecodeError> {
    let name = codec::name(reader)?;
    let (first, count) = (PartitionId(reader.varint()?), reader.varint_u32()?);
    codec::topic_options(reader)?;
    catalog.topic(name, first, count).ok_or(DecodeError::Invalid("a topic that cannot be"))
}

fn encode_lone(lone: &Lone, out: &mut Vec<u8>) {
    out.push(if lone.awaited.is_some() { AWAITED } else { 0 } | if lone.out.is_some() { OUT } else { 0 });
    if let Some(Awaited { place, since }) = lone.awaited {
        put_place(out, place);
        put_varint(out, since.0);
    }
    if let Some(Out { place, since, until }) = lone.out {
        put_place(out, place);
        put_varint(out, since.0);
        put_varint(out, until.0);
    }
}

fn decode_lone(reader: &mut Reader<'_>) -> Result<Lone, DecodeError> {
    let flags = reader.byte()?;
    if flags & !(AWAITED | OUT) != 0 {
        return Err(DecodeError::Invalid("an unknown flag of the lone lease"));
    }
    let mut lone = Lone::default();
    if flags & AWAITED != 0 {
        lone.awaited = Some(Awaited { place: place(reader)?, since: MonoMs(reader.varint()?) });
    }
    if flags & OUT != 0 {
        let (place, since) = (place(reader)?, MonoMs(reader.varint()?));
        lone.out = Some(Out { place, since, until: MonoMs(reader.varint()?) });
    }
    Ok(lone)
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
