//! The transport over a millpond store: one topic for all events, a group for each subscriber.
//!
//! Where a group's patterns are short enough for a filter it has one, so that what it does not want never reaches it. What comes all the same
//! (by the filter before, or without one) is acked in runs: a receive asks for twice as many messages each time that it found none to
//! deliver.

use crate::cloudevents::TYPE_HEADER;
use crate::failed::{self, EVENT_FAILED, NOTICE_HEADER};
use crate::inbox::{EmbeddedInbox, Memory};
use crate::pattern::Pattern;
use crate::transport::{
    Capabilities, Follower, GroupOptions, Inbox, Lease, Settled, Source, Streams, Transport, TransportError,
    WireMessage, WireRef,
};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use millpond::limits::FILTER_LEN_MAX;
use millpond::{
    Batch, Delivery, DeliveryRef, Durability, Error, Expected, Group, GroupBuilder, LogMessage, LogReader, Message,
    Start, Store, Subscription, Topic,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The most messages that are looked at in one receive for those that a group wants.
const SKIM_MAX: usize = 256;
/// The longest delay that the engine takes: ten years.
const DELAY_MAX: Duration = Duration::from_millis(millpond::limits::DURATION_MS_MAX);

/// A [`Transport`] over a topic of a store.
#[derive(Clone)]
pub struct Embedded {
    store: Store,
    topic: Topic,
    has_streams: bool,
    now: fn() -> SystemTime,
}

impl Embedded {
    /// The transport over this topic.
    #[must_use]
    pub fn new(store: &Store, topic: &Topic) -> Self {
        let has_streams = topic.stream("any").is_ok();
        Self { store: store.clone(), topic: topic.clone(), has_streams, now: crate::clock::wall }
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) const fn topic(&self) -> &Topic {
        &self.topic
    }
}

impl Transport for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            uncounted_release: true,
            atomic_ack: true,
            reports_lost_leases: true,
            inbox: true,
            tells_failed: true,
        }
    }

    fn publish(&self, messages: &[WireMessage]) -> Result<(), TransportError> {
        match messages {
            [message] => self.topic.publish(borrowed(message)).map(drop)?,
            messages => self.topic.publish_batch(messages.iter().map(borrowed)).map(drop)?,
        }
        Ok(())
    }

    fn group(&self, name: &str, options: &GroupOptions) -> Result<Arc<dyn Source>, TransportError> {
        let mut builder = self.topic.group(name);
        if let Some(timeout) = options.visibility_timeout {
            builder = builder.visibility_timeout(timeout);
        }
        if let Some(attempts) = options.max_attempts {
            builder = builder.max_attempts(attempts);
        }
        if let Some(backoff) = options.backoff {
            builder = builder.backoff(backoff);
        }
        if options.tells_failed {
            builder = builder.dead_letter_notices(&self.topic);
        }
        if options.only_new {
            builder = builder.start(Start::Latest);
        }
        let (stop, stopped) = bounded(1);
        Ok(Arc::new(EmbeddedSource {
            transport: self.clone(),
            group: open(builder, filter_of(&options.patterns).as_deref())?,
            patterns: options.patterns.clone(),
            // The engine's default, which holds where no other is stored: another that is stored is refused unless it is given.
            visibility_timeout: options.visibility_timeout.unwrap_or(Duration::from_secs(30)),
            receiving: Mutex::new(Receiving { subscription: None, skim: 1 }),
            stop,
            stopped,
        }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, TransportError> {
        Ok(Box::new(EmbeddedFollower(self.topic.reader().from_end().open()?)))
    }

    fn inbox(&self, group: &str, ids: u32, window: Duration) -> Result<Box<dyn Inbox>, TransportError> {
        let memory = Memory::of_claims(&self.store, &self.topic, group, (ids, window))?;
        Ok(Box::new(EmbeddedInbox::new(memory)))
    }

    fn embedded(&self) -> Option<&Embedded> {
        Some(self)
    }

    fn streams(&self) -> Option<&dyn Streams> {
        self.has_streams.then_some(self)
    }
}

impl Streams for Embedded {
    fn append(&self, stream: &[u8], expected: Expected, messages: &[WireMessage]) -> Result<u64, TransportError> {
        let events = messages.iter().map(|message| with_headers(Message::new(message.payload.as_slice()), message));
        Ok(self.topic.stream(stream)?.append(expected, events)?.first_version())
    }

    fn read(
        &self,
        stream: &[u8],
        from: u64,
        max: usize,
        each: &mut dyn FnMut(u64, &dyn WireRef) -> bool,
    ) -> Result<usize, TransportError> {
        let events = self.topic.stream(stream)?.read(from, max)?;
        let refused = events.iter().position(|event| !each(event.version(), event));
        Ok(refused.map_or(events.len(), |nth| nth + 1))
    }

    fn save_snapshot(&self, stream: &[u8], version: u64, payload: &[u8]) -> Result<(), TransportError> {
        Ok(self.topic.stream(stream)?.save_snapshot(version, payload)?)
    }

    fn snapshot(&self, stream: &[u8]) -> Result<Option<(u64, Vec<u8>)>, TransportError> {
        let found = self.topic.stream(stream)?.snapshot()?;
        Ok(found.map(|snapshot| (snapshot.version(), snapshot.payload().to_vec())))
    }
}

impl WireRef for millpond::Event {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.headers().for_each(|(name, value)| each(name, value));
    }

    fn payload(&self) -> &[u8] {
        self.payload()
    }

    fn key(&self) -> Option<&[u8]> {
        None
    }
}

pub(crate) fn borrowed(message: &WireMessage) -> Message<'_> {
    let mut copy = Message::new(message.payload.as_slice());
    if let Some(key) = &message.key {
        copy = copy.key(key.as_slice());
    }
    with_headers(copy, message)
}

