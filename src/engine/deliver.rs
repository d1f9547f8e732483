//! Handing out leases, and settling them.
//!
//! [`Engine::receive`] leases under the lock and reads outside it. Messages that used up their attempts are moved to the
//! dead letters when a consumer asks and meets them; a message that cannot be read is put back with the longest backoff,
//! uncharged. Never here: public handles.

use super::core::{Committed, Core, Now};
use super::positions::Place;
use super::read::Reader;
use super::stored::Stored;
use super::{CoreGuard, Engine, Refusal};
use crate::error::{Error, Result};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, TopicId};
use crate::log::{Catalog, Parts, Segment};
use crate::record::{Record, Token};
use crate::state::{Command, Decision, Held, HeldRun, Rejection};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// Leased messages with their bytes.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) token: Token,
    pub(crate) attempt: u32,
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

/// How long a receive may wait for a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait<'a> {
    until: MonoMs,
    /// Ends the wait at once when it is set and the group is woken.
    stop: Option<&'a AtomicBool>,
}

/// Leases on consecutive messages, which are still to be read.
#[derive(Debug)]
struct Lease {
    partition: PartitionId,
    first: Offset,
    count: u32,
    attempt: u32,
    place: Option<Place>,
}

/// Those of one receive. Most receives of one message need no memory for them.
type Leases = SmallVec<[Lease; 1]>;

/// What one look for messages gave.
enum Look {
    /// Under one token; the catalog knows the segments that they stand in.
    Leased {
        token: Token,
        catalog: Catalog,
    },
    Exhausted {
        partition: PartitionId,
        offset: Offset,
    },
    Nothing,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(engine: &Engine, wait: Duration) -> Self {
        if wait.is_zero() {
            return Self { until: MonoMs(0), stop: None };
        }
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { until: engine.clock.monotonic().saturating_add(ms), stop: None }
    }

    /// The same wait, which also ends when `stop` is set and [`Engine::wake_group`] is called after that.
    pub(crate) fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
    }
}

impl Engine {
    /// Leases up to `max` messages for the group and reads them, waiting for the first as long as `wait` allows; `each` gets them in
    /// order. `reader` is what the consumer has at hand; who finds it in use does without. Returns why other messages could not be
    /// read, which were put back uncharged.
    ///
    /// # Errors
    /// The store's. A message that cannot be read is none.
    pub(crate) fn receive(
        &self,
        group: GroupId,
        topic: TopicId,
        max: usize,
        wait: Wait<'_>,
        reader: &Mutex<Reader>,
        each: &mut impl FnMut(Received),
    ) -> Result<Vec<Error>> {
        self.enter()?;
        let mut leases = Leases::new();
        loop {
            match self.look(group, topic, max, wait, &mut leases)? {
                Look::Nothing => return Ok(Vec::new()),
                Look::Exhausted { partition, offset } => self.give_up(group, partition, offset)?,
                Look::Leased { token, catalog } => {
                    return match reader.try_lock() {
                        Some(mut reader) => self.read_leases(group, &leases, token, &catalog, &mut reader, each),
                        None => self.read_leases(group, &leases, token, &catalog, &mut Reader::default(), each),
                    };
                }
            }
        }
    }

    /// Wakes all consumers that wait for a message of the group, to look at their [`Wait`]s again.
    pub(crate) fn wake_group(&self, group: GroupId) {
        self.lock_core().waiters.wake_group(group);
    }

    /// Wakes all consumers that wait for a message of any group, as [`Engine::wake_group`] does.
    pub(crate) fn wake_consumers(&self) {
        self.lock_core().waiters.wake_all();
    }

