//! What a process and its clocks do to a state: it begins, or a clock jumps.
//!
//! A process that begins ends every lease, since no holder outlives its process. Never here: how long a message waits.

#[cfg(test)]
mod tests;

use super::group::GroupState;
use super::lease::{ExclusiveLeases, Phase};
use super::message::{Applied, require};
use super::retry::Ending;
use super::retry::backoff::{self, Attempt};
use super::{Inputs, Rejection, State};
use crate::ids::{Epoch, Lsn, WallMs};
use crate::record::{AttemptFailure, FailureCause, Record};

impl State {
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(in crate::state) fn decide_open(
        &self,
        epoch: Epoch,
        clean: bool,
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        if epoch <= self.epoch {
            return Err(Rejection::Invalid("an epoch is used only once"));
        }
        Ok(Record::Opened { epoch, clean, wall: inputs.wall })
    }

    pub(in crate::state) fn decide_note_clock_jump(&self, inputs: &Inputs<'_>) -> Record {
        let by_ms = inputs.wall.0.wrapping_sub(inputs.steady.0) as i64;
        Record::ClockJumped { wall: inputs.wall, by_ms }
    }

    pub(in crate::state) fn apply_opened(&mut self, epoch: Epoch, clean: bool, wall: WallMs) -> Applied {
        require(epoch > self.epoch, "an epoch is used only once")?;
        let before = std::mem::replace(&mut self.epoch, epoch);
        self.exclusive = ExclusiveLeases::default();
        self.dedup.expire(self.store_time(wall));
        self.groups.values_mut().for_each(|group| group.reopen(before, clean, wall));
        Ok(())
    }

    pub(in crate::state) fn apply_clock_jumped(&mut self, wall: WallMs, by_ms: i64) -> Applied {
        self.jumped_ms = self.jumped_ms.saturating_add(by_ms);
        self.groups.values_mut().for_each(|group| group.clamp(wall));
        Ok(())
    }
}

impl GroupState {
    /// Ends every lease, as the process of `epoch` ended.
    pub(in crate::state) fn reopen(&mut self, epoch: Epoch, clean: bool, wall: WallMs) {
        let max_closes = u8::try_from(self.options.max_closes).unwrap_or(u8::MAX);
        let max_crashes = self.options.max_crashes;
        let cause = if clean { FailureCause::Closed } else { FailureCause::Crashed };
        let leased = self.entries.iter().filter(|(_, entry)| entry.lease().is_some());
        let leased = leased.map(|(at, entry)| (*at, entry.attempts, Ending::of_process(entry, clean, max_closes)));
        for ((cursor, offset), number, ending) in leased.collect::<Vec<_>>() {
            // What is not counted was no attempt.
            let is_charged = ending != Ending::Closed;
            let failure = is_charged.then(|| AttemptFailure { cause, time: wall, text: Box::default() });
            let attempt = Attempt { epoch, partition: self.partition_of(cursor), offset, number };
            let delay_ms = backoff::delay_unattended_ms(&self.options.backoff, attempt);
            self.change(cursor, offset, failure, |entry, turn| {
                entry.end_lease(ending, max_crashes);
                entry.phase = Phase::Ready { turn };
                if is_charged && !entry.is_exhausted() {
                    // seam: no backoff after a crash
                    entry.wait_from(wall, delay_ms);
                }
            });
        }
        self.data.rank = (Lsn(0), 0);
        self.tidy();
        self.clamp(wall);
    }

    /// No message waits longer from `wall` on than its delay.
    pub(in crate::state) fn clamp(&mut self, wall: WallMs) {
        for queue in self.queues.all_mut() {
            let waiting = std::mem::take(&mut queue.waiting).into_iter().map(|(due, cursor, offset)| {
                match self.data.entries.get_mut(&(cursor, offset)).map(|entry| &mut entry.phase) {
                    Some(Phase::Waiting { due, delay_ms }) => {
                        // seam: a due time is not clamped
                        *due = (*due).min(wall.saturating_add(*delay_ms));
                        (*due, cursor, offset)
                    }
                    _ => (due, cursor, offset),
                }
            });
            queue.waiting = waiting.collect();
        }
    }
}
