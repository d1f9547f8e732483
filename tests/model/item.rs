//! One message as one group has it.
//!
//! Never here: other messages, other groups.

use crate::facts::{Failure, Message, Now};
use millpond::Cause;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    New,
    Ready,
    Leased {
        until: u64,
        ticket: u64,
        exclusive: bool,
        /// How long it waits once the lease has ended by its timeout; a span where jitter is drawn.
        pause: (u64, u64),
    },
    /// Due by the wall clock; a span where jitter is drawn.
    Waiting {
        due: (u64, u64),
        delay: (u64, u64),
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    /// The group's `max_attempts` when it was leased last.
    pub(crate) limit: u32,
    pub(crate) failures: Vec<Failure>,
    /// Nacks, expiries and crashes.
    pub(crate) counts: [u32; 3],
    /// It ended in one way as often as its group allows; of a leased one, if its lease ends by its timeout.
    pub(crate) is_over: bool,
    /// One more crash in a row is as many as its group allows.
    pub(crate) is_alone: bool,
    /// Deaths of processes in a row that ended its attempts.
    pub(crate) crashes: u32,
    /// Orderly closes in a row while it was leased, which were not charged.
    pub(crate) closes: u32,
    /// Its last attempt ended so, under a lease that was not exclusive: it gets one more, where it has no other left.
    pub(crate) once_more: bool,
}

/// What an item is for a consumer that asks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Hidden,
    New,
    Due,
    Leased,
    Waiting,
    Exhausted,
}

impl Item {
    pub(crate) fn new(message: Message) -> Self {
        Self {
            message,
            state: State::New,
            attempts: 0,
            limit: 0,
            failures: Vec::new(),
            counts: [0; 3],
            is_over: false,
            is_alone: false,
            crashes: 0,
            closes: 0,
            once_more: false,
        }
    }

    /// What it is, and whether that is certain.
    pub(crate) fn standing(&self, now: &Now) -> (Standing, bool) {
        let free = if self.is_exhausted() { Standing::Exhausted } else { Standing::Due };
        match &self.state {
            State::New => match self.message.is_visible(now) {
                Some(true) => (Standing::New, true),
                Some(false) => (Standing::Hidden, true),
                None => (Standing::New, false),
            },
            State::Ready => (free, true),
            State::Leased { until, .. } if *until > now.mono => (Standing::Leased, true),
            State::Leased { .. } if free == Standing::Exhausted => (free, true),
            State::Leased { until, pause, .. } if until + pause.0 > now.mono => (Standing::Waiting, true),
            State::Leased { until, pause, .. } => (free, until + pause.1 <= now.mono),
            State::Waiting { due, .. } if due.0 > now.wall => (Standing::Waiting, true),
            State::Waiting { due, .. } => (Standing::Due, due.1 <= now.wall),
        }
    }

    /// Whether it has no other attempt; of a leased one, whether it would have none if its lease ended by its timeout.
    pub(crate) fn is_exhausted(&self) -> bool {
        let (once_more, crashes) = match self.state {
            State::Leased { .. } => (false, 0),
            _ => (self.once_more || self.is_alone, self.crashes),
        };
        let spent = self.attempts >= self.limit && !once_more;
        self.is_over || self.limit > 0 && (spent || crashes >= self.limit.saturating_mul(2))
    }

    /// Whether its next attempt is one that it may only take alone (G9).
    pub(crate) fn goes_alone(&self) -> bool {
        self.is_alone || self.crashes > 0 && self.limit > 0 && self.attempts + 1 >= self.limit
    }

    pub(crate) fn fail(&mut self, cause: Cause, time: u64, text: &str) {
        let crashed = cause == Cause::Crashed;
        self.crashes = if crashed { self.crashes + 1 } else { 0 };
        self.once_more &= crashed;
        self.is_alone = false;
        if let Some(count) = [Cause::Nacked, Cause::Expired, Cause::Crashed].iter().position(|kind| *kind == cause) {
            self.counts[count] += 1;
        }
        if cause != Cause::Closed {
            self.closes = 0;
        }
        let end = (0..=text.len().min(120)).rev().find(|end| text.is_char_boundary(*end));
        self.failures.push(Failure { cause, time, text: text[..end.unwrap_or(0)].to_owned() });
        self.failures.drain(..self.failures.len().saturating_sub(8));
    }
}
