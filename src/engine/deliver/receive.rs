//! Handing out leases: looking for messages, and waiting for them.
//!
//! [`Engine::receive`] leases under the lock and reads outside it ([`Reading`]). Messages that used up their attempts are moved to the
//! dead letters when a consumer asks and meets them (`moves`). Never here: public handles, settling.

use crate::engine::core::Core;
use crate::engine::deliver::keys::KnownKeys;
use crate::engine::deliver::leased::{Leases, Reading, Received, collect, passed_count};
use crate::engine::deliver::moves::Moves;
use crate::engine::refusal::Refusal;
use crate::engine::{CoreGuard, Engine};
use crate::error::{Error, Result};
use crate::ids::{GroupId, MonoMs, Offset, PartitionId, TopicId};
use crate::limits::{BATCH_BYTES_MAX, CONSIDERED_MAX, LOOKED_AT_MAX};
use crate::log::{Catalog, Parts};
use crate::record::Token;
use crate::state::{Command, Decision, ParkedMax};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::view::Now;
use crate::view::Reader;
use crate::wait::{Parker, Ticket};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// How long a receive may wait for a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait<'a> {
    pub(in crate::engine) until: MonoMs,
    stop: Option<&'a AtomicBool>,
}

/// What a receive asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) group: GroupId,
    pub(crate) topic: TopicId,
    /// How many messages at most.
    pub(crate) max: usize,
    pub(crate) wait: Wait<'a>,
}

/// How far a receive has come between its looks for messages.
struct Progress {
    /// How many messages to lease at most.
    max: u32,
    /// Whether room is short, so that only leases for which some is kept back are asked for.
    is_short: bool,
    moves: Moves,
    keys: KnownKeys,
    /// How many messages the group has looked at.
    looked_at: u32,
}

/// What one look for messages gave.
enum Look {
    Ended(LookEnd),
    Exhausted {
        partition: PartitionId,
        offset: Offset,
    },
    /// The group has to look at these messages first.
    KeysNeeded {
        partition: PartitionId,
        first: Offset,
        count: u32,
    },
    /// The group has looked at so many.
    Considered {
        count: u32,
    },
    /// The group's filter has to be asked about these messages first.
    VerdictsNeeded {
        partition: PartitionId,
        first: Offset,
        count: u32,
    },
    /// The group is done with some that do not pass.
    Filtered,
    /// It needs work outside the lock.
    Refused(Refusal),
}

/// What a receive ends with.
enum LookEnd {
    /// Under one token; the catalog knows the segments that they stand in.
    Leased {
        token: Token,
        leases: Leases,
        catalog: Catalog,
    },
    Nothing,
    /// A waker was left.
    Asleep(Arc<Ticket>),
}

/// What a receive came to that does not block.
pub(crate) enum Receiving {
    /// Messages were read, unless there were none and no more time; the errors say why others could not be read.
    Done(Vec<Error>),
    /// There are none, and a waker was left. [`Engine::leave_sleep`] follows, when it is called or at [`Ticket::until`].
    Asleep(Arc<Ticket>),
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

    pub(in crate::engine) fn is_over(&self, mono: MonoMs) -> bool {
        mono >= self.until || self.is_stopped()
    }
}

impl Progress {
    /// At the beginning, for a consumer with this reader.
    fn new(max: usize, reader: &Mutex<Reader>, parked_max: ParkedMax) -> Self {
        let fits = if max > 1 { reader.try_lock().map_or(max, |reader| reader.fits(BATCH_BYTES_MAX)) } else { 1 };
        let max = u32::try_from(max.min(fits)).unwrap_or(u32::MAX);
        Self { max, is_short: false, moves: Moves::default(), keys: KnownKeys::new(parked_max), looked_at: 0 }
    }
}

