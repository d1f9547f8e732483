//! Errors, by what the caller can do about them: [`Error::kind`] sorts them as the engine sorts its own.

use millpond::ErrorKind;
use rusqlite::ErrorCode;
use std::fmt;

/// The result of the crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The queue's store failed.
    Store(millpond::Error),
    /// SQLite failed.
    Database(rusqlite::Error),
    /// A name is empty or too long. Nothing was written.
    InvalidName {
        /// `"topic"`, `"header"` or `"inbox"`.
        what: &'static str,
        /// The length of the name, in bytes.
        len: usize,
    },
    /// A message or a part of one is larger than any store accepts. Nothing was written.
    TooLarge {
        /// `"key"` or `"message"`.
        what: &'static str,
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
        /// The unit of both: `"bytes"` or `"headers"`.
        unit: &'static str,
    },
    /// The connection is inside a transaction, and the call needs its own. Nothing was written.
    OpenTransaction,
    /// The tables were written by a newer version of this crate. Nothing was written.
    NewerSchema {
        /// `"outbox"` or `"inbox"`.
        part: &'static str,
        /// The version of the tables.
        found: i64,
        /// The version that this crate reads.
        supported: i64,
    },
    /// The store contains messages of this outbox that the database has not sent: the database is an older copy, or another copy of it
    /// sends too. Nothing was published. [`Outbox::renew`](crate::Outbox::renew) continues.
    DatabaseBehind {
        /// The topic.
        topic: String,
        /// How many numbers the database has sent.
        sent: u64,
        /// How many the store contains.
        stored: u64,
    },
    /// The store lacks messages that the outbox has published and deleted: the store is an older copy, or the topic was created anew.
    /// Nothing was published. [`Outbox::renew`](crate::Outbox::renew) continues.
    StoreBehind {
        /// The topic.
        topic: String,
        /// The number of the first message that waits.
        first: u64,
        /// How many the store contains.
        stored: u64,
    },
    /// The message to discard is not the first of its topic that waits, or it was published. Nothing was written.
    NotFirst {
        /// The topic.
        topic: String,
        /// The message's number.
        number: u64,
    },
    /// A row of this crate's tables has other bytes than this crate writes.
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong there.
        reason: &'static str,
    },
}

impl Error {
    /// Returns what the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Database(error) => database_kind(error.sqlite_error_code()),
            Self::InvalidName { .. } | Self::TooLarge { .. } | Self::OpenTransaction | Self::NotFirst { .. } => {
                ErrorKind::FixCall
            }
            Self::NewerSchema { .. }
            | Self::DatabaseBehind { .. }
            | Self::StoreBehind { .. }
            | Self::Damaged { .. } => ErrorKind::Stop,
        }
    }
}

/// SQLite may add codes: one that is unknown here is the caller's to fix, as most are.
fn database_kind(code: Option<ErrorCode>) -> ErrorKind {
    match code {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => ErrorKind::Retry,
        Some(
            ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::NoLargeFileSupport
            | ErrorCode::InternalMalfunction,
        ) => ErrorKind::Stop,
        _ => ErrorKind::FixCall,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Database(error) => write!(f, "SQLite: {error}"),
            Self::InvalidName { what, len } => {
                write!(f, "{what} name has {len} bytes, nothing was written; use 1 to 255 bytes")
            }
            Self::TooLarge { what, len, max, unit } => {
                write!(f, "{what} is {len} {unit}, limit {max} {unit}; nothing was written")
            }
            Self::OpenTransaction => {
                f.write_str("the connection is inside a transaction, nothing was written; commit it or use another one")
            }
            Self::NewerSchema { part, found, supported } => write!(
                f,
                "the tables of the {part} have version {found}, this version reads {supported}; use a newer version of millpond-sqlite"
            ),
            Self::DatabaseBehind { topic, sent, stored } => write!(
                f,
                "topic {topic:?} contains {stored} messages of this outbox, and the database has sent {sent}, nothing was written; \
                 find out which copy of the database is the right one, then renew the topic"
            ),
            Self::StoreBehind { topic, first, stored } => write!(
                f,
                "topic {topic:?} contains {stored} messages of this outbox, and the first that waits has number {first}, nothing was \
                 written; find out which copy of the store is the right one, then renew the topic"
            ),
            Self::NotFirst { topic, number } => write!(
                f,
                "message {number} is not the first that waits for topic {topic:?}, nothing was written; drain the outbox again"
            ),
            Self::Damaged { table, reason } => write!(f, "a row of table {table} has {reason}; restore the database"),
        }
    }
}

impl std::error::Error for Error {
    /// The cause of what the text says already: nothing is printed twice along a chain.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Database(error) => error.source(),
            Self::InvalidName { .. }
            | Self::TooLarge { .. }
            | Self::OpenTransaction
            | Self::NewerSchema { .. }
            | Self::DatabaseBehind { .. }
            | Self::StoreBehind { .. }
            | Self::NotFirst { .. }
            | Self::Damaged { .. } => None,
        }
    }
}

impl From<millpond::Error> for Error {
    fn from(error: millpond::Error) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}