    /// Leases, waiting for something to lease.
    fn look(&self, group: GroupId, topic: TopicId, max: usize, wait: Wait<'_>, leases: &mut Leases) -> Result<Look> {
        let command = Command::Lease { group, max: u32::try_from(max).unwrap_or(u32::MAX) };
        let mut core = self.lock_core();
        loop {
            self.health.check()?;
            if wait.is_stopped() {
                // The wake-up may have been meant for a message that somebody else wants.
                core.waiters.wake_one(group);
                return Ok(Look::Nothing);
            }
            let now = self.now();
            match core.commit(&command, Parts::default(), now) {
                Ok(committed) => {
                    if let Decision::Exhausted { partition, offset } = committed.decision {
                        return Ok(Look::Exhausted { partition, offset });
                    }
                    if let Some((lsn, _)) = committed.frame
                        && collect(&core, leases)
                    {
                        // There may be more; and somebody must know when these leases end.
                        core.waiters.wake_one(group);
                        let token = Token { epoch: core.appender.epoch(), lsn };
                        return Ok(Look::Leased { token, catalog: core.catalog.clone() });
                    }
                    if now.mono >= wait.until {
                        // This one may have been the only sleeper that knew the next deadline.
                        core.waiters.wake_one(group);
                        return Ok(Look::Nothing);
                    }
                    self.sleep(&mut core, group, topic, wait, now);
                }
                Err(blocked) => {
                    drop(core);
                    self.unblock(blocked).map_err(|refusal| self.refused(refusal))?;
                    core = self.lock_core();
                }
            }
        }
    }

    /// Sleeps until someone may have added a message, a deadline of the group has come, or the wait is over.
    fn sleep(&self, core: &mut CoreGuard<'_>, group: GroupId, topic: TopicId, wait: Wait<'_>, now: Now) {
        let held_back = core.state.is_at_cap(group);
        let remaining = wait.until.0.saturating_sub(now.mono.0);
        let ms = core.sleep_until(group, now).map_or(remaining, |ms| ms.min(remaining)).max(1);
        let condvar = core.waiters.enter(topic, group, held_back);
        // An hour at a time: the loop around looks again, and no platform's clock arithmetic overflows.
        condvar.wait_for(&mut core.guard, Duration::from_millis(ms.min(3_600_000)));
        core.waiters.leave(topic, group);
    }

    /// Reads what was leased; puts back what cannot be read, and says why.
    fn read_leases(
        &self,
        group: GroupId,
        leases: &[Lease],
        token: Token,
        catalog: &Catalog,
        reader: &mut Reader,
        each: &mut impl FnMut(Received),
    ) -> Result<Vec<Error>> {
        let mut unreadable = Vec::new();
        let mut segment: Option<&Arc<Segment>> = None;
        // What an error left there is of no use.
        reader.take();
        let mut leases = leases.iter().peekable();
        while let Some(lease) = leases.next() {
            let &Lease { partition, first, count, attempt, ref place } = lease;
            let mut each = |stored| each(Received { token, attempt, stored });
            if let Some(number) = place.map(|place| place.segment())
                && segment.is_none_or(|known| known.number() != number)
            {
                segment = catalog.segment(number);
            }
            let mut skip = 0;
            while skip < count {
                let (max, of) = (count - skip, (partition, first.saturating_add(u64::from(skip))));
                let read = match (place, segment) {
                    (Some(place), Some(segment)) => self.gather(reader, segment, place, (skip, max), of, &mut each),
                    _ => self.fetch(partition, of.1).map(|stored| {
                        reader.take().into_iter().chain([stored]).for_each(&mut each);
                        1
                    }),
                };
                skip += match read {
                    Ok(count) => count,
                    Err(error) => {
                        let held = Held { partition, offset: of.1, token };
                        self.settle(&Command::Unreadable { group, held }, Parts::default())?;
                        unreadable.push(error);
                        1
                    }
                };
            }
            // Messages share a block only if they share this.
            if leases.peek().is_none_or(|next| next.attempt != attempt) {
                reader.take().into_iter().for_each(&mut each);
            }
        }
        Ok(unreadable)
    }

