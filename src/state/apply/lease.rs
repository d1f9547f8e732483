//! Folding in what grants leases, makes them longer, and waits for an exclusive one.
//!
//! Never here: what ends a lease.

use super::{Applied, At, offsets, require};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::record::Record;
use crate::state::exclusive::{Awaited, Out, Place};
use crate::state::outstanding::{Lease, OutstandingEntry, Phase};
use crate::state::queue::{Class, class};
use crate::state::{Inconsistent, Rejection, State};

impl State {
    #[inline]
    pub(super) fn apply_leased(&mut self, record: &Record, lsn: Lsn) -> Applied {
        let &Record::Leased { group: id, partition, first, count, attempt, until, time, exclusive } = record else {
            return Err(Inconsistent("not a lease"));
        };
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let mono = until.0.checked_sub(group.options.visibility_timeout_ms).map(MonoMs);
        let mono = mono.ok_or(Inconsistent("a lease ends before it could begin"))?;
        let place = Place { group: id, partition, offset: first };
        let end = first.checked_add(u64::from(count)).ok_or(Inconsistent("a lease beyond the last offset"))?;
        require(
            count > 0 && (count == 1 || !exclusive),
            "a lease is of one message at least, an exclusive one of one only",
        )?;
        require(attempt > 1 || time == WallMs(0), "a first attempt has no time")?;
        let is_new = first == group.next(cursor);
        if is_new {
            require(attempt == 1 && !exclusive, "a first lease is on the first attempt and not exclusive")?;
            require(end <= self.catalog.end(partition), "a lease of messages that do not exist")?;
            let room = group.options.max_outstanding.saturating_sub(group.outstanding());
            require(count <= room, "a lease of more messages than may be outstanding")?;
        } else {
            require(!exclusive || !self.any_live(mono), "an exclusive lease beside others")?;
            for offset in offsets(first, count) {
                self.check_leased_again(self.at((id, partition, offset))?, mono, attempt, time, exclusive)?;
            }
        }
        let since =
            self.exclusive.awaited.filter(|awaited| awaited.place == place).map_or(mono, |awaited| awaited.since);
        if !exclusive {
            self.end_exclusive(place, mono);
        }
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        let lease = Lease { until, lsn, rank: group.next_rank(lsn), exclusive, extended: false };
        if is_new {
            group.lease_new(cursor, count, lease);
            return Ok(());
        }
        for offset in offsets(first, count) {
            group.lease_again(cursor, offset, attempt, time, lease);
        }
        group.tidy();
        self.exclusive.touched(place, count);
        if exclusive {
            self.exclusive.out = Some(Out { place, since, until });
        }
        Ok(())
    }

    /// Another lease is granted at `mono`: the exclusive one that is out by then is one among others from here on.
    fn end_exclusive(&mut self, by: Place, mono: MonoMs) {
        let Some(out) = self.exclusive.out.filter(|out| mono < out.until && out.place != by) else { return };
        // seam: an exclusive lease stays exclusive beside others
        self.exclusive.out = None;
        let group = self.groups.get_mut(&out.place.group);
        let entry = group.and_then(|group| group.slot_mut(out.place.partition, out.place.offset));
        if let Some(OutstandingEntry { phase: Phase::Leased(lease), .. }) = entry {
            lease.exclusive = false;
        }
    }

    fn check_leased_again(&self, at: At<'_>, mono: MonoMs, attempt: u32, time: WallMs, exclusive: bool) -> Applied {
        require(at.entry.attempts.checked_add(1) == Some(attempt), "a lease on another attempt than the next")?;
        let fits = match class(at.entry) {
            Class::Plain => !exclusive,
            // One that is to be alone goes among others where it would hold them up for too long.
            Class::Exclusive => true,
            Class::Exhausted => false,
        };
        require(fits, "a lease that is exclusive and need not be, or of an exhausted message")?;
        // A first attempt carries no time, and ends no lease.
        let wall = if attempt == 1 { WallMs(u64::MAX) } else { time };
        require(at.entry.is_due(mono, wall), "a lease of a message that is leased or waits")
    }

    pub(super) fn apply_exclusive_pending(&mut self, at: (GroupId, PartitionId, Offset), since: MonoMs) -> Applied {
        let At { place, entry, .. } = self.at(at)?;
        require(class(entry) == Class::Exclusive, "a wait for an exclusive lease without need")?;
        require(self.any_live(since), "a wait for an exclusive lease that could be granted")?;
        self.exclusive.awaited = Some(Awaited { place, since });
        Ok(())
    }

    pub(super) fn apply_extended(&mut self, at: (GroupId, PartitionId, Offset), until: MonoMs) -> Applied {
        let (At { place, .. }, lease) = self.leased(at)?;
        require(until > lease.until, "a lease that is extended to an earlier end")?;
        let exclusive = self.exclusive;
        // seam: an extension is forgotten
        self.change(place, None, |entry, _| entry.phase = Phase::Leased(Lease { until, extended: true, ..lease }))?;
        // A longer lease is no other phase: who waits goes on waiting, and an exclusive lease stays out.
        self.exclusive = exclusive;
        if let Some(out) = self.exclusive.out.as_mut().filter(|out| out.place == place) {
            out.until = until;
        }
        Ok(())
    }
}
