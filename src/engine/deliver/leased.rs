//! Messages that were leased: where they stand, and reading them outside the lock.
//!
//! What cannot be read is put back with the longest backoff, its attempt not counted; passing trouble, and a bound in bytes, give back all that is left
//! as if it had not been leased. Never here: deciding what is delivered.

use crate::engine::Engine;
use crate::engine::core::Core;
use crate::engine::deliver::notices::Moved;
use crate::error::{Error, ErrorKind};
use crate::ids::{GroupId, Offset, PartitionId};
use crate::limits::BATCH_BYTES_MAX;
use crate::log::{Catalog, Parts, Segment};
use crate::record::{FailureCause, FailureCounts, Record, Token};
use crate::state::{Command, Held, HeldRun, Notice};
use crate::view::MessageLocation;
use crate::view::Reader;
use crate::view::Stored;
use crate::view::ViewHolder;
use smallvec::SmallVec;
use std::sync::Arc;

/// Leased messages with their bytes.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) token: Token,
    pub(crate) attempt: u32,
    /// How the attempts before ended.
    pub(crate) failures: FailureCounts,
    pub(crate) stored: Stored,
}

impl Received {
    /// The leases on all of them.
    pub(crate) fn held_run(&self) -> HeldRun {
        HeldRun { first: self.held(0), count: self.stored.count() }
    }

    /// The lease on one of them.
    pub(crate) fn held(&self, nth: u32) -> Held {
        Held { partition: self.stored.about.partition, offset: self.stored.offset(nth), token: self.token }
    }
}

/// One of them, which may have to be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeasedMessage<'a> {
    pub(crate) group: GroupId,
    pub(crate) received: &'a Received,
    pub(crate) nth: u32,
}

impl<'a> LeasedMessage<'a> {
    pub(in crate::engine) fn held(&self) -> Held {
        self.received.held(self.nth)
    }

    /// Its bytes.
    pub(in crate::engine) fn part(&self) -> &'a [u8] {
        self.received.stored.part(self.nth)
    }

    pub(in crate::engine) fn nack<'t>(&self, delay_ms: Option<u64>, text: &'t str, notice: Notice) -> Command<'t> {
        let moving = self.moved(FailureCause::Nacked, text).moving(notice);
        Command::Nack { group: self.group, held: self.held(), delay_ms, text, moving }
    }

    pub(in crate::engine) fn reject<'t>(&self, text: &'t str, notice: Notice) -> Command<'t> {
        let moving = self.moved(FailureCause::Rejected, text).moving(notice);
        Command::Reject { group: self.group, held: self.held(), text, moving }
    }

    /// As a message that may move to the dead letters.
    pub(in crate::engine) fn moved<'t>(&self, cause: FailureCause, text: &'t str) -> Moved<'t>
    where
        'a: 't,
    {
        let Held { partition, offset, .. } = self.held();
        let (stored, nth) = (&self.received.stored, self.nth);
        Moved { at: (self.group, partition, offset), stored, nth, end: Some((cause, text)) }
    }
}

/// Leases on consecutive messages, which are still to be read.
#[derive(Debug)]
pub(in crate::engine) struct LeaseRun {
    partition: PartitionId,
    first: Offset,
    pub(in crate::engine) count: u32,
    attempt: u32,
    failures: FailureCounts,
    place: Option<MessageLocation>,
}

/// Those of one receive. Most receives of one message need no memory for them.
pub(in crate::engine) type Leases = SmallVec<[LeaseRun; 1]>;

impl LeaseRun {
    /// The leases on all of them but the first `skip`.
    fn held_from(&self, skip: u32, token: Token) -> HeldRun {
        let offset = self.first.saturating_add(u64::from(skip));
        HeldRun { first: Held { partition: self.partition, offset, token }, count: self.count.saturating_sub(skip) }
    }
}

/// Reads leased messages one lease after another.
pub(in crate::engine) struct Reading<'a> {
    pub(in crate::engine) engine: &'a Engine,
    pub(in crate::engine) group: GroupId,
    pub(in crate::engine) token: Token,
    pub(in crate::engine) catalog: &'a Catalog,
    pub(in crate::engine) reader: &'a mut Reader,
    /// That of the lease read last.
    segment: Option<&'a Arc<Segment>>,
    count: usize,
    bytes: usize,
    unreadable: Vec<Error>,
}