impl Core {
    /// What asks for leases, as many as there is room to settle; where room is short, for those that need none, and a few others.
    /// No more than there are tokens.
    fn lease_command<'a>(
        &self,
        (group, tokens): (GroupId, u32),
        progress: &'a Progress,
        pass_exhausted: bool,
    ) -> Command<'a> {
        let &Progress { max, is_short, ref keys, looked_at, .. } = progress;
        // seam: a rate is not kept
        let max = max.min(tokens);
        // seam: leases take the room for settling
        let room = if is_short { self.again_left } else { self.leases_left.max(1) };
        let max = max.min(u32::try_from(room).unwrap_or(u32::MAX));
        // seam: where room is short nothing new is leased
        let new_last = is_short.then(|| u32::try_from(self.new_left).unwrap_or(u32::MAX));
        Command::Lease { group, max, pass_exhausted, new_last, keys: Some(keys.run()), looked_at }
    }
}

impl Engine {
    /// Leases messages for the group and reads them, waiting for the first as long as the request allows; `each` gets them in order.
    /// `reader` caches the last reads of the consumer; if another thread is using it, this call reads without. Returns why other
    /// messages could not be read: what is passing gave them back as if they had not been leased, anything else put them back with the
    /// longest backoff, its attempt not counted.
    ///
    /// # Errors
    /// The store's; nobody has been leased a message then. A message that cannot be read is none.
    pub(crate) fn receive(
        &self,
        request: Request<'_>,
        reader: &Mutex<Reader>,
        each: &mut impl FnMut(Received),
    ) -> Result<Vec<Error>> {
        loop {
            let mut parker = None;
            let waker = &mut || parker.insert(Parker::new()).waker();
            match self.receive_or_sleep(&request, reader, waker, each)? {
                Receiving::Done(unreadable) => return Ok(unreadable),
                Receiving::Asleep(ticket) => {
                    // An hour at a time: the loop around looks again, and no platform's clock arithmetic overflows.
                    let ms = ticket.until.0.saturating_sub(self.now().mono.0).min(3_600_000);
                    parker.into_iter().for_each(|parker| parker.park_for(Duration::from_millis(ms)));
                    self.leave_sleep(&ticket);
                }
            }
        }
    }

    /// As [`Engine::receive`], but where that would wait a waker is left, and the call returns.
    pub(crate) fn receive_or_sleep(
        &self,
        request: &Request<'_>,
        reader: &Mutex<Reader>,
        waker: &mut impl FnMut() -> Waker,
        each: &mut impl FnMut(Received),
    ) -> Result<Receiving> {
        self.enter()?;
        let mut progress = Progress::new(request.max, reader, self.setup.parked_max);
        loop {
            let look = self.look(request, &progress, waker);
            match look.and_then(|look| self.follow_up(look, request, &mut progress)) {
                Ok(None) => {}
                Ok(Some(LookEnd::Nothing)) => return Ok(Receiving::Done(Vec::new())),
                Ok(Some(LookEnd::Asleep(ticket))) => return Ok(Receiving::Asleep(ticket)),
                Ok(Some(LookEnd::Leased { token, leases, catalog })) => {
                    let mut read = |reader: &mut Reader| {
                        Reading::new(self, request.group, token, &catalog, reader).read(&leases, each)
                    };
                    return Ok(Receiving::Done(match reader.try_lock() {
                        Some(mut reader) => read(&mut reader),
                        None => read(&mut Reader::default()),
                    }));
                }
                Err(error) => {
                    // seam: who fails keeps the wake-up
                    self.wake_next(request.group);
                    return Err(error);
                }
            }
        }
    }

    /// The end of a sleep: the sleeper looks again, or wakes the next.
    pub(crate) fn leave_sleep(&self, ticket: &Arc<Ticket>) {
        self.lock_core().waiters.leave(ticket);
    }

