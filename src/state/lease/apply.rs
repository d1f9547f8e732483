//! Applying what grants leases, makes them longer, and waits for an exclusive one.
//!
//! Never here: what ends a lease.

use super::exclusive::{ExclusiveLease, PendingLease};
use super::outstanding::{Lease, OutstandingEntry, Phase, Prospect};
use super::queue::{AttemptClass, Source, class};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::record::{AttemptFailure, FailureCause, GroupOptions, Ordering, Record};
use crate::state::group::GroupState;
use crate::state::message::{Applied, LeaseTarget, MessageRef, require};
use crate::state::retry::Ending;
use crate::state::retry::backoff::{self, Attempt};
use crate::state::{Inconsistent, Rejection, State};

impl State {
    #[inline]
    pub(in crate::state) fn apply_leased(&mut self, record: &Record, lsn: Lsn) -> Applied {
        let &Record::Leased { group: id, partition, first, count, attempt, until, time, exclusive } = record else {
            return Err(Inconsistent("not a lease"));
        };
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let mono = until.0.checked_sub(group.options.visibility_timeout_ms).map(MonoMs);
        let mono = mono.ok_or(Inconsistent("a lease ends before it could begin"))?;
        let message = MessageRef { group: id, partition, offset: first };
        let end = first.checked_add(u64::from(count)).ok_or(Inconsistent("a lease beyond the last offset"))?;
        require(
            count > 0 && (count == 1 || !exclusive),
            "a lease is of one message at least, an exclusive one of one only",
        )?;
        require(attempt > 1 || time == WallMs(0), "a first attempt has no time")?;
        let is_new = first == group.next(cursor);
        if is_new {
            require(attempt == 1 && !exclusive, "a first lease is on the first attempt and not exclusive")?;
            require(group.options.ordering != Ordering::Key, "a lease of a message that the group has not looked at")?;
            require(
                u64::from(count) <= group.order.new_room(group, cursor),
                "a lease of more messages of a partition than may be out",
            )?;
            require(end <= self.catalog.end(partition), "a lease of messages that do not exist")?;
            let room = group.options.max_outstanding.saturating_sub(group.outstanding());
            require(count <= room, "a lease of more messages than may be outstanding")?;
        } else {
            require(!exclusive || !self.any_live(mono), "an exclusive lease beside others")?;
            for offset in offsets(first, count) {
                self.check_leased_again(self.target((id, partition, offset))?, mono, attempt, time, exclusive)?;
            }
            if group.parked > 0 {
                group.check_started(cursor, first, count)?;
            }
        }
        let since =
            self.exclusive.pending.filter(|pending| pending.message == message).map_or(mono, |pending| pending.since);
        if !exclusive {
            self.end_exclusive(message, mono);
        }
        let epoch = self.epoch;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let lease = Lease { until, lsn, rank: group.next_rank(lsn), exclusive, extended: false, is_last: false };
        if is_new {
            group.lease_new(cursor, count, lease);
            return Ok(());
        }
        for offset in offsets(first, count) {
            let attempt = Attempt { epoch, partition, offset, number: attempt };
            group.lease_again(cursor, attempt, time, lease);
        }
        group.tidy();
        self.exclusive.touched(message, count);
        if exclusive {
            self.exclusive.granted = Some(ExclusiveLease { message, since, until });
        }
        Ok(())
    }

    /// Another lease is granted at `mono`: the exclusive one that is out by then is one among others from here on.
    fn end_exclusive(&mut self, by: MessageRef, mono: MonoMs) {
        let Some(granted) = self.exclusive.granted.filter(|granted| mono < granted.until && granted.message != by)
        else {
            return;
        };
        // seam: an exclusive lease stays exclusive beside others
        self.exclusive.granted = None;
        let group = self.groups.get_mut(&granted.message.group);
        let entry = group.and_then(|group| group.entry_mut(granted.message.partition, granted.message.offset));
        if let Some(OutstandingEntry { phase: Phase::Leased(lease), .. }) = entry {
            lease.exclusive = false;
        }
    }

    fn check_leased_again(
        &self,
        at: LeaseTarget<'_>,
        mono: MonoMs,
        attempt: u32,
        time: WallMs,
        exclusive: bool,
    ) -> Applied {
        require(at.entry.attempts.checked_add(1) == Some(attempt), "a lease on another attempt than the next")?;
        let fits = match class(at.entry) {
            AttemptClass::Plain => !exclusive,
            // One that is to be alone goes among others where it would hold them up for too long.
            AttemptClass::Exclusive => true,
            AttemptClass::Exhausted => false,
        };
        require(fits, "a lease that is exclusive and need not be, or of an exhausted message")?;
        // A first attempt carries no time, and ends no lease.
        let wall = if attempt == 1 { WallMs(u64::MAX) } else { time };
        require(at.entry.is_due(mono, wall), "a lease of a message that is leased or waits")
    }

