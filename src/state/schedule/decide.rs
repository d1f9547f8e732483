//! Scheduling messages, moving those that are due, and changing when that is.
//!
//! Never here: a change of the state.

use super::Scheduled;
use crate::ids::{Epoch, Offset, PartitionId, TopicId};
use crate::limits::{DURATION_MS_MAX, SCHEDULED_MAX};
use crate::record::{DueTime, FailureCounts, Provenance, Record};
use crate::state::{Delay, Inputs, Later, Publication, Rejection, Role, State};

impl State {
    pub(in crate::state) fn decide_create_schedule(&self, topic: TopicId) -> Result<Record, Rejection> {
        let partition = self.catalog.next().partition;
        self.check_new_schedule(topic, partition)?;
        Ok(Record::ScheduleCreated { topic, partition })
    }

    /// Whether this may be the hidden partition of a topic that has none; also asked of a record.
    pub(in crate::state) fn check_new_schedule(&self, topic: TopicId, partition: PartitionId) -> Result<(), Rejection> {
        let schedule = self.catalog.topic(topic).ok_or(Rejection::UnknownTopic)?.schedule;
        if schedule.is_some() {
            return Err(Rejection::Exists);
        }
        if partition != self.catalog.next().partition {
            return Err(Rejection::Invalid("topics and partitions are numbered in order"));
        }
        if self.catalog.has_room(1) { Ok(()) } else { Err(Rejection::LimitReached("partitions")) }
    }

    /// Says of messages that are published together where some of them go later, and when. `runs` are all messages, in order.
    pub(in crate::state) fn decide_delays(
        &self,
        runs: &[(PartitionId, u32)],
        delays: &[Delay],
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        if self.schedules.len.saturating_add(delays.len() as u64) > SCHEDULED_MAX {
            return Err(Rejection::LimitReached("scheduled messages"));
        }
        let (mut delays, mut nth) = (delays.iter().peekable(), 0u32);
        for &(partition, count) in runs {
            let end = nth.saturating_add(count);
            let of = match self.catalog.role(partition) {
                Some(Role::Schedule { topic }) => Some(topic),
                Some(Role::Topic { .. } | Role::Retry { .. } | Role::Dead { .. } | Role::Notes { .. }) | None => None,
            };
            let base = self.catalog.end(partition);
            let mut scheduled = 0;
            while let Some(&Delay { part, to, later }) = delays.next_if(|delay| delay.part < end) {
                let goes_there = matches!(self.catalog.role(to), Some(Role::Topic { topic, .. }) if Some(topic) == of);
                if !goes_there {
                    return Err(Rejection::UnknownPartition);
                }
                let offset = base.saturating_add(u64::from(part.saturating_sub(nth)));
                let due = self.due_time(later, inputs)?;
                // seam: a delay is not recorded
                records.push(Record::Scheduled { partition, offset, to, due, again: false });
                scheduled += 1;
            }
            if scheduled != if of.is_some() { count } else { 0 } {
                return Err(Rejection::Invalid("a message for later has no time, or another one has"));
            }
            nth = end;
        }
        if delays.next().is_some() {
            Err(Rejection::Invalid("a time for a message that is not in the frame"))
        } else {
            Ok(())
        }
    }

    /// Schedules a message for another time, or with `None` not at all.
    pub(in crate::state) fn decide_reschedule(
        &self,
        (partition, offset): (PartitionId, Offset),
        epoch: Option<Epoch>,
        later: Option<Later>,
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let found = self.scheduled(partition, offset);
        // seam: an id of another epoch will do
        let found = found.filter(|found| epoch.is_none_or(|epoch| found.epoch == epoch));
        let Scheduled { to, .. } = found.ok_or(Rejection::NotScheduled)?;
        Ok(match later {
            Some(later) => Record::Scheduled { partition, offset, to, due: self.due_time(later, inputs)?, again: true },
            None => {
                // seam: what was taken back comes all the same
                Record::ScheduleEnded { partition, offset, copy: None }
            }
        })
    }

    /// Moves a message that is due.
    pub(in crate::state) fn decide_move_due(
        &self,
        at: (PartitionId, Offset),
        published: Publication,
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let Scheduled { to, due, .. } = self.scheduled(at.0, at.1).ok_or(Rejection::Stale)?;
        let is_due = match due {
            DueTime::Store(time) => time <= self.store_time(inputs.steady),
            DueTime::Wall(time) => time <= inputs.wall,
        };
        if !is_due {
            return Err(Rejection::Stale);
        }
        let origin = self.origin(at, published).ok_or(Rejection::UnknownPartition)?;
        let (history, earlier) = (Vec::new(), FailureCounts::default());
        let provenance = Provenance { origin, attempts: 0, history, earlier };
        let copy = self.copy_to(to, provenance, inputs)?;
        Ok(Record::ScheduleEnded { partition: at.0, offset: at.1, copy: Some(copy) })
    }

    /// Never early, however far behind the clocks are.
    fn due_time(&self, later: Later, inputs: &Inputs<'_>) -> Result<DueTime, Rejection> {
        Ok(match later {
            Later::In(ms) if ms > DURATION_MS_MAX => return Err(FAR),
            Later::In(ms) => {
                // seam: a delay begins by a clock that is behind
                let now = self.store_time(inputs.steady).saturating_add(inputs.slack_ms);
                // seam: a delay goes by the wall clock
                DueTime::Store(now.saturating_add(ms))
            }
            // The handle has checked the bound, by a clock that may say something else by now.
            Later::At(time) => DueTime::Wall(time),
        })
    }
}

const FAR: Rejection = Rejection::Invalid("a message is scheduled for ten years from now at most");
