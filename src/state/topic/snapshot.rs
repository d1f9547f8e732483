//! Topics within a snapshot: their bytes, and how they are put back.
//!
//! ```text
//! next topic | next group | next partition
//! count of topics, then each: gap, name, first partition, count of partitions, options, end of each partition, that of notes included
//! ```

use super::{NextIds, PartitionState, Role, Tables, TopicCatalog, TopicState};
use crate::ids::{GroupId, Offset, PartitionId, TopicId};
use crate::limits::{STORE_PARTITIONS_MAX, TOPIC_PARTITIONS_MAX};
use crate::record::wire::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::record::{TopicOptions, codec};
use crate::state::snapshot::{Gaps, put_gap};
use std::sync::Arc;

/// The shortest topic, so that a count is never believed beyond the bytes.
const TOPIC_LEN_MIN: usize = 7;

pub(in crate::state) fn encode(tables: &Tables, out: &mut Vec<u8>) {
    let NextIds { topic, group, partition } = tables.next;
    [topic.0, group.0, partition.0].into_iter().for_each(|field| put_varint(out, field));
    put_varint(out, tables.topics.len());
    let mut next = 0;
    for (id, topic) in tables.topics.iter() {
        put_gap(out, id, &mut next);
        put_bytes(out, topic.name.as_bytes());
        put_varint(out, topic.first.0);
        put_varint(out, u64::from(topic.count));
        codec::put_topic_options(out, &topic.options);
        topic.partitions().chain(topic.notes()).for_each(|partition| put_varint(out, tables.end(partition).0));
    }
}

pub(in crate::state) fn decode(reader: &mut ByteReader<'_>) -> Result<TopicCatalog, DecodeError> {
    let next = NextIds {
        topic: TopicId(reader.varint()?),
        group: GroupId(reader.varint()?),
        partition: PartitionId(reader.varint()?),
    };
    let mut catalog = TopicCatalog::restore(next);
    let mut gaps = Gaps::default();
    for _ in 0..reader.count(TOPIC_LEN_MIN)? {
        let id = gaps.next(reader)?;
        decode_topic(reader, TopicId(id), &mut catalog)?;
    }
    Ok(catalog)
}

fn decode_topic(reader: &mut ByteReader<'_>, id: TopicId, catalog: &mut TopicCatalog) -> Result<(), DecodeError> {
    let name = codec::name(reader)?;
    let first = PartitionId(reader.varint()?);
    let count = reader.count(1)?;
    let options = codec::topic_options(reader)?;
    let ends = (0..count + usize::from(options.streams))
        .map(|_| reader.varint().map(Offset))
        .collect::<Result<Vec<_>, _>>()?;
    catalog.restore_topic(id, name, first, options, &ends).ok_or(DecodeError::Invalid("a topic that cannot be"))
}

impl Tables {
    /// Zero for a partition that does not exist.
    #[inline]
    pub(in crate::state) fn end(&self, partition: PartitionId) -> Offset {
        self.partitions.get(partition.0).map(|partition| partition.end).unwrap_or_default()
    }
}

impl TopicCatalog {
    /// A catalog without topics in which these numbers come next.
    pub(in crate::state) fn restore(next: NextIds) -> Self {
        Self { tables: Tables { next, ..Tables::default() }, ..Self::default() }
    }

    /// Puts a topic of a snapshot back, whose partitions end at `ends`, the last one that of notes where it has streams; `None` if it cannot be.
    pub(in crate::state) fn restore_topic(
        &mut self,
        id: TopicId,
        name: &str,
        first: PartitionId,
        options: TopicOptions,
        ends: &[Offset],
    ) -> Option<()> {
        let (notes, ends) = if options.streams { ends.split_last()? } else { (&Offset(0), ends) };
        let count = u32::try_from(ends.len()).ok().filter(|count| (1..=TOPIC_PARTITIONS_MAX).contains(count))?;
        let is_free = id < self.tables.next.topic && !self.names.contains_key(name);
        if !is_free || !self.has_room_for_topic() {
            return None;
        }
        for (index, end) in (0..).zip(ends) {
            self.claim(first.checked_add(index)?, Role::Topic { topic: id, index: index as u32 }, *end)?;
        }
        let topic = TopicState { name: name.into(), first, count, options, schedule: None };
        if options.streams {
            self.claim(first.checked_add(count.into())?, Role::Notes { topic: id }, *notes)?;
        }
        let published = ends.iter().map(|end| u128::from(end.0)).sum();
        self.enter_topic(id, topic, published);
        Some(())
    }

    /// Puts the partition of a topic's messages for later back; `None` if it cannot be.
    pub(in crate::state) fn restore_schedule(
        &mut self,
        id: TopicId,
        partition: PartitionId,
        end: Offset,
    ) -> Option<()> {
        self.topic(id).filter(|topic| topic.schedule.is_none())?;
        self.claim(partition, Role::Schedule { topic: id }, end)?;
        self.tables.topics.get_mut(id.0)?.schedule = Some(partition);
        Some(())
    }

    /// Puts a group of a snapshot back, whose two partitions end at `ends`; `None` if it cannot be.
    pub(in crate::state) fn restore_group(
        &mut self,
        group: GroupId,
        topic: TopicId,
        name: &Arc<str>,
        retry: PartitionId,
        ends: [Offset; 2],
    ) -> Option<()> {
        if self.audience(topic)?.groups.contains_key(name) || group >= self.tables.next.group {
            return None;
        }
        self.claim(retry, Role::Retry { group }, ends[0])?;
        self.claim(retry.checked_add(1)?, Role::Dead { group }, ends[1])?;
        self.enter_group(topic, name, group);
        Some(())
    }

    fn claim(&mut self, partition: PartitionId, role: Role, end: Offset) -> Option<()> {
        let is_free = partition < self.tables.next.partition && self.role(partition).is_none();
        if !is_free || self.tables.partitions.len() >= u64::from(STORE_PARTITIONS_MAX) {
            return None;
        }
        self.tables.partitions.insert(partition.0, PartitionState { role, end });
        Some(())
    }
}
