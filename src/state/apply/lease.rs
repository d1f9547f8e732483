//! Folding in what grants leases, makes them longer, and waits for a lone one.
//!
//! Never here: what ends a lease.

use super::{Applied, At, offsets, require};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, WallMs};
use crate::record::Record;
use crate::state::lone::{Awaited, Gate, Out, Place};
use crate::state::outstanding::{Lease, Phase};
use crate::state::queue::Class;
use crate::state::{Inconsistent, Rejection, State};

impl State {
    #[inline]
    pub(super) fn apply_leased(&mut self, record: &Record, lsn: Lsn) -> Applied {
        let &Record::Leased { group: id, partition, first, count, attempt, until, time, lone } = record else {
            return Err(Inconsistent("not a lease"));
        };
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        let mono = until.0.checked_sub(group.options.visibility_timeout_ms).map(MonoMs);
        let mono = mono.ok_or(Inconsistent("a lease ends before it could begin"))?;
        let place = Place { group: id, partition, offset: first };
        let end = first.checked_add(u64::from(count)).ok_or(Inconsistent("a lease beyond the last offset"))?;
        require(count > 0 && (count == 1 || !lone), "a lease is of one message at least, a lone one of one only")?;
        require(attempt > 1 || time == WallMs(0), "a first attempt has no time")?;
        match self.lone.gate(mono) {
            Gate::Open => {}
            Gate::Only(awaited) => require(lone && awaited == place, "a lease while another one is awaited")?,
            Gate::Closed => return Err(Inconsistent("a lease beside a lone one")),
        }
        let is_new = first == group.cursors[cursor as usize].next;
        if is_new {
            require(attempt == 1 && !lone, "a first lease is on the first attempt and not lone")?;
            require(end <= self.catalog.end(partition), "a lease of messages that do not exist")?;
            let room = group.options.max_outstanding.saturating_sub(group.outstanding);
            require(count <= room, "a lease of more messages than may be outstanding")?;
        } else {
            require(!lone || !self.any_live(mono), "a lone lease beside others")?;
            for offset in offsets(first, count) {
                self.check_leased_again(self.at((id, partition, offset))?, mono, attempt, time, lone)?;
            }
        }
        let group = &mut self.groups[id.0 as usize];
        let lease = Lease { until, lsn, rank: group.next_rank(lsn), lone, extended: false };
        if is_new {
            group.lease_new(cursor, count, lease);
            return Ok(());
        }
        for offset in offsets(first, count) {
            group.lease_again(cursor, offset, attempt, time, lease);
        }
        group.tidy();
        self.lone.touched(place, count);
        if lone {
            self.lone.out = Some(Out { place, until });
        }
        Ok(())
    }

    fn check_leased_again(&self, at: At<'_>, mono: MonoMs, attempt: u32, time: WallMs, lone: bool) -> Applied {
        require(at.slot.attempts.checked_add(1) == Some(attempt), "a lease on another attempt than the next")?;
        let class = if lone { Class::Lone } else { Class::Plain };
        require(at.group.class(at.slot) == class, "a lease that is lone and need not be, or the reverse")?;
        // A first attempt carries no time, and ends no lease.
        let wall = if attempt == 1 { WallMs(u64::MAX) } else { time };
        require(at.slot.is_due(mono, wall), "a lease of a message that is leased or waits")
    }

    pub(super) fn apply_lone_awaited(
        &mut self,
        at: (GroupId, PartitionId, Offset),
        until: MonoMs,
        passed_over_until: MonoMs,
    ) -> Applied {
        let At { place, group, slot, .. } = self.at(at)?;
        let timeout_ms = group.options.visibility_timeout_ms;
        let mono = until.0.checked_sub(timeout_ms).map(MonoMs);
        let mono = mono.ok_or(Inconsistent("a wait ends before it could begin"))?;
        require(until.checked_add(timeout_ms) == Some(passed_over_until), "a message is passed over for one timeout")?;
        require(group.class(slot) == Class::Lone && !slot.is_live(mono), "a wait for a lone lease without need")?;
        let free = self.lone.gate(mono) == Gate::Open && !self.lone.passes_over(mono);
        require(free, "a wait for a lone lease during or soon after another")?;
        require(self.any_live(mono), "a wait for a lone lease that could be granted")?;
        self.lone.awaited = Some(Awaited { place, until, passed_over_until });
        Ok(())
    }

    pub(super) fn apply_extended(&mut self, at: (GroupId, PartitionId, Offset), until: MonoMs) -> Applied {
        let (At { place, .. }, lease) = self.leased(at)?;
        require(until > lease.until, "a lease that is extended to an earlier end")?;
        require(!(lease.lone && lease.extended), "a lone lease that is extended again")?;
        let lone = self.lone;
        // seam: an extension is forgotten
        self.change(place, None, |slot, _| slot.phase = Phase::Leased(Lease { until, extended: true, ..lease }))?;
        // A longer lease is no other phase: who waits goes on waiting, and a lone lease stays out.
        self.lone = lone;
        if let Some(out) = self.lone.out.as_mut().filter(|out| out.place == place) {
            out.until = until;
        }
        Ok(())
    }
}
