//! Attempts that failed: when the next one may begin, and what is remembered of those that were.

mod account;
pub(in crate::state) mod backoff;
mod history;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use account::Ending;
pub(crate) use history::capped;
pub(super) use history::{History, Past, Texts};
pub(super) use snapshot::{TURNS_MAX, decode_history, encode_history};

use super::lease::{Lease, OutstandingEntry, Phase, Prospect};
use super::message::{Applied, LeaseTarget, require};
use super::settle::Holding;
use super::{Decision, Held, Inputs, Moving, Rejection, State};
use crate::ids::{GroupId, Offset, PartitionId, WallMs};
use crate::limits::{DURATION_MS_MAX, ERROR_TEXT_LEN_MAX};
use crate::record::{AttemptFailure, FailureCause, FailureCounts, Record};
use backoff::Attempt;

impl State {
    /// Whether a nack of this message moves it to the dead letters. `false` if it is not held.
    pub(crate) fn nack_moves(&self, group: GroupId, held: Held) -> bool {
        let holding = self.group(group).map(|group| self.holding(group, held));
        matches!(holding, Some(Ok(Holding { group, entry, .. })) if group.is_last_nack(entry))
    }

    /// How attempts on an outstanding message ended: none if it is not there.
    pub(crate) fn failure_counts(&self, group: GroupId, partition: PartitionId, offset: Offset) -> FailureCounts {
        let entry = self.group(group).and_then(|group| group.entry(group.cursor_of(partition)?, offset));
        entry.map_or_else(FailureCounts::default, OutstandingEntry::counts)
    }

    pub(in crate::state) fn decide_nack(
        &self,
        (id, held): (GroupId, Held),
        delay_ms: Option<u64>,
        text: &str,
        moving: Moving,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let Holding { group, entry, .. } = self.holding(self.group_named(id)?, held)?;
        let failure =
            AttemptFailure { cause: FailureCause::Nacked, time: inputs.wall_at_most(), text: capped(text).into() };
        if delay_ms.is_some_and(|delay| delay > DURATION_MS_MAX) {
            return Err(Rejection::Invalid("a delay is at most ten years"));
        }
        if group.is_last_nack(entry) {
            return self.move_to_dead_letters(
                (id, held.partition, held.offset),
                Some(failure),
                moving,
                inputs,
                records,
            );
        }
        let backoff = &group.options.backoff;
        let Held { partition, offset, .. } = held;
        let attempt = Attempt { epoch: self.epoch, partition, offset, number: entry.attempts };
        let delay_ms = delay_ms.unwrap_or_else(|| backoff::delay_ms(backoff, attempt));
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        records.push(Record::Nacked { group: id, partition, offset, due, delay_ms, failure });
        Ok(Decision::Done)
    }

    pub(in crate::state) fn decide_postpone(
        &self,
        at: (GroupId, PartitionId, Offset),
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let (group, _) = self.exhausted(at, inputs)?;
        let delay_ms = backoff::deferral_ms(&group.options.backoff);
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        Ok(Record::Postponed { group: at.0, partition: at.1, offset: at.2, due, delay_ms })
    }

    pub(in crate::state) fn apply_nacked(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        (due, delay_ms): (WallMs, u64),
        failure: &AttemptFailure,
    ) -> Applied {
        let (LeaseTarget { message, group, entry, .. }, _) = self.leased(at)?;
        require(!group.is_last_nack(entry), "a nack of the last attempt, or the last nack")?;
        let fits = failure.cause == FailureCause::Nacked && failure.text.len() <= ERROR_TEXT_LEN_MAX;
        require(fits && due == failure.time.saturating_add(delay_ms), "a nack whose parts contradict each other")?;
        self.change(message, Some(failure.clone()), |entry, turn| {
            entry.end_lease(Ending::Failed, 0);
            entry.phase = if delay_ms == 0 { Phase::Ready { turn } } else { Phase::Waiting { due, delay_ms } };
        })
    }

    pub(in crate::state) fn apply_postponed(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        (due, delay_ms): (WallMs, u64),
    ) -> Applied {
        let LeaseTarget { message, entry, .. } = self.target(at)?;
        require(entry.is_exhausted() && delay_ms > 0, "only an exhausted message is postponed")?;
        let time = due.saturating_sub(delay_ms);
        let expired =
            entry.lease().map(|_| AttemptFailure { cause: FailureCause::Expired, time, text: Box::default() });
        self.change(message, expired, |entry, _| {
            if let Some(&Lease { is_last, .. }) = entry.lease() {
                entry.end_lease(Ending::Failed, 0);
                if is_last {
                    // seam: a postponed message is leased again
                    entry.prospect = Prospect::Over;
                }
            }
            entry.phase = Phase::Waiting { due, delay_ms };
        })
    }
}
