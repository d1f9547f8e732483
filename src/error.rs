//! Errors, by what the caller can do about them.
//!
//! Every fallible public call returns [`Error`]; [`Error::kind`] sorts its variants into the things that a caller can
//! do. Never here: I/O, time, messages' contents (a payload never appears in an error's text).

mod corruption;
mod lack;
mod position;
mod refused;
mod text;

pub use corruption::Corruption;
pub use position::PositionFault;
pub use refused::RefusedEvent;

use crate::ids::{Expected, MessageId, Position};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of the library's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Change the call: the same call would fail again. Nothing was changed.
    FixCall,
    /// The work on this message is not this consumer's any more. Drop it and receive the next.
    LeaseLost,
    /// A message cannot be read, or is not there any more. Go on with the next; nothing else is wrong. What cannot be read waits for its
    /// longest backoff, or stays where it is.
    Skip,
    /// Call again when the shortage that the error names has passed: room on the disk, a descriptor, memory, the lock of another
    /// process. Nothing was changed.
    Retry,
    /// Another call came first. Read again what this one went by, and decide anew. Nothing was changed.
    Conflict,
    /// Drop all handles of this store and open the directory again; the log then says what is so.
    Reopen,
    /// A person has to look at the directory, its permissions or its file system before anything goes on.
    Stop,
}

/// What an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorScope {
    /// This call. Others, with other arguments or at another time, may succeed.
    Call,
    /// One message. Calls for other messages are not concerned.
    Message,
    /// The store: every call for it fails, or it could not be opened.
    Store,
}

