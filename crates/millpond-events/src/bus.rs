//! The bus: publishing events, and the subscribers and listeners that get them.

use crate::clock::{Clock, SystemClock};
use crate::context::{self, Cause};
use crate::embedded::Embedded;
use crate::error::{Error, Result, SchemaViolation};
use crate::event::{EventType, Outgoing};
use crate::fault::Fault;
use crate::handler::{Failure, Incoming};
use crate::listener::{Listener, RawHandler};
use crate::observe;
use crate::pattern::Pattern;
use crate::subscriber::{ShutdownReport, Subscriber, SubscriberBuilder};
use crate::timer::Timer;
use crate::transport::{Transport, WireMessage};
use crate::worker::Inner;
use millpond::Store;
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

type FaultHook = Box<dyn Fn(&Fault) + Send + Sync>;

/// Ends the bus with its last clone.
struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
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
    source: String,
    on_fault: Option<FaultHook>,
    subscribers: Mutex<BTreeMap<String, Arc<Inner>>>,
    stopped: AtomicBool,
}

/// Opens a bus.
#[must_use = "nothing happens before open"]
pub struct BusBuilder {
    below: Below,
    source: String,
    chain_max: u32,
    clock: Option<Arc<dyn Clock>>,
    validator: Option<Arc<dyn Validator>>,
    validates_received: bool,
    on_fault: Option<FaultHook>,
}

enum Below {
    Store { store: Store, topic: String, partitions: Option<u32> },
    Transport(Arc<dyn Transport>),
}

impl BusBuilder {
    fn new(below: Below) -> Self {
        let source = "/millpond".to_owned();
        Self { below, source, chain_max: 32, clock: None, validator: None, validates_received: false, on_fault: None }
    }

    /// The topic for all events of the bus. Default: `events`. Without effect over a transport of one's own.
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        if let Below::Store { topic, .. } = &mut self.below {
            *topic = name.into();
        }
        self
    }

    /// The number of partitions of a topic that is created. Default: 1. Without effect over a transport of one's own.
    pub fn partitions(mut self, count: u32) -> Self {
        if let Below::Store { partitions, .. } = &mut self.below {
            *partitions = Some(count);
        }
        self
    }

    /// The source of events that name none: a URI reference. Default: `/millpond`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// How many events may stand before one in its chain of causes. One with more before it is dead-lettered by each subscriber.
    /// Default: 32.
    pub fn chain_max(mut self, events: u32) -> Self {
        self.chain_max = events;
        self
    }

    /// A clock of one's own. The bus then starts no timer: call [`Bus::tick`] when the clock was moved.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What checks the data of every event on publish. Default: no check.
    pub fn validator(mut self, validator: Arc<dyn Validator>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Whether subscribers check data too; what breaks a rule is dead-lettered. Default: `false`.
    pub fn validate_received(mut self, validate: bool) -> Self {
        self.validates_received = validate;
        self
    }

    /// Is called with each fault that no call returns: in the thread that met it, which waits for it.
    pub fn on_fault(mut self, on_fault: impl Fn(&Fault) + Send + Sync + 'static) -> Self {
        self.on_fault = Some(Box::new(on_fault));
        self
    }

    /// Opens the bus.
    ///
    /// # Errors
    /// Those of opening the topic; `InvalidAttribute` for an empty source.
    pub fn open(self) -> Result<Bus> {
        if self.source.is_empty() {
            return Err(Error::InvalidAttribute { attribute: "source".to_owned(), reason: "empty" });
        }
        let transport = match self.below {
            Below::Transport(transport) => transport,
            Below::Store { store, topic, partitions } => {
                let mut builder = store.topic(topic);
                if let Some(partitions) = partitions {
                    builder = builder.partitions(partitions);
                }
                Arc::new(Embedded::new(&store, &builder.open()?))
            }
        };
        let timer = Timer::new(self.clock.is_none());
        let core = Core {
            transport,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            chain_max: self.chain_max,
            validator: self.validator,
            validates_received: self.validates_received,
            timer,
            source: self.source,
            on_fault: self.on_fault,
            subscribers: Mutex::default(),
            stopped: AtomicBool::new(false),
        };
        Ok(Bus { handle: Arc::new(Handle(Arc::new(core))) })
    }
}

impl Bus {
    /// Opens a bus over the topic `events` of the store.
    ///
    /// # Errors
    /// Those of opening the topic.
    pub fn open(store: &Store) -> Result<Self> {
        Self::builder(store).open()
    }

    /// Options for a bus over a store.
    pub fn builder(store: &Store) -> BusBuilder {
        BusBuilder::new(Below::Store { store: store.clone(), topic: "events".to_owned(), partitions: None })
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
        self.send(&[self.core().prepare(event, context::current().as_ref())?])?;
        Ok(id)
    }

    /// Publishes events in one step: all, or none.
    ///
    /// # Errors
    /// As [`Bus::publish`], for all together.
    pub fn publish_all<E: Into<Outgoing>>(&self, events: impl IntoIterator<Item = E>) -> Result<Vec<String>> {
        let cause = context::current();
        let mut ids = Vec::new();
        let messages: Result<Vec<WireMessage>> = events
            .into_iter()
            .map(|event| {
                let event = event.into();
                ids.push(event.attributes.id.clone());
                self.core().prepare(event, cause.as_ref())
            })
            .collect();
        self.send(&messages?)?;
        Ok(ids)
    }

    fn send(&self, messages: &[WireMessage]) -> Result<()> {
        if self.core().is_stopped() {
            return Err(Error::Stopped);
        }
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

impl Core {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The event as a message, with all that it leaves open.
    pub(crate) fn prepare(&self, mut event: Outgoing, cause: Option<&Cause>) -> Result<WireMessage> {
        let attributes = &mut event.attributes;
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

    /// Lets every subscriber stop receiving, without waiting.
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        for inner in self.all() {
            inner.stop();
            inner.leave_bus_if_over();
        }
        // Handlers in progress still need the timer, which ends with the last of them.
        self.timer.wake();
    }

    fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let all = self.all();
        self.stop();
        let until = self.clock.monotonic().saturating_add(limit);
        let reports: Vec<_> = all.into_iter().map(|inner| inner.finish(until)).collect();
        // What their handlers hold is dropped without the lock.
        let subscribers = std::mem::take(&mut *self.subscribers.lock());
        drop(subscribers);
        self.timer.wake();
        reports.into_iter().fold(ShutdownReport::default(), ShutdownReport::and)
    }

    /// Whether nothing is in progress and nothing can begin.
    pub(crate) fn is_over(&self) -> bool {
        self.is_stopped() && self.all().iter().all(|inner| inner.is_idle())
    }
}
