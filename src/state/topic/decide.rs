//! Creating and removing topics, and publishing.
//!
//! Never here: a change of the state.

use super::{NextIds, partitions_len};
use crate::ids::{PartitionId, TopicId};
use crate::limits::{FRAME_PARTS_MAX, NAME_LEN_MAX, TOPIC_PARTITIONS_MAX};
use crate::record::{Record, TopicOptions};
use crate::state::{Decision, DedupId, Delay, Inputs, Rejection, Sequence, State, UniqueKey};

impl State {
    pub(in crate::state) fn decide_create_topic(
        &self,
        name: &str,
        partitions: u32,
        options: TopicOptions,
    ) -> Result<Record, Rejection> {
        let NextIds { topic, partition: first, .. } = *self.catalog.next();
        self.check_new_topic(topic, name, first, (partitions, options))?;
        Ok(Record::TopicCreated { topic, name: name.to_owned(), first, count: partitions, options })
    }

    /// Whether this topic may be the next one; also asked of a record.
    pub(in crate::state) fn check_new_topic(
        &self,
        topic: TopicId,
        name: &str,
        first: PartitionId,
        (count, options): (u32, TopicOptions),
    ) -> Result<(), Rejection> {
        check_name(name)?;
        if self.catalog.topic_by_name(name).is_some() {
            return Err(Rejection::Exists);
        }
        if count == 0 || count > TOPIC_PARTITIONS_MAX {
            return Err(Rejection::Invalid("a topic has from 1 to 65,536 partitions"));
        }
        if (topic, first) != (self.catalog.next().topic, self.catalog.next().partition) {
            return Err(Rejection::Invalid("topics and partitions are numbered in order"));
        }
        if !self.catalog.has_room_for_topic() || topic.checked_add(1).is_none() {
            return Err(Rejection::LimitReached("topics"));
        }
        if self.catalog.has_room(partitions_len(count, options)) {
            Ok(())
        } else {
            Err(Rejection::LimitReached("partitions"))
        }
    }

    pub(in crate::state) fn decide_remove_topic(&self, topic: TopicId) -> Result<Record, Rejection> {
        self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        Ok(Record::TopicRemoved { topic })
    }

    pub(in crate::state) fn decide_publish(
        &self,
        runs: &[(PartitionId, u32)],
        (ids, delays, uniques, sequence): (&[DedupId], &[Delay], &[UniqueKey], Option<Sequence<'_>>),
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let (mut total, mut is_later) = (0, false);
        for &(partition, count) in runs {
            let base = self.catalog.end(partition);
            is_later |= self.catalog.check_published(partition, base, count)?;
            records.push(Record::Published { partition, base, count, time: inputs.wall });
            total += u64::from(count);
        }
        if total > FRAME_PARTS_MAX as u64 {
            return Err(Rejection::LimitReached("messages in a batch"));
        }
        let ascending = runs.is_sorted_by(|one, other| one.0 < other.0);
        if !ascending && has_duplicates(runs.iter().map(|run| run.0).collect()) {
            return Err(Rejection::Invalid("a partition is named twice"));
        }
        if is_later || !delays.is_empty() {
            self.decide_delays(runs, delays, inputs, records)?;
        }
        if !ids.is_empty() {
            self.decide_accept(runs, ids, inputs, records)?;
        }
        if !uniques.is_empty() {
            self.decide_unique(runs, uniques, inputs, records)?;
        }
        if let Some(sequence) = sequence {
            self.decide_sequence(sequence, records)?;
        }
        // Last: what was published before needs no room.
        if self.catalog.has_bounds() {
            self.make_topic_room(runs, records)?;
        }
        Ok(Decision::Done)
    }
}

pub(in crate::state) fn check_name(name: &str) -> Result<(), Rejection> {
    let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX;
    if fits { Ok(()) } else { Err(Rejection::Invalid("a name has from 1 to 255 bytes")) }
}

fn has_duplicates(mut partitions: Vec<PartitionId>) -> bool {
    partitions.sort_unstable();
    partitions.windows(2).any(|pair| pair[0] == pair[1])
}
