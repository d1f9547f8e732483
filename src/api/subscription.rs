//! Subscriptions: deliveries for a consumer that also waits for other things.
//!
//! The methods that receive lease a message in the calling thread, as [`Group::receive`](crate::Group::receive) does. Only
//! [`Subscription::request`] needs the subscription's own thread: it leases one message for each request and puts it into a channel
//! that can be selected on. No lease is recorded without a request, and what nobody takes is released, its attempt not counted.

use super::delivery::Delivery;
use super::group::GroupInner;
use crate::engine::{Engine, Reader, Wait, spawn_subscription};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::channel::{Receiver, Sender, bounded};
use crate::sync::{Condvar, JoinHandle, Mutex, MutexGuard};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// What the channel carries.
type Item = Result<Delivery>;

/// The longest time for which an offer stays in the channel.
const OFFER_MS_MAX: u64 = 3_600_000;

/// Deliveries of one group for one consumer, also for `select!`. Like a [`Group`](crate::Group) it keeps the store open.
///
/// Nothing is leased unless the consumer asks. [`recv`](Self::recv), [`recv_timeout`](Self::recv_timeout),
/// [`try_recv`](Self::try_recv) and [`iter`](Self::iter) lease a message in the calling thread. [`request`](Self::request) asks
/// for one delivery and returns the channel that will carry it, to be selected on together with other channels.
///
/// A message that cannot be read is an `Err`, and so is trouble that passes, like a full disk; the subscription goes on after
/// both. [`Error::Closed`], [`Error::Poisoned`] and [`Error::Forked`] come once on the channel, which then ends.
///
/// Dropping the subscription ends its thread. A delivery that was requested and not taken is released, its attempt not counted: when the
/// subscription is dropped, when the store is closed, or after half the visibility timeout (an hour at most). A subscription
/// can be sent to another thread, but not shared: each consumer has one of its own.
///
/// ```
/// # use millpond::Store;
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// # let orders = store.topic("orders").open()?;
/// # let (stop, stopped) = crossbeam_channel::bounded::<()>(1);
/// let deliveries = orders.group("kitchen").open()?.subscribe()?;
/// orders.publish("two pizzas")?;
/// loop {
///     crossbeam_channel::select! {
///         recv(deliveries.request()) -> delivery => {
///             let delivery = delivery??;
///             assert_eq!(delivery.payload(), b"two pizzas");
///             delivery.ack()?;
/// #           stop.send(())?;
///         }
///         recv(stopped) -> _ => break,
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    pub(super) group: Arc<GroupInner>,
    /// Behind an [`Arc`] so that a forked child can forget it: its lock may be the parent's.
    receiver: Arc<Receiver<Item>>,
    /// What [`Subscription::request`] returns in a forked child: a channel that no other thread ever used.
    forked: Receiver<Item>,
    requests: Arc<Requests>,
    number: u64,
    /// One consumer: two could take each other's request.
    _unshared: PhantomData<Cell<()>>,
}

/// What the consumer asked for and the thread does.
#[derive(Debug, Default)]
struct Requests {
    state: Mutex<RequestState>,
    changed: Condvar,
    /// Set unless a delivery is wanted: ends the thread's wait for a message. Stored under the lock on `state`.
    unwanted: AtomicBool,
    /// Locked while it is joined, so that everybody who ends the thread returns after its end.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct RequestState {
    /// A delivery was asked for and is not offered yet.
    wanted: bool,
    /// What was put into the channel last. It may have been taken meanwhile: an empty channel says so.
    offered: Option<Offer>,
    /// The offer was asked for again while it was in the channel: if it is taken back, another follows.
    wanted_again: bool,
    /// An offer was taken back, and another follows after this many milliseconds: each time twice as many, so that a request which
    /// nobody waits for comes to cost nothing, and one that somebody waits for is answered. Zero: no such request.
    pause_ms: u64,
    ends: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// Under a lease, which is given back in time.
    Delivery,
    Error,
}

/// Why the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Dropped,
    Closed,
}

/// The subscriptions of a store.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    next: u64,
    live: BTreeMap<u64, Arc<Requests>>,
    closed: bool,
}

impl Subscriptions {
    /// Ends them all, as a close does, and returns once their threads have ended. None is made afterwards.
    pub(super) fn close(this: &Mutex<Self>, engine: &Engine) {
        let live = {
            let mut subscriptions = this.lock();
            subscriptions.closed = true;
            std::mem::take(&mut subscriptions.live)
        };
        live.values().for_each(|requests| requests.end(End::Closed));
        engine.wake_consumers();
        live.values().for_each(|requests| requests.join());
    }
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, RequestState> {
        self.state.lock()
    }

