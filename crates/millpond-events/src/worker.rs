//! Workers: who receives, which event is next, and what becomes of it.
//!
//! The workers of a subscriber share one state. One of them at a time receives; the others handle events or wait. Events of one key are
//! handled one after another, in the order of their publish: those behind the first wait in a lane. Every event that was received is
//! held until it is settled, and the timer extends its lease.

use crate::breaker::{Breaker, Ending, Permit};
use crate::bus::Core;
use crate::error::{DecodeError, Error};
use crate::event::Attributes;
use crate::fault::Fault;
use crate::handler::{Handler, Next, Unhandled, Work, panic_text, read_event};
use crate::observe::{self, Attempt, Status};
use crate::subscriber::{Options, ShutdownReport, Stats, Unknown};
use crate::transport::{Claim, Inbox, Lease, Settled, Source, TransportError, TransportErrorKind, WireMessage};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How many events may be held beyond one for each worker: those that wait in lanes.
const LANES_MAX: usize = 64;
/// How many workers may be replaced at once because their handlers do not return.
const STUCK_MAX: usize = 64;
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
    state: Mutex<State>,
    /// For workers: something is ready, or can be received.
    work: Condvar,
    /// For those that wait for numbers, or for the end.
    progress: Condvar,
}

struct State {
    ready: VecDeque<Arc<Held>>,
    /// Events that wait behind one of their key. A key is here while one of its events is ready or in progress.
    lanes: HashMap<Vec<u8>, VecDeque<Arc<Held>>>,
    /// All that is leased, by number.
    held: HashMap<u64, Arc<Held>>,
    next_number: u64,
    running: usize,
    /// Handlers that took too long and have not returned.
    stuck: usize,
    threads: usize,
    receiving: bool,
    pause_until: Option<Duration>,
    breaker: Breaker,
    stopping: bool,
    stats: Stats,
}

/// An event that was received and is not settled.
pub(crate) struct Held {
    number: u64,
    event: Result<(Attributes, Option<Vec<u8>>), DecodeError>,
    key: Option<Vec<u8>>,
    attempt: u32,
    /// Taken by the thread that settles it.
    lease: Mutex<Option<Box<dyn Lease>>>,
    times: Mutex<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    extended: Duration,
    started: Option<Duration>,
    /// Why the thread of the handler finds no lease.
    taken: Option<Taken>,
}

/// Who took a lease from under a handler. Changed under the lock on the lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Another consumer has the event.
    Lost,
    /// A shutdown gave the event back.
    Released,
    /// The handler took too long. If its thread was replaced, it ends when the handler returns.
    TimedOut { is_replaced: bool },
}

impl Held {
    fn event_id(&self) -> String {
        self.event.as_ref().map_or_else(|_| String::new(), |(attributes, _)| attributes.id().to_owned())
    }

    fn event_type(&self) -> &str {
        self.event.as_ref().map_or("", |(attributes, _)| attributes.event_type())
    }
}

/// What a receive brought, read by the thread that received.
struct Received {
    event: Result<(Attributes, Option<Vec<u8>>), DecodeError>,
    key: Option<Vec<u8>>,
    lease: Box<dyn Lease>,
}

impl Received {
    fn read(lease: Box<dyn Lease>) -> Self {
        Self { event: read_event(&*lease), key: lease.key().map(<[u8]>::to_vec), lease }
    }
}

thread_local! {
    /// Whose handler this thread runs, and for which event.
    static INSIDE: Cell<(*const Inner, u64)> = const { Cell::new((std::ptr::null(), 0)) };
}

impl State {
    /// Settles the order within the key of an event that is done with.
    fn leave(&mut self, held: &Held) {
        self.held.remove(&held.number);
        let Some(key) = &held.key else { return };
        match self.lanes.get_mut(key).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_front(next),
            Some(None) => drop(self.lanes.remove(key)),
            None => {}
        }
    }

    fn numbers(&self) -> Stats {
        let (in_progress, breaker, is_stopped) = (self.running, self.breaker.state(), self.stopping);
        Stats { in_progress, breaker, is_stopped, ..self.stats }
    }

    /// Takes out all that no handler has begun.
    fn take_waiting(&mut self) -> Vec<Arc<Held>> {
        let ready = self.ready.drain(..);
        let waiting: Vec<_> = ready.chain(self.lanes.values_mut().flat_map(|lane| lane.drain(..))).collect();
        for held in &waiting {
            self.held.remove(&held.number);
        }
        // The keys of events in progress stay.
        let busy: Vec<_> = self.held.values().filter_map(|held| held.key.clone()).collect();
        self.lanes.retain(|key, _| busy.contains(key));
        waiting
    }
}