    pub(in crate::state) fn apply_exclusive_pending(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        since: MonoMs,
    ) -> Applied {
        let LeaseTarget { message, entry, .. } = self.target(at)?;
        require(class(entry) == AttemptClass::Exclusive, "a wait for an exclusive lease without need")?;
        require(self.any_live(since), "a wait for an exclusive lease that could be granted")?;
        self.exclusive.pending = Some(PendingLease { message, since });
        Ok(())
    }

    pub(in crate::state) fn apply_extended(&mut self, at: (GroupId, PartitionId, Offset), until: MonoMs) -> Applied {
        let (LeaseTarget { message, .. }, lease) = self.leased(at)?;
        require(until > lease.until, "a lease that is extended to an earlier end")?;
        let exclusive = self.exclusive;
        // seam: an extension is forgotten
        self.change(message, None, |entry, _| entry.phase = Phase::Leased(Lease { until, extended: true, ..lease }))?;
        // A longer lease is no other phase: a pending message goes on waiting, and an exclusive lease stays out.
        self.exclusive = exclusive;
        if let Some(granted) = self.exclusive.granted.as_mut().filter(|granted| granted.message == message) {
            granted.until = until;
        }
        Ok(())
    }
}

impl GroupState {
    pub(in crate::state) fn entry_mut(
        &mut self,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<&mut OutstandingEntry> {
        let cursor = self.cursor_of(partition)?;
        self.data.entries.get_mut(&(cursor, offset))
    }

    /// The rank of the next lease record in the frame at `lsn`.
    pub(in crate::state) fn next_rank(&mut self, lsn: Lsn) -> u32 {
        let rank = if self.rank.0 == lsn { self.rank.1.saturating_add(1) } else { 0 };
        self.data.rank = (lsn, rank);
        rank
    }

    /// Leases the next `count` messages of a cursor.
    #[inline]
    pub(in crate::state) fn lease_new(&mut self, cursor: u32, count: u32, lease: Lease) {
        let max_attempts = self.options.max_attempts;
        let is_last = self.options.max_expiries == 1;
        let entry = OutstandingEntry {
            phase: Phase::Leased(Lease { is_last, ..lease }),
            attempts: 1,
            max_attempts,
            backoff_ms: 0,
            crashes: 0,
            closes: 0,
            prospect: Prospect::None,
            history: None,
        };
        let data = &mut self.data;
        let next = data.next(cursor);
        self.queues.insert_leased(cursor, next, count, &entry);
        if count == 1 {
            data.entries.insert((cursor, next), entry);
        } else {
            data.entries.insert_run(count, |nth| (cursor, next.saturating_add(u64::from(nth))), &entry);
        }
        data.set_next(cursor, next.saturating_add(u64::from(count)));
        data.source = Source::New;
        data.position = if cursor == data.retry_cursor() { 0 } else { cursor + 1 };
        self.considered += u128::from(count);
        self.begin_new(cursor, count);
    }

    /// Leases an outstanding message again. `time` is when its lease ended, if it has one.
    pub(in crate::state) fn lease_again(&mut self, cursor: u32, attempt: Attempt, time: WallMs, lease: Lease) {
        let offset = attempt.offset;
        self.data.source = self.entry(cursor, offset).map_or(self.source, Source::of);
        self.start_parked(cursor, offset);
        let expired = self.source == Source::Ended;
        let failure = expired.then(|| AttemptFailure { cause: FailureCause::Expired, time, text: Box::default() });
        let GroupOptions { max_attempts, max_expiries, backoff, .. } = &self.data.options;
        let (max_attempts, max_expiries) = (*max_attempts, *max_expiries);
        let delay_ms = backoff::delay_unattended_ms(backoff, attempt);
        self.change(cursor, offset, failure, |entry, _| {
            if expired {
                entry.end_lease(Ending::Failed, 0);
            }
            // seam: the attempt is not charged
            entry.attempts = attempt.number;
            // seam: a lease keeps the first limit
            entry.max_attempts = max_attempts;
            entry.phase = Phase::Leased(Lease { is_last: entry.is_last_expiry(max_expiries), ..lease });
            // Nothing waits for an attempt that there will not be.
            let delay_ms = if entry.is_exhausted() { 0 } else { delay_ms };
            entry.backoff_ms = u32::try_from(delay_ms).unwrap_or(u32::MAX);
        });
    }
}

/// A run whose end has been checked to be an offset.
fn offsets(first: Offset, count: u32) -> impl Iterator<Item = Offset> {
    (first.0..first.0.saturating_add(u64::from(count))).map(Offset)
}
