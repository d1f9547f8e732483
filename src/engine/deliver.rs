//! Handing out leases, and settling them.
//!
//! [`Engine::receive`] leases under the lock and reads outside it. Messages that used up their attempts are moved to the
//! dead letters when a consumer asks and meets them, a few at a time; a message that cannot be read is put back with the longest
//! backoff, uncharged; passing trouble gives back what was leased. Never here: public handles.

use super::core::{Committed, Core, Now};
use super::positions::Place;
use super::read::Reader;
use super::stored::Stored;
use super::waiters::Ticket;
use super::{CoreGuard, Engine, Refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{GroupId, Lsn, MonoMs, Offset, PartitionId, TopicId};
use crate::limits::BATCH_BYTES_MAX;
use crate::log::{Catalog, Parts, Segment};
use crate::record::{Record, Token};
use crate::state::{Command, Decision, Held, HeldRun, Rejection};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::atomic::{AtomicBool, Ordering};
use smallvec::SmallVec;
use std::cell::Cell;
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

/// How many dead letters a call that does not wait copies at most before it looks for something to deliver.
const MOVES_MAX: u32 = 16;
/// And of how many bytes, but for the last one.
const MOVED_BYTES_MAX: usize = 1 << 20;
/// How long exhausted messages are passed over once there was no room for one of them.
const MOVES_REST_MS: u64 = 1_000;

/// The dead letters that one receive has copied since it looked last for something to deliver.
#[derive(Clone, Copy, Debug, Default)]
struct Moves {
    count: u32,
    bytes: usize,
}

impl Moves {
    fn are_enough(self) -> bool {
        // seam: one receive moves all that is exhausted
        self.count >= MOVES_MAX || self.bytes >= MOVED_BYTES_MAX
    }
}

impl<'a> Wait<'a> {
    pub(crate) fn new(engine: &Engine, wait: Duration) -> Self {
        if wait.is_zero() {
            return Self { until: MonoMs(0), stop: None };
        }
        // Rounded up, and by a clock that may be behind: a wait never ends early.
        let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let now = engine.now();
        Self { until: now.mono.saturating_add(now.slack_ms).saturating_add(ms), stop: None }
    }

    /// Ends once this is set and the group's sleepers are woken.
    pub(crate) fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    fn is_over(&self, mono: MonoMs) -> bool {
        mono >= self.until || self.is_stopped()
    }
}

impl Engine {
    /// Leases up to `max` messages for the group and reads them, waiting for the first as long as `wait` allows; `each` gets them in
    /// order. `reader` caches the last reads of the consumer; if another thread is using it, this call reads without. Returns why
    /// other messages could not be read: what is passing gave them back as if they had not been leased, anything else put them back
    /// uncharged with the longest backoff.
    ///
    /// # Errors
    /// The store's; nobody has been leased a message then. A message that cannot be read is none.
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
        let received = self.receive_some(group, topic, max, wait, reader, each);
        // seam: who fails keeps the wake-up
        if received.is_err() {
            self.wake_next(group);
        }
        received
    }

    fn receive_some(
        &self,
        group: GroupId,
        topic: TopicId,
        max: usize,
        wait: Wait<'_>,
        reader: &Mutex<Reader>,
        each: &mut impl FnMut(Received),
    ) -> Result<Vec<Error>> {
        let mut leases = Leases::new();
        let mut moves = Moves::default();
        let fits = if max > 1 { reader.try_lock().map_or(max, |reader| reader.fits(BATCH_BYTES_MAX)) } else { 1 };
        loop {
            match self.look(group, topic, max.min(fits), wait, moves, &mut leases)? {
                Look::Nothing if moves.are_enough() && !wait.is_over(self.now().mono) => moves = Moves::default(),
                Look::Nothing => return Ok(Vec::new()),
                Look::Exhausted { partition, offset } => self.give_up((group, partition, offset), &mut moves)?,
                Look::Leased { token, catalog } => {
                    return Ok(match reader.try_lock() {
                        Some(mut reader) => self.read_leases(group, &leases, token, &catalog, &mut reader, each),
                        None => self.read_leases(group, &leases, token, &catalog, &mut Reader::default(), each),
                    });
                }
            }
        }
    }

    /// Lets the next sleeper of the group look, in place of one who was woken and does not take what there is.
    fn wake_next(&self, group: GroupId) {
        self.lock_core().waiters.wake_one(group);
    }

    /// Lets all sleepers of the group look.
    pub(crate) fn wake_group(&self, group: GroupId) {
        self.lock_core().waiters.wake_group(group);
    }

    /// Lets all sleepers of all groups look.
    pub(crate) fn wake_consumers(&self) {
        self.lock_core().waiters.wake_all();
    }

    /// Leases, waiting for something to lease unless enough dead letters have been copied for now.
    fn look(
        &self,
        group: GroupId,
        topic: TopicId,
        max: usize,
        wait: Wait<'_>,
        moves: Moves,
        leases: &mut Leases,
    ) -> Result<Look> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let mut core = self.lock_core();
        loop {
            self.health.check()?;
            if wait.is_stopped() {
                // The wake-up may have been meant for a message that somebody else wants.
                core.waiters.wake_one(group);
                return Ok(Look::Nothing);
            }
            let now = self.now();
            let pass_exhausted = moves.are_enough() || now.mono < self.moves_rest_until();
            match core.commit(&Command::Lease { group, max, pass_exhausted }, Parts::default(), now) {
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
                    if wait.is_over(now.mono) || moves.are_enough() {
                        // This one may have been the only sleeper that knew the next deadline.
                        // seam: who leaves takes the deadline along
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
        let ticket = self.enter_sleep(core, group, topic, wait.until, now);
        let ms = ticket.until.0.saturating_sub(now.mono.0);
        // An hour at a time: the loop around looks again, and no platform's clock arithmetic overflows.
        ticket.sleep(&mut core.guard, Duration::from_millis(ms.min(3_600_000)));
        core.waiters.leave(&ticket);
    }

    /// Takes in a sleeper that found nothing, with the time when it has to look again.
    fn enter_sleep(
        &self,
        core: &mut CoreGuard<'_>,
        group: GroupId,
        topic: TopicId,
        until: MonoMs,
        now: Now,
    ) -> Arc<Ticket> {
        let held_back = core.state.is_at_cap(group);
        let rest = self.moves_rest_until().0.checked_sub(now.mono.0).filter(|&ms| ms > 0);
        // seam: a sleeper does not know the next deadline
        let next = core.sleep_until(group, now).into_iter().chain(rest).min();
        let until = next.map_or(until, |ms| until.min(now.mono.saturating_add(ms.max(1))));
        core.waiters.enter(topic, group, held_back, until)
    }

    /// What a receive that waits does in a thread of its own, for a simulator that has one thread for all: takes in a sleeper, unless
    /// there is something to do for the group.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn fall_asleep(&self, group: GroupId, topic: TopicId, wait: Wait<'_>) -> Result<Option<Arc<Ticket>>> {
        self.enter()?;
        let now = self.now();
        let mut core = self.lock_core();
        let idle = !core.has_work(group, now, self.moves_rest_until());
        Ok(idle.then(|| self.enter_sleep(&mut core, group, topic, wait.until, now)))
    }

    /// The end of such a sleep. The sleeper looks now, or passes the wake-up on.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn wake_up(&self, ticket: &Arc<Ticket>) {
        self.lock_core().waiters.leave(ticket);
    }

    /// Whether a sleeper has to look.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn is_awake(&self, ticket: &Ticket) -> bool {
        let _core = self.lock_core();
        ticket.is_woken() || ticket.until <= self.now().mono
    }

    /// Sleepers that nobody wakes, though there is something to do for their group, or will be when nobody wakes by himself. Nothing,
    /// unless this code is wrong.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn stuck(&self) -> Vec<String> {
        let now = self.now();
        let core = self.lock_core();
        if self.health.check().is_err() {
            return Vec::new();
        }
        let mut stuck = Vec::new();
        for (group, until) in core.waiters.at_rest() {
            if until > now.mono && core.has_work(group, now, self.moves_rest_until()) {
                stuck.push(format!("group {group}: something is ready, and all its consumers sleep"));
            }
            let next = core.sleep_until(group, now).map(|ms| now.mono.saturating_add(ms.max(1)));
            if next.is_some_and(|next| next < until && until > now.mono) {
                stuck.push(format!("group {group}: no sleeper wakes at {next:?}, the first at {until}"));
            }
        }
        stuck
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
    ) -> Vec<Error> {
        let mut unreadable = Vec::new();
        let mut segment: Option<&Arc<Segment>> = None;
        let (count_read, bytes_read) = (Cell::new(0), Cell::new(0));
        // What an error left there is of no use.
        reader.take();
        for (number, lease) in leases.iter().enumerate() {
            let &Lease { partition, first, count, attempt, ref place } = lease;
            let mut each = |stored: Stored| {
                count_read.set(count_read.get() + stored.count() as usize);
                bytes_read.set(bytes_read.get() + stored.len());
                each(Received { token, attempt, stored });
            };
            if let Some(number) = place.map(|place| place.segment())
                && segment.is_none_or(|known| known.number() != number)
            {
                segment = catalog.segment(number);
            }
            let mut skip = 0;
            let mut stop = false;
            while skip < count && !stop {
                let (max, of) = (count - skip, (partition, first.saturating_add(u64::from(skip))));
                let read = match (place, segment) {
                    (Some(place), Some(segment)) => self.gather(reader, segment, place, (skip, max), of, &mut each),
                    _ => self.fetch(partition, of.1).map(|stored| {
                        reader.take().into_iter().chain([stored]).for_each(&mut each);
                        1
                    }),
                };
                match read {
                    Ok(count) => skip += count,
                    // seam: passing trouble is taken for damage
                    Err(error) if error.kind() == ErrorKind::Retry => {
                        unreadable.push(error);
                        stop = true;
                    }
                    Err(error) => {
                        unreadable.push(error);
                        let held = Held { partition, offset: of.1, token };
                        match self.settle(&Command::Unreadable { group, held }, Parts::default()) {
                            Ok(_) => skip += 1,
                            Err(error) => {
                                unreadable.push(error);
                                stop = true;
                            }
                        }
                    }
                };
                // seam: a batch has no bound in bytes
                stop |= bytes_read.get() >= BATCH_BYTES_MAX;
            }
            // Messages share a block only if they share this.
            if stop || leases.get(number + 1).is_none_or(|next| next.attempt != attempt) {
                reader.take().into_iter().for_each(&mut each);
            }
            if stop {
                let held = |lease: &Lease, skip: u32| HeldRun {
                    first: Held {
                        partition: lease.partition,
                        offset: lease.first.saturating_add(u64::from(skip)),
                        token,
                    },
                    count: lease.count - skip,
                };
                let rest = leases[number + 1..].iter().map(|lease| held(lease, 0));
                let back: Vec<HeldRun> =
                    [held(lease, skip)].into_iter().chain(rest).filter(|run| run.count > 0).collect();
                if !back.is_empty() {
                    // What cannot be given back comes back when its lease ends.
                    unreadable.extend(self.release(group, &back).err());
                }
                break;
            }
        }
        reader.note_typical(count_read.get(), bytes_read.get());
        reader.rest();
        unreadable
    }

    /// Exhausted messages are passed over until then.
    fn moves_rest_until(&self) -> MonoMs {
        MonoMs(self.moves_rest_until.load(Relaxed))
    }

    /// There is no room for a dead letter, or no way to read it just now: others flow past what is exhausted, for a while.
    fn rest_moves(&self) {
        self.moves_rest_until.store(self.clock.monotonic().0.saturating_add(MOVES_REST_MS), Relaxed);
    }

    /// Moves a message that used up its attempts to the dead letters, if it still has to be moved.
    fn give_up(&self, (group, partition, offset): (GroupId, PartitionId, Offset), moves: &mut Moves) -> Result<()> {
        let stored = match self.fetch(partition, offset) {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                return Ok(());
            }
            Err(error) => return self.put_off(group, partition, offset).and(Err(error)),
        };
        let command = Command::GiveUp { group, partition, offset, origin: stored.origin(0) };
        match self.submit_copy(&command, stored.part(0)) {
            Ok(_) => {
                *moves = Moves { count: moves.count + 1, bytes: moves.bytes + stored.len() };
                Ok(())
            }
            Err(Refusal::Rejected(Rejection::Stale)) => Ok(()),
            // Its copy does not fit: it stays where it is until there is room.
            Err(Refusal::Failed(error)) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                Ok(())
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Lets an exhausted message that cannot be read wait, so that others flow past it.
    fn put_off(&self, group: GroupId, partition: PartitionId, offset: Offset) -> Result<()> {
        match self.submit(&Command::PutOff { group, partition, offset }, Parts::default(), |_, _| ()) {
            Ok(()) | Err(Refusal::Rejected(Rejection::Stale)) => Ok(()),
            Err(Refusal::Failed(error)) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                Ok(())
            }
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
            Err(Refusal::Rejected(Rejection::LeaseLost)) => Ok(None),
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
            (end_of(core, committed), lost(committed))
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

    /// Gives leases back unused: their attempts are taken back. Returns the numbers of those that were lost.
    ///
    /// # Errors
    /// The store's; nothing was given back then.
    pub(crate) fn release(&self, group: GroupId, held: &[HeldRun]) -> Result<Vec<u32>> {
        self.enter()?;
        let released = self.submit(&Command::Release { group, held }, Parts::default(), |_, committed| lost(committed));
        released.map_err(|refusal| self.refused(refusal))
    }
}

/// The numbers of the leases that a command found lost.
fn lost(committed: &Committed) -> Vec<u32> {
    match &committed.decision {
        Decision::Settled { lost } => lost.clone(),
        Decision::Done | Decision::Nothing | Decision::Exhausted { .. } => Vec::new(),
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Core {
    /// Whether a consumer of the group that looks now would change anything.
    fn has_work(&self, group: GroupId, now: Now, moves_rest_until: MonoMs) -> bool {
        let command = Command::Lease { group, max: 1, pass_exhausted: now.mono < moves_rest_until };
        let decided = self.state.decide(&command, &self.inputs(now), &mut Vec::new());
        decided.is_ok_and(|decision| decision != Decision::Nothing)
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
