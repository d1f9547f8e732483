//! Workers: who receives, which event is next, and what becomes of it.
//!
//! The workers of a subscriber share one state. One of them at a time receives; the others handle events or wait. Events of one key are
//! handled one after another, in the order of their publish: those behind the first wait in a lane. Every event that was received is
//! held until it is settled, and the timer extends its lease.

use crate::breaker::{Breaker, BreakerState, Ending, Permit};
use crate::bus::Core;
use crate::error::{DecodeError, Error};
use crate::fault::Fault;
use crate::handler::{Handler, Unhandled, Work, drop_caught, panic_text};
use crate::held::{Held, Received, Start, State, Taken};
use crate::observe::{self, Attempt, Status};
use crate::outcome::{classify, settle};
use crate::spans;
use crate::subscriber::Stats;
use crate::subscriber_builder::Options;
use crate::transacted::{TransactionEnd, Transactor, event_key};
use crate::transport::{Claim, Inbox, Settled, Source, TransportError, TransportErrorKind, WireMessage, guarded};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How many events may be held beyond one for each worker: those that wait in lanes.
const LANES_MAX: usize = 64;
/// How many workers may be replaced at once because their handlers do not return.
pub(crate) const STUCK_MAX: usize = 64;
/// How long a receive waits. A stop ends it.
const RECEIVE_WAIT: Duration = Duration::from_secs(60);
/// How long a subscriber pauses after a receive that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A subscriber, as its workers share it.
pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) name: String,
    pub(crate) options: Options,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) inbox: Option<Box<dyn Inbox>>,
    /// If a handler is in transactions.
    pub(crate) transactor: Option<Transactor>,
    pub(crate) state: Mutex<State>,
    /// For workers: something is ready, or can be received.
    pub(crate) work: Condvar,
    /// For those that wait for numbers, or for the end.
    pub(crate) progress: Condvar,
}

thread_local! {
    /// Whose handler this thread runs, and for which event.
    pub(crate) static INSIDE: Cell<(*const Inner, u64)> = const { Cell::new((std::ptr::null(), 0)) };
}
/// How an attempt ended, and how the event was settled.
struct AttemptEnd {
    settled: Result<Settled, TransportError>,
    status: Status,
    ending: Ending,
    error: &'static str,
    age: Option<Duration>,
}

/// What a worker does next.
enum Turn {
    /// At most so many; and whether that is the trial of a breaker.
    Receive(usize, bool),
    Wait(Option<Duration>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.handlers.drain(..).for_each(drop_caught);
    }
}

impl Inner {
    pub(crate) fn new(
        core: Arc<Core>,
        name: String,
        options: Options,
        handlers: Vec<Handler>,
        source: Arc<dyn Source>,
        inbox: Option<Box<dyn Inbox>>,
        transactor: Option<Transactor>,
    ) -> Self {
        let state = State {
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            held: HashMap::new(),
            next_number: 0,
            running: 0,
            stuck: 0,
            stuck_threads: 0,
            wanted: 0,
            threads: 0,
            receiving: false,
            pause_until: None,
            breaker: Breaker::new(options.breaker),
            stopping: false,
            stats: Stats::default(),
        };
        let (work, progress) = (Condvar::new(), Condvar::new());
        let state = Mutex::new(state);
        Self { core, name, options, handlers, source, inbox, transactor, state, work, progress }
    }

    /// Starts the threads that are missing.
    pub(crate) fn spawn_missing(self: &Arc<Self>) -> Result<(), Error> {
        loop {
            let mut state = self.state.lock();
            if state.stopping || state.threads >= state.threads_max() {
                return Ok(());
            }
            state.threads += 1;
            drop(state);
            let inner = Arc::clone(self);
            let builder = std::thread::Builder::new().name(format!("events-{}", self.name));
            builder.spawn(move || inner.run()).map_err(|error| {
                self.state.lock().threads -= 1;
                Error::Thread(error)
            })?;
        }
    }

    fn run(self: Arc<Self>) {
        let mut is_counted = true;
        // An error that ends the subscriber is reported where it was met.
        while is_counted && let Ok(Some(held)) = self.next(true) {
            is_counted = self.process(&held, true);
        }
        self.state.lock().threads -= usize::from(is_counted);
        self.progress.notify_all();
        // Another worker goes on, unless all are to end.
        self.work.notify_one();
        self.leave_bus_if_over();
        self.core.timer.wake();
    }

