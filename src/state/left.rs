//! Taking in what is left of a damaged log: what a record takes for granted, and nobody says any more, is put in place first.
//!
//! Done by records that could have said it, so that the state is one that a log can give. Never here: which frames are left.

use super::lease::Lease;
use super::message::{MessageRef, require};
use super::{Inconsistent, Rejection, State};
use crate::ids::{Epoch, GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::limits::OUTSTANDING_MAX;
use crate::record::{Ordering, Record};

/// Messages of a partition that are missing: the first, and how many.
pub(crate) type LostRun = (PartitionId, Offset, u64);

impl State {
    /// Applies a record of a frame that was appended at `lsn` in `epoch`, though some before it may be lost. Messages that must have been
    /// there are there then, unsettled, and are told by `missing`. What a group must have leased before is ready for it again, in a group
    /// without an order and without a filter. `wall` is the latest time that a record told.
    ///
    /// # Errors
    /// The record says something of what is lost. What was put in place for it stays.
    pub(crate) fn apply_left(
        &mut self,
        record: &Record,
        (lsn, epoch, wall): (Lsn, Epoch, WallMs),
        missing: &mut Vec<LostRun>,
    ) -> Result<(), Inconsistent> {
        if epoch > self.epoch && !matches!(record, Record::Opened { .. }) {
            self.apply(&Record::Opened { epoch, clean: false, wall }, lsn)?;
        }
        self.pass_lost_numbers(record);
        if let Some(claim) = record.claim() {
            missing.extend(self.pass_lost(claim.partition, claim.first));
        }
        let Some((group, partition, first, count)) = leased_run(record) else { return self.apply(record, lsn) };
        let is_of_group = self.next_of(group, partition).is_some();
        require(is_of_group, "a group has something of a partition that is not its own")?;
        let end = first.saturating_add(count.into());
        missing.extend(self.pass_lost(partition, end));
        if let Record::Acked { .. } = record {
            // What is not put in place has nothing to be settled.
            let passed = self.pass_lost_leases((group, partition), end, lsn);
            self.settle_left((group, partition), first, count)?;
            return passed;
        }
        self.pass_lost_leases((group, partition), first, lsn)?;
        self.apply(record, lsn)
    }

    /// What a group has come to before `upto` it had leased: it is ready for it again.
    fn pass_lost_leases(
        &mut self,
        (id, partition): (GroupId, PartitionId),
        upto: Offset,
        lsn: Lsn,
    ) -> Result<(), Inconsistent> {
        let Some(first) = self.next_of(id, partition).filter(|next| *next < upto) else { return Ok(()) };
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let is_plain = group.options.ordering == Ordering::None && group.options.filter.is_none();
        require(is_plain, "a group with an order or a filter goes on behind what is lost")?;
        // As after an alter that lowers the limit, more may be outstanding than the group may lease.
        let count = u32::try_from(upto.0 - first.0).unwrap_or(u32::MAX);
        require(count <= OUTSTANDING_MAX.saturating_sub(group.outstanding()), "too many leases are lost")?;
        let until = MonoMs(group.options.visibility_timeout_ms);
        let rank = group.next_rank(lsn);
        group.lease_new(cursor, count, Lease { until, lsn, rank, exclusive: false, extended: false, is_last: false });
        for nth in 0..count {
            let offset = first.saturating_add(nth.into());
            self.apply(&Record::Released { group: id, partition, offset }, lsn)?;
        }
        Ok(())
    }

    /// A message that was acked had been leased.
    fn settle_left(
        &mut self,
        (id, partition): (GroupId, PartitionId),
        first: Offset,
        count: u32,
    ) -> Result<(), Inconsistent> {
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let end = first.saturating_add(count.into());
        let run = group.entries.from((cursor, first)).map(|(at, _)| *at).take_while(|at| *at < (cursor, end));
        for (_, offset) in run.collect::<Vec<_>>() {
            // seam: a parked message is settled in its line
            group.start_parked(cursor, offset);
            group.settle(cursor, offset, 1);
        }
        group.tidy();
        self.exclusive.touched(MessageRef { group: id, partition, offset: first }, count);
        self.let_go_settled(partition, first, count);
        Ok(())
    }
}

/// The messages that a group had to come to first, or had leased.
fn leased_run(record: &Record) -> Option<(GroupId, PartitionId, Offset, u32)> {
    if let Record::Leased { group, partition, first, count, .. }
    | Record::Acked { group, partition, first, count }
    | Record::Filtered { group, partition, first, count }
    | Record::Dropped { group, partition, first, count } = record
    {
        return Some((*group, *partition, *first, *count));
    }
    None
}
