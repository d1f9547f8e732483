//! What a bus needs of the queue below it: messages, groups, and how a delivery is settled. No event is known here.

use crate::embedded::Embedded;
use crate::handler::panic_text;
use crate::pattern::Pattern;
use millpond::{Delivery, Expected};
use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A message as it is handed to a transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireMessage {
    /// Messages of one key keep their order.
    pub key: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// A message that can be looked at.
pub trait WireRef {
    /// Calls `each` with the name and value of every header, in order.
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8]));
    /// The bytes.
    fn payload(&self) -> &[u8];
    /// The key, if it has one.
    fn key(&self) -> Option<&[u8]>;
}

impl WireRef for WireMessage {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.headers.iter().for_each(|(name, value)| each(name, value));
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }
}

/// What a transport can do beyond what every one must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A release does not count as an attempt. Without it a shutdown lets leases run out instead.
    pub uncounted_release: bool,
    /// Messages can be published in one step with an ack: both happen, or neither.
    pub atomic_ack: bool,
    /// A settle reports that the lease was lost. Without it the answer is [`Settled::Unknown`].
    pub reports_lost_leases: bool,
    /// There is an [`Inbox`].
    pub inbox: bool,
    /// A group can tell of its dead letters by events: [`GroupOptions::tells_failed`].
    pub tells_failed: bool,
}

/// What became of a call that settles or extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was done.
    Done,
    /// Another consumer has the message or has settled it. Nothing was done.
    Lost,
    /// The transport was asked and gives no answer.
    Unknown,
}

/// How a group is opened.
#[derive(Clone, Debug, Default)]
pub struct GroupOptions {
    /// Messages whose type matches none of these are settled without being delivered. Empty: all are delivered.
    pub patterns: Vec<Pattern>,
    /// How long a lease lasts.
    pub visibility_timeout: Option<Duration>,
    /// After how many attempts a message is dead-lettered; 0 for never.
    pub max_attempts: Option<u32>,
    /// How long a message waits after a failed attempt.
    pub backoff: Option<millpond::Backoff>,
    /// Whether a group that is created begins with the messages of today, not with all that there are.
    pub only_new: bool,
    /// Whether each message that is dead-lettered from now on is told by a message in the same step: an event `event.failed`. `false` keeps
    /// what is stored.
    pub tells_failed: bool,
}

/// A queue with groups. All calls may be made from any thread.
pub trait Transport: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Publishes the messages in one step: all, or none.
    ///
    /// # Errors
    /// The transport's; nothing was published, unless its kind is [`TransportErrorKind::Unknown`].
    fn publish(&self, messages: &[WireMessage]) -> Result<(), TransportError>;

    /// Opens a group, creating it where it does not exist.
    ///
    /// # Errors
    /// The transport's.
    fn group(&self, name: &str, options: &GroupOptions) -> Result<Arc<dyn Source>, TransportError>;

    /// Follows all messages that are published from now on, without a group.
    ///
    /// # Errors
    /// The transport's.
    fn follow(&self) -> Result<Box<dyn Follower>, TransportError>;

    /// The ids that a group has seen: the last `ids` of them, for `window`.
    ///
    /// # Errors
    /// The transport's; of the kind `FixCall` without [`Capabilities::inbox`].
    fn inbox(&self, group: &str, ids: u32, window: Duration) -> Result<Box<dyn Inbox>, TransportError>;

    /// Streams of events, if there are any.
    fn streams(&self) -> Option<&dyn Streams> {
        None
    }

    /// The transport over a store that this one is, or wraps: handlers in transactions need it.
    fn embedded(&self) -> Option<&Embedded> {
        None
    }
}

/// Events of one key each, numbered 0, 1, 2 and so on. They are messages of the transport too: groups get them.
pub trait Streams: Send + Sync {
    /// Appends messages to a stream if its last version is as expected, and publishes them in the same step: all, or none. Their keys are
    /// that of the stream. Returns the version of the first.
    ///
    /// # Errors
    /// Of the kind `Conflict` if the version is another. The transport's; nothing was appended, unless its kind is `Unknown`.
    fn append(&self, stream: &[u8], expected: Expected, messages: &[WireMessage]) -> Result<u64, TransportError>;

    /// Calls `each` with the events from version `from` on, with their versions, until it returns `false`: at most `max`, and fewer only at
    /// the end of the stream. Returns how many it was called with.
    ///
    /// # Errors
    /// The transport's.
    fn read(
        &self,
        stream: &[u8],
        from: u64,
        max: usize,
        each: &mut dyn FnMut(u64, &dyn WireRef) -> bool,
    ) -> Result<usize, TransportError>;

    /// Saves what was made of all events up to `version`.
    ///
    /// # Errors
    /// The transport's.
    fn save_snapshot(&self, stream: &[u8], version: u64, payload: &[u8]) -> Result<(), TransportError>;

