//! The bus: publishing events, and the subscribers and listeners that get them.

use crate::aggregate::{Aggregate, Repository};
use crate::bus_builder::{Below, BusBuilder};
use crate::clock::Clock;
use crate::context::{self, Cause};
use crate::error::{Error, Result, SchemaViolation};
use crate::event::{EventType, Outgoing};
use crate::fault::Fault;
use crate::handler::{Failure, Incoming};
use crate::listener::{Listener, RawHandler};
use crate::observe;
use crate::pattern::Pattern;
use crate::spans::{self, Publishing};
use crate::subscriber::{ShutdownReport, Subscriber};
use crate::subscriber_builder::SubscriberBuilder;
use crate::timer::Timer;
use crate::transport::{Streams, Transport, WireMessage};
use crate::worker::Inner;
use millpond::{Expected, Store};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Checks the data of events, on publish and if wanted on receive. The seam for schemas.
pub trait Validator: Send + Sync {
    /// Checks JSON data of a type and version.
    ///
    /// # Errors
    /// Where the data breaks a rule.
    fn check(&self, event_type: &str, version: u32, data: &[u8]) -> Result<(), SchemaViolation>;
}

/// Typed publish and subscribe over a store. Clones are cheap and share everything.
///
/// When the last clone is dropped, subscribers stop receiving; handlers in progress finish and are settled. [`Bus::shutdown`] also waits
/// for them. A handler that holds a clone keeps the bus running until it is shut down: use [`Incoming::publish`] there.
#[derive(Clone)]
pub struct Bus {
    handle: Arc<Handle>,
}

pub(crate) type FaultHook = Box<dyn Fn(&Fault) + Send + Sync>;

/// Ends the bus with its last clone.
struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        let _stopped = self.0.stop();
    }
}

/// What bus, subscribers and handlers share.
pub(crate) struct Core {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chain_max: u32,
    pub(crate) validator: Option<Arc<dyn Validator>>,
    pub(crate) validates_received: bool,
    pub(crate) timer: Timer,
    pub(crate) source: String,
    pub(crate) on_fault: Option<FaultHook>,
    pub(crate) subscribers: Mutex<BTreeMap<String, Arc<Inner>>>,
    pub(crate) stopped: AtomicBool,
}

impl Bus {
    pub(crate) fn new(core: Core) -> Self {
        Self { handle: Arc::new(Handle(Arc::new(core))) }
    }

    /// Opens a bus over the topic `events` of the store.
    ///
    /// # Errors
    /// Those of opening the topic.
    pub fn open(store: &Store) -> Result<Self> {
        Self::builder(store).open()
    }

    /// Options for a bus over a store.
    pub fn builder(store: &Store) -> BusBuilder {
        BusBuilder::new(Below::Store {
            store: store.clone(),
            topic: "events".to_owned(),
            partitions: None,
            streams: false,
        })
    }

    /// Options for a bus over another transport.
    pub fn over(transport: Arc<dyn Transport>) -> BusBuilder {
        BusBuilder::new(Below::Transport(transport))
    }

    /// Publishes an event, and returns its id. It is durable at the store's level on return.
    ///
    /// In a handler the event continues the correlation of the event in hand. It is published at once, whatever becomes of the handler;
    /// [`Incoming::publish`] publishes together with the ack.
    ///
    /// # Errors
    /// `InvalidAttribute`, `Encode`, `Schema`: fix the event. `Stopped`. The transport's.
    pub fn publish(&self, event: impl Into<Outgoing>) -> Result<String> {
        let event = event.into();
        let id = event.attributes.id.clone();
        let span = Publishing::begin(event.attributes.traceparent());
        self.send(&[self.core().prepare(event, context::current().as_ref())?], &span)?;
        Ok(id)
    }

    /// Publishes events in one step: all, or none.
    ///
    /// # Errors
    /// As [`Bus::publish`], for all together.
    pub fn publish_all<E: Into<Outgoing>>(&self, events: impl IntoIterator<Item = E>) -> Result<Vec<String>> {
        let events: Vec<Outgoing> = events.into_iter().map(Into::into).collect();
        let ids = events.iter().map(|event| event.attributes.id.clone()).collect();
        let span = Publishing::begin(events.first().and_then(|event| event.attributes.traceparent()));
        let cause = context::current();
        let prepare = |event| self.core().prepare(event, cause.as_ref());
        self.send(&events.into_iter().map(prepare).collect::<Result<Vec<_>>>()?, &span)?;
        Ok(ids)
    }

