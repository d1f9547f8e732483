//! Handlers whose effects in the store are one write with the ack of their event.
//!
//! The transaction has the ack of the event, the id of the event for the memory of processed events, what the handler asked for, and what
//! it published through its event. The lease is taken for the commit alone: until then the timer extends it.

use crate::embedded::{Embedded, borrowed};
use crate::handler::{Failure, Unhandled, Work};
use crate::inbox::{Memory, Size};
use crate::observe;
use crate::spans;
use crate::transport::{Lease, Settled, TransportError, WireMessage};
use millpond::{Committed, Error, Message, Transaction};
use std::cell::OnceCell;
use std::time::Duration;
use uuid::Uuid;

/// What the transactions of a subscriber are made with.
pub(crate) struct Transactor {
    embedded: Embedded,
    /// The events that were processed, if the subscriber has an inbox.
    processed: Option<Memory>,
}

/// How a transaction settled its event.
pub(crate) struct TransactionEnd {
    pub(crate) settled: Result<Settled, TransportError>,
    /// From the publish to the commit, as far as the store knows.
    pub(crate) age: Option<Duration>,
}

/// Why a transaction was not carried out.
enum NotCommitted {
    Handler(Unhandled),
    /// Another thread has settled the event.
    Taken,
    Store(Error),
}

impl From<Error> for NotCommitted {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Transactor {
    /// For a subscriber of this name, whose inbox is of this size.
    pub(crate) fn new(embedded: &Embedded, name: &str, inbox: Option<Size>) -> Result<Self, TransportError> {
        let open = |size| Memory::of_processed(embedded.store(), embedded.topic(), name, size);
        Ok(Self { embedded: embedded.clone(), processed: inbox.map(open).transpose()? })
    }

    /// Runs `handle`, and carries out what it asked for together with the ack. An event that was processed before changes nothing.
    pub(crate) fn run(
        &self,
        work: &Work<'_>,
        handle: impl FnOnce(&mut Transaction<'_>) -> Result<Vec<WireMessage>, Unhandled>,
    ) -> Result<Vec<WireMessage>, Unhandled> {
        let leased = OnceCell::<Box<dyn Lease>>::new();
        let done = {
            // From the end of the handler to that of the commit.
            let mut _span = None;
            self.embedded.store().transaction(|tx| {
                // First, so that it is this id that is met, and not one that the handler gives again.
                if let Some(processed) = &self.processed {
                    // Bytes that no other transaction has: the same event is a conflict, and never a repeat that is left out.
                    tx.publish(
                        processed.topic(),
                        Message::new(Uuid::now_v7().into_bytes()).dedup_id(work.event_key()),
                    )?;
                }
                let messages = handle(tx).map_err(NotCommitted::Handler)?;
                let lease = work.held.lease.lock().take().ok_or(NotCommitted::Taken)?;
                _span = Some(spans::settling(work.subscriber, Some(&**work.attributes), ""));
                tx.ack(leased.get_or_init(|| lease).delivery().ok_or(NotCommitted::Taken)?)?;
                for message in &messages {
                    tx.publish(self.embedded.topic(), borrowed(message))?;
                }
                Ok(messages)
            })
        };
        match leased.into_inner() {
            Some(lease) => self.end(work, lease, done),
            None => match done {
                Err(NotCommitted::Handler(unhandled)) => Err(unhandled),
                Err(NotCommitted::Store(error)) => Err(failed(&error)),
                Ok(_) | Err(NotCommitted::Taken) => Ok(Vec::new()),
            },
        }
    }

    /// Notes how the event was settled, or gives the lease back if it was not.
    fn end(
        &self,
        work: &Work<'_>,
        lease: Box<dyn Lease>,
        done: Result<Committed<Vec<WireMessage>>, NotCommitted>,
    ) -> Result<Vec<WireMessage>, Unhandled> {
        let unhandled = match done {
            Ok(committed) => {
                committed.value.iter().for_each(observe::published);
                self.processed.iter().for_each(Memory::note_added);
                return Ok(work.note_settled(&*lease, Ok(Settled::Done)));
            }
            Err(NotCommitted::Store(Error::LeaseLost { id })) if lease.delivery().is_some_and(|own| own.id() == id) => {
                return Ok(work.note_settled(&*lease, Ok(Settled::Lost)));
            }
            Err(NotCommitted::Store(error @ Error::OutcomeUnknown { .. })) => {
                return Ok(work.note_settled(&*lease, Err(error.into())));
            }
            Err(NotCommitted::Store(Error::DedupConflict { topic, .. })) if self.is_processed(&topic) => {
                Unhandled::Duplicate
            }
            Err(NotCommitted::Store(error)) => failed(&error),
            Err(NotCommitted::Handler(unhandled)) => unhandled,
            Err(NotCommitted::Taken) => failed(&"the lease is of another transport"),
        };
        *work.held.lease.lock() = Some(lease);
        Err(unhandled)
    }

    fn is_processed(&self, topic: &str) -> bool {
        self.processed.as_ref().is_some_and(|processed| processed.topic().name() == topic)
    }
}

/// What keeps a transaction from being carried out is a failure as if the handler had returned it.
fn failed(error: &impl std::fmt::Display) -> Unhandled {
    Unhandled::Failed(Failure::retry(error))
}

impl Work<'_> {
    /// Two events are the same if this is.
    pub(crate) fn event_key(&self) -> String {
        event_key(self.attributes.source(), self.attributes.id())
    }

    fn note_settled(&self, lease: &dyn Lease, settled: Result<Settled, TransportError>) -> Vec<WireMessage> {
        *self.held.transacted.lock() = Some(TransactionEnd { settled, age: lease.age() });
        Vec::new()
    }
}

/// The name of an event in an inbox.
pub(crate) fn event_key(source: &str, id: &str) -> String {
    format!("{source}\n{id}")
}