impl<'a> Reading<'a> {
    pub(in crate::engine) fn new(
        engine: &'a Engine,
        group: GroupId,
        token: Token,
        catalog: &'a Catalog,
        reader: &'a mut Reader,
    ) -> Self {
        let (segment, count, bytes, unreadable) = (None, 0, 0, Vec::new());
        Self { engine, group, token, catalog, reader, segment, count, bytes, unreadable }
    }

    /// Reads the messages of all leases and gives them to `each`, in order. Returns why others could not be read.
    pub(in crate::engine) fn read(mut self, leases: &[LeaseRun], each: &mut impl FnMut(Received)) -> Vec<Error> {
        if let [lease] = leases
            && lease.count == 1
        {
            self.read_one(lease, each);
        } else {
            self.read_all(leases, each);
        }
        self.reader.note_typical(self.count, self.bytes);
        self.reader.rest();
        self.unreadable
    }

    fn read_one(&mut self, lease: &LeaseRun, each: &mut impl FnMut(Received)) {
        let &LeaseRun { partition, first: offset, ref place, .. } = lease;
        let segment = place.and_then(|place| self.catalog.segment(place.segment()));
        let read = match (place, segment) {
            (Some(place), Some(segment)) => self.engine.read(self.reader, segment, place, 0, (partition, offset)),
            (Some(_), None) | (None, _) => self.engine.fetch(partition, offset),
        };
        match read {
            Ok(stored) => self.give(lease, stored, each),
            Err(error) => {
                if !self.put_back((partition, offset), error) {
                    self.give_back(vec![lease.held_from(0, self.token)]);
                }
            }
        }
    }

    /// Small messages that follow each other share their memory.
    fn read_all(&mut self, leases: &[LeaseRun], each: &mut impl FnMut(Received)) {
        // What an error left there is of no use.
        self.reader.take();
        for (number, lease) in leases.iter().enumerate() {
            let (read, goes_on) = self.read_lease(lease, each);
            // Messages share a block only if they share this.
            let shared = |lease: &LeaseRun| (lease.attempt, lease.failures);
            if !goes_on || leases.get(number + 1).is_none_or(|next| shared(next) != shared(lease)) {
                let last = self.reader.take();
                last.into_iter().for_each(|stored| self.give(lease, stored, each));
            }
            if !goes_on {
                let rest = leases[number + 1..].iter().map(|lease| lease.held_from(0, self.token));
                let back = [lease.held_from(read, self.token)].into_iter().chain(rest);
                self.give_back(back.filter(|run| run.count > 0).collect());
                break;
            }
        }
    }

    /// Reads the messages of a lease. Returns how many of them are done with, and whether to read on.
    fn read_lease(&mut self, lease: &LeaseRun, each: &mut impl FnMut(Received)) -> (u32, bool) {
        let &LeaseRun { partition, first, count, ref place, .. } = lease;
        if let Some(number) = place.map(|place| place.segment())
            && self.segment.is_none_or(|known| known.number() != number)
        {
            self.segment = self.catalog.segment(number);
        }
        let mut done = 0;
        while done < count {
            // seam: a batch has no bound in bytes
            if self.bytes >= BATCH_BYTES_MAX {
                return (done, false);
            }
            let (max, offset) = (count - done, first.saturating_add(u64::from(done)));
            let mut read = SmallVec::<[Stored; 1]>::new();
            let found = match (place, self.segment) {
                (Some(place), Some(segment)) => {
                    let of = (partition, offset);
                    self.engine.gather(self.reader, segment, place, (done, max), of, |stored| read.push(stored))
                }
                (Some(_), None) | (None, _) => self.engine.fetch(partition, offset).map(|stored| {
                    read.extend(self.reader.take().into_iter().chain([stored]));
                    1
                }),
            };
            read.into_iter().for_each(|stored| self.give(lease, stored, each));
            match found {
                Ok(count) => done += count,
                Err(error) => {
                    if !self.put_back((partition, offset), error) {
                        return (done, false);
                    }
                    done += 1;
                }
            }
        }
        (done, true)
    }

