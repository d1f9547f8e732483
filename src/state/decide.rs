//! From commands to records: the dispatch, and everything but leasing and settling.
//!
//! Never here: a change of the state.

use super::topic::{NextIds, has_room_for_group};
use super::{Command, Decision, Group, Inputs, Rejection, State};
use crate::ids::{Epoch, GroupId, Offset, PartitionId, TopicId};
use crate::limits::{DURATION_MS_MAX, FRAME_PARTS_MAX, NAME_LEN_MAX, OUTSTANDING_MAX, TOPIC_PARTITIONS_MAX};
use crate::record::{GroupOptions, Record};

impl State {
    /// Appends the records that `command` leads to. On `Err`, `records` is as it was.
    #[inline(always)]
    pub(crate) fn decide(
        &self,
        command: &Command<'_>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let before = records.len();
        let decision = self.dispatch(command, inputs, records);
        if decision.is_err() {
            records.truncate(before);
        }
        decision
    }

    #[inline(never)]
    fn dispatch(
        &self,
        command: &Command<'_>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        if self.epoch == Epoch(0) && !matches!(command, Command::Open { .. }) {
            return Err(Rejection::Invalid("the store has not been opened"));
        }
        let record = match *command {
            Command::Lease { group, max, pass_exhausted } => {
                return self.decide_lease((group, max), pass_exhausted, inputs, records);
            }
            Command::Ack { group, held } => return self.decide_ack(group, held, records),
            Command::Publish { runs } => return self.decide_publish(runs, inputs, records),
            Command::Nack { group, held, delay_ms, text, published } => {
                return self.decide_nack((group, held), delay_ms, text, published, inputs, records);
            }
            Command::Reject { group, held, text, published } => {
                return self.decide_reject((group, held), text, published, inputs, records);
            }
            Command::GiveUp { group, partition, offset, published } => {
                return self.decide_give_up((group, partition, offset), published, inputs, records);
            }
            Command::Redrive { group, dead_letter, to, provenance } => {
                return self.decide_redrive((group, dead_letter), to, provenance, inputs, records);
            }
            Command::Extend { group, held, for_ms } => match self.decide_extend((group, held), for_ms, inputs)? {
                Some(record) => record,
                None => return Ok(Decision::Done),
            },
            Command::Release { group, held } => return self.decide_release(group, held, records),
            Command::Unreadable { group, held } => self.decide_unreadable((group, held), inputs)?,
            Command::PutOff { group, partition, offset } => self.decide_put_off((group, partition, offset), inputs)?,
            Command::Discard { group, dead_letter } => self.decide_discard((group, dead_letter))?,
            Command::Open { epoch, .. } if epoch <= self.epoch => {
                return Err(Rejection::Invalid("an epoch is used only once"));
            }
            Command::Open { epoch, clean } => Record::Opened { epoch, clean, wall: inputs.wall },
            Command::NoteClockJump => Record::ClockJumped { wall: inputs.wall },
            Command::CreateTopic { name, partitions } => self.decide_create_topic(name, partitions)?,
            Command::RemoveTopic { topic } => {
                self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
                Record::TopicRemoved { topic }
            }
            Command::RemoveGroup { group } => {
                self.group_named(group)?;
                Record::GroupRemoved { group }
            }
            Command::AlterGroup { group, changes } => {
                let before = &self.group_named(group)?.options;
                let options = changes.applied_to(before);
                check_options(&options)?;
                if options == *before {
                    return Ok(Decision::Done);
                }
                Record::GroupAltered { group, options }
            }
            Command::CreateGroup { topic, name, options, starts } => {
                self.decide_create_group(topic, name, options, starts)?
            }
        };
        records.push(record);
        Ok(Decision::Done)
    }

    fn decide_create_topic(&self, name: &str, partitions: u32) -> Result<Record, Rejection> {
        let NextIds { topic, partition: first, .. } = *self.catalog.next();
        self.check_new_topic(topic, name, first, partitions)?;
        Ok(Record::TopicCreated { topic, name: name.to_owned(), first, count: partitions })
    }

    /// Whether this topic may be the next one; also asked of a record.
    pub(super) fn check_new_topic(
        &self,
        topic: TopicId,
        name: &str,
        first: PartitionId,
        count: u32,
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
        if self.catalog.has_room(count) { Ok(()) } else { Err(Rejection::LimitReached("partitions")) }
    }

    fn decide_create_group(
        &self,
        topic: TopicId,
        name: &str,
        options: &GroupOptions,
        starts: &[Offset],
    ) -> Result<Record, Rejection> {
        let NextIds { group, partition: retry, .. } = *self.catalog.next();
        self.check_new_group((group, topic), name, options, retry, starts)?;
        let (name, options, starts) = (name.to_owned(), options.clone(), starts.to_vec());
        Ok(Record::GroupCreated { group, topic, name, options, retry, starts })
    }

    /// Whether this group may be the next one; also asked of a record.
    pub(super) fn check_new_group(
        &self,
        (group, topic): (GroupId, TopicId),
        name: &str,
        options: &GroupOptions,
        retry: PartitionId,
        starts: &[Offset],
    ) -> Result<(), Rejection> {
        check_name(name)?;
        check_options(options)?;
        let audience = self.catalog.audience(topic).ok_or(Rejection::UnknownTopic)?;
        let topic = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?;
        if audience.groups.contains_key(name) {
            return Err(Rejection::Exists);
        }
        if starts.len() != topic.count as usize {
            return Err(Rejection::Invalid("a group starts somewhere in each partition of its topic"));
        }
        let ends = topic.partitions().map(|partition| self.catalog.end(partition));
        if starts.iter().zip(ends).any(|(&start, end)| start > end) {
            return Err(Rejection::Invalid("a group cannot start beyond the end of a partition"));
        }
        if (group, retry) != (self.catalog.next().group, self.catalog.next().partition) {
            return Err(Rejection::Invalid("groups and partitions are numbered in order"));
        }
        if !has_room_for_group(self.groups.len()) || group.checked_add(1).is_none() {
            return Err(Rejection::LimitReached("groups"));
        }
        if self.catalog.has_room(2) { Ok(()) } else { Err(Rejection::LimitReached("partitions")) }
    }

    fn decide_publish(
        &self,
        runs: &[(PartitionId, u32)],
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let mut total = 0;
        for &(partition, count) in runs {
            let base = self.catalog.end(partition);
            self.catalog.check_published(partition, base, count)?;
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
        Ok(Decision::Done)
    }

    pub(super) fn group_named(&self, group: GroupId) -> Result<&Group, Rejection> {
        self.groups.get(&group).map(Box::as_ref).ok_or(Rejection::UnknownGroup)
    }
}

fn check_name(name: &str) -> Result<(), Rejection> {
    let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX;
    if fits { Ok(()) } else { Err(Rejection::Invalid("a name has from 1 to 255 bytes")) }
}

/// Whether a group may have these options; also asked of a snapshot.
pub(super) fn check_options(options: &GroupOptions) -> Result<(), Rejection> {
    let backoff = options.backoff;
    if options.visibility_timeout_ms == 0 || options.visibility_timeout_ms > DURATION_MS_MAX {
        return Err(Rejection::Invalid("a visibility timeout is from 1 ms to ten years"));
    }
    if backoff.first_ms > DURATION_MS_MAX || backoff.max_ms > DURATION_MS_MAX {
        return Err(Rejection::Invalid("a delay is at most ten years"));
    }
    if options.max_outstanding == 0 || options.max_outstanding > OUTSTANDING_MAX {
        return Err(Rejection::Invalid("a group has room for 1 to 1,048,576 outstanding messages"));
    }
    Ok(())
}

fn has_duplicates(mut partitions: Vec<PartitionId>) -> bool {
    partitions.sort_unstable();
    partitions.windows(2).any(|pair| pair[0] == pair[1])
}
