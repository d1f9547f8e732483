//! Granting leases: the decision that `Lease` asks for.
//!
//! First what is exhausted (it must be given up), then what needs an exclusive lease. Then the sources take turns, so that messages that fail
//! for ever, however fast, keep nobody from the others (G23). Never here: a change of the state.

use super::exclusive::Gate;
use super::queue::{AttemptClass, Source};
use crate::ids::{GroupId, MonoMs, Offset, WallMs};
use crate::limits::{DURATION_MS_MAX, RECEIVE_BATCH_MAX};
use crate::record::{Ordering, Record};
use crate::state::group::GroupState;
use crate::state::message::MessageRef;
use crate::state::settle::Holding;
use crate::state::{Decision, Held, HoldUp, Inputs, KeyRun, LookLimits, Rejection, State};

/// A lease that is being granted.
struct Grant<'a> {
    id: GroupId,
    group: &'a GroupState,
    until: MonoMs,
    wall: WallMs,
}

impl State {
    pub(in crate::state) fn decide_lease(
        &self,
        (id, limits): (GroupId, LookLimits),
        pass_exhausted: bool,
        keys: Option<KeyRun<'_>>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let LookLimits { max, new_last, .. } = limits;
        let group = self.group_named(id)?;
        // seam: leases end by a clock that is behind
        let until = inputs.mono_in(group.options.visibility_timeout_ms)?;
        let grant = Grant { id, group, until, wall: inputs.wall };
        // seam: a paused group gets leases
        if max == 0 || group.options.paused {
            return Ok(Decision::Nothing);
        }
        match self.exclusive.gate(inputs.mono, inputs.hold_up) {
            Gate::Open => {}
            Gate::Only(message) if message.group == id => return self.lease_pending(&grant, message, inputs, records),
            Gate::Only(_) | Gate::Closed => return Ok(Decision::Nothing),
        }
        let first_due = |class| group.queues.of(class).first_due(inputs.mono, inputs.wall);
        if let Some((cursor, offset)) = first_due(AttemptClass::Exhausted).filter(|_| !pass_exhausted) {
            return Ok(Decision::Exhausted { partition: group.partition_of(cursor), offset });
        }
        // A lease that has ended keeps its place, which its message takes again.
        let room = group.in_flight_room();
        let has_place = |(cursor, offset): &_| room > 0 || Source::of_place(group, *cursor, *offset) == Source::Ended;
        if let Some((cursor, offset)) = first_due(AttemptClass::Exclusive).filter(has_place) {
            records.push(self.lease_exclusive(&grant, (cursor, offset), inputs)?);
            return Ok(Decision::Done);
        }
        let others_max = max.min(room);
        if others_max > 0
            && let Some(decision) =
                self.decide_looked((id, group), LookLimits { max: others_max, ..limits }, keys, inputs, records)
        {
            return Ok(decision);
        }
        let (before, max) = (records.len(), max.min(RECEIVE_BATCH_MAX as u32));
        let others_max = others_max.min(max);
        if group.queues.of(AttemptClass::Plain).is_all_idle(inputs.mono, inputs.wall) {
            // Most often there is nothing but what is new.
            self.lease_new(&grant, new_last.map_or(others_max, |most| most.min(others_max)), inputs, records)?;
            return Ok(if records.len() > before { Decision::Done } else { Decision::Nothing });
        }
        self.lease_in_turn(&grant, (max, others_max), new_last, inputs, records)?;
        Ok(if records.len() > before { Decision::Done } else { Decision::Nothing })
    }

    /// The lease of a message that should have it alone, or the wait for it.
    fn lease_exclusive(
        &self,
        grant: &Grant<'_>,
        (cursor, offset): (u32, Offset),
        inputs: &Inputs<'_>,
    ) -> Result<Record, Rejection> {
        if !self.any_live(inputs.mono) {
            return grant.again(cursor, offset, true);
        }
        if inputs.hold_up == HoldUp(0) || self.exclusive.waited_in_vain(inputs.mono, inputs.hold_up) {
            // Others have been held up for long enough: it goes among them.
            return grant.again(cursor, offset, false);
        }
        Ok(grant.hold_for_exclusive(cursor, offset, inputs.mono))
    }

