//! Taking in what is left of a damaged log: what a record takes for granted, and nobody says any more, is put in place first.
//!
//! Done by records that could have said it, so that the state is one that a log can give. Never here: which frames are left.

use super::message::MessageRef;
use super::{Inconsistent, Rejection, State};
use crate::ids::{Epoch, GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::record::Record;

/// Messages of a partition that are missing: the first, and how many.
pub(crate) type LostRun = (PartitionId, Offset, u64);

impl State {
    /// Applies a record of a frame that was appended at `lsn` in `epoch`, though some before it may be lost. Messages that must have been there
    /// are there then, unsettled, and are told by `missing`. What a group must have leased before is ready for it again.
    ///
    /// # Errors
    /// The record says something of what is lost. What was put in place for it stays.
    pub(crate) fn apply_left(
        &mut self,
        record: &Record,
        (lsn, epoch): (Lsn, Epoch),
        missing: &mut Vec<LostRun>,
    ) -> Result<(), Inconsistent> {
        if epoch > self.epoch && !matches!(record, Record::Opened { .. }) {
            self.apply(&Record::Opened { epoch, clean: false, wall: WallMs(0) }, lsn)?;
        }
        self.pass_lost_numbers(record);
        if let Some(claim) = record.claim() {
            missing.extend(self.pass_lost(claim.partition, claim.first));
        }
        if let Some((group, partition, first, count)) = leased_run(record) {
            let end = first.saturating_add(count.into());
            missing.extend(self.pass_lost(partition, end));
            let is_acked = matches!(record, Record::Acked { .. });
            self.pass_lost_leases((group, partition), if is_acked { end } else { first }, lsn)?;
            if is_acked {
                return self.settle_left((group, partition), first, count);
            }
        }
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
        let Some(group) = self.group(id) else { return Ok(()) };
        let count = u32::try_from(upto.0 - first.0).map_err(|_| Inconsistent("too many leases are lost"))?;
        let until = MonoMs(group.options.visibility_timeout_ms);
        let (group, time) = (id, WallMs(0));
        let leased = Record::Leased { group, partition, first, count, attempt: 1, until, time, exclusive: false };
        self.apply(&leased, lsn)?;
        for nth in 0..count {
            let offset = first.saturating_add(nth.into());
            self.apply(&Record::Released { group, partition, offset }, lsn)?;
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
        group.settle(cursor, first, count);
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