fn with_headers<'m>(copy: Message<'m>, message: &'m WireMessage) -> Message<'m> {
    message.headers.iter().fold(copy, |copy, (name, value)| copy.header(&**name, value.as_slice()))
}

/// Opens the group with this filter. Where it has another one, as by the patterns before, it goes on with this.
fn open(builder: GroupBuilder, filter: Option<&str>) -> millpond::Result<Group> {
    match builder.clone().filter(filter).open() {
        Err(Error::OptionMismatch { option: "filter", .. }) => {
            let group = builder.open()?;
            group.alter().filter_from_here(filter).apply()?;
            Ok(group)
        }
        opened => opened,
    }
}

/// The filter that passes what [`EmbeddedSource::wants`] wants; `None` where that is everything, or the filter would be too long.
fn filter_of(patterns: &[Pattern]) -> Option<String> {
    let texts: BTreeSet<&str> = patterns.iter().map(Pattern::as_str).collect();
    if texts.is_empty() || texts.contains(">") {
        return None;
    }
    let mut filter = format!("not {TYPE_HEADER} exists and not {NOTICE_HEADER} exists");
    if patterns.iter().any(|pattern| pattern.matches(EVENT_FAILED)) {
        filter.push_str(&format!(" or {NOTICE_HEADER} exists"));
    }
    for text in texts {
        filter.push_str(&format!(" or {TYPE_HEADER} matches '{}'", text.replace('\'', "''")));
    }
    (filter.len() <= FILTER_LEN_MAX).then_some(filter)
}

struct EmbeddedSource {
    transport: Embedded,
    group: Group,
    patterns: Vec<Pattern>,
    visibility_timeout: Duration,
    receiving: Mutex<Receiving>,
    stop: Sender<()>,
    stopped: Receiver<()>,
}

struct Receiving {
    /// Made by a receive that waits, and ended by a wait that brings nothing. Nothing is requested outside of a wait.
    subscription: Option<Subscription>,
    /// How many messages the next receive looks at, at least.
    skim: usize,
}

