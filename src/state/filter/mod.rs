//! Filters: which messages a group passes over, and when that is recorded.
//!
//! A consumer that looks for messages of a group with a filter reads ahead, outside the store's lock; what was found is beside the state
//! ([`KnownVerdicts`]). Messages that do not pass are settled by [`Record::Filtered`], in runs: with the lease of a message behind them, or
//! once there are many, or when somebody asks for it. A group that nobody receives from can be made to look ahead: what passes is
//! outstanding then, and parked as in a group in order of keys. Replaying looks at no filter. Never here: what a filter says, reading.

#[cfg(test)]
mod tests;
mod verdicts;

pub(in crate::state) use verdicts::VerdictRun;
pub(crate) use verdicts::{FilterVerdict, KnownVerdicts};

use super::group::GroupState;
use super::lease::AttemptClass;
use super::message::{Applied, require};
use super::{Command, Decided, Decision, Inconsistent, Inputs, KeyRun, ParkedMax, Rejection, State};
use crate::ids::{GroupId, Offset};
use crate::limits::{FILTER_LOOK_MAX, FILTERED_RUN};
use crate::record::{KeyHash, Ordering, Record};

/// For how much a group looks before some messages are leased.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct LookLimits {
    /// How many are to be leased at most.
    pub(in crate::state) max: u32,
    /// As in a lease.
    pub(in crate::state) new_last: Option<u32>,
    /// How many the call has looked at so far.
    pub(in crate::state) looked_at: u32,
}

impl State {
    /// What a group does before it leases some messages, if anything: one in order of keys, or with a filter, looks at them.
    pub(in crate::state) fn decide_looked(
        &self,
        (id, group): (GroupId, &GroupState),
        limits: LookLimits,
        keys: Option<KeyRun<'_>>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Option<Decision> {
        match group.options.ordering {
            Ordering::Key => self.decide_considered((id, group), limits, keys, inputs, records),
            Ordering::None | Ordering::Partition if group.options.filter.is_some() => {
                self.decide_filtered((id, group), limits, inputs, records)
            }
            Ordering::None | Ordering::Partition => None,
        }
    }

