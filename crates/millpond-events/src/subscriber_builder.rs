//! Options of a subscriber, and its start.

use crate::breaker::BreakerOptions;
use crate::bus::Core;
use crate::error::{DecodeError, Error, Result};
use crate::event::EventType;
use crate::handler::{Failure, Handler, Incoming, RawIncoming};
use crate::inbox::Size;
use crate::pattern::Pattern;
use crate::subscriber::Subscriber;
use crate::timer::Timer;
use crate::transacted::Transactor;
use crate::transport::GroupOptions;
use crate::worker::Inner;
use millpond::{Backoff, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// What becomes of an event whose type or version a handler's Rust type does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It becomes a dead letter, and can be redriven once the code knows it. The default.
    #[default]
    Reject,
    /// It is settled.
    Skip,
}

impl Unknown {
    pub(crate) const fn skips(self, error: &DecodeError) -> bool {
        let is_unknown = matches!(error, DecodeError::UnknownType { .. } | DecodeError::UnknownVersion { .. });
        is_unknown && matches!(self, Self::Skip)
    }
}

pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) breaker: Option<BreakerOptions>,
    pub(crate) unknown: Unknown,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    inbox: Option<Size>,
    group: GroupOptions,
}

/// Gives a subscriber handlers and options.
#[must_use = "nothing happens before start or open"]
pub struct SubscriberBuilder {
    core: Arc<Core>,
    name: String,
    options: Options,
    handlers: Vec<Handler>,
    invalid: Option<Error>,
}

impl SubscriberBuilder {
    pub(crate) fn new(core: Arc<Core>, name: String) -> Self {
        let options = Options {
            workers: 1,
            timeout: None,
            breaker: None,
            unknown: Unknown::default(),
            #[cfg(feature = "tokio")]
            runtime: None,
            inbox: None,
            // Given always, so that leases are extended by what is stored.
            group: GroupOptions { visibility_timeout: Some(Duration::from_secs(30)), ..GroupOptions::default() },
        };
        Self { core, name, options, handlers: Vec::new(), invalid: None }
    }

    /// Adds a handler for events of these types. An event goes to the first handler whose pattern matches.
    pub fn on<T: EventType>(
        self,
        pattern: &str,
        handler: impl Fn(&Incoming<T>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        self.add(pattern, |pattern| Handler::typed(pattern, handler))
    }

    /// Adds a handler whose effects in the store are one write with the ack of the event: publishes to other topics of the store, appends to
    /// streams, cursors, and what [`Incoming::publish`] collects. After any crash all of it is there and the event is settled, or nothing
    /// of it and the event comes again.
    ///
    /// The handler only collects; the transaction is carried out when it has returned `Ok`, durable at the store's level or that of
    /// [`Transaction::durability`]. What it does elsewhere may happen again. If the transaction is refused, by a stream that has another
    /// version for example, the attempt has failed with that error. With an [`inbox`](Self::inbox) the id of the event is in the same
    /// write: whichever messages bring the event, its effects happen once within the window.
    ///
    /// ```
    /// # use millpond::{Durability, Store};
    /// # use millpond_events::{Bus, Encoded, EventType, Incoming, Variant, json};
    /// # use std::time::Duration;
    /// # struct Placed(u32);
    /// # impl EventType for Placed {
    /// #     const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.placed", 1, |data| json(data).map(Self))];
    /// #     fn encode(&self) -> Encoded { Encoded::json("order.placed", 1, &self.0) }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let (bus, bills) = (Bus::open(&store)?, store.topic("bills").open()?);
    /// let billing = bus
    ///     .subscriber("billing")
    ///     .inbox(100_000, Duration::from_secs(7 * 86_400))
    ///     .on_transaction("order.placed", move |tx, order: &Incoming<Placed>| {
    ///         tx.publish(&bills, format!("{} euros", order.data().0))?;
    ///         Ok(())
    ///     })
    ///     .open()?;
    /// bus.publish(Placed(12))?;
    /// billing.drain()?;
    /// # assert_eq!(billing.stats().handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_transaction<T: EventType>(
        self,
        pattern: &str,
        handler: impl Fn(&mut Transaction<'_>, &Incoming<T>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        self.add(pattern, |pattern| Handler::transacted(pattern, handler))
    }

    /// Adds a handler for events of these types that gets the data as bytes.
    pub fn on_raw(
        self,
        pattern: &str,
        handler: impl Fn(&RawIncoming) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        self.add(pattern, |pattern| Handler::raw(pattern, handler))
    }

    /// Adds a handler that is a future. A worker polls it in its own thread, without a runtime, and drops it when it takes longer than
    /// [`timeout`](Self::timeout): so many futures are in progress as there are [`workers`](Self::workers). Timers and sockets of tokio
    /// work if the subscriber has its runtime (`runtime`, feature `tokio`).
    pub fn on_async<T: EventType, F: Future<Output = Result<(), Failure>>>(
        self,
        pattern: &str,
        handler: impl Fn(Arc<Incoming<T>>) -> F + Send + Sync + 'static,
    ) -> Self {
        self.add(pattern, |pattern| Handler::future(pattern, handler))
    }

    /// Adds a handler that is a service of [`tower_service`], with any middleware around it. Each event is a request to a clone of the
    /// service, which a worker polls as a future of [`on_async`](Self::on_async): first until it is ready, and then for the response. The
    /// lease is extended meanwhile, and [`timeout`](Self::timeout) counts both. An error is another attempt; a [`Failure`] that middleware
    /// passes on, boxed or not, is what it was.
    ///
    /// ```
    /// # use millpond::Store;
    /// # use millpond_events::{Bus, Encoded, EventType, Failure, Incoming, Variant, json};
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # struct Placed(u32);
    /// # impl EventType for Placed {
    /// #     const VARIANTS: &'static [Variant<Self>] = &[Variant::new("order.placed", 1, |data| json(data).map(Self))];
    /// #     fn encode(&self) -> Encoded { Encoded::json("order.placed", 1, &self.0) }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let bus = Bus::open(&Store::open(directory.path().join("data"))?)?;
    /// let cook = tower::service_fn(async |order: Arc<Incoming<Placed>>| match order.data() {
    ///     Placed(0) => Err(Failure::permanent("nothing to cook")),
    ///     Placed(_) => Ok(()),
    /// });
    /// let guarded = tower::ServiceBuilder::new().map_err(|failure: Failure| failure).service(cook);
    /// let kitchen = bus.subscriber("kitchen").on_service("order.placed", guarded).open()?;
    /// bus.publish(Placed(2))?;
    /// kitchen.drain()?;
    /// assert_eq!(kitchen.stats().handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tower")]
    pub fn on_service<T: EventType, S>(self, pattern: &str, service: S) -> Self
    where
        S: tower_service::Service<Arc<Incoming<T>>, Response = ()> + Clone + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.add(pattern, |pattern| Handler::service(pattern, service))
    }