    /// Does outside the lock what a look asks for. `None` if the next look can go on from there.
    fn follow_up(&self, look: Look, request: &Request<'_>, progress: &mut Progress) -> Result<Option<LookEnd>> {
        let is_over = || request.wait.is_over(self.now().mono);
        let is_short = std::mem::take(&mut progress.is_short);
        match look {
            Look::Ended(LookEnd::Nothing) if progress.moves.are_enough() && !is_over() => {
                progress.moves = Moves::default();
            }
            Look::Ended(found) => return Ok(Some(found)),
            Look::Exhausted { partition, offset } => {
                self.give_up((request.group, partition, offset), &mut progress.moves)?;
            }
            Look::KeysNeeded { partition, first, count } => {
                self.read_keys(request.group, (partition, first, count), &mut progress.keys)?;
            }
            Look::Considered { count } => return Ok(self.has_looked(count, request, progress)),
            Look::VerdictsNeeded { partition, first, count } => {
                // Ever more, the longer nothing is found.
                let count = count.min(progress.looked_at.max(progress.max).max(CONSIDERED_MAX));
                let read = self.read_verdicts(request.group, (partition, first, count))?;
                return Ok(self.has_looked(read, request, progress));
            }
            Look::Filtered => {}
            Look::Refused(refusal) => progress.is_short = self.make_room_for_leases(refusal, is_short)?,
        }
        Ok(None)
    }

    /// Notes that so many messages were looked at. A call that does not wait ends when they are enough.
    fn has_looked(&self, count: u32, request: &Request<'_>, progress: &mut Progress) -> Option<LookEnd> {
        progress.looked_at = progress.looked_at.saturating_add(count);
        // seam: a call that does not wait looks without end
        let is_enough = progress.looked_at >= LOOKED_AT_MAX && request.wait.is_over(self.now().mono);
        if is_enough {
            self.wake_next(request.group);
        }
        is_enough.then_some(LookEnd::Nothing)
    }