    /// Of a group that is not in order of keys: it settles long runs of messages that do not pass, and asks for verdicts where too few are
    /// known to pass.
    fn decide_filtered(
        &self,
        (id, group): (GroupId, &GroupState),
        limits: LookLimits,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Option<Decision> {
        let room = group.options.max_outstanding.saturating_sub(group.outstanding());
        let max = limits.max.min(limits.new_last.unwrap_or(u32::MAX)).min(room);
        let redriven = self.retry_count(group, inputs);
        let (mut found, mut needed) = (redriven.saturating_add(group.order.startable_count() as u64), None);
        let mut unseen = self.new_count(group);
        for cursor in group.topic_cursors() {
            if found >= u64::from(max) || unseen == 0 {
                break;
            }
            let (partition, next) = (group.partition_of(cursor), group.next(cursor));
            let end = self.catalog.end(partition);
            unseen -= u128::from(end.0.saturating_sub(next.0));
            let run = inputs.verdicts.run(id, group, cursor);
            // seam: a filter that passes little holds segments
            if let Some(run) = run.filter(|run| run.filtered_first() >= FILTERED_RUN) {
                let count = run.filtered_first();
                records.push(Record::Filtered { group: id, partition, first: next, count });
                return Some(Decision::Filtered { count });
            }
            let (passing, room) = (run.map_or(0, VerdictRun::passing), group.order.new_room(group, cursor));
            found = found.saturating_add(passing.min(room));
            if needed.is_none() && passing < room {
                needed = self.verdicts_needed(group, cursor, run, inputs);
            }
        }
        needed.filter(|_| found < u64::from(max) && self.looks_on(group, found > 0, limits, inputs))
    }

    /// How many redriven messages the group never leased, which no filter is asked about.
    fn retry_count(&self, group: &GroupState, inputs: &Inputs<'_>) -> u64 {
        let end = inputs.visible.end(group.retry, self.catalog.end(group.retry));
        end.0.saturating_sub(group.next(group.retry_cursor()).0)
    }

    /// Whether a group that looks for messages that pass its filter reads on: until it has something to lease, or has looked at enough.
    fn looks_on(&self, group: &GroupState, is_found: bool, limits: LookLimits, inputs: &Inputs<'_>) -> bool {
        let is_due = !group.queues.of(AttemptClass::Plain).is_all_idle(inputs.mono, inputs.wall);
        // seam: messages that fail for ever keep a filter from looking
        !is_found && !is_due || limits.looked_at < FILTER_LOOK_MAX
    }

    /// Which verdicts to read next of a partition: `None` where enough are known, or all that there are.
    fn verdicts_needed(
        &self,
        group: &GroupState,
        cursor: u32,
        run: Option<&VerdictRun>,
        inputs: &Inputs<'_>,
    ) -> Option<Decision> {
        let partition = group.partition_of(cursor);
        let first = run.map_or(group.next(cursor), VerdictRun::end);
        let end = inputs.visible.end(partition, self.catalog.end(partition));
        let count = end.0.saturating_sub(first.0).min(u64::from(FILTER_LOOK_MAX)) as u32;
        let is_wanted = count > 0 && !run.is_some_and(VerdictRun::is_full);
        is_wanted.then_some(Decision::VerdictsNeeded { partition, first, count })
    }

    /// As [`State::decide_filtered`], of a group in order of keys, which parks or counts what passes, up to `most` messages.
    pub(in crate::state) fn decide_filtered_keys(
        &self,
        (id, group): (GroupId, &GroupState),
        (limits, most, parked_max): (LookLimits, u32, ParkedMax),
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Option<Decision> {
        let (mut needed, mut unseen) = (None, self.new_count(group));
        for cursor in group.topic_cursors() {
            if unseen == 0 || most == 0 {
                break;
            }
            let (partition, next) = (group.partition_of(cursor), group.next(cursor));
            unseen -= u128::from(self.catalog.end(partition).0.saturating_sub(next.0));
            let run = inputs.verdicts.run(id, group, cursor);
            if let Some(run) = run.filter(|run| run.passing() > 0 || run.filtered_first() >= FILTERED_RUN) {
                let count = group.look_ahead((id, cursor), run, (most, parked_max), records);
                return Some(Decision::Considered { count });
            }
            needed = needed.or_else(|| self.verdicts_needed(group, cursor, run, inputs));
        }
        needed.filter(|_| self.looks_on(group, group.order.startable_count() > 0, limits, inputs))
    }

    /// Settles what is known not to pass of the next messages. Of the partition `ahead` also looks at what passes, so that the group
    /// gets past it, and asks for verdicts where none are known.
    pub(in crate::state) fn decide_settle_filtered(
        &self,
        command: &Command<'_>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Decided {
        let &Command::SettleFiltered { group: id, ahead, parked_max } = command else {
            return Err(Rejection::Invalid("another command settles what does not pass"));
        };
        let group = self.group_named(id)?;
        if group.options.filter.is_none() {
            return Ok(Decision::Nothing);
        }
        let before = records.len();
        let Some(ahead) = ahead else {
            for cursor in 0..group.retry_cursor() {
                let (partition, first) = (group.partition_of(cursor), group.next(cursor));
                let run = inputs.verdicts.run(id, group, cursor);
                if let Some(count) = run.map(VerdictRun::filtered_first).filter(|count| *count > 0) {
                    records.push(Record::Filtered { group: id, partition, first, count });
                }
            }
            return Ok(if records.len() > before { Decision::Done } else { Decision::Nothing });
        };
        let cursor = group.cursor_of(ahead).filter(|cursor| *cursor != group.retry_cursor());
        let cursor = cursor.ok_or(Rejection::UnknownPartition)?;
        let Some(run) = inputs.verdicts.run(id, group, cursor) else {
            return Ok(self.verdicts_needed(group, cursor, None, inputs).unwrap_or(Decision::Nothing));
        };
        let count = group.look_ahead((id, cursor), run, (u32::MAX, parked_max), records);
        Ok(if records.len() > before { Decision::Filtered { count } } else { Decision::Nothing })
    }

    pub(in crate::state) fn apply_filtered(&mut self, record: &Record) -> Applied {
        let &Record::Filtered { group: id, partition, first, count } = record else {
            return Err(Inconsistent("no messages that do not pass a filter"));
        };
        let group = self.group_named(id)?;
        let cursor = group.cursor_of(partition).ok_or(Rejection::UnknownPartition)?;
        require(group.options.filter.is_some(), "messages that do not pass a filter that there is not")?;
        require(cursor != group.retry_cursor(), "a redriven message that does not pass a filter")?;
        require(count > 0 && first == group.next(cursor), "other messages than the next do not pass a filter")?;
        let end = first.checked_add(u64::from(count)).ok_or(Inconsistent("a filter beyond the last offset"))?;
        require(end <= self.catalog.end(partition), "messages that do not exist do not pass a filter")?;
        let group = self.groups.get_mut(&id).ok_or(Rejection::UnknownGroup)?;
        group.data.set_next(cursor, end);
        group.considered += u128::from(count);
        // seam: a partition without matches keeps others waiting
        group.data.position = cursor + 1;
        // seam: a key stays taken by what does not pass
        self.let_go_settled(partition, first, count);
        Ok(())
    }

    /// Leases at most `max` messages of a group with a filter that never had an attempt, and returns how many. What stands between them
    /// and does not pass is settled.
    pub(in crate::state) fn lease_passing(
        &self,
        (id, group): (GroupId, &GroupState),
        max: u32,
        inputs: &Inputs<'_>,
        mut lease: impl FnMut(u32, Offset, &mut Vec<Record>),
        records: &mut Vec<Record>,
    ) -> u32 {
        // Redriven messages come first: they have passed.
        let mut left = max;
        // seam: a redriven message never passes
        let redriven = self.retry_count(group, inputs).min(group.order.new_room(group, group.retry_cursor()));
        let next = group.next(group.retry_cursor());
        for nth in 0..redriven.min(left.into()) {
            lease(group.retry_cursor(), next.saturating_add(nth), records);
            left -= 1;
        }
        for cursor in group.topic_cursors() {
            let (partition, mut offset) = (group.partition_of(cursor), group.next(cursor));
            let end = inputs.visible.end(partition, self.catalog.end(partition));
            let Some(run) = inputs.verdicts.run(id, group, cursor) else { continue };
            let (mut room, mut filtered) = (group.order.new_room(group, cursor).min(left.into()), 0);
            for candidate in run.candidates() {
                if room == 0 || offset >= end {
                    break;
                }
                match candidate {
                    FilterVerdict::Filtered(count) => {
                        filtered = count;
                        offset = offset.saturating_add(count.into());
                    }
                    FilterVerdict::Passes(_) => {
                        if filtered > 0 {
                            let first = Offset(offset.0 - u64::from(filtered));
                            records.push(Record::Filtered { group: id, partition, first, count: filtered });
                            filtered = 0;
                        }
                        lease(cursor, offset, records);
                        offset = offset.saturating_add(1);
                        (room, left) = (room - 1, left - 1);
                    }
                }
            }
        }
        max - left
    }
}

impl GroupState {
    /// Settles what does not pass of these next messages of a cursor, and parks or counts what passes, up to `most` of these. Returns
    /// how many messages that are in all.
    fn look_ahead(
        &self,
        (id, cursor): (GroupId, u32),
        run: &VerdictRun,
        (most, parked_max): (u32, ParkedMax),
        records: &mut Vec<Record>,
    ) -> u32 {
        let is_by_key = self.options.ordering == Ordering::Key;
        let room = if is_by_key { most } else { most.min(parked_max.of_group.saturating_sub(self.parked)) };
        let room = room.min(self.parked_room()) as usize;
        // A message that cannot be read counts as one without a key, and waits for nobody.
        let known = |key| if key == KeyHash::LOST { KeyHash::NONE } else { key };
        // seam: a message that cannot be read is only counted
        let keys = run.candidates().filter_map(FilterVerdict::key).map(known).take(room).collect::<Vec<KeyHash>>();
        let mut counted = if is_by_key { self.counted(&keys, parked_max) } else { Vec::new() }.into_iter().peekable();
        let (partition, start) = (self.partition_of(cursor), self.next(cursor));
        let (mut offset, mut number) = (start, 0u32);
        let mut passing: Option<(Offset, Vec<KeyHash>, Vec<u32>)> = None;
        let push = |passing: &mut Option<(Offset, Vec<KeyHash>, Vec<u32>)>, records: &mut Vec<Record>| {
            let considered = passing.take();
            records.extend(considered.map(|(first, keys, counted)| Record::Considered {
                group: id,
                partition,
                first,
                keys,
                counted,
            }));
        };
        for candidate in run.candidates() {
            match candidate {
                FilterVerdict::Filtered(count) => {
                    push(&mut passing, records);
                    records.push(Record::Filtered { group: id, partition, first: offset, count });
                    offset = offset.saturating_add(count.into());
                }
                FilterVerdict::Passes(_) if number as usize == keys.len() => break,
                FilterVerdict::Passes(key) => {
                    let (_, keys, here) = passing.get_or_insert_with(|| (offset, Vec::new(), Vec::new()));
                    if counted.next_if_eq(&number).is_some() {
                        here.push(keys.len() as u32);
                    }
                    keys.push(known(key));
                    (number, offset) = (number + 1, offset.saturating_add(1));
                }
            }
        }
        push(&mut passing, records);
        (offset.0 - start.0) as u32
    }
}

impl FilterVerdict {
    fn key(self) -> Option<KeyHash> {
        match self {
            Self::Filtered(_) => None,
            Self::Passes(key) => Some(key),
        }
    }
}
