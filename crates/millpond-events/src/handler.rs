//! Handlers: what they are given, how they fail, and how a panic of theirs is caught.

use crate::attributes::Attributes;
use crate::bus::Core;
use crate::cloudevents;
use crate::context;
use crate::error::{DecodeError, Error, Result};
use crate::event::{Event, EventType, Outgoing, RawEvent};
use crate::held::Held;
use crate::pattern::Pattern;
use crate::transacted::Transactor;
use crate::transport::{Lease, TransportError, WireMessage};
use millpond::Transaction;
use parking_lot::Mutex;
use std::any::Any;
use std::fmt::{self, Display};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Why a handler failed, and what follows. Every error type becomes one with `?`, and is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub(crate) next: Next,
    pub(crate) text: String,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another attempt after the backoff of the group.
    Retry,
    /// Another attempt after this time.
    RetryAfter(Duration),
    /// The dead letters.
    Reject,
}

impl Failure {
    /// Another attempt follows after the backoff of the group, until the attempts are used.
    pub fn retry(text: impl Display) -> Self {
        Self { next: Next::Retry, text: text.to_string() }
    }

    /// Another attempt follows after this time, until the attempts are used.
    pub fn retry_after(delay: Duration, text: impl Display) -> Self {
        Self { next: Next::RetryAfter(delay), text: text.to_string() }
    }

    /// No attempt can succeed: the event becomes a dead letter now.
    pub fn permanent(text: impl Display) -> Self {
        Self { next: Next::Reject, text: text.to_string() }
    }

    /// The text, of which a dead letter keeps the first 120 bytes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

// No `Error`: that would contradict the conversion below.
impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// The error of middleware, which may be a [`Failure`].
#[cfg(feature = "tower")]
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure on its way through middleware.
#[cfg(feature = "tower")]
#[derive(Debug)]
struct Passing(Failure);

#[cfg(feature = "tower")]
impl Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "tower")]
impl std::error::Error for Passing {}

/// For middleware that boxes errors: the failure comes out of the box as it was.
#[cfg(feature = "tower")]
impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        Box::new(Passing(failure))
    }
}

#[cfg(feature = "tower")]
impl Failure {
    pub(crate) fn from_boxed(error: BoxError) -> Self {
        match error.downcast::<Passing>() {
            Ok(passing) => passing.0,
            Err(error) => Self::retry(error),
        }
    }
}

/// An event in the hands of a handler. The event itself is read through `Deref`.
pub struct Incoming<T> {
    event: Event<T>,
    delivery: DeliveryInfo,
}

/// An event without a Rust type in the hands of a handler.
pub struct RawIncoming {
    event: RawEvent,
    delivery: DeliveryInfo,
}

/// What a delivery adds to an event.
struct DeliveryInfo {
    core: Arc<Core>,
    attempt: u32,
    held: Arc<Held>,
    /// `None` once the handler has ended: what it publishes then is too late.
    produced: Mutex<Option<Vec<WireMessage>>>,
}

impl DeliveryInfo {
    fn publish(&self, cause: &Arc<Attributes>, event: Outgoing) -> Result<String> {
        let id = event.attributes.id.clone();
        let message = self.core.prepare(event, Some(&context::Cause::from(cause)))?;
        self.produced.lock().as_mut().ok_or(Error::Stopped)?.push(message);
        Ok(id)
    }

    /// The handler has ended.
    fn take_produced(&self) -> Vec<WireMessage> {
        self.produced.lock().take().unwrap_or_default()
    }
}

impl<T> Deref for Incoming<T> {
    type Target = Event<T>;

    fn deref(&self) -> &Event<T> {
        &self.event
    }
}

impl Deref for RawIncoming {
    type Target = RawEvent;

    fn deref(&self) -> &RawEvent {
        &self.event
    }
}

macro_rules! incoming {
    ($($generics:tt)*) => {
        /// Which attempt this is, from 1.
        pub const fn attempt(&self) -> u32 {
            self.delivery.attempt
        }

        /// The name of the message that brought the event, the same at every attempt and after a redrive: for an inbox, such as that of
        /// millpond-sqlite. Over a store it is a [`millpond::MessageId`] as text.
        ///
        /// # Errors
        /// `Stopped` once the handler has returned, or took too long.
        pub fn message_id(&self) -> Result<String> {
            let lease = self.delivery.held.lease.lock();
            lease.as_ref().map(|lease| lease.message_id()).ok_or(Error::Stopped)
        }

        /// Publishes an event together with the ack of this one, if the handler returns `Ok`: both happen, or neither, whatever crashes.
        /// The event continues the correlation of this one. Returns its id.
        ///
        /// # Errors
        /// As [`Bus::publish`](crate::Bus::publish); `Unsupported` if the transport cannot do this.
        pub fn publish(&self, event: impl Into<Outgoing>) -> Result<String> {
            self.delivery.core.require_atomic_ack()?;
            self.delivery.publish(&self.event.attributes, event.into())
        }
    };
}

impl<T> Incoming<T> {
    incoming!();