    /// One that stopped and has nothing in progress is no part of the bus any more.
    pub(crate) fn leave_bus_if_over(&self) {
        let is_over = {
            let state = self.state.lock();
            state.stopping && state.held.is_empty()
        };
        if is_over {
            self.core.remove(self);
        }
    }

    /// The next event to handle. `None` if the subscriber stops, or with `waits` false if nothing can be handled now.
    pub(crate) fn next(&self, waits: bool) -> Result<Option<Arc<Held>>, TransportError> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Ok(None);
            }
            if let Some(held) = state.ready.pop_front() {
                state.running += 1;
                drop(state);
                self.progress.notify_all();
                return Ok(Some(held));
            }
            let now = self.core.clock.monotonic();
            match self.turn(&mut state, now) {
                Turn::Receive(max, is_trial) => {
                    state.receiving = true;
                    let wait = if waits { RECEIVE_WAIT } else { Duration::ZERO };
                    let receive = || {
                        let receive = || {
                            let leases = self.source.receive(max, wait)?;
                            Ok(leases.into_iter().map(Received::read).collect())
                        };
                        guarded(receive)
                    };
                    let received: Result<Vec<_>, _> = MutexGuard::unlocked(&mut state, receive);
                    state.receiving = false;
                    let count = match received {
                        Ok(received) => self.absorb(&mut state, received, is_trial),
                        Err(error) if waits => {
                            self.receive_failed(&mut state, error, now);
                            0
                        }
                        Err(error) => {
                            // Another thread may receive.
                            self.work.notify_one();
                            return Err(error);
                        }
                    };
                    self.work.notify_one();
                    if !waits && count == 0 {
                        return Ok(None);
                    }
                }
                Turn::Wait(_) if !waits => return Ok(None),
                Turn::Wait(None) => self.work.wait(&mut state),
                Turn::Wait(Some(until)) => {
                    self.work.wait_for(&mut state, until.saturating_sub(now));
                }
            }
        }
    }

    fn turn(&self, state: &mut State, now: Duration) -> Turn {
        if let Some(until) = state.pause_until.filter(|until| now < *until) {
            return Turn::Wait(Some(until));
        }
        if state.receiving || state.stuck >= STUCK_MAX || state.held.len() >= self.options.workers + LANES_MAX {
            return Turn::Wait(None);
        }
        let before = state.breaker.state();
        let permit = state.breaker.permit(now);
        if state.breaker.state() != before {
            self.progress.notify_all();
        }
        match permit {
            Permit::Any => Turn::Receive(self.options.workers.saturating_sub(state.running).max(1), false),
            Permit::Trial if state.held.is_empty() => Turn::Receive(1, true),
            Permit::Trial | Permit::TrialRuns => Turn::Wait(None),
            Permit::Until(until) => Turn::Wait(Some(until)),
        }
    }

    /// Reports it, and pauses or stops.
    fn receive_failed(&self, state: &mut MutexGuard<'_, State>, error: TransportError, now: Duration) {
        let subscriber = self.name.clone();
        let fault = match error.kind() {
            TransportErrorKind::Skip => Fault::Receive { subscriber, error },
            TransportErrorKind::Retry | TransportErrorKind::Conflict | TransportErrorKind::Unknown => {
                state.pause_until = Some(now.saturating_add(RETRY_PAUSE));
                Fault::Receive { subscriber, error }
            }
            TransportErrorKind::FixCall | TransportErrorKind::Stop => {
                state.stopping = true;
                Fault::Ended { subscriber, error }
            }
        };
        let waiting = if state.stopping { state.take_waiting() } else { Vec::new() };
        state.stats.released += waiting.len() as u64;
        MutexGuard::unlocked(state, || {
            self.release(waiting);
            self.core.fault(&fault);
        });
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// Takes what was received, before anybody else receives: so the order stays. Returns how much that is.
    fn absorb(&self, state: &mut MutexGuard<'_, State>, received: Vec<Received>, is_trial: bool) -> usize {
        let count = received.len();
        let extended = self.core.clock.monotonic();
        for received in received {
            let number = state.next_number;
            state.next_number += 1;
            let held = Arc::new(Held::new(number, received, extended));
            state.held.insert(number, Arc::clone(&held));
            match held.key.as_ref().map(|key| (key, state.lanes.get_mut(key))) {
                Some((_, Some(lane))) => lane.push_back(held),
                Some((key, None)) => {
                    state.lanes.insert(key.clone(), VecDeque::new());
                    state.ready.push_back(held);
                }
                None => state.ready.push_back(held),
            }
        }
        if count > 0 && is_trial {
            state.breaker.trial_begins();
        }
        // The breaker may have opened while the receive waited.
        if state.stopping || !is_trial && state.breaker.state() != BreakerState::Closed {
            let waiting = state.take_waiting();
            state.stats.released += waiting.len() as u64;
            MutexGuard::unlocked(state, || self.release(waiting));
            self.progress.notify_all();
        }
        for _ in 1..count {
            self.work.notify_one();
        }
        count
    }

    /// Handles one event. Returns `false` if its thread is one too many: it does not count any more, and is to end.
    pub(crate) fn process(&self, held: &Arc<Held>, in_worker: bool) -> bool {
        let began = self.core.clock.monotonic();
        held.times.lock().started = Some(Start { time: began, in_worker });
        held.thread.get_or_init(std::thread::current);
        // It may have been lost while it waited in a lane.
        let is_leased = held.lease.lock().is_some();
        let result = if is_leased { self.handle_caught(held) } else { Ok(Vec::new()) };
        let now = self.core.clock.monotonic();
        let Some(AttemptEnd { settled, mut status, mut ending, mut error, age }) = self.end(held, result) else {
            return self.end_late(held, in_worker, now);
        };
        let took = now.saturating_sub(began);
        if settled.is_err() {
            // Whatever the handler returned: the event comes again.
            (status, ending, error) = (Status::Retried, Ending::Failure, "settle");
        }
        let is_lost = matches!(settled, Ok(Settled::Lost));
        self.report(held, settled);
        let mut state = self.state.lock();
        state.running -= 1;
        if is_lost {
            // The attempt is another consumer's.
            state.stats.lost += 1;
            ending = Ending::Neutral;
        } else {
            state.stats.note(status);
        }
        state.leave(held);
        self.note(state, ending, now);
        if !is_lost {
            observe::processed(&Attempt { event_type: held.event_type(), status, error, took, age });
        }
        true
    }

    /// Settles the event as its handler ended. `None` if another thread has settled it.
    fn end(&self, held: &Held, result: Result<Vec<WireMessage>, Unhandled>) -> Option<AttemptEnd> {
        // Its transaction is done, whatever the handler's thread met after it.
        if let Some(TransactionEnd { settled, age }) = held.transacted.lock().take() {
            return Some(AttemptEnd { settled, status: Status::Ok, ending: Ending::Success, error: "", age });
        }
        let lease = held.lease.lock().take()?;
        let (status, ending, error) = classify(&result, self.options.unknown);
        let age = lease.age();
        let _span = spans::settling(&self.name, held.attributes(), error);
        let settled = guarded(|| settle(lease, result, self.options.unknown));
        Some(AttemptEnd { settled, status, ending, error, age })
    }

    /// A panic of the handler, or of whatever else of the application's runs, is a failure.
    fn handle_caught(&self, held: &Arc<Held>) -> Result<Vec<WireMessage>, Unhandled> {
        let outer = INSIDE.replace((self, held.number));
        let result = catch_unwind(AssertUnwindSafe(|| self.handle(held)));
        INSIDE.set(outer);
        result.unwrap_or_else(|panic| Err(Unhandled::Panicked(panic_text(panic))))
    }

    fn handle(&self, held: &Arc<Held>) -> Result<Vec<WireMessage>, Unhandled> {
        let (attributes, data) = held.event.as_ref().map_err(|error| Unhandled::Decode(error.clone()))?;
        let limit = self.core.chain_max;
        if attributes.depth() > limit {
            return Err(Unhandled::Decode(DecodeError::ChainTooLong { depth: attributes.depth(), limit }));
        }
        // A message in structured mode has its type inside: the transport could not know whether it is wanted.
        let Some(handler) = self.handlers.iter().find(|handler| handler.pattern.matches(attributes.event_type()))
        else {
            return Ok(Vec::new());
        };
        let data = data.as_deref();
        if let Some(validator) =
            self.core.validator.as_ref().filter(|_| self.core.validates_received && attributes.is_json())
        {
            // Copied: the timer, which extends the lease, must not wait for a check.
            let payload = match data {
                Some(data) => Some(data.to_vec()),
                None => held.lease.lock().as_ref().map(|lease| lease.payload().to_vec()),
            };
            let check = |data: Vec<u8>| validator.check(attributes.event_type(), attributes.version(), &data);
            payload.map_or(Ok(()), check).map_err(|violation| Unhandled::Decode(DecodeError::Schema(violation)))?;
        }
        if let Some(inbox) = &self.inbox {
            let message = held.lease.lock().as_ref().map_or_else(String::new, |lease| lease.message_id());
            let event = event_key(attributes.source(), attributes.id());
            match inbox.claim(&event, &message) {
                Ok(Claim::Held) => {}
                Ok(Claim::Duplicate) => return Err(Unhandled::Duplicate),
                Err(error) => return Err(Unhandled::Inbox(error)),
            }
        }
        let (subscriber, transactor) = (&*self.name, self.transactor.as_ref());
        let work = Work { core: &self.core, subscriber, attributes, data, held, transactor };
        #[cfg(feature = "tokio")]
        let _runtime = self.options.runtime.as_ref().map(tokio::runtime::Handle::enter);
        let _span = spans::handling(&self.name, attributes, held.attempt);
        handler.run(&work)
    }

    /// The event was settled by another thread before its handler returned. Returns as [`Inner::process`].
    fn end_late(&self, held: &Held, in_worker: bool, now: Duration) -> bool {
        let mut state = self.state.lock();
        let taken = held.times.lock().taken;
        if taken == Some(Taken::TimedOut) {
            state.stuck -= 1;
            state.stuck_threads -= usize::from(in_worker);
            let is_surplus = in_worker && state.threads > state.threads_max();
            state.threads -= usize::from(is_surplus);
            drop(state);
            self.progress.notify_all();
            // Those that wait may receive again, if too many were stuck.
            self.work.notify_one();
            return !is_surplus;
        }
        state.running -= 1;
        state.stats.lost += u64::from(taken == Some(Taken::Lost));
        state.leave(held);
        self.note(state, Ending::Neutral, now);
        true
    }

    /// Notes how an attempt ended. If the breaker opens, what nobody has begun goes back.
    pub(crate) fn note(&self, mut state: MutexGuard<'_, State>, ending: Ending, now: Duration) {
        let opened = state.breaker.note(ending, now);
        let waiting = if opened { state.take_waiting() } else { Vec::new() };
        state.stats.released += waiting.len() as u64;
        let is_trial_over = state.breaker.permit(now) != Permit::Any;
        drop(state);
        self.progress.notify_all();
        if opened {
            // A receive that waits would bring what is released here.
            self.source.wake();
            self.core.fault(&Fault::BreakerOpened { subscriber: self.name.clone() });
        }
        self.release(waiting);
        if is_trial_over {
            self.work.notify_all();
        } else {
            // There may be room to receive again.
            self.work.notify_one();
        }
    }

    pub(crate) fn report(&self, held: &Held, settled: Result<Settled, TransportError>) {
        let (subscriber, event) = (self.name.clone(), held.event_id());
        match settled {
            Ok(Settled::Done | Settled::Unknown) => {}
            Ok(Settled::Lost) => self.core.fault(&Fault::LeaseLost { subscriber, event }),
            Err(error) => self.core.fault(&Fault::Settle { subscriber, event, error }),
        }
    }

    /// Gives events back as if they had not been delivered.
    pub(crate) fn release(&self, waiting: Vec<Arc<Held>>) {
        for held in waiting {
            let Some(lease) = held.take_from_handler(&mut held.lease.lock(), Taken::Released) else { continue };
            match self.core.transport.capabilities().uncounted_release {
                true => self.report(&held, guarded(|| lease.release())),
                // Its message comes back.
                false => drop(lease),
            }
        }
    }
}