    /// Asks the thread to end. It may still wait in the engine, which has to be woken then.
    fn end(&self, end: End) {
        let mut state = self.lock();
        state.ends.get_or_insert(end);
        self.unwanted.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has let go of its channel, which says so to the consumer.
            let _ = thread.join();
        }
    }

    fn want(&self, state: &mut RequestState, wanted: bool) {
        state.wanted = wanted;
        self.unwanted.store(!wanted || state.ends.is_some(), Ordering::Release);
    }
}

impl Subscription {
    pub(super) fn start(group: &Arc<GroupInner>) -> Result<Self> {
        let shared = &group.topic.shared;
        shared.engine.enter()?;
        // Room for what is offered, and nothing is offered before that was taken.
        let (sender, receiver) = bounded(1);
        let (last, forked) = bounded(1);
        let _ = last.try_send(Err(Error::Forked));
        let requests = Arc::new(Requests { unwanted: AtomicBool::new(true), ..Requests::default() });
        let mut subscriptions = shared.subscriptions.lock();
        if subscriptions.closed {
            return Err(Error::Closed);
        }
        let server = Server { group: Arc::clone(group), requests: Arc::clone(&requests), receiver: receiver.clone() };
        let thread = spawn_subscription(move || server.serve(&sender))?;
        *requests.thread.lock() = Some(thread);
        let number = subscriptions.next;
        subscriptions.next += 1;
        subscriptions.live.insert(number, Arc::clone(&requests));
        drop(subscriptions);
        let (group, receiver) = (Arc::clone(group), Arc::new(receiver));
        Ok(Self { group, receiver, forked, requests, number, _unshared: PhantomData })
    }

    fn engine(&self) -> &Engine {
        &self.group.topic.shared.engine
    }

    /// Asks for one delivery and returns the channel that carries it. Asking again before it was taken changes nothing, so a loop
    /// calls this in its `select!`.
    ///
    /// A delivery that is not taken within half the visibility timeout (an hour at most) is released, its attempt not counted. The subscription then
    /// pauses and offers again; each pause is twice as long. Calling `request` again ends the pause. The errors that end the
    /// subscription come once; then the channel is disconnected.
    pub fn request(&self) -> &Receiver<Result<Delivery>> {
        if self.engine().is_forked() {
            return &self.forked;
        }
        let mut state = self.requests.lock();
        if state.offered.is_some() && self.receiver.is_empty() {
            state.offered = None;
        }
        if state.offered.is_some() {
            state.wanted_again = true;
        } else if !state.wanted {
            state.pause_ms = 0;
            self.requests.want(&mut state, true);
            drop(state);
            self.requests.changed.notify_all();
        }
        &self.receiver
    }

    /// Leases the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// As [`Group::receive`](crate::Group::receive). After `Closed`, `Poisoned` and `Forked` nothing else will come.
    pub fn recv(&self) -> Result<Delivery> {
        loop {
            if let Some(delivery) = self.recv_timeout(Duration::MAX)? {
                return Ok(delivery);
            }
        }
    }

    /// Leases the next message, waiting up to `wait` for it. Returns `None` if none becomes ready; nothing is leased then.
    ///
    /// # Errors
    /// As [`Group::receive`](crate::Group::receive).
    pub fn recv_timeout(&self, wait: Duration) -> Result<Option<Delivery>> {
        let engine = self.engine();
        engine.enter()?;
        match self.take_over() {
            Some(item) => item.map(Some),
            None => self.group.receive(Wait::new(engine, wait), &self.group.reader),
        }
    }

    /// Leases a message if one is ready, without waiting.
    ///
    /// # Errors
    /// As [`Group::receive`](crate::Group::receive).
    pub fn try_recv(&self) -> Result<Option<Delivery>> {
        self.recv_timeout(Duration::ZERO)
    }

    /// Iterates over deliveries, waiting for each as [`recv`](Self::recv) does. Ends after `Closed`, `Poisoned` or `Forked`; other
    /// errors are items like deliveries.
    pub fn iter(&self) -> impl Iterator<Item = Result<Delivery>> + '_ {
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let item = self.recv();
            ended = item.as_ref().is_err_and(is_last);
            Some(item)
        })
    }

    /// Withdraws a request, for the calling thread receives now. Returns what was in the channel.
    fn take_over(&self) -> Option<Item> {
        let mut state = self.requests.lock();
        let waits = state.wanted;
        self.requests.want(&mut state, false);
        (state.offered, state.wanted_again, state.pause_ms) = (None, false, 0);
        let item = self.receiver.try_recv().ok();
        drop(state);
        if waits {
            self.engine().wake_group(self.group.info.id);
        }
        item
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.engine().is_forked() {
            // The thread, the channel and the locks are the parent's.
            std::mem::forget((Arc::clone(&self.requests), Arc::clone(&self.receiver)));
            return;
        }
        self.requests.end(End::Dropped);
        self.engine().wake_group(self.group.info.id);
        // seam: a subscription leaves its thread
        self.requests.join();
        self.group.topic.shared.subscriptions.lock().live.remove(&self.number);
    }
}