impl Source for EmbeddedSource {
    fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Box<dyn Lease>>, TransportError> {
        let mut receiving = self.receiving.lock();
        let mut first = None;
        loop {
            let (found, seen) = self.skim(&mut receiving, max, first.take())?;
            if !found.is_empty() || seen > 0 && self.stopped.try_recv().is_ok() {
                return Ok(found);
            }
            if seen > 0 {
                continue;
            }
            if wait.is_zero() {
                return Ok(found);
            }
            first = self.wait(&mut receiving, wait)?;
            if first.is_none() {
                return Ok(found);
            }
        }
    }

    fn wake(&self) {
        // A full channel holds a wake already.
        let _ = self.stop.try_send(());
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }
}

impl EmbeddedSource {
    fn wait(&self, receiving: &mut Receiving, wait: Duration) -> Result<Option<Delivery>, TransportError> {
        let subscription = match &mut receiving.subscription {
            Some(subscription) => subscription,
            none => none.insert(self.group.subscribe()?),
        };
        let delivery = select! {
            recv(subscription.request()) -> delivery => Some(delivery),
            recv(self.stopped) -> _ => None,
            default(wait) => None,
        };
        match delivery {
            Some(Ok(delivery)) => Ok(Some(delivery?)),
            Some(Err(_)) => Err(Error::Closed.into()),
            None => {
                // What was requested and not taken goes back, and no later receive overtakes it.
                receiving.subscription = None;
                Ok(None)
            }
        }
    }

    /// Receives without waiting, after `first`, and settles what is not wanted. Returns the rest, and how many messages there were.
    fn skim(
        &self,
        receiving: &mut Receiving,
        max: usize,
        first: Option<Delivery>,
    ) -> Result<(Vec<Box<dyn Lease>>, usize), TransportError> {
        let more = max.max(receiving.skim).saturating_sub(usize::from(first.is_some()));
        let batch = match self.group.receive_batch(more, Duration::ZERO) {
            Ok(batch) => Some(batch),
            // Whatever it is, the next receive reports it if it lasts.
            Err(_) if first.is_some() => None,
            Err(error) => return Err(error.into()),
        };
        let seen = usize::from(first.is_some()) + batch.as_ref().map_or(0, Batch::len);
        let found = match batch {
            Some(batch) if first.is_none() && !batch.iter().any(|delivery| self.wants(delivery)) => {
                // A lease that was lost is another consumer's, and that one settles it.
                let _lost = batch.ack()?;
                Vec::new()
            }
            batch => self.sort(first.into_iter().chain(batch.into_iter().flatten()).collect()),
        };
        receiving.skim = if found.is_empty() && seen > 0 { (receiving.skim * 2).min(SKIM_MAX) } else { 1 };
        Ok((found, seen))
    }

    fn wants(&self, delivery: DeliveryRef<'_>) -> bool {
        // A message without a type is delivered: the bus decides what becomes of it.
        let Some(event_type) = failed::type_of(|name| delivery.header(name)) else { return true };
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    /// Settles in one write what is not wanted, and returns the rest.
    fn sort(&self, deliveries: Vec<Delivery>) -> Vec<Box<dyn Lease>> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| self.wants(DeliveryRef::from(delivery)));
        if !unwanted.is_empty() {
            let settled = self.transport.store.transaction(|tx| {
                tx.durability(Durability::Os);
                unwanted.iter().try_for_each(|delivery| tx.ack(delivery))
            });
            if settled.is_err() {
                // One lost lease keeps all from being settled together. What cannot be settled alone comes back.
                unwanted.into_iter().for_each(|delivery| drop(delivery.release()));
            }
        }
        let lease = |delivery| {
            let notice = failed::from_notice(&Delivered(&delivery));
            let lease = EmbeddedLease { transport: self.transport.clone(), delivery, notice };
            Box::new(lease) as Box<dyn Lease>
        };
        wanted.into_iter().map(lease).collect()
    }
}