    /// The newest snapshot, and its version.
    ///
    /// # Errors
    /// Of the kind `Skip` if it is damaged. The transport's.
    fn snapshot(&self, stream: &[u8]) -> Result<Option<(u64, Vec<u8>)>, TransportError>;
}

/// A group, to receive from. One thread receives at a time.
pub trait Source: Send + Sync {
    /// Leases up to `max` messages, waiting up to `wait` for the first. The order within a key is that of their publish. May return none
    /// before the time is over.
    ///
    /// # Errors
    /// The transport's; no message is lost.
    fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Box<dyn Lease>>, TransportError>;

    /// Ends the wait of a receive in progress, or else of the next one.
    fn wake(&self);

    /// How long a lease lasts.
    fn visibility_timeout(&self) -> Duration;
}

/// One delivery of a message. Dropped unsettled, its message comes back.
pub trait Lease: WireRef + Send {
    /// Which attempt this is, from 1.
    fn attempt(&self) -> u32;
    /// The name of the message, the same at every delivery.
    fn message_id(&self) -> String;
    /// The delivery of a store that this is, or wraps: a transaction acks it.
    fn delivery(&self) -> Option<&Delivery> {
        None
    }
    /// How long ago it was published, as far as the transport knows.
    fn age(&self) -> Option<Duration>;
    /// Lets the lease last this long from now, at least.
    ///
    /// # Errors
    /// The transport's.
    fn extend(&self, duration: Duration) -> Result<Settled, TransportError>;
    /// The work is done. `messages` are published in the same step.
    ///
    /// # Errors
    /// The transport's; of the kind `FixCall` if there are messages, without [`Capabilities::atomic_ack`].
    fn ack(self: Box<Self>, messages: &[WireMessage]) -> Result<Settled, TransportError>;
    /// The work failed. Another attempt follows after `delay`, or the group's backoff; after the last the message is dead-lettered.
    ///
    /// # Errors
    /// The transport's.
    fn retry(self: Box<Self>, delay: Option<Duration>, reason: &str) -> Result<Settled, TransportError>;
    /// The message is dead-lettered now.
    ///
    /// # Errors
    /// The transport's.
    fn reject(self: Box<Self>, reason: &str) -> Result<Settled, TransportError>;
    /// Gives the message back as if it had not been delivered.
    ///
    /// # Errors
    /// The transport's.
    fn release(self: Box<Self>) -> Result<Settled, TransportError>;
}

/// Follows messages without a group.
pub trait Follower: Send {
    /// The next message, waiting up to `wait` for it.
    ///
    /// # Errors
    /// Of the kind `Skip` if messages were gone before they were read: the next call goes on behind them. The transport's.
    fn next(&mut self, wait: Duration, each: &mut dyn FnMut(&dyn WireRef)) -> Result<bool, TransportError>;
}

/// Remembers which message brought an event first.
pub trait Inbox: Send + Sync {
    /// Notes that the message has the event of this id, unless another message had it before.
    ///
    /// # Errors
    /// The transport's.
    fn claim(&self, event: &str, message: &str) -> Result<Claim, TransportError>;
}

/// The answer of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The event belongs to this message: it was not seen before, or in this message only.
    Held,
    /// Another message brought the event before.
    Duplicate,
}

/// What can be done about a [`TransportError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// Change the call. Nothing was done.
    FixCall,
    /// One message is concerned. Go on with the next.
    Skip,
    /// Call again later. Nothing was done.
    Retry,
    /// Another writer came first. Read again and decide again. Nothing was done.
    Conflict,
    /// It was done or it was not.
    Unknown,
    /// Every other call will fail too.
    Stop,
}

/// Calls a transport. A panic in it is an error of the kind `Stop`: what the transport keeps may be broken.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, TransportError>) -> Result<T, TransportError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = format!("the transport panicked: {}", panic_text(panic));
        Err(TransportError::new(TransportErrorKind::Stop, text))
    })
}

/// Why a transport failed.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl TransportError {
    /// An error of this kind.
    pub fn new(kind: TransportErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// What can be done about it.
    #[must_use]
    pub const fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// The store's error, if the transport is the embedded one.
    #[must_use]
    pub fn store_error(&self) -> Option<&millpond::Error> {
        self.source.downcast_ref()
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl From<millpond::Error> for TransportError {
    fn from(error: millpond::Error) -> Self {
        use millpond::ErrorKind;
        let kind = match error.kind() {
            _ if matches!(error, millpond::Error::OutcomeUnknown { .. }) => TransportErrorKind::Unknown,
            ErrorKind::LeaseLost | ErrorKind::Skip => TransportErrorKind::Skip,
            ErrorKind::Retry => TransportErrorKind::Retry,
            ErrorKind::Conflict => TransportErrorKind::Conflict,
            ErrorKind::FixCall => TransportErrorKind::FixCall,
            // The kind may grow: what is not known is no reason to go on.
            ErrorKind::Reopen | ErrorKind::Stop | _ => TransportErrorKind::Stop,
        };
        Self::new(kind, error)
    }
}
