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
    /// Its last attempt that ended did so by the death of a process.
    pub(crate) crashed: bool,
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
            crashed: false,
            once_more: false,
        }
    }

    /// What it is, and whether that is certain.
    pub(crate) fn standing(&self, now: &Now) -> (Standing, bool) {
        let once_more = self.once_more && !matches!(self.state, State::Leased { .. });
        let spent = self.attempts >= self.limit && !once_more;
        let exhausted = self.limit > 0 && (spent || self.attempts >= self.limit.saturating_mul(2));
        let free = if exhausted { Standing::Exhausted } else { Standing::Due };
        match &self.state {
            State::New => match self.message.is_visible(now) {
                Some(true) => (Standing::New, true),
                Some(false) => (Standing::Hidden, true),
                None => (Standing::New, false),
            },
            State::Ready => (free, true),
            State::Leased { until, .. } if *until > now.mono => (Standing::Leased, true),
            State::Leased { .. } => (free, true),
            State::Waiting { due, .. } if due.0 > now.wall => (Standing::Waiting, true),
            State::Waiting { due, .. } => (Standing::Due, due.1 <= now.wall),
        }
    }

    /// Whether its next attempt is one that it may only take alone (G9).
    pub(crate) fn goes_alone(&self) -> bool {
        self.crashed && self.limit > 0 && self.attempts + 1 >= self.limit
    }

    pub(crate) fn fail(&mut self, cause: Cause, time: u64, text: &str) {
        self.crashed = cause == Cause::Crashed;
        self.once_more &= self.crashed;
        let end = (0..=text.len().min(120)).rev().find(|end| text.is_char_boundary(*end));
        self.failures.push(Failure { cause, time, text: text[..end.unwrap_or(0)].to_owned() });
        self.failures.drain(..self.failures.len().saturating_sub(8));
    }
}