/// Whether nothing can follow this error.
fn is_last(error: &Error) -> bool {
    // seam: a full disk ends a subscription
    matches!(error, Error::Closed | Error::Poisoned { .. } | Error::Forked)
}

/// The thread's side.
struct Server {
    group: Arc<GroupInner>,
    requests: Arc<Requests>,
    /// To take back what was offered.
    receiver: Receiver<Item>,
}

impl Server {
    /// Answers requests until the subscription or the store ends.
    fn serve(self, sender: &Sender<Item>) {
        // Of its own, for the consumer uses the group's.
        let reader = Mutex::<Reader>::default();
        let last = loop {
            match self.wait_for_request() {
                None => {}
                Some(End::Dropped) => break None,
                Some(End::Closed) => break Some(Error::Closed),
            }
            let wait = Wait::new(&self.group.topic.shared.engine, Duration::MAX);
            match self.group.receive(wait.stopped_by(&self.requests.unwanted), &reader) {
                Ok(None) => {}
                Ok(Some(delivery)) => self.offer(sender, Ok(delivery)),
                Err(error) if is_last(&error) => break Some(error),
                Err(error) => self.offer(sender, Err(error)),
            }
        };
        // seam: a close keeps what was offered
        if let Ok(Ok(delivery)) = self.receiver.try_recv() {
            release(delivery);
        }
        if let Some(error) = last {
            // There is room: the channel was just emptied, and only this thread fills it.
            let _ = sender.try_send(Err(error));
        }
    }

    /// Waits until a delivery is wanted, and takes back in time what was offered and nobody takes. Returns why the thread ends.
    fn wait_for_request(&self) -> Option<End> {
        // Of a group that was removed the next receive says so.
        let timeout_ms = self.group.topic.shared.engine.visibility_timeout_ms(self.group.info.id).unwrap_or(1);
        let half = timeout_ms.div_ceil(2).min(OFFER_MS_MAX);
        let mut state = self.requests.lock();
        loop {
            if state.ends.is_some() {
                return state.ends;
            }
            if state.wanted {
                return None;
            }
            if state.offered != Some(Offer::Delivery) {
                match state.pause_ms {
                    0 => self.requests.changed.wait(&mut state),
                    pause => {
                        self.requests.changed.wait_for(&mut state, Duration::from_millis(pause));
                        if state.pause_ms == pause && state.ends.is_none() {
                            self.requests.want(&mut state, true);
                        }
                    }
                }
                continue;
            }
            self.requests.changed.wait_for(&mut state, Duration::from_millis(half));
            // Woken by a request, an end, or the time. In the first two cases the offer is not there or not wanted any more.
            if state.ends.is_none() && !state.wanted && state.offered == Some(Offer::Delivery) {
                let untaken = self.receiver.try_recv();
                state.offered = None;
                let again = std::mem::take(&mut state.wanted_again) && untaken.is_ok();
                state.pause_ms = match &untaken {
                    Ok(_) if !again => state.pause_ms.saturating_mul(2).clamp(half, OFFER_MS_MAX),
                    _ => 0,
                };
                self.requests.want(&mut state, again);
                drop(state);
                if let Ok(Ok(delivery)) = untaken {
                    release(delivery);
                }
                state = self.requests.lock();
            }
        }
    }

    /// Puts what was received into the channel, unless nobody wants it any more.
    fn offer(&self, sender: &Sender<Item>, item: Item) {
        let mut state = self.requests.lock();
        let offer = if item.is_ok() { Offer::Delivery } else { Offer::Error };
        let refused = if state.ends.is_some() || offer == Offer::Delivery && !state.wanted {
            Some(item)
        } else {
            self.requests.want(&mut state, false);
            match sender.try_send(item) {
                Ok(()) => {
                    (state.offered, state.wanted_again) = (Some(offer), false);
                    if offer == Offer::Error {
                        state.pause_ms = 0;
                    }
                    None
                }
                // What is in the channel is taken first.
                Err(refused) => Some(refused.into_inner()),
            }
        };
        drop(state);
        if let Some(Ok(delivery)) = refused {
            release(delivery);
        }
    }
}

/// Releases what no consumer saw, its attempt not counted. If that cannot be recorded, the lease expires.
fn release(delivery: Delivery) {
    let _ = delivery.release();
}