struct EmbeddedLease {
    transport: Embedded,
    delivery: Delivery,
    /// The event that the message is, if it is a notice of the engine.
    notice: Option<WireMessage>,
}

impl WireRef for EmbeddedLease {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        match &self.notice {
            Some(notice) => notice.each_header(each),
            None => Delivered(&self.delivery).each_header(each),
        }
    }

    fn payload(&self) -> &[u8] {
        self.notice.as_ref().map_or_else(|| self.delivery.payload(), |notice| &notice.payload)
    }

    fn key(&self) -> Option<&[u8]> {
        self.delivery.key()
    }
}

/// The message of a delivery as it is.
struct Delivered<'d>(&'d Delivery);

impl WireRef for Delivered<'_> {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.0.headers().for_each(|(name, value)| each(name, value));
    }

    fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }
}

impl Lease for EmbeddedLease {
    fn attempt(&self) -> u32 {
        self.delivery.attempt()
    }

    fn message_id(&self) -> String {
        self.delivery.origin().to_string()
    }

    fn delivery(&self) -> Option<&Delivery> {
        Some(&self.delivery)
    }

    fn age(&self) -> Option<Duration> {
        (self.transport.now)().duration_since(self.delivery.timestamp()).ok()
    }

    fn extend(&self, duration: Duration) -> Result<Settled, TransportError> {
        settled(self.delivery.extend(duration))
    }

    fn ack(self: Box<Self>, messages: &[WireMessage]) -> Result<Settled, TransportError> {
        if messages.is_empty() {
            return settled(self.delivery.ack());
        }
        let Self { transport, delivery, .. } = *self;
        let done = transport.store.transaction(|tx| {
            tx.ack(&delivery)?;
            messages.iter().try_for_each(|message| tx.publish(&transport.topic, borrowed(message)).map(drop))
        });
        match done {
            // What is known to have changed nothing is a failed attempt, and its history says why.
            Err(error) if !matches!(error, Error::LeaseLost { .. } | Error::OutcomeUnknown { .. }) => {
                delivery.nack(&error).map_err(TransportError::from)?;
                Err(error.into())
            }
            done => settled(done.map(drop)),
        }
    }

    fn retry(self: Box<Self>, delay: Option<Duration>, reason: &str) -> Result<Settled, TransportError> {
        settled(match delay {
            Some(delay) => self.delivery.nack_after(delay.min(DELAY_MAX), reason),
            None => self.delivery.nack(reason),
        })
    }

    fn reject(self: Box<Self>, reason: &str) -> Result<Settled, TransportError> {
        settled(self.delivery.reject(reason))
    }

    fn release(self: Box<Self>) -> Result<Settled, TransportError> {
        settled(self.delivery.release())
    }
}

fn settled(done: millpond::Result<()>) -> Result<Settled, TransportError> {
    match done {
        Ok(()) => Ok(Settled::Done),
        Err(Error::LeaseLost { .. }) => Ok(Settled::Lost),
        Err(error) => Err(error.into()),
    }
}

struct EmbeddedFollower(LogReader);

impl WireRef for LogMessage {
    fn each_header(&self, each: &mut dyn FnMut(&str, &[u8])) {
        self.headers().for_each(|(name, value)| each(name, value));
    }

    fn payload(&self) -> &[u8] {
        self.payload()
    }

    fn key(&self) -> Option<&[u8]> {
        self.key()
    }
}

impl Follower for EmbeddedFollower {
    fn next(&mut self, wait: Duration, each: &mut dyn FnMut(&dyn WireRef)) -> Result<bool, TransportError> {
        let Some(message) = self.0.next(wait)? else { return Ok(false) };
        match failed::from_notice(&message) {
            Some(notice) => each(&notice),
            None => each(&message),
        }
        Ok(true)
    }
}