    /// The handler has ended.
    pub(crate) fn take_produced(&self) -> Vec<WireMessage> {
        self.delivery.take_produced()
    }
}

impl RawIncoming {
    incoming!();
}

/// Why there is no result of a handler.
#[derive(Debug)]
pub(crate) enum Unhandled {
    Decode(DecodeError),
    Failed(Failure),
    Panicked(String),
    /// Another message brought the event before.
    Duplicate,
    /// It is not known whether another message did.
    Inbox(TransportError),
}

/// What a handler is run with.
pub(crate) struct Work<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) subscriber: &'a str,
    pub(crate) attributes: &'a Arc<Attributes>,
    /// The data, if it is not the payload of the lease.
    pub(crate) data: Option<&'a [u8]>,
    /// Without a lease once another thread settled the event.
    pub(crate) held: &'a Arc<Held>,
    /// What a handler in transactions needs.
    pub(crate) transactor: Option<&'a Transactor>,
}

impl Work<'_> {
    pub(crate) fn with_data<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        // Copied: what is read by code of the application must not hold up the timer, which extends the lease.
        let payload = || self.held.lease.lock().as_ref().map_or_else(Vec::new, |lease| lease.payload().to_vec());
        match self.data {
            Some(data) => read(data),
            None => read(&payload()),
        }
    }

    /// The event as a handler gets it.
    pub(crate) fn incoming<T>(&self, event: Event<T>) -> Incoming<T> {
        Incoming { event, delivery: self.delivery() }
    }

    fn delivery(&self) -> DeliveryInfo {
        let (core, held) = (Arc::clone(self.core), Arc::clone(self.held));
        DeliveryInfo { core, attempt: held.attempt, held, produced: Mutex::new(Some(Vec::new())) }
    }
}

type Handle = dyn Fn(&Work<'_>) -> Result<Vec<WireMessage>, Unhandled> + Send + Sync;

/// A handler, and the types of events that it is for.
pub(crate) struct Handler {
    pub(crate) pattern: Pattern,
    pub(crate) is_transacted: bool,
    handle: Box<Handle>,
}

impl Handler {
    pub(crate) fn new(
        pattern: Pattern,
        handle: impl Fn(&Work<'_>) -> Result<Vec<WireMessage>, Unhandled> + Send + Sync + 'static,
    ) -> Self {
        Self { pattern, is_transacted: false, handle: Box::new(handle) }
    }

    pub(crate) fn typed<T: EventType>(
        pattern: Pattern,
        handle: impl Fn(&Incoming<T>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        let handle = move |work: &Work<'_>| {
            let data = work.with_data(|data| work.attributes.decode::<T>(data)).map_err(Unhandled::Decode)?;
            let event = Event::received(work.attributes.clone(), data);
            let incoming = work.incoming(event);
            handle(&incoming).map_err(Unhandled::Failed)?;
            Ok(incoming.take_produced())
        };
        Self::new(pattern, handle)
    }

    pub(crate) fn transacted<T: EventType>(
        pattern: Pattern,
        handle: impl Fn(&mut Transaction<'_>, &Incoming<T>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        let handle = move |work: &Work<'_>| {
            let data = work.with_data(|data| work.attributes.decode::<T>(data)).map_err(Unhandled::Decode)?;
            let event = Event::received(work.attributes.clone(), data);
            let incoming = work.incoming(event);
            let transactor = work.transactor.ok_or(Unhandled::Failed(Error::NO_TRANSACTIONS.into()))?;
            transactor.run(work, |tx| {
                handle(tx, &incoming).map_err(Unhandled::Failed)?;
                Ok(incoming.take_produced())
            })
        };
        Self { is_transacted: true, ..Self::new(pattern, handle) }
    }

    pub(crate) fn raw(
        pattern: Pattern,
        handle: impl Fn(&RawIncoming) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        let handle = move |work: &Work<'_>| {
            let event = RawEvent::received(work.attributes.clone(), work.with_data(<[u8]>::to_vec));
            let incoming = RawIncoming { event, delivery: work.delivery() };
            handle(&incoming).map_err(Unhandled::Failed)?;
            Ok(incoming.delivery.take_produced())
        };
        Self::new(pattern, handle)
    }

    /// Runs it. Publishes in it continue the correlation of the event.
    pub(crate) fn run(&self, work: &Work<'_>) -> Result<Vec<WireMessage>, Unhandled> {
        let _inside = context::enter(context::Cause::from(work.attributes));
        (self.handle)(work)
    }
}

/// What a panic says, if it is text. What it carries is dropped here, and may panic again.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no text".to_owned(),
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // One that panics whenever it is dropped is left where it is.
        std::mem::forget(again);
    }
    text
}

/// Drops what the application made. A panic of it does not end the thread, which may be the timer's.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        drop(panic_text(panic));
    }
}

/// The event that a lease has.
pub(crate) fn read_event(lease: &dyn Lease) -> Result<(Arc<Attributes>, Option<Vec<u8>>), DecodeError> {
    cloudevents::read(lease).map(|(attributes, data)| (Arc::new(attributes), data))
}
