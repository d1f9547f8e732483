//! Scheduled messages within a snapshot: their bytes, and how they are put back.
//!
//! ```text
//! count of topics that have a partition for them, then each: gap, the partition, its end, count of messages, then each:
//!            gap of offsets, to which partition of the topic (from 0), one byte: 0 due by store time, 1 by the wall clock; the time; epoch
//! ```

use super::{Scheduled, Schedules};
use crate::ids::{Epoch, Offset, PartitionId, TopicId};
use crate::limits::SCHEDULED_MAX;
use crate::record::codec;
use crate::record::wire::{ByteReader, DecodeError, put_varint};
use crate::state::kit::tree::Tree;
use crate::state::snapshot::{Gaps, put_gap};
use crate::state::topic::{Tables, TopicCatalog};

/// The shortest of each, so that a count is never believed beyond the bytes.
const SCHEDULE_LEN_MIN: usize = 4;
const ENTRY_LEN_MIN: usize = 5;

/// What a snapshot has of them. A clone shares its pages.
pub(in crate::state) type ScheduleEntries = Vec<(PartitionId, Tree<Offset, Scheduled>)>;

impl Schedules {
    pub(in crate::state) fn snapshot(&self) -> ScheduleEntries {
        self.of.iter().map(|(partition, schedule)| (*partition, schedule.entries.clone())).collect()
    }
}

pub(in crate::state) fn encode(entries: &ScheduleEntries, tables: &Tables, out: &mut Vec<u8>) {
    let with = || tables.topics.iter().filter_map(|(id, topic)| Some((id, topic.first, topic.schedule?)));
    put_varint(out, with().count() as u64);
    let mut next = 0;
    for (id, first, partition) in with() {
        put_gap(out, id, &mut next);
        put_varint(out, partition.0);
        put_varint(out, tables.end(partition).0);
        let found = entries.binary_search_by_key(&partition, |(of, _)| *of).ok().map(|at| &entries[at].1);
        put_varint(out, found.map_or(0, |tree| tree.len() as u64));
        let mut next = 0;
        for (offset, scheduled) in found.into_iter().flat_map(Tree::iter) {
            put_gap(out, offset.0, &mut next);
            put_varint(out, scheduled.to.0.saturating_sub(first.0));
            codec::put_due_time(out, scheduled.due, 0);
            put_varint(out, scheduled.epoch.0);
        }
    }
}

pub(in crate::state) fn decode(
    reader: &mut ByteReader<'_>,
    catalog: &mut TopicCatalog,
) -> Result<Schedules, DecodeError> {
    let mut schedules = Schedules::default();
    let mut gaps = Gaps::default();
    for _ in 0..reader.count(SCHEDULE_LEN_MIN)? {
        let id = TopicId(gaps.next(reader)?);
        let (partition, end) = (PartitionId(reader.varint()?), Offset(reader.varint()?));
        let cannot_be = DecodeError::Invalid("a partition of scheduled messages that cannot be");
        catalog.restore_schedule(id, partition, end).ok_or(cannot_be)?;
        let topic = catalog.topic(id).map(|topic| (topic.first, topic.count));
        let (first, partitions) =
            topic.ok_or(DecodeError::Invalid("messages are scheduled for a topic that does not exist"))?;
        let count = reader.count(ENTRY_LEN_MIN)?;
        if schedules.len.saturating_add(count as u64) > SCHEDULED_MAX {
            return Err(DecodeError::Invalid("more messages are scheduled than may be"));
        }
        let mut offsets = Gaps::default();
        for _ in 0..count {
            let (offset, index) = (Offset(offsets.next(reader)?), reader.varint_u32()?);
            let ((due, _), epoch) = (codec::due_time(reader, 0)?, Epoch(reader.varint()?));
            if offset >= end || index >= partitions {
                return Err(DecodeError::Invalid("a scheduled message that is not there, or goes nowhere"));
            }
            schedules.insert(partition, offset, Scheduled { to: first.nth(index), due, epoch });
        }
    }
    Ok(schedules)
}
