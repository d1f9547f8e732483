//! What is said of messages: by whoever publishes them, by the store, and by the reference.
//!
//! Never here: what may be.

use crate::ops::InOrder;
use millpond::Epoch;
use millpond::{Cause, MessageId};
use std::sync::Arc;

pub(crate) type Span = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
}

/// A message at one place. Its frame ends within `frame`, in LSNs: durable for certain from the upper one on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) origin: MessageId,
    pub(crate) body: Arc<Body>,
    pub(crate) published: u64,
    pub(crate) stored: u64,
    pub(crate) frame: Span,
    /// How often it was redriven to a topic.
    pub(crate) redrives: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) time: u64,
    pub(crate) text: String,
}

/// A dead letter. Its offset is one of `offsets` until it was seen; then that one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) offsets: Span,
    pub(crate) attempts: u32,
    pub(crate) failures: Vec<Failure>,
    /// Nacks, expiries and crashes, however long ago.
    pub(crate) counts: [u32; 3],
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) visibility_timeout: u64,
    pub(crate) max_attempts: u32,
    /// Of nacks, expiries and crashes.
    pub(crate) limits: [u32; 3],
    pub(crate) backoff_first: u64,
    pub(crate) backoff_max: u64,
    pub(crate) jitter: Jitter,
    pub(crate) growth: Growth,
    pub(crate) max_outstanding: u32,
    pub(crate) max_closes: u32,
    pub(crate) notices: bool,
    pub(crate) order: Option<(InOrder, u32)>,
    pub(crate) paused: bool,
    /// 0: no limit.
    pub(crate) max_in_flight: u32,
    /// Whether it wants messages with a type, or those without; `None` for all.
    pub(crate) wants_typed: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Jitter {
    None,
    UpperHalf,
    Full,
}

/// Of a list, the second delay and all after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Growth {
    Doubled,
    Linear,
    List(u64),
}

/// The moment of an operation: clocks, epoch, where its frames end, and what is durable if only that is visible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Whether a message may hold up others.
    pub(crate) isolates: bool,
    pub(crate) mono: u64,
    pub(crate) wall: u64,
    pub(crate) epoch: Epoch,
    pub(crate) frame: Span,
    pub(crate) durable: Option<Span>,
}

/// What a delivery says.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: MessageId,
    pub(crate) origin: MessageId,
    pub(crate) body: Body,
    pub(crate) attempt: u32,
    pub(crate) counts: [u32; 3],
    pub(crate) published: u64,
    pub(crate) ticket: u64,
}

impl Message {
    /// Whether it may be seen: `None` where either is right.
    pub(crate) fn is_visible(&self, now: &Now) -> Option<bool> {
        match now.durable {
            Some((_, after)) if after <= self.frame.0 => Some(false),
            Some((before, _)) if before < self.frame.1 => None,
            _ => Some(true),
        }
    }
}

impl Letter {
    /// Whether what was listed can be this dead letter.
    pub(crate) fn is_seen_as(&self, found: &Self) -> bool {
        let (ours, theirs) = (&self.message, &found.message);
        (self.offsets.0..=self.offsets.1).contains(&theirs.id.offset.0)
            && (ours.id.epoch, ours.origin, ours.published) == (theirs.id.epoch, theirs.origin, theirs.published)
            && ours.body == theirs.body
            && (self.attempts, &self.failures, self.counts) == (found.attempts, &found.failures, found.counts)
    }
}