    /// Lets handlers run in the context of a tokio runtime: futures may use its timers and sockets, and every handler may spawn tasks on it.
    /// Workers still poll in their own threads, so a handler that blocks does not hold up the runtime. A runtime with one thread must be
    /// driven elsewhere. If it was shut down, a handler that uses it panics, which is a failed attempt. Default: no runtime.
    #[cfg(feature = "tokio")]
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.options.runtime = Some(runtime);
        self
    }

    fn add(mut self, pattern: &str, handler: impl FnOnce(Pattern) -> Handler) -> Self {
        match pattern.parse::<Pattern>() {
            Ok(pattern) => self.handlers.push(handler(pattern)),
            Err(error) => self.invalid = self.invalid.or(Some(error)),
        }
        self
    }

    /// How many threads handle events. Default: 1. Range: 1 to 1,024.
    pub const fn workers(mut self, workers: usize) -> Self {
        self.options.workers = workers;
        self
    }

    /// How long a lease lasts, and so how long an event of a process that died waits. Leases are extended while handlers run. Default:
    /// 30 s. A group that exists must have the same.
    pub const fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.options.group.visibility_timeout = Some(timeout);
        self
    }

    /// How many attempts an event gets before it becomes a dead letter. Default: what is stored, or 5.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.group.max_attempts = Some(attempts);
        self
    }

    /// How long an event waits after a failed attempt. Default: what is stored, or [`Backoff::default`].
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.group.backoff = Some(backoff);
        self
    }

    /// A group that is created begins with the events that are published from now on. Default: with all that there are.
    pub const fn only_new(mut self) -> Self {
        self.options.group.only_new = true;
        self
    }

    /// How long a handler may take. Then its attempt has failed, and what it returns later does not count. Its thread is replaced,
    /// while not more than 64 are kept by such handlers: no thread can be ended from outside. Default: no limit.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Stops receiving for a while after failures in a row. Default: never.
    pub const fn breaker(mut self, options: BreakerOptions) -> Self {
        self.options.breaker = Some(options);
        self
    }

    /// What becomes of events of an unknown type or version. Default: [`Unknown::Reject`].
    pub const fn unknown(mut self, unknown: Unknown) -> Self {
        self.options.unknown = unknown;
        self
    }

    /// Remembers the last `ids` events for `window`: one that is published twice under one id and source is handled in one of the two
    /// messages only. For handlers of [`on_transaction`](Self::on_transaction) it also remembers which events were processed, in the write
    /// of their effects. Both numbers are fixed when the subscriber is first opened with an inbox. Default: no inbox.
    ///
    /// The memories are the topics `TOPIC.NAME.inbox` and `TOPIC.NAME.processed`, with the limits of
    /// [`TopicBuilder::dedup_ids`](millpond::TopicBuilder::dedup_ids) and
    /// [`TopicBuilder::dedup_window`](millpond::TopicBuilder::dedup_window). They outlive the group.
    pub const fn inbox(mut self, ids: u32, window: Duration) -> Self {
        self.options.inbox = Some((ids, window));
        self
    }

    /// Publishes an event `event.failed` for each event that becomes a dead letter of this subscriber from now on, in the step of the move:
    /// after any crash both are there, or neither. Its data is [`EventFailed`](crate::EventFailed), and any subscriber of the bus may handle
    /// it. One that becomes a dead letter itself is not told. Default: what is stored, or no event.
    pub const fn tell_failed(mut self) -> Self {
        self.options.group.tells_failed = true;
        self
    }

    /// Starts it with its threads.
    ///
    /// # Errors
    /// `InvalidPattern`; `InvalidOption`; `NameInUse`; `Thread`; `Stopped`; `Unsupported` if the transport cannot do what an option or a
    /// handler needs; those of opening the group.
    pub fn start(self) -> Result<Subscriber> {
        let workers = self.options.workers;
        let subscriber = self.open()?;
        subscriber.inner.state.lock().wanted = workers;
        subscriber.inner.spawn_missing().inspect_err(|_| {
            subscriber.inner.stop();
            subscriber.inner.core.remove(&subscriber.inner);
        })?;
        Ok(subscriber)
    }

    /// Opens it without threads: [`Subscriber::drain`] handles events.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::start`].
    pub fn open(mut self) -> Result<Subscriber> {
        if let Some(error) = self.invalid.take() {
            return Err(error);
        }
        self.check()?;
        let core = self.core;
        if !core.is_free(&self.name) {
            return Err(Error::NameInUse { name: self.name });
        }
        if self.options.group.tells_failed && !core.transport.capabilities().tells_failed {
            return Err(Error::Unsupported { what: "events of dead letters" });
        }
        self.options.group.patterns = self.handlers.iter().map(|handler| handler.pattern.clone()).collect();
        let source = core.transport.group(&self.name, &self.options.group)?;
        let inbox = match self.options.inbox {
            Some(_) if !core.transport.capabilities().inbox => return Err(Error::Unsupported { what: "an inbox" }),
            Some((ids, window)) => Some(core.transport.inbox(&self.name, ids, window)?),
            None => None,
        };
        let transactor = match core.transport.embedded() {
            _ if !self.handlers.iter().any(|handler| handler.is_transacted) => None,
            Some(embedded) => Some(Transactor::new(embedded, &self.name, self.options.inbox)?),
            None => return Err(Error::NO_TRANSACTIONS),
        };
        let inner = Inner::new(Arc::clone(&core), self.name, self.options, self.handlers, source, inbox, transactor);
        let inner = Arc::new(inner);
        core.add(&inner)?;
        // Leases are extended, and handlers timed out, however events are handled.
        Timer::start(&core).inspect_err(|_| {
            inner.stop();
            core.remove(&inner);
        })?;
        core.timer.wake();
        Ok(Subscriber { inner })
    }

    fn check(&self) -> Result<()> {
        let Options { workers, timeout, breaker, group, .. } = &self.options;
        let invalid = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if self.handlers.is_empty() {
            return invalid("on", "missing".to_owned(), "a handler");
        }
        if !(1..=1024).contains(workers) {
            return invalid("workers", workers.to_string(), "1 to 1,024");
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return invalid("timeout", "0 s".to_owned(), "more than nothing");
        }
        if breaker.is_some_and(|breaker| breaker.failures == 0) {
            return invalid("breaker.failures", "0".to_owned(), "at least 1");
        }
        if group.visibility_timeout.is_some_and(|timeout| timeout < Duration::from_millis(3)) {
            return invalid("visibility_timeout", format!("{:?}", group.visibility_timeout), "at least 3 ms");
        }
        Ok(())
    }
}