/// What a worker does next.
enum Turn {
    Receive(usize),
    Wait(Option<Duration>),
}

impl Inner {
    pub(crate) fn new(
        core: Arc<Core>,
        name: String,
        options: Options,
        handlers: Vec<Handler>,
        source: Arc<dyn Source>,
        inbox: Option<Box<dyn Inbox>>,
    ) -> Self {
        let state = State {
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            held: HashMap::new(),
            next_number: 0,
            running: 0,
            stuck: 0,
            threads: 0,
            receiving: false,
            pause_until: None,
            breaker: Breaker::new(options.breaker),
            stopping: false,
            stats: Stats::default(),
        };
        let (work, progress) = (Condvar::new(), Condvar::new());
        Self { core, name, options, handlers, source, inbox, state: Mutex::new(state), work, progress }
    }

    pub(crate) fn spawn(self: &Arc<Self>) -> Result<(), Error> {
        self.state.lock().threads += 1;
        let inner = Arc::clone(self);
        let builder = std::thread::Builder::new().name(format!("events-{}", self.name));
        let spawned = builder.spawn(move || inner.run());
        spawned.map(drop).map_err(|error| {
            self.state.lock().threads -= 1;
            Error::Thread(error)
        })
    }

    fn run(self: Arc<Self>) {
        // An error that ends the subscriber is reported where it was met.
        while let Ok(Some(held)) = self.next(true) {
            if !self.process(&held) {
                break;
            }
        }
        self.state.lock().threads -= 1;
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
                return Ok(Some(held));
            }
            let now = self.core.clock.monotonic();
            match self.turn(&mut state, now) {
                Turn::Receive(max) => {
                    state.receiving = true;
                    let wait = if waits { RECEIVE_WAIT } else { Duration::ZERO };
                    let receive = || self.source.receive(max, wait).map(|leases| leases.into_iter().map(Received::read).collect());
                    let received: Result<Vec<_>, _> = MutexGuard::unlocked(&mut state, receive);
                    state.receiving = false;
                    let count = match received {
                        Ok(received) => self.absorb(&mut state, received),
                        Err(error) if waits => {
                            self.receive_failed(&mut state, error, now);
                            0
                        }
                        Err(error) => return Err(error),
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
        match state.breaker.permit(now) {
            Permit::Any => Turn::Receive(self.options.workers.saturating_sub(state.running).max(1)),
            Permit::Trial if state.held.is_empty() => Turn::Receive(1),
            Permit::Trial | Permit::TrialRuns => Turn::Wait(None),
            Permit::Until(until) => Turn::Wait(Some(until)),
        }
    }

    /// Reports it, and pauses or stops.
    fn receive_failed(&self, state: &mut MutexGuard<'_, State>, error: TransportError, now: Duration) {
        let subscriber = self.name.clone();
        let fault = match error.kind() {
            TransportErrorKind::Skip => Fault::Receive { subscriber, error },
            TransportErrorKind::Retry | TransportErrorKind::Unknown => {
                state.pause_until = Some(now.saturating_add(RETRY_PAUSE));
                Fault::Receive { subscriber, error }
            }
            TransportErrorKind::FixCall | TransportErrorKind::Stop => {
                state.stopping = true;
                Fault::Ended { subscriber, error }
            }
        };
        MutexGuard::unlocked(state, || self.core.fault(&fault));
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// Takes what was received, before anybody else receives: so the order stays. Returns how much that is.
    fn absorb(&self, state: &mut MutexGuard<'_, State>, received: Vec<Received>) -> usize {
        let count = received.len();
        let extended = self.core.clock.monotonic();
        for Received { event, key, lease } in received {
            let number = state.next_number;
            state.next_number += 1;
            let times = Mutex::new(Times { extended, started: None, taken: None });
            let attempt = lease.attempt();
            let held = Arc::new(Held { number, event, key, attempt, lease: Mutex::new(Some(lease)), times });
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
        if count > 0 {
            state.breaker.trial_begins();
        }
        if state.stopping {
            let waiting = state.take_waiting();
            state.stats.released += waiting.len() as u64;
            MutexGuard::unlocked(state, || self.release(waiting));
        }
        for _ in 1..count {
            self.work.notify_one();
        }
        count
    }

    /// Handles one event. Returns whether the thread goes on.
    pub(crate) fn process(&self, held: &Arc<Held>) -> bool {
        let began = self.core.clock.monotonic();
        held.times.lock().started = Some(began);
        // It may have been lost while it waited in a lane.
        let is_leased = held.lease.lock().is_some();
        let result = if is_leased { self.handle_caught(held) } else { Ok(Vec::new()) };
        let now = self.core.clock.monotonic();
        let Some(lease) = held.lease.lock().take() else {
            return self.end_late(held, now);
        };
        let (status, ending, label) = classify(&result, self.options.unknown);
        let (took, age) = (now.saturating_sub(began), lease.age());
        let settled = settle(lease, result, self.options.unknown);
        observe::processed(&Attempt { event_type: held.event_type(), status, error: label, took, age });
        self.report(held, settled);
        let mut state = self.state.lock();
        state.running -= 1;
        state.stats.note(status);
        state.leave(held);
        self.note(state, ending, now);
        true
    }

    /// A panic of the handler, or of whatever else of the application's runs, is a failure.
    fn handle_caught(&self, held: &Held) -> Result<Vec<WireMessage>, Unhandled> {
        let outer = INSIDE.replace((self, held.number));
        let result = catch_unwind(AssertUnwindSafe(|| self.handle(held)));
        INSIDE.set(outer);
        result.unwrap_or_else(|panic| Err(Unhandled::Panicked(panic_text(panic))))
    }

    fn handle(&self, held: &Held) -> Result<Vec<WireMessage>, Unhandled> {
        let (attributes, data) = held.event.as_ref().map_err(|error| Unhandled::Decode(error.clone()))?;
        let limit = self.core.chain_max;
        if attributes.depth() > limit {
            return Err(Unhandled::Decode(DecodeError::ChainTooLong { depth: attributes.depth(), limit }));
        }
        // A message in structured mode has its type inside: the transport could not know whether it is wanted.
        let Some(handler) = self.handlers.iter().find(|handler| handler.pattern.matches(attributes.event_type())) else {
            return Ok(Vec::new());
        };
        let data = data.as_deref();
        if let Some(validator) = self.core.validator.as_ref().filter(|_| self.core.validates_received) {
            let checked = match (data, &*held.lease.lock()) {
                (Some(data), _) => validator.check(attributes.event_type(), attributes.version(), data),
                (None, Some(lease)) => validator.check(attributes.event_type(), attributes.version(), lease.payload()),
                (None, None) => Ok(()),
            };
            checked.map_err(|violation| Unhandled::Decode(DecodeError::Schema(violation)))?;
        }
        if let Some(inbox) = &self.inbox {
            let message = held.lease.lock().as_ref().map_or_else(String::new, |lease| lease.message_id());
            let event = format!("{}\n{}", attributes.source(), attributes.id());
            match inbox.claim(&event, &message) {
                Ok(Claim::Held) => {}
                Ok(Claim::Duplicate) => return Err(Unhandled::Duplicate),
                Err(error) => return Err(Unhandled::Inbox(error)),
            }
        }
        let work = Work { core: &self.core, attributes, data, lease: &held.lease, attempt: held.attempt };
        let _span = observe::handling(&self.name, attributes, held.attempt);
        handler.run(&work)
    }

    /// The event was settled by another thread before its handler returned. Returns whether this thread goes on.
    fn end_late(&self, held: &Held, now: Duration) -> bool {
        let mut state = self.state.lock();
        let taken = held.times.lock().taken;
        if let Some(Taken::TimedOut { is_replaced }) = taken {
            state.stuck -= 1;
            drop(state);
            self.progress.notify_all();
            return !is_replaced;
        }
        state.running -= 1;
        state.stats.lost += u64::from(taken == Some(Taken::Lost));
        state.leave(held);
        self.note(state, Ending::Neutral, now);
        true
    }

    /// Notes how an attempt ended. If the breaker opens, what nobody has begun goes back.
    fn note(&self, mut state: MutexGuard<'_, State>, ending: Ending, now: Duration) {
        let opened = state.breaker.note(ending, now);
        let waiting = if opened { state.take_waiting() } else { Vec::new() };
        state.stats.released += waiting.len() as u64;
        let is_trial_over = state.breaker.permit(now) != Permit::Any;
        drop(state);
        self.progress.notify_all();
        if opened {
            self.core.fault(&Fault::BreakerOpened { subscriber: self.name.clone() });
        }
        self.release(waiting);
        if is_trial_over {
            self.work.notify_all();
        }
    }

    fn report(&self, held: &Held, settled: Result<Settled, TransportError>) {
        let (subscriber, event) = (self.name.clone(), held.event_id());
        match settled {
            Ok(Settled::Done | Settled::Unknown) => {}
            Ok(Settled::Lost) => self.core.fault(&Fault::LeaseLost { subscriber, event }),
            Err(error) => self.core.fault(&Fault::Settle { subscriber, event, error }),
        }
    }

    /// Gives events back as if they had not been delivered.
    fn release(&self, waiting: Vec<Arc<Held>>) {
        for held in waiting {
            let mut slot = held.lease.lock();
            let Some(lease) = slot.take() else { continue };
            held.times.lock().taken = Some(Taken::Released);
            drop(slot);
            match self.core.transport.capabilities().uncounted_release {
                true => self.report(&held, lease.release()),
                // Its message comes back.
                false => drop(lease),
            }
        }
    }

    /// Extends leases and ends handlers that take too long. Returns for how long nothing else is due.
    pub(crate) fn tick(self: &Arc<Self>, now: Duration) -> Duration {
        let lease_len = self.source.visibility_timeout();
        let interval = lease_len / 3;
        let all: Vec<Arc<Held>> = self.state.lock().held.values().map(Arc::clone).collect();
        let mut next = interval;
        for held in all {
            let times = *held.times.lock();
            if let (Some(started), Some(timeout)) = (times.started, self.options.timeout) {
                let until = started.saturating_add(timeout);
                if until <= now {
                    self.time_out(&held, timeout, now);
                    continue;
                }
                next = next.min(until - now);
            }
            let until = times.extended.saturating_add(interval);
            if until > now {
                next = next.min(until - now);
                continue;
            }
            let mut lease = held.lease.lock();
            let Some(extended) = lease.as_ref().map(|lease| lease.extend(lease_len)) else { continue };
            held.times.lock().extended = now;
            if matches!(extended, Ok(Settled::Lost)) {
                held.times.lock().taken = Some(Taken::Lost);
                drop(lease.take());
            }
            drop(lease);
            self.report(&held, extended);
        }
        self.options.timeout.map_or(next, |timeout| next.min(timeout))
    }

    /// Ends the attempt of a handler that takes too long. Its thread is replaced, and ends when the handler returns.
    fn time_out(self: &Arc<Self>, held: &Arc<Held>, timeout: Duration, now: Duration) {
        let mut state = self.state.lock();
        let Some(lease) = held.lease.lock().take() else { return };
        let is_replaced = state.threads > 0 && state.stuck < STUCK_MAX && !state.stopping;
        held.times.lock().taken = Some(Taken::TimedOut { is_replaced });
        state.running -= 1;
        state.stuck += 1;
        state.stats.timed_out += 1;
        state.stats.note(Status::Retried);
        state.leave(held);
        self.note(state, Ending::Failure, now);
        let (event_type, status, age) = (held.event_type(), Status::Retried, lease.age());
        observe::processed(&Attempt { event_type, status, error: "timeout", took: timeout, age });
        self.report(held, lease.retry(None, &format!("timed out after {timeout:?}")));
        self.core.fault(&Fault::TimedOut { subscriber: self.name.clone(), event: held.event_id() });
        if is_replaced && let Err(Error::Thread(error)) = self.spawn() {
            held.times.lock().taken = Some(Taken::TimedOut { is_replaced: false });
            self.core.fault(&Fault::Thread { subscriber: self.name.clone(), error });
        }
    }

    /// Lets it stop receiving, and gives back what no handler has begun.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let waiting = state.take_waiting();
        state.stats.released += waiting.len() as u64;
        drop(state);
        self.work.notify_all();
        self.progress.notify_all();
        self.source.wake();
        self.release(waiting);
    }

    /// Waits for the handlers in progress, but for one of this thread, and gives back the rest.
    pub(crate) fn finish(&self, until: Duration) -> ShutdownReport {
        let (inside, own_number) = INSIDE.get();
        let is_own = |held: &Held| std::ptr::eq(inside, self) && held.number == own_number;
        let own = usize::from(std::ptr::eq(inside, self));
        let mut state = self.state.lock();
        loop {
            let now = self.core.clock.monotonic();
            let is_done = state.running <= own && state.threads <= own + state.stuck;
            if is_done || now >= until || self.progress.wait_for(&mut state, until - now).timed_out() {
                break;
            }
        }
        let rest: Vec<_> = state.held.values().filter(|held| !is_own(held)).map(Arc::clone).collect();
        let released = state.stats.released + rest.len() as u64;
        let unfinished = (state.running + state.stuck).saturating_sub(own);
        drop(state);
        self.release(rest);
        ShutdownReport { released, unfinished }
    }

    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.running == 0 && state.held.is_empty()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.state.lock().numbers()
    }

    /// Waits until the numbers are such.
    pub(crate) fn wait(&self, limit: Duration, mut is_met: impl FnMut(&Stats) -> bool) -> bool {
        let mut state = self.state.lock();
        loop {
            let numbers = state.numbers();
            // The caller's code runs without the lock.
            if MutexGuard::unlocked(&mut state, || is_met(&numbers)) {
                return true;
            }
            if state.numbers() == numbers && self.progress.wait_for(&mut state, limit).timed_out() {
                return false;
            }
        }
    }
}

/// How an attempt ended: for the numbers, for the breaker, and as a label.
fn classify(result: &Result<Vec<WireMessage>, Unhandled>, unknown: Unknown) -> (Status, Ending, &'static str) {
    match result {
        Ok(_) => (Status::Ok, Ending::Success, ""),
        Err(Unhandled::Duplicate) => (Status::Duplicate, Ending::Neutral, ""),
        Err(Unhandled::Inbox(_)) => (Status::Retried, Ending::Failure, "inbox"),
        Err(Unhandled::Panicked(_)) => (Status::Retried, Ending::Failure, "panic"),
        Err(Unhandled::Decode(error)) if unknown.skips(error) => (Status::Ok, Ending::Neutral, "unknown"),
        Err(Unhandled::Decode(DecodeError::ChainTooLong { .. })) => (Status::Rejected, Ending::Neutral, "chain"),
        Err(Unhandled::Decode(DecodeError::Schema(_))) => (Status::Rejected, Ending::Neutral, "schema"),
        Err(Unhandled::Decode(_)) => (Status::Rejected, Ending::Neutral, "decode"),
        Err(Unhandled::Failed(failure)) => match failure.next {
            Next::Retry | Next::RetryAfter(_) => (Status::Retried, Ending::Failure, "handler"),
            Next::Reject => (Status::Rejected, Ending::Neutral, "permanent"),
        },
    }
}

fn settle(
    lease: Box<dyn Lease>,
    result: Result<Vec<WireMessage>, Unhandled>,
    unknown: Unknown,
) -> Result<Settled, TransportError> {
    match result {
        Ok(messages) => {
            let settled = lease.ack(&messages);
            if matches!(settled, Ok(Settled::Done)) {
                messages.iter().for_each(observe::published);
            }
            settled
        }
        Err(Unhandled::Duplicate) => lease.ack(&[]),
        Err(Unhandled::Decode(error)) if unknown.skips(&error) => lease.ack(&[]),
        Err(Unhandled::Decode(error)) => lease.reject(&error.to_string()),
        Err(Unhandled::Inbox(error)) if error.kind() == TransportErrorKind::FixCall => lease.reject(&error.to_string()),
        Err(Unhandled::Inbox(error)) => lease.retry(None, &error.to_string()),
        Err(Unhandled::Panicked(text)) => lease.retry(None, &format!("panicked: {text}")),
        Err(Unhandled::Failed(failure)) => match failure.next {
            Next::Retry => lease.retry(None, &failure.text),
            Next::RetryAfter(delay) => lease.retry(Some(delay), &failure.text),
            Next::Reject => lease.reject(&failure.text),
        },
    }
}
