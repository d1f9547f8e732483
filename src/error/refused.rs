//! What a refusal names.

use std::fmt;

/// An event that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvent {
    /// The key of its stream.
    pub stream: String,
    /// Its number among the events of its append, from 0.
    pub number: u32,
}

impl fmt::Display for RefusedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} of stream {:?}", self.number, self.stream)
    }
}
