//! The events that a subscriber holds: which is next, which wait behind one of their key, and who has which lease.

use crate::attributes::Attributes;
use crate::breaker::Breaker;
use crate::error::DecodeError;
use crate::handler::read_event;
use crate::subscriber::Stats;
use crate::transacted::TransactionEnd;
use crate::transport::Lease;
use crate::worker::STUCK_MAX;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// What the workers of a subscriber share.
pub(crate) struct State {
    pub(crate) ready: VecDeque<Arc<Held>>,
    /// Events that wait behind one of their key. A key is here while one of its events is ready or in progress.
    pub(crate) lanes: HashMap<Vec<u8>, VecDeque<Arc<Held>>>,
    /// All that is leased, by number.
    pub(crate) held: HashMap<u64, Arc<Held>>,
    pub(crate) next_number: u64,
    pub(crate) running: usize,
    /// Handlers that took too long and have not returned.
    pub(crate) stuck: usize,
    /// Those of them that are in threads of the subscriber.
    pub(crate) stuck_threads: usize,
    /// How many threads are to be free or in handlers that may still return in time.
    pub(crate) wanted: usize,
    pub(crate) threads: usize,
    pub(crate) receiving: bool,
    pub(crate) pause_until: Option<Duration>,
    pub(crate) breaker: Breaker,
    pub(crate) stopping: bool,
    pub(crate) stats: Stats,
}

/// An event that was received and is not settled.
pub(crate) struct Held {
    pub(crate) number: u64,
    pub(crate) event: Result<(Arc<Attributes>, Option<Vec<u8>>), DecodeError>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) attempt: u32,
    /// Taken by the thread that settles it.
    pub(crate) lease: Mutex<Option<Box<dyn Lease>>>,
    /// How the transaction of its handler settled it, if one did.
    pub(crate) transacted: Mutex<Option<TransactionEnd>>,
    /// Whose handler has it: unparked when the lease is taken from under it.
    pub(crate) thread: OnceLock<Thread>,
    pub(crate) times: Mutex<Times>,
}

#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) extended: Duration,
    pub(crate) started: Option<Start>,
    /// Its handler called a shutdown: no shutdown waits for it.
    pub(crate) shuts_down: bool,
    /// Why the thread of the handler finds no lease.
    pub(crate) taken: Option<Taken>,
}

/// When a handler began, and whether in a thread of the subscriber.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) time: Duration,
    pub(crate) in_worker: bool,
}

/// Who took a lease from under a handler. Changed under the lock on the lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Another consumer has the event.
    Lost,
    /// A shutdown gave the event back.
    Released,
    /// The handler took too long.
    TimedOut,
}

impl Held {
    /// An event that was received as number `number`, and whose lease is as of `extended`.
    pub(crate) fn new(number: u64, Received { event, key, lease }: Received, extended: Duration) -> Self {
        let times = Mutex::new(Times { extended, started: None, shuts_down: false, taken: None });
        let (attempt, lease, transacted) = (lease.attempt(), Mutex::new(Some(lease)), Mutex::new(None));
        Self { number, event, key, attempt, lease, transacted, thread: OnceLock::new(), times }
    }

    /// Notes who took the lease from under the handler.
    pub(crate) fn take_from_handler(&self, slot: &mut Option<Box<dyn Lease>>, taken: Taken) -> Option<Box<dyn Lease>> {
        let lease = slot.take()?;
        self.times.lock().taken = Some(taken);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        Some(lease)
    }

    pub(crate) fn attributes(&self) -> Option<&Attributes> {
        self.event.as_ref().ok().map(|(attributes, _)| &**attributes)
    }

    pub(crate) fn event_id(&self) -> String {
        self.attributes().map_or_else(String::new, |attributes| attributes.id().to_owned())
    }

    pub(crate) fn event_type(&self) -> &str {
        self.attributes().map_or("", Attributes::event_type)
    }
}

/// What a receive brought, read by the thread that received.
pub(crate) struct Received {
    pub(crate) event: Result<(Arc<Attributes>, Option<Vec<u8>>), DecodeError>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) lease: Box<dyn Lease>,
}

impl Received {
    pub(crate) fn read(lease: Box<dyn Lease>) -> Self {
        Self { event: read_event(&*lease), key: lease.key().map(<[u8]>::to_vec), lease }
    }
}
impl State {
    /// Settles the order within the key of an event that is done with.
    pub(crate) fn leave(&mut self, held: &Held) {
        self.held.remove(&held.number);
        let Some(key) = &held.key else { return };
        match self.lanes.get_mut(key).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_front(next),
            Some(None) => drop(self.lanes.remove(key)),
            None => {}
        }
    }

    /// How many threads there may be: those that are wanted, and one for each that a handler keeps.
    pub(crate) fn threads_max(&self) -> usize {
        self.wanted + self.stuck_threads.min(STUCK_MAX)
    }

    pub(crate) fn numbers(&self) -> Stats {
        let (breaker, is_stopped) = (self.breaker.state(), self.stopping);
        Stats { in_progress: self.running, stuck: self.stuck, breaker, is_stopped, ..self.stats }
    }

    /// Takes out all that no handler has begun.
    pub(crate) fn take_waiting(&mut self) -> Vec<Arc<Held>> {
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