    /// Lets the next sleeper of the group look, in place of one who was woken and does not take what there is.
    pub(crate) fn wake_next(&self, group: GroupId) {
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

    /// Does outside the lock what a lease needs. Returns whether only leases for which room is kept back may be asked for then.
    fn make_room_for_leases(&self, refusal: Refusal, is_short: bool) -> Result<bool> {
        let unblocked = self.unblock(refusal);
        // What was leased before takes no more room when it is leased again, and gives some when it is settled. Where there is none of
        // that, a few others have room.
        // seam: a full store leases nothing again
        if !is_short && matches!(unblocked, Err(Error::DiskFull)) {
            return Ok(true);
        }
        unblocked?.map_err(|rejection| self.rejected(rejection))?;
        Ok(is_short)
    }

    /// Leases what there is, or else leaves a waker unless enough dead letters have been copied for now, under one hold of the lock.
    fn look(&self, request: &Request<'_>, progress: &Progress, waker: &mut impl FnMut() -> Waker) -> Result<Look> {
        let &Request { group, topic, wait, .. } = request;
        let mut core = self.lock_core();
        self.health.check()?;
        if wait.is_stopped() {
            // The wake-up may have been meant for a message that somebody else wants.
            core.waiters.wake_one(group);
            return Ok(Look::Ended(LookEnd::Nothing));
        }
        let now = self.now();
        let pass_exhausted = progress.moves.are_enough() || now.mono < self.moves_rest_until();
        let rate = core.rate_of(group);
        let tokens = rate.map_or(u32::MAX, |rate| core.rates.tokens(group, rate, now.mono));
        let command = core.lease_command((group, tokens), progress, pass_exhausted);
        let committed = match core.commit(&command, Parts::default(), now) {
            Ok(committed) => committed,
            Err(refusal) => return Ok(Look::Refused(refusal)),
        };
        match committed.decision {
            Decision::Exhausted { partition, offset } => return Ok(Look::Exhausted { partition, offset }),
            Decision::KeysNeeded { partition, first, count } => {
                return Ok(Look::KeysNeeded { partition, first, count });
            }
            Decision::Considered { count } => {
                core.use_room(u64::from(count));
                return Ok(Look::Considered { count });
            }
            Decision::VerdictsNeeded { partition, first, count } => {
                return Ok(Look::VerdictsNeeded { partition, first, count });
            }
            Decision::Filtered { .. } => return Ok(Look::Filtered),
            Decision::Done | Decision::Nothing | Decision::Settled { .. } => {}
        }
        if let Some((lsn, _)) = committed.frame
            && let Some(leases) = collect(&core)
        {
            let count: u64 = leases.iter().map(|run| u64::from(run.count)).sum();
            let settled = u64::from(passed_count(&core));
            core.use_room(count.saturating_add(settled));
            if let Some(rate) = rate {
                core.rates.take(group, rate, u32::try_from(count).unwrap_or(u32::MAX), now.mono);
            }
            // There may be more; and somebody must know when these leases end.
            core.waiters.wake_one(group);
            let token = Token { epoch: core.appender.epoch(), lsn };
            return Ok(Look::Ended(LookEnd::Leased { token, leases, catalog: core.view.catalog.clone() }));
        }
        let count = passed_count(&core);
        if count > 0 {
            // All that was leased was replaced, and is settled.
            core.use_room(u64::from(count));
            return Ok(Look::Considered { count });
        }
        if progress.is_short && committed.frame.is_none() {
            return Err(Error::DiskFull);
        }
        if wait.is_over(now.mono) || progress.moves.are_enough() {
            // This one may have been the only sleeper that knew the next deadline.
            // seam: who leaves takes the deadline along
            core.waiters.wake_one(group);
            return Ok(Look::Ended(LookEnd::Nothing));
        }
        Ok(Look::Ended(LookEnd::Asleep(self.enter_sleep(&mut core, (topic, group), wait.until, now, &waker()))))
    }

    /// Takes in a sleeper that found nothing, with the time when it has to look again.
    pub(in crate::engine) fn enter_sleep(
        &self,
        core: &mut CoreGuard<'_>,
        (topic, group): (TopicId, GroupId),
        until: MonoMs,
        now: Now,
        waker: &Waker,
    ) -> Arc<Ticket> {
        let held_back = core.view.state.is_held_back(group);
        let rest = self.moves_rest_until().0.checked_sub(now.mono.0).filter(|&ms| ms > 0);
        // seam: a sleeper does not know the next deadline
        let next = core.sleep_until(group, now).into_iter().chain(rest).min();
        let until = next.map_or(until, |ms| until.min(now.mono.saturating_add(ms.max(1))));
        core.waiters.enter((topic, group), held_back, until, waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Begin, Outgoing, Setup};
    use crate::ids::WallMs;
    use crate::record::{GroupOptions, Ordering, TopicOptions};
    use crate::state::WhilePending;

    /// Also where the newer message may not be seen yet.
    #[test]
    fn a_consumer_looks_again_when_what_held_it_back_is_replaced() {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let setup = Setup { durable_only: true, ..Setup::quiet(1 << 20) };
        let engine = Engine::open_on(Arc::new(disk.attach().unwrap()), setup, clock).unwrap();
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let options = GroupOptions { ordering: Ordering::Key, ..GroupOptions::LEFT_OUT };
        let group = engine.open_group(topic, "g", &options, Begin::Earliest).unwrap().id;
        let publish = |while_pending: Option<WhilePending>| {
            let mut outgoing = Outgoing::default();
            outgoing.add(topic.first, Some(b"k"), std::iter::empty(), b"m", 1 << 20).unwrap();
            while_pending.into_iter().for_each(|policy| outgoing.make_unique(7, Some(b"k"), policy));
            engine.publish(&outgoing).unwrap().unwrap();
        };
        publish(Some(WhilePending::Reject));
        publish(None);
        engine.sync().unwrap();
        let mut held = Vec::new();
        let mut each = |received: Received| held.push(received.held(0));
        let request = |wait| Request { group, topic: topic.id, max: 9, wait: Wait::new(&engine, wait) };
        engine.receive(request(Duration::ZERO), &Mutex::default(), &mut each).unwrap();
        let [head] = held[..] else { panic!("{held:?}") };
        engine.settle(&Command::Unreadable { group, held: head }, Parts::default()).unwrap();
        let waiting = request(Duration::from_secs(3_600));
        let slept = engine.receive_or_sleep(&waiting, &Mutex::default(), &mut || Waker::noop().clone(), &mut |_| ());
        let Ok(Receiving::Asleep(ticket)) = slept else { panic!("it waits for its turn") };
        publish(Some(WhilePending::Replace));
        assert!(ticket.is_woken());
        engine.leave_sleep(&ticket);
    }
}