    /// Leases from all sources. `max` messages at most, `others_max` of them others than those that have a place in flight already.
    fn lease_in_turn(
        &self,
        grant: &Grant<'_>,
        (max, others_max): (u32, u32),
        new_last: Option<u32>,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        let (before, new_max) = (records.len(), if new_last.is_none() { others_max } else { 0 });
        let (mut left, mut others_left) = (max, others_max);
        for source in grant.group.source.turns() {
            let most = left.min(others_left);
            let leased = match source {
                Source::New => {
                    let unseen = self.lease_due(grant, source, most, inputs, records)?;
                    unseen + self.lease_new(grant, new_max.min(most - unseen), inputs, records)?
                }
                Source::Ended => self.lease_due(grant, source, left, inputs, records)?,
                Source::Waited | Source::Ready => self.lease_due(grant, source, most, inputs, records)?,
            };
            left -= leased;
            if source != Source::Ended {
                others_left -= leased;
            }
        }
        if let Some(most) = new_last
            && records.len() == before
        {
            self.lease_new(grant, most.min(others_max), inputs, records)?;
        }
        Ok(())
    }

    /// The exclusive lease that everybody waits for, if it can be granted.
    fn lease_pending(
        &self,
        grant: &Grant<'_>,
        message: MessageRef,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<Decision, Rejection> {
        let cursor = grant.group.cursor_of(message.partition).ok_or(Rejection::UnknownPartition)?;
        let due = grant.group.entry(cursor, message.offset).is_some_and(|entry| entry.is_due(inputs.mono, inputs.wall));
        if !due || self.any_live(inputs.mono) {
            return Ok(Decision::Nothing);
        }
        records.push(grant.again(cursor, message.offset, true)?);
        Ok(Decision::Done)
    }

    /// Leases at most `max` outstanding messages of a source, and returns how many.
    fn lease_due(
        &self,
        grant: &Grant<'_>,
        source: Source,
        max: u32,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<u32, Rejection> {
        let queue = grant.group.queues.of(AttemptClass::Plain);
        if queue.is_idle(source, inputs.mono, inputs.wall) {
            return Ok(0);
        }
        let holds = |key: &_| grant.group.holds(key);
        grant.push_all(queue.due(source, inputs.mono, inputs.wall, holds).take(max as usize), records)
    }

    /// Leases at most `max` messages that never had an attempt, and returns how many: partition by partition, from where the last one
    /// left off.
    fn lease_new(
        &self,
        grant: &Grant<'_>,
        max: u32,
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<u32, Rejection> {
        let group = grant.group;
        // seam: more outstanding than allowed
        let room = max.min(group.options.max_outstanding.saturating_sub(group.outstanding()));
        // seam: an expired head frees its key
        let parked = if group.parked > 0 {
            grant.push_all(group.order.startable(group).take(room as usize), records)?
        } else {
            0
        };
        if group.options.ordering == Ordering::Key {
            return Ok(parked);
        }
        let room = room - parked;
        if group.options.filter.is_some() {
            let start = records.len();
            let lease = |cursor, offset, records: &mut Vec<Record>| grant.push_new(cursor, offset, start, records);
            return Ok(parked + self.lease_passing((grant.id, group), room, inputs, lease, records));
        }
        let mut left = u64::from(room);
        let mut unseen = self.new_count(group);
        let mut cursor = group.position;
        for _ in 0..group.cursors() {
            if left == 0 || unseen == 0 {
                break;
            }
            let (partition, next) = (group.partition_of(cursor), group.next(cursor));
            let end = self.catalog.end(partition);
            let count = inputs.visible.end(partition, end).0.saturating_sub(next.0).min(left);
            let count = count.min(group.order.new_room(group, cursor));
            if count > 0 {
                // `left` is at most a u32.
                records.push(grant.record(cursor, next, count as u32, 1, WallMs(0), false));
                left -= count;
            }
            unseen -= u128::from(end.0.saturating_sub(next.0));
            cursor = if cursor + 1 == group.cursors() { 0 } else { cursor + 1 };
        }
        Ok(parked + room - left as u32)
    }

    /// How many messages the group has never leased, visible or not.
    #[inline]
    pub(in crate::state) fn new_count(&self, group: &GroupState) -> u128 {
        let published = self.catalog.audience(group.topic).map_or(0, |audience| audience.published);
        published + u128::from(self.catalog.end(group.retry).0) - group.considered
    }

    /// Whether any lease in the store is live.
    pub(in crate::state) fn any_live(&self, mono: MonoMs) -> bool {
        self.latest_end().is_some_and(|until| until > mono)
    }

    /// The latest end of any lease.
    pub(in crate::state) fn latest_end(&self) -> Option<MonoMs> {
        self.groups.values().flat_map(|group| group.queues.all()).filter_map(|queue| queue.latest_end()).max()
    }

    pub(in crate::state) fn decide_extend(
        &self,
        (id, held): (GroupId, Held),
        for_ms: u64,
        inputs: &Inputs<'_>,
    ) -> Result<Option<Record>, Rejection> {
        let Holding { lease, .. } = self.holding(self.group_named(id)?, held)?;
        if for_ms > DURATION_MS_MAX {
            return Err(Rejection::Invalid("a lease is extended by at most ten years"));
        }
        let until = inputs.mono_in(for_ms)?;
        // A lease that has ended may go on if nobody took the message: but not beside an exclusive lease, or as one.
        let ended = lease.until <= inputs.mono;
        if ended && (lease.exclusive || self.exclusive.gate(inputs.mono, inputs.hold_up) != Gate::Open) {
            return Err(Rejection::LeaseLost);
        }
        if until <= lease.until {
            return Ok(None);
        }
        Ok(Some(Record::Extended { group: id, partition: held.partition, offset: held.offset, until }))
    }
}

impl Grant<'_> {
    fn record(&self, cursor: u32, first: Offset, count: u32, attempt: u32, time: WallMs, exclusive: bool) -> Record {
        let partition = self.group.partition_of(cursor);
        Record::Leased { group: self.id, partition, first, count, attempt, until: self.until, time, exclusive }
    }

    /// An outstanding message, leased again.
    fn again(&self, cursor: u32, offset: Offset, exclusive: bool) -> Result<Record, Rejection> {
        let attempts = self.group.entry(cursor, offset).map(|entry| entry.attempts);
        let attempt = attempts.and_then(|attempts| attempts.checked_add(1));
        let attempt = attempt.ok_or(Rejection::Invalid("a queue names a message that cannot be leased"))?;
        let time = if attempt == 1 { WallMs(0) } else { self.wall };
        Ok(self.record(cursor, offset, 1, attempt, time, exclusive))
    }

    /// Leases the next message of a cursor. `start`: where the records of next messages begin.
    fn push_new(&self, cursor: u32, offset: Offset, start: usize, records: &mut Vec<Record>) {
        let lease = self.record(cursor, offset, 1, 1, WallMs(0), false);
        if !records[start..].last_mut().is_some_and(|last| extend_run(last, &lease)) {
            records.push(lease);
        }
    }

    /// Leases these outstanding messages, and returns how many they are.
    fn push_all(&self, due: impl Iterator<Item = (u32, Offset)>, records: &mut Vec<Record>) -> Result<u32, Rejection> {
        let (start, mut leased) = (records.len(), 0);
        for (cursor, offset) in due {
            let lease = self.again(cursor, offset, false)?;
            if !records[start..].last_mut().is_some_and(|last| extend_run(last, &lease)) {
                records.push(lease);
            }
            leased += 1;
        }
        Ok(leased)
    }

    /// Shuts the gate for all others.
    fn hold_for_exclusive(&self, cursor: u32, offset: Offset, since: MonoMs) -> Record {
        Record::ExclusivePending { group: self.id, partition: self.group.partition_of(cursor), offset, since }
    }
}

/// Adds the message of `lease` to the run of `last` if it is the next one and on the same attempt.
fn extend_run(last: &mut Record, lease: &Record) -> bool {
    let Record::Leased { partition, first, count, attempt, .. } = last else { return false };
    let Record::Leased { partition: next_partition, first: next, attempt: next_attempt, .. } = lease else {
        return false;
    };
    let follows = partition == next_partition
        && attempt == next_attempt
        && first.checked_add(u64::from(*count)) == Some(*next)
        && *count < u32::MAX;
    if follows {
        *count += 1;
    }
    follows
}
