//! What ends a lease for good, or takes it back: acks, releases, messages that cannot be read.
//!
//! Only a live token settles: the message is still under the lease that the token names, ended or not.

#[cfg(test)]
mod tests;

use super::group::GroupState;
use super::lease::{Lease, OutstandingEntry, Phase};
use super::message::{Applied, LeaseTarget, MessageRef, require};
use super::retry::{Ending, backoff};
use super::{Decision, Held, HeldRun, Inputs, Rejection, State};
use crate::ids::{Epoch, GroupId, Offset, PartitionId, WallMs};
use crate::limits::FRAME_PARTS_MAX;
use crate::record::{Record, Token};
use std::collections::BTreeSet;

/// A message that really is held.
pub(in crate::state) struct Holding<'a> {
    pub(in crate::state) group: &'a GroupState,
    pub(in crate::state) entry: &'a OutstandingEntry,
    pub(in crate::state) lease: &'a Lease,
}

impl Lease {
    /// Whether a token names this lease, which is one of this epoch.
    #[inline]
    fn is_named_by(&self, token: Token, epoch: Epoch) -> bool {
        // seam: a stale token is accepted
        token.epoch == epoch && token.lsn == self.lsn
    }
}

/// Acks on their way into records.
struct Ack<'a> {
    id: GroupId,
    group: &'a GroupState,
    epoch: Epoch,
    /// The records before are not of these acks.
    start: usize,
    records: &'a mut Vec<Record>,
    /// The numbers of those that are not held.
    lost: Vec<u32>,
}

impl Ack<'_> {
    /// Acks those of a run that are held; the first has this number.
    fn run(&mut self, number: u32, HeldRun { first, count }: HeldRun) {
        let Held { partition, offset, token } = first;
        let (group, epoch) = (self.group, self.epoch);
        let cursor = group.cursor_of(partition);
        let held_from = |nth: u32| {
            let first = offset.saturating_add(u64::from(nth));
            cursor.map_or(0, |at| group.leased_run(at, first, count - nth, |lease| lease.is_named_by(token, epoch)))
        };
        let mut nth = 0;
        while nth < count {
            let held = held_from(nth);
            let acked = held > 0 && self.push(partition, offset.saturating_add(u64::from(nth)), held);
            if !acked {
                self.lost.push(number + nth);
            }
            nth += held.max(1);
        }
    }

    /// Records acks, which come in order. `false` where it is a single one that was recorded already.
    fn push(&mut self, partition: PartitionId, first: Offset, count: u32) -> bool {
        if let Some(Record::Acked { partition: last, first: from, count: known, .. }) =
            self.records[self.start..].last_mut()
            && *last == partition
        {
            let ahead = first.0.saturating_sub(from.0);
            if ahead < u64::from(*known) {
                return false;
            }
            if ahead == u64::from(*known) {
                // seam: an ack of a run is lost
                *known += count;
                return true;
            }
        }
        self.records.push(Record::Acked { group: self.id, partition, first, count });
        true
    }
}

impl State {
    pub(in crate::state) fn holding<'a>(&self, group: &'a GroupState, held: Held) -> Result<Holding<'a>, Rejection> {
        let cursor = group.cursor_of(held.partition).ok_or(Rejection::UnknownPartition)?;
        let entry = group.entry(cursor, held.offset).ok_or(Rejection::LeaseLost)?;
        let lease = entry.lease().filter(|lease| lease.is_named_by(held.token, self.epoch));
        lease.map(|lease| Holding { group, entry, lease }).ok_or(Rejection::LeaseLost)
    }

    pub(in crate::state) fn decide_ack(
        &self,
        id: GroupId,
        held: &[HeldRun],
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let total: u64 = held.iter().map(|run| u64::from(run.count)).sum();
        if total > FRAME_PARTS_MAX as u64 {
            return Err(Rejection::LimitReached("messages in a batch"));
        }
        let mut ack = Ack { id, group, epoch: self.epoch, start: records.len(), records, lost: Vec::new() };
        let mut number = 0;
        let ends = |run: &HeldRun| (run.first.partition, run.first.offset.saturating_add(u64::from(run.count)));
        if held.is_sorted_by(|run, next| ends(run) <= (next.first.partition, next.first.offset)) {
            for &run in held {
                ack.run(number, run);
                number += run.count;
            }
        } else {
            // In another order a message may come twice; sorted, its second ack meets the first as the last run's end.
            let mut single = Vec::with_capacity(total as usize);
            for &HeldRun { first, count } in held {
                let offsets = (0..count).map(|nth| first.offset.saturating_add(u64::from(nth)));
                single.extend((number..).zip(offsets.map(|offset| Held { offset, ..first })));
                number += count;
            }
            single.sort_by_key(|(_, held)| (held.partition, held.offset));
            single.into_iter().for_each(|(number, held)| ack.run(number, held.into()));
            ack.lost.sort_unstable();
        }
        Ok(Decision::Settled { lost: ack.lost })
    }

    pub(in crate::state) fn decide_release(
        &self,
        id: GroupId,
        held: &[HeldRun],
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let group = self.group_named(id)?;
        let (mut released, mut lost) = (BTreeSet::new(), Vec::new());
        let all = held.iter().flat_map(|run| (0..run.count).map(|nth| run.nth(nth)));
        for (number, held) in (0..).zip(all) {
            match self.holding(group, held) {
                // A message that is named twice is held the first time.
                Ok(_) if released.insert((held.partition, held.offset)) => {}
                Ok(_) | Err(Rejection::LeaseLost) => lost.push(number),
                Err(rejection) => return Err(rejection),
            }
        }
        if released.len() > FRAME_PARTS_MAX {
            return Err(Rejection::LimitReached("messages in a batch"));
        }
        let record = |(partition, offset)| Record::Released { group: id, partition, offset };
        records.extend(released.into_iter().map(record));
        Ok(Decision::Settled { lost })
    }

    pub(in crate::state) fn decide_unreadable(
        &self,
        (id, held): (GroupId, Held),
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        let Holding { group, .. } = self.holding(self.group_named(id)?, held)?;
        let delay_ms = backoff::deferral_ms(&group.options.backoff);
        let due = inputs.wall_at_most().saturating_add(delay_ms);
        Ok(Record::Unreadable { group: id, partition: held.partition, offset: held.offset, due, delay_ms })
    }

    #[inline]
    pub(in crate::state) fn apply_acked(
        &mut self,
        id: GroupId,
        partition: PartitionId,
        first: Offset,
        count: u32,
    ) -> Applied {
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(count > 0 && first.checked_add(u64::from(count)).is_some(), "an ack of no messages")?;
        let leased = group.leased_run(cursor, first, count, |_| true);
        require(leased == count, "an ack of a message that is not leased")?;
        group.settle(cursor, first, count);
        group.tidy();
        self.exclusive.touched(MessageRef { group: id, partition, offset: first }, count);
        self.let_go_settled(partition, first, count);
        Ok(())
    }

    /// A lease given back: its attempt is not counted.
    pub(in crate::state) fn apply_given_back(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        wait: Option<(WallMs, u64)>,
    ) -> Applied {
        let (LeaseTarget { message, .. }, _) = self.leased(at)?;
        require(wait.is_none_or(|(_, delay_ms)| delay_ms > 0), "an unreadable message that does not wait")?;
        self.change(message, None, |entry, turn| {
            entry.end_lease(Ending::GivenBack, 0);
            entry.phase = match wait {
                Some((due, delay_ms)) => Phase::Waiting { due, delay_ms },
                None => Phase::Ready { turn },
            };
        })
    }
}