    /// Appends events to a stream if its last version is as expected. The append is their publication, in one step: subscribers get them as
    /// those of [`Bus::publish`], in order. Their subject is the key of the stream.
    ///
    /// ```
    /// # use millpond::Expected;
    /// # use millpond_events::{Bus, Error, RawEvent, transport::TransportErrorKind};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = millpond::Store::open(directory.path().join("data"))?;
    /// # let paid = || [RawEvent::new("order.paid", 1, "application/json", "12")];
    /// # let cancelled = paid;
    /// let bus = Bus::builder(&store).topic("orders").streams().open()?;
    /// let appended = bus.append("order-7", Expected::NoStream, paid())?;
    /// assert_eq!(appended.last_version, 0);
    /// // Another writer that decided by the same version comes too late.
    /// let late = bus.append("order-7", Expected::NoStream, cancelled());
    /// assert!(matches!(late, Err(Error::Transport(error)) if error.kind() == TransportErrorKind::Conflict));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Transport` of the kind `Conflict` if the version is another; `InvalidAttribute` also for an event with another subject;
    /// `Unsupported` where the topic was not opened with [`BusBuilder::streams`]; as [`Bus::publish`].
    pub fn append<E: Into<Outgoing>>(
        &self,
        stream: &str,
        expected: Expected,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Appended> {
        self.core().append(stream, expected, events)
    }

    /// Loads aggregates from the streams of this bus, and appends what they decide.
    ///
    /// # Errors
    /// `Unsupported` where the topic was not opened with [`BusBuilder::streams`].
    pub fn repository<A: Aggregate>(&self) -> Result<Repository<A>> {
        self.core().streams()?;
        Ok(Repository::new(Arc::clone(self.core())))
    }

    fn send(&self, messages: &[WireMessage], span: &Publishing) -> Result<()> {
        if self.core().is_stopped() {
            return Err(Error::Stopped);
        }
        span.note(messages);
        self.core().transport.publish(messages)?;
        messages.iter().for_each(observe::published);
        Ok(())
    }

    /// Starts a subscriber with one worker: `handler` gets every event of these types, from the first that there is. Its name is that of
    /// a group, so after a restart it goes on where it stopped. See [`Bus::subscriber`] for options.
    ///
    /// # Errors
    /// `InvalidPattern`; `NameInUse`; `Thread`; `Stopped`; those of opening the group.
    pub fn on<T: EventType>(
        &self,
        pattern: &str,
        name: &str,
        handler: impl Fn(&Incoming<T>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<Subscriber> {
        self.subscriber(name).on(pattern, handler).start()
    }

    /// A subscriber of this name, to be given handlers and options.
    pub fn subscriber(&self, name: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(Arc::clone(self.core()), name.into())
    }

    /// Calls `handler` with each event of these types that is published from now on, until the returned handle is dropped. Nothing is
    /// kept for it: an event whose handler fails is not tried again, and faults report it.
    ///
    /// # Errors
    /// `InvalidPattern`; `Thread`; `Stopped`; the transport's.
    pub fn listen<T: EventType>(
        &self,
        pattern: &str,
        handler: impl Fn(&crate::Event<T>) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Listener> {
        let pattern: Pattern = pattern.parse()?;
        if self.core().is_stopped() {
            return Err(Error::Stopped);
        }
        Listener::start(Arc::clone(self.core()), pattern, RawHandler::typed(handler))
    }

    /// Does what is due by the clock: extends leases, and ends handlers that take too long. A bus with the machine's clock does so by
    /// itself.
    pub fn tick(&self) {
        self.core().tick();
    }

    /// Stops receiving, waits up to `limit` for the handlers in progress while their leases are extended, and gives everything else back
    /// as if it had not been delivered. Called in a handler, it does not wait for that one.
    pub fn shutdown(&self, limit: Duration) -> ShutdownReport {
        self.core().shutdown(limit)
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.0
    }
}

/// Says that events were appended to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The ids of the events, in order.
    pub ids: Vec<String>,
    /// The version of the first.
    pub first_version: u64,
    /// The version of the last: what the next append expects, if nobody else appends.
    pub last_version: u64,
}

impl Core {
    pub(crate) fn streams(&self) -> Result<&dyn Streams> {
        self.transport.streams().ok_or(Error::Unsupported { what: "streams" })
    }

    pub(crate) fn append<E: Into<Outgoing>>(
        &self,
        stream: &str,
        expected: Expected,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Appended> {
        let streams = self.streams()?;
        if self.is_stopped() {
            return Err(Error::Stopped);
        }
        let events: Vec<Outgoing> = events.into_iter().map(Into::into).collect();
        let span = Publishing::begin(events.first().and_then(|event| event.attributes.traceparent()));
        let (cause, mut ids) = (context::current(), Vec::new());
        let message = |mut event: Outgoing| {
            let subject = event.attributes.subject.get_or_insert_with(|| stream.to_owned());
            if subject != stream {
                let reason = "another than the stream";
                return Err(Error::InvalidAttribute { attribute: "subject".to_owned(), reason });
            }
            ids.push(event.attributes.id.clone());
            self.prepare(event, cause.as_ref())
        };
        let messages: Vec<WireMessage> = events.into_iter().map(message).collect::<Result<_>>()?;
        span.note(&messages);
        let first_version = streams.append(stream.as_bytes(), expected, &messages)?;
        messages.iter().for_each(observe::published);
        let last_version = first_version + (ids.len() as u64).saturating_sub(1);
        Ok(Appended { ids, first_version, last_version })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The event as a message, with all that it leaves open.
    pub(crate) fn prepare(&self, mut event: Outgoing, cause: Option<&Cause>) -> Result<WireMessage> {
        let attributes = &mut event.attributes;
        if attributes.traceparent.is_none() {
            attributes.traceparent = spans::current_traceparent();
        }
        if let Some(cause) = cause {
            cause.pass_on(attributes);
        }
        if attributes.source.is_empty() {
            attributes.source.clone_from(&self.source);
        }
        attributes.time.get_or_insert_with(|| self.clock.wall().into());
        attributes.correlation_id.get_or_insert_with(|| attributes.id.clone());
        if let (Some(validator), Ok(data), true) = (&self.validator, &event.data, event.attributes.is_json()) {
            let checked = validator.check(&event.attributes.event_type, event.attributes.version, data);
            checked.map_err(Error::Schema)?;
        }
        event.to_message()
    }

    pub(crate) fn require_atomic_ack(&self) -> Result<()> {
        match self.transport.capabilities().atomic_ack {
            true => Ok(()),
            false => Err(Error::Unsupported { what: "publishing together with an ack" }),
        }
    }

    pub(crate) fn fault(&self, fault: &Fault) {
        observe::fault(fault);
        if let Some(on_fault) = &self.on_fault {
            // A hook that panics is the application's, and there is no other place to report it.
            let reported = catch_unwind(AssertUnwindSafe(|| on_fault(fault)));
            reported.unwrap_or_else(|panic| drop(crate::handler::panic_text(panic)));
        }
    }

    /// Adds a subscriber under its name.
    pub(crate) fn add(&self, inner: &Arc<Inner>) -> Result<()> {
        let mut subscribers = self.subscribers.lock();
        if self.is_stopped() {
            return Err(Error::Stopped);
        }
        if subscribers.contains_key(&inner.name) {
            return Err(Error::NameInUse { name: inner.name.clone() });
        }
        subscribers.insert(inner.name.clone(), Arc::clone(inner));
        Ok(())
    }

    pub(crate) fn is_free(&self, name: &str) -> bool {
        !self.subscribers.lock().contains_key(name)
    }

    /// Removes a subscriber, unless its name is another one's by now.
    pub(crate) fn remove(&self, inner: &Inner) {
        let mut subscribers = self.subscribers.lock();
        let is_known = subscribers.get(&inner.name).is_some_and(|known| std::ptr::eq(&**known, inner));
        let removed = is_known.then(|| subscribers.remove(&inner.name));
        // What its handlers hold is dropped without the lock.
        drop(subscribers);
        drop(removed);
    }

    fn all(&self) -> Vec<Arc<Inner>> {
        self.subscribers.lock().values().map(Arc::clone).collect()
    }

    /// Does what is due, and returns how long nothing else is.
    pub(crate) fn tick(&self) -> Duration {
        let now = self.clock.monotonic();
        self.all().iter().map(|inner| inner.tick(now)).min().unwrap_or(Duration::MAX)
    }

    /// Lets every subscriber stop receiving, without waiting. Returns all of them, and how many events each had given back before.
    fn stop(&self) -> Vec<(Arc<Inner>, u64)> {
        // First, so that none is added that is not among all.
        self.stopped.store(true, Ordering::Release);
        let stop = |inner: Arc<Inner>| {
            let released_before = inner.stop();
            inner.leave_bus_if_over();
            (inner, released_before)
        };
        let stopped = self.all().into_iter().map(stop).collect();
        // Handlers in progress still need the timer, which ends with the last of them.
        self.timer.wake();
        stopped
    }

    fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let stopped = self.stop();
        let until = self.clock.monotonic().saturating_add(limit);
        let finish = |(inner, released_before): (Arc<Inner>, u64)| inner.finish(until, released_before);
        let report = stopped.into_iter().map(finish).fold(ShutdownReport::default(), ShutdownReport::and);
        self.timer.wake();
        report
    }

    /// Whether nothing is in progress and nothing can begin.
    pub(crate) fn is_over(&self) -> bool {
        self.is_stopped() && self.all().iter().all(|inner| inner.is_idle())
    }
}
