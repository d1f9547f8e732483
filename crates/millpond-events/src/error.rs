//! What can go wrong, as types.

use crate::transport::TransportError;
use std::fmt;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call of the bus failed. Nothing was published, unless [`Error::Transport`] says that the outcome is unknown.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The transport below the bus failed: for the embedded one, the store.
    Transport(TransportError),
    /// An attribute of the event is none that CloudEvents allows.
    InvalidAttribute {
        /// Its name.
        attribute: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The data cannot be written as JSON.
    Encode {
        /// The event's type.
        event_type: String,
        /// What the serializer reports.
        reason: String,
    },
    /// The text is no pattern of event types.
    InvalidPattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option's value is out of its bounds.
    InvalidOption {
        /// Its name.
        option: &'static str,
        /// The value as given.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The transport cannot do what an option asks for.
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The bus has a subscriber of this name, with handlers of its own.
    NameInUse {
        /// The name.
        name: String,
    },
    /// The data does not fit the schema of its type and version.
    Schema(SchemaViolation),
    /// A schema cannot be compiled, or there are two of one type and version.
    InvalidSchema {
        /// The event's type.
        event_type: String,
        /// Its version.
        version: u32,
        /// What is wrong with the schema.
        reason: String,
    },
    /// The bus, the subscriber or the listener was shut down.
    Stopped,
    /// The system has no thread to give.
    Thread(std::io::Error),
}

/// Why a message is no event, or none that a handler can take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message is no CloudEvent 1.0.
    NotCloudEvent {
        /// The attribute that is missing or wrong, or `"message"`.
        attribute: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The handler's type has no variant of this name.
    UnknownType {
        /// The event's type.
        event_type: String,
    },
    /// The handler's type has variants of this name, but none of this version.
    UnknownVersion {
        /// The event's type.
        event_type: String,
        /// Its version.
        version: u32,
    },
    /// The data is no JSON, by its content type.
    NotJson {
        /// The content type, cut to 64 bytes.
        content_type: String,
    },
    /// The data is no valid JSON, or does not fit the Rust type.
    InvalidData {
        /// The event's type.
        event_type: String,
        /// Its version.
        version: u32,
        /// Whether the text is JSON at all.
        is_json: bool,
        /// The line of the data at which reading stopped, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The event was caused by an event that was caused by another, and so on, too often.
    ChainTooLong {
        /// How many events stand before it.
        depth: u32,
        /// How many may.
        limit: u32,
    },
    /// The data does not fit the schema of its type and version.
    Schema(SchemaViolation),
}

/// Where data breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaViolation {
    /// The event's type.
    pub event_type: String,
    /// Its version.
    pub version: u32,
    /// The place in the data, as a JSON pointer; empty for the whole.
    pub path: String,
    /// The place of the rule in the schema, as a JSON pointer.
    pub rule: String,
    /// How many rules are broken in all.
    pub count: usize,
}

impl Error {
    pub(crate) const NO_TRANSACTIONS: Self = Self::Unsupported { what: "handlers in transactions" };
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::InvalidAttribute { attribute, reason } => {
                write!(f, "the attribute {attribute:?} is {reason}; nothing was written")
            }
            Self::Encode { event_type, reason } => {
                write!(f, "the data of {event_type} cannot be written as JSON: {reason}; nothing was written")
            }
            Self::InvalidPattern { pattern, reason } => write!(f, "the pattern {pattern:?} is invalid: {reason}"),
            Self::InvalidOption { option, value, expected } => {
                write!(f, "the option {option} is {value}; give it {expected}")
            }
            Self::Unsupported { what } => write!(f, "the transport does not support {what}; leave the option out"),
            Self::NameInUse { name } => {
                write!(f, "the bus has a subscriber {name:?}; add handlers and workers to that one")
            }
            Self::Schema(violation) => write!(f, "{violation}; nothing was written"),
            Self::InvalidSchema { event_type, version, reason } => {
                write!(f, "the schema of {event_type} version {version} is invalid: {reason}")
            }
            Self::Stopped => f.write_str("the bus was shut down; open another one"),
            Self::Thread(error) => write!(f, "no thread can be started: {error}; try again"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::Schema(violation) => Some(violation),
            Self::InvalidAttribute { .. }
            | Self::Encode { .. }
            | Self::InvalidPattern { .. }
            | Self::InvalidOption { .. }
            | Self::Unsupported { .. }
            | Self::NameInUse { .. }
            | Self::InvalidSchema { .. }
            | Self::Stopped => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCloudEvent { attribute, reason } => write!(f, "not a CloudEvent: {attribute:?} is {reason}"),
            Self::UnknownType { event_type } => write!(f, "unknown type {event_type:?}"),
            Self::UnknownVersion { event_type, version } => write!(f, "unknown version {version} of {event_type:?}"),
            Self::NotJson { content_type } => write!(f, "the data is no JSON but {content_type:?}"),
            Self::InvalidData { event_type, version, is_json, line, column } => {
                let what = if *is_json { "does not fit its type" } else { "is no valid JSON" };
                write!(f, "the data of {event_type} version {version} {what} at line {line} column {column}")
            }
            Self::ChainTooLong { depth, limit } => write!(f, "chain too long: {depth} events before it, limit {limit}"),
            Self::Schema(violation) => violation.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for SchemaViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event_type, version, path, rule, count } = self;
        let path = if path.is_empty() { "/" } else { path };
        write!(f, "the data of {event_type} version {version} breaks the rule {rule} at {path}")?;
        if *count > 1 { write!(f, ", and {} more", count - 1) } else { Ok(()) }
    }
}

impl std::error::Error for SchemaViolation {}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<millpond::Error> for Error {
    fn from(error: millpond::Error) -> Self {
        Self::Transport(error.into())
    }
}