    /// Moves a message that used up its attempts to the dead letters, if it still has to be moved.
    fn give_up(&self, group: GroupId, partition: PartitionId, offset: Offset) -> Result<()> {
        let stored = match self.fetch(partition, offset) {
            Ok(stored) => stored,
            Err(error) => return self.put_off(group, partition, offset).and(Err(error)),
        };
        let command = Command::GiveUp { group, partition, offset, origin: stored.origin(0) };
        match self.submit_copy(&command, stored.part(0)) {
            Ok(_) | Err(Refusal::Rejected(Rejection::Stale)) => Ok(()),
            // Its copy does not fit: it stays where it is until there is room.
            Err(Refusal::Failed(Error::DiskFull)) => self.put_off(group, partition, offset),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Lets an exhausted message that cannot be moved wait, so that others flow past it.
    fn put_off(&self, group: GroupId, partition: PartitionId, offset: Offset) -> Result<()> {
        match self.submit(&Command::PutOff { group, partition, offset }, Parts::default(), |_, _| ()) {
            Ok(()) | Err(Refusal::Rejected(Rejection::Stale)) => Ok(()),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Carries out a settling command on one lease. Returns whether the lease was still held.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn settle(&self, command: &Command<'_>, parts: Parts<'_>) -> Result<Option<Lsn>> {
        match self.submit(command, parts, end_of) {
            Ok(end) => Ok(Some(end)),
            Err(Refusal::Rejected(Rejection::LeaseLost | Rejection::ExtendedBefore)) => Ok(None),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Acknowledges leases in one frame. Returns its end, and the numbers of those whose lease was lost.
    ///
    /// # Errors
    /// The store's; nothing was acknowledged then.
    pub(crate) fn ack(&self, group: GroupId, held: &[HeldRun]) -> Result<(Lsn, Vec<u32>)> {
        self.enter()?;
        let submitted = self.submit(&Command::Ack { group, held }, Parts::default(), |core, committed| {
            let lost = match &committed.decision {
                Decision::Settled { lost } => lost.clone(),
                _ => Vec::new(),
            };
            (end_of(core, committed), lost)
        });
        submitted.map_err(|refusal| self.refused(refusal))
    }

    /// Carries out a command that copies one message.
    pub(crate) fn submit_copy(&self, command: &Command<'_>, part: &[u8]) -> Result<Lsn, Refusal> {
        let (ends, crcs) = ([part.len() as u32], [crc32fast::hash(part)]);
        let parts = Parts { bytes: part, ends: &ends, crcs: &crcs };
        self.submit(command, parts, end_of)
    }

    /// Gives a leased message back for a retry, or to the dead letters at its last attempt. `false` where the lease was lost.
    pub(crate) fn nack(
        &self,
        group: GroupId,
        (received, nth): (&Received, u32),
        delay_ms: Option<u64>,
        text: &str,
    ) -> Result<bool> {
        self.enter()?;
        let (held, origin) = (received.held(nth), received.stored.origin(nth));
        self.settle_with_copy(&Command::Nack { group, held, delay_ms, text, origin }, received.stored.part(nth))
    }

    /// Moves a leased message to the dead letters. `false` where the lease was lost.
    pub(crate) fn reject(&self, group: GroupId, (received, nth): (&Received, u32), text: &str) -> Result<bool> {
        self.enter()?;
        let (held, origin) = (received.held(nth), received.stored.origin(nth));
        self.settle_with_copy(&Command::Reject { group, held, text, origin }, received.stored.part(nth))
    }

    fn settle_with_copy(&self, command: &Command<'_>, part: &[u8]) -> Result<bool> {
        match self.submit_copy(command, part) {
            Ok(_) => Ok(true),
            Err(Refusal::Rejected(Rejection::LeaseLost)) => Ok(false),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Lets a lease last `for_ms` from now. `false` where it was lost.
    pub(crate) fn extend(&self, group: GroupId, held: Held, for_ms: u64) -> Result<bool> {
        self.enter()?;
        Ok(self.settle(&Command::Extend { group, held, for_ms }, Parts::default())?.is_some())
    }

    /// Gives a lease back unused: its attempt is taken back.
    pub(crate) fn release(&self, group: GroupId, held: Held) -> Result<bool> {
        self.enter()?;
        Ok(self.settle(&Command::Release { group, held }, Parts::default())?.is_some())
    }
}

/// Where the log must be durable for what was committed to be.
pub(super) fn end_of(core: &mut Core, committed: &Committed) -> Lsn {
    committed.frame.map_or(core.appender.end(), |(_, end)| end)
}

/// Lists the leases that the last commit granted. Returns whether there were any.
fn collect(core: &Core, leases: &mut Leases) -> bool {
    for record in &core.records {
        let &Record::Leased { partition, first, count, attempt, .. } = record else { continue };
        core.positions.find(partition, first, count, |first, count, place| {
            leases.push(Lease { partition, first, count, attempt, place });
        });
    }
    !leases.is_empty()
}