    /// Puts a message that cannot be read back with the longest backoff, and keeps the reason. `false` if it is still leased, as it is
    /// when the trouble is passing.
    fn put_back(&mut self, (partition, offset): (PartitionId, Offset), error: Error) -> bool {
        // seam: passing trouble is taken for damage
        let is_passing = error.kind() == ErrorKind::Retry;
        self.unreadable.push(error);
        if is_passing {
            return false;
        }
        let held = Held { partition, offset, token: self.token };
        let settled = self.engine.settle(&Command::Unreadable { group: self.group, held }, Parts::default());
        settled.map_err(|error| self.unreadable.push(error)).is_ok()
    }

    fn give(&mut self, lease: &LeaseRun, stored: Stored, each: &mut impl FnMut(Received)) {
        self.count += stored.count() as usize;
        self.bytes += stored.len();
        let &LeaseRun { attempt, failures, .. } = lease;
        each(Received { token: self.token, attempt, failures, stored });
    }

    /// Ends leases unused.
    fn give_back(&mut self, back: Vec<HeldRun>) {
        if !back.is_empty() {
            // What cannot be given back comes back when its lease ends.
            self.unreadable.extend(self.engine.release(self.group, &back).err());
        }
    }
}

/// The leases that the last commit granted, if there were any.
pub(in crate::engine) fn collect(core: &Core) -> Option<Leases> {
    let mut leases = Leases::new();
    // Those that newer ones have replaced are acked in the frame of their lease, in the order of the leases.
    let mut passed = passed_over(core).peekable();
    for record in &core.records {
        let &Record::Leased { partition, first, count, .. } = record else { continue };
        let (mut next, end) = (first, first.saturating_add(u64::from(count)));
        let is_here = |passed: &(PartitionId, Offset, u32)| passed.0 == partition && (first..end).contains(&passed.1);
        while let Some((_, offset, count)) = passed.next_if(is_here) {
            collect_run(core, record, (next, offset), &mut leases);
            next = offset.saturating_add(u64::from(count));
        }
        collect_run(core, record, (next, end), &mut leases);
    }
    (!leases.is_empty()).then_some(leases)
}

/// What the last commit leased and acked, in runs: the partition, the first, and how many.
fn passed_over(core: &Core) -> impl Iterator<Item = (PartitionId, Offset, u32)> {
    core.records.iter().filter_map(|record| {
        let &Record::Acked { partition, first, count, .. } = record else { return None };
        Some((partition, first, count))
    })
}

/// How many messages the last commit acked since they were replaced.
pub(in crate::engine) fn passed_count(core: &Core) -> u32 {
    passed_over(core).fold(0, |all, (_, _, count)| all.saturating_add(count))
}

/// Those of the messages `first..end` of a lease.
fn collect_run(core: &Core, lease: &Record, (first, end): (Offset, Offset), leases: &mut Leases) {
    let &Record::Leased { partition, attempt, .. } = lease else { return };
    if first >= end {
        return;
    }
    if attempt > 1 {
        collect_again(core, lease, (first, end), leases);
        return;
    }
    // Nothing has failed before a first attempt. A lease is of `u32` messages.
    let (failures, count) = (FailureCounts::default(), (end.0 - first.0) as u32);
    core.view.positions.find(partition, first, count, |first, count, place| {
        leases.push(LeaseRun { partition, first, count, attempt, failures, place });
    });
}

/// The same of messages that were leased before: those that failed in the same ways together.
fn collect_again(core: &Core, record: &Record, (first, end): (Offset, Offset), leases: &mut Leases) {
    let &Record::Leased { group, partition, attempt, .. } = record else { return };
    let counts = |offset| core.view.state.failure_counts(group, partition, offset);
    let mut next = first;
    while next < end {
        let failures = counts(next);
        let same = (next.0..end.0).take_while(|offset| counts(Offset(*offset)) == failures).count().max(1) as u32;
        core.view.positions.find(partition, next, same, |first, count, place| {
            leases.push(LeaseRun { partition, first, count, attempt, failures, place });
        });
        next = next.saturating_add(u64::from(same));
    }
}