/// Why a call failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A name is empty or longer than 255 bytes.
    InvalidName {
        /// What is named: `"topic"`, `"group"`, `"header"`, `"cursor"` or `"producer"`.
        what: &'static str,
        /// The name as given, cut to 64 bytes.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option's value is out of its bounds.
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value as given.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The text is no filter of messages.
    InvalidFilter {
        /// The text as given.
        filter: String,
        /// The first character that does not fit, counted from 1; one behind the last where the text is cut short.
        column: usize,
        /// What would fit there.
        expected: &'static str,
    },
    /// A message, batch, transaction, key, header, id or cursor value is larger than its limit.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: u64,
        /// The limit.
        max: u64,
        /// The unit of both: `"bytes"`, `"headers"`, `"messages"` or `"effects"`.
        unit: &'static str,
    },
    /// The topic or group exists with another value of this option.
    OptionMismatch {
        /// `"topic"` or `"group"`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The option that differs.
        option: &'static str,
        /// The value that is stored, and stays.
        stored: String,
        /// The value that was asked for.
        asked: String,
    },
    /// The transaction contradicts itself, or names handles of another store. Nothing was changed.
    InvalidTransaction {
        /// What is wrong, and with which message, cursor, stream, topic or batch.
        reason: String,
    },
    /// There is no store, topic or group of this name, and it was not to be created. Nothing was changed.
    NotFound {
        /// `"store"`, `"topic"`, `"group"` or `"cursor"`.
        what: &'static str,
        /// Its name; of a store, the path.
        name: String,
    },
    /// Another message was published under this id within the topic's window. Nothing was published.
    DedupConflict {
        /// The topic's name.
        topic: String,
        /// The message that was.
        first: MessageId,
        /// What was refused, if it is an event of a stream.
        event: Option<RefusedEvent>,
    },
    /// A message with this unique key is pending, and the publish was not to replace it, or a consumer works on it. Nothing was published.
    KeyPending {
        /// The topic's name.
        topic: String,
        /// The message that is pending.
        pending: MessageId,
    },
    /// A producer's messages are numbered without gaps. Nothing was published.
    SequenceGap {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        producer: String,
        /// The number that comes next.
        expected: u64,
        /// The number that was given.
        given: u64,
    },
    /// The cursor does not stand where the call expected it. Nothing was changed.
    CursorMoved {
        /// Its name.
        name: String,
    },
    /// The last event of the stream is another than the append expected. Nothing was appended.
    WrongVersion {
        /// The key of the stream, cut to 64 bytes; bytes that are no text as U+FFFD.
        stream: String,
        /// What was expected.
        expected: Expected,
        /// The version of its last event; `None` where it has none.
        actual: Option<u64>,
    },
    /// The stream has no event of the version that a snapshot is of: it is newer than the stream, or was truncated. Nothing was saved.
    NoSuchVersion {
        /// The key of the stream, cut to 64 bytes; bytes that are no text as U+FFFD.
        stream: String,
        /// The version of the snapshot.
        version: u64,
        /// The version of the stream's last event; `None` where it has none.
        actual: Option<u64>,
    },
    /// The index of streams is being filled from the log: it is new, or was damaged. Nothing was changed; call again.
    IndexRebuilding {
        /// Up to which byte of the log it is filled.
        done: u64,
        /// Up to which it has to be.
        of: u64,
    },
    /// The topic or group of this handle was removed. Nothing was changed.
    Removed {
        /// `"topic"` or `"group"`.
        what: &'static str,
    },
    /// The position is none of this topic's log, so nobody can say which message comes next.
    InvalidPosition {
        /// The position as given.
        position: Position,
        /// What is wrong with it.
        fault: PositionFault,
    },
    /// Messages were removed before a reader of the log got to them, for their groups had settled them. Read on: this is told once.
    Gap {
        /// The name of the topic.
        topic: String,
        /// The partition, by index.
        partition: u32,
        /// The offset of the first message that is missing.
        offset: u64,
        /// How many are missing; for the first gap in another partition than that of the reader's position, at most so many.
        count: u64,
    },
    /// The dead letter is no longer there: it was redriven or discarded.
    NoSuchDeadLetter {
        /// The dead letter's id.
        id: MessageId,
    },
    /// The message is not scheduled: it was due, it was cancelled, or it was not published for later.
    NotScheduled {
        /// The message's id.
        id: MessageId,
    },
    /// The message was sent from the dead letters to a topic as often as one may be: it seems to go in circles. The dead letter stays.
    TooManyRedrives {
        /// The dead letter's id.
        id: MessageId,
        /// The limit.
        max: u32,
    },
    /// A group would have more unsettled messages than its topic allows. Nothing was published; call again when it has settled some.
    TopicFull {
        /// The topic's name.
        topic: String,
        /// The topic's bound.
        max: u64,
    },
    /// The store's count of topics, groups, partitions, cursors, producers or remembered ids is at its limit.
    LimitReached {
        /// What there are too many of.
        what: &'static str,
    },
    /// The lease ended: it expired and was given to another consumer, or the message was settled. Nothing was changed.
    LeaseLost {
        /// The message of the lease.
        id: MessageId,
    },
    /// No room on the disk, or the quota or a limit on file sizes says so. Nothing was changed; call again when there is.
    DiskFull,
    /// No more file descriptors. Nothing was changed; call again when there are.
    TooManyOpenFiles,
    /// The system has no memory to give, as for the map of a new segment. Nothing was changed; call again when there is some.
    OutOfMemory,
    /// Another process, or another [`Store`](crate::Store) of this one, has the directory open.
    Locked {
        /// The directory.
        path: PathBuf,
        /// The holder's process id as it noted it.
        pid: Option<u32>,
    },
    /// The path names something that is not a directory.
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory holds other things and no store. Nothing was created in it.
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The store was written by a newer version of this library.
    NewerFormat {
        /// What the store asks for.
        found: String,
        /// What this version reads.
        supported: String,
    },
    /// A file in the directory belongs to another store.
    ForeignFile {
        /// The file's name.
        file: String,
    },
    /// The file system gives none of the promises that durability needs.
    UnsupportedFileSystem {
        /// Its kind.
        kind: &'static str,
    },
    /// Bytes on disk are not what was written, and the store is not opened for that. Restore a backup, or
    /// [repair](crate::StoreOptions::repair) the store to what is left.
    Corrupt(Corruption),
    /// One message cannot be read. It stays where it is.
    Unreadable {
        /// The name of its topic.
        topic: String,
        /// Its partition, numbered as in its [`MessageId`].
        partition: u64,
        /// Its offset there.
        offset: u64,
        /// Why: `Corrupt`, `Io` or `NewerFormat`.
        cause: Arc<Error>,
    },
    /// An earlier failure stopped the store for good. Open it again.
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// The operation was appended and the store failed before its durability was known: after reopening it is there or
    /// it is not, and stays so.
    OutcomeUnknown {
        /// The failure.
        cause: Arc<str>,
    },
    /// The store was closed.
    Closed,
    /// This process is a forked child of the one that opened the store. Open another directory, or exec.
    Forked,
    /// The operating system failed a call in a way that no other variant describes. [`Error::kind`] goes by the system's error.
    Io {
        /// What the engine was doing.
        context: &'static str,
        /// The file or directory, as far as it is known.
        path: Option<PathBuf>,
        /// What the system said. It is part of the error's text, and therefore not its `source()`.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidName { .. }
            | Self::InvalidOption { .. }
            | Self::InvalidFilter { .. }
            | Self::TooLarge { .. }
            | Self::OptionMismatch { .. }
            | Self::InvalidTransaction { .. }
            | Self::NotFound { .. }
            | Self::DedupConflict { .. }
            | Self::SequenceGap { .. }
            | Self::Removed { .. }
            | Self::InvalidPosition { .. }
            | Self::NoSuchDeadLetter { .. }
            | Self::NotScheduled { .. }
            | Self::TooManyRedrives { .. }
            | Self::LimitReached { .. }
            | Self::NotADirectory { .. }
            | Self::NotAStore { .. }
            | Self::UnsupportedFileSystem { .. }
            | Self::Forked => ErrorKind::FixCall,
            Self::LeaseLost { .. } => ErrorKind::LeaseLost,
            Self::CursorMoved { .. }
            | Self::WrongVersion { .. }
            | Self::NoSuchVersion { .. }
            | Self::KeyPending { .. } => ErrorKind::Conflict,
            Self::Unreadable { .. } | Self::Gap { .. } => ErrorKind::Skip,
            Self::DiskFull
            | Self::TooManyOpenFiles
            | Self::OutOfMemory
            | Self::IndexRebuilding { .. }
            | Self::TopicFull { .. }
            | Self::Locked { .. } => ErrorKind::Retry,
            Self::Poisoned { .. } | Self::OutcomeUnknown { .. } | Self::Closed => ErrorKind::Reopen,
            Self::Io { source, .. } => match source.kind() {
                // Missing threads come back. Permissions, and a file system that was made read-only, need a person.
                io::ErrorKind::WouldBlock => ErrorKind::Retry,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => ErrorKind::Stop,
                _ => ErrorKind::Reopen,
            },
            Self::NewerFormat { .. } | Self::ForeignFile { .. } | Self::Corrupt(_) => ErrorKind::Stop,
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn scope(&self) -> ErrorScope {
        match self {
            Self::InvalidName { .. }
            | Self::InvalidOption { .. }
            | Self::InvalidFilter { .. }
            | Self::TooLarge { .. }
            | Self::OptionMismatch { .. }
            | Self::InvalidTransaction { .. }
            | Self::NotFound { .. }
            | Self::SequenceGap { .. }
            | Self::CursorMoved { .. }
            | Self::WrongVersion { .. }
            | Self::NoSuchVersion { .. }
            | Self::IndexRebuilding { .. }
            | Self::TopicFull { .. }
            | Self::Removed { .. }
            | Self::InvalidPosition { .. }
            | Self::LimitReached { .. }
            | Self::DiskFull
            | Self::TooManyOpenFiles
            | Self::OutOfMemory
            | Self::Io { .. } => ErrorScope::Call,
            Self::DedupConflict { .. }
            | Self::KeyPending { .. }
            | Self::NoSuchDeadLetter { .. }
            | Self::NotScheduled { .. }
            | Self::TooManyRedrives { .. }
            | Self::LeaseLost { .. }
            | Self::Gap { .. }
            | Self::Unreadable { .. } => ErrorScope::Message,
            Self::Locked { .. }
            | Self::NotADirectory { .. }
            | Self::NotAStore { .. }
            | Self::NewerFormat { .. }
            | Self::ForeignFile { .. }
            | Self::UnsupportedFileSystem { .. }
            | Self::Corrupt(_)
            | Self::Poisoned { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Closed
            | Self::Forked => ErrorScope::Store,
        }
    }

    /// Where bytes on disk are not what was written, if that is the reason.
    #[must_use]
    pub fn corruption(&self) -> Option<&Corruption> {
        match self {
            Self::Corrupt(corruption) => Some(corruption),
            Self::Unreadable { cause, .. } => cause.corruption(),
            _ => None,
        }
    }

    /// Whether the system lacks something for a while, and nothing was changed.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::DiskFull | Self::TooManyOpenFiles | Self::OutOfMemory)
    }
}

impl std::error::Error for Error {
    /// The cause behind what the text says already: nothing is printed twice along a chain.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => source.source(),
            Self::Unreadable { cause, .. } => cause.source(),
            _ => None,
        }
    }
}
