//! What a refusal names.

/// An event that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvent {
    /// The key of its stream.
    pub stream: String,
    /// Its number among the events of its append, from 0.
    pub number: u32,
}
