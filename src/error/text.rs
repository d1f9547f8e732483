//! What an [`Error`] says: what is wrong, and what to do about it.

use super::{Error, position};
use crate::ids::{Expected, MessageId};
use std::fmt;
use std::path::Path;

const GO_ON: &str = "nothing was written; go on with that number";
const ID_EACH: &str = "give each message an id of its own";
const WAIT_FOR_IT: &str = "publish again once it is settled";
const CHECK_NAME: &str = "check the name or allow creating it";
const NEXT: &str = "receive the next";
const WAS_DUE: &str = "it was due, it was cancelled, or it was not published for later";
const OR_DISCARD: &str = "redrive it to its group or discard it";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName { what, name, reason } => write!(f, "{what} name {name:?} is {reason}"),
            Self::InvalidOption { option, value, expected } => {
                write!(f, "option {option} is {value}; it must be {expected}")
            }
            Self::InvalidFilter { filter, column, expected } => invalid_filter(f, filter, *column, expected),
            Self::TooLarge { what, len, max, unit } => {
                write!(f, "{what} is {len} {unit}, limit {max} {unit}; nothing was written")
            }
            Self::OptionMismatch { what, name, option, stored, asked } => {
                write!(f, "{what} {name:?} has {option} = {stored}, requested {asked}; {}", omit(what, option))
            }
            Self::NotFound { what, name } => write!(f, "{what} {name:?} does not exist; {CHECK_NAME}"),
            Self::DedupConflict { topic, first, event } => {
                let id = event.as_ref().map_or_else(|| "this id".to_owned(), |event| format!("the id of {event}"));
                write!(f, "topic {topic:?} has {first} under {id}, nothing was written; {ID_EACH}")
            }
            Self::KeyPending { topic, pending } => key_pending(f, topic, pending),
            Self::SequenceGap { topic, producer, expected, given } => {
                write!(f, "topic {topic:?} expects {expected} of producer {producer:?}, not {given}; {GO_ON}")
            }
            Self::CursorMoved { name } => {
                write!(f, "cursor {name:?} stands elsewhere, nothing was written; read it and decide again")
            }
            Self::WrongVersion { stream, expected, actual } => wrong_version(f, stream, *expected, *actual),
            Self::NoSuchVersion { stream, version, actual } => no_such_version(f, stream, *version, *actual),
            Self::IndexRebuilding { done, of } => index_rebuilding(f, *done, *of),
            Self::InvalidTransaction { reason } => write!(f, "{reason}, nothing was written; correct the transaction"),
            Self::Removed { what } => write!(f, "the {what} of this handle was removed; drop the handle"),
            Self::InvalidPosition { position, fault } => write!(f, "position {position} {fault}; begin elsewhere"),
            Self::Gap { topic, partition, offset, count } => position::gap(f, topic, *partition, *offset, *count),
            Self::NotScheduled { id } => write!(f, "message {id} is not scheduled: {WAS_DUE}"),
            Self::NoSuchDeadLetter { id } => write!(f, "dead letter {id} was redriven or discarded; list them again"),
            Self::TooManyRedrives { id, max } => too_many_redrives(f, *id, *max),
            Self::TopicFull { topic, max } => topic_full(f, topic, *max),
            Self::LimitReached { what } => write!(f, "no room for more {what}: the limit is reached"),
            Self::LeaseLost { id } => write!(f, "lease of message {id} was lost, nothing was written; {NEXT}"),
            Self::DiskFull => f.write_str("disk full, nothing was written; free some space and retry"),
            Self::TooManyOpenFiles => {
                f.write_str("no file descriptor left, nothing was written; raise the limit or retry")
            }
            Self::OutOfMemory => f.write_str("no memory left, nothing was written; free some or retry later"),
            Self::Locked { path, pid } => locked(f, path, *pid),
            Self::NotADirectory { path } => write!(f, "{} is not a directory; name that of the store", path.display()),
            Self::NotAStore { path, found } => not_a_store(f, path, found),
            Self::NewerFormat { found, supported } => {
                write!(f, "store has {found}, this version reads {supported}; use a newer version of millpond")
            }
            Self::ForeignFile { file } => {
                write!(f, "file {file} belongs to another store; move it away or restore the right one")
            }
            Self::UnsupportedFileSystem { kind } => {
                write!(f, "file system {kind} cannot promise durability; use a local one or set allow_network_fs")
            }
            Self::Corrupt(corruption) => write!(f, "corrupt data in {corruption}"),
            Self::Unreadable { topic, partition, offset, cause } => {
                write!(f, "message {partition}@{offset} of topic {topic:?} cannot be read: {cause}")
            }
            Self::Poisoned { cause } => write!(f, "store stopped after a failure ({cause}); open it again"),
            Self::OutcomeUnknown { cause } => {
                write!(f, "outcome unknown: {cause}; reopen the store and check for the operation")
            }
            Self::Closed => f.write_str("store is closed; open it again"),
            Self::Forked => f.write_str("store was opened before a fork; open it in the process that uses it"),
            Self::Io { context, path, source } => io(f, context, path.as_deref(), source),
        }
    }
}

fn key_pending(f: &mut fmt::Formatter<'_>, topic: &str, pending: &MessageId) -> fmt::Result {
    write!(f, "topic {topic:?} has {pending} pending under this key, nothing was written; {WAIT_FOR_IT}")
}

/// What to do about an option that contradicts what is stored: those of a group can be altered, but for its order.
fn omit(what: &str, option: &str) -> &'static str {
    if what == "group" && option != "ordering" && option != "max_in_flight_per_key" {
        "omit the option to keep the stored value, or change it by Group::alter"
    } else {
        "omit the option to keep the stored value"
    }
}

fn topic_full(f: &mut fmt::Formatter<'_>, topic: &str, max: u64) -> fmt::Result {
    write!(f, "topic {topic:?} is full, nothing was published; publish when a group has settled some of {max}")
}

fn index_rebuilding(f: &mut fmt::Formatter<'_>, done: u64, of: u64) -> fmt::Result {
    write!(f, "the index of streams is filled to byte {done} of {of} of the log; call again")
}

fn too_many_redrives(f: &mut fmt::Formatter<'_>, id: MessageId, max: u32) -> fmt::Result {
    write!(f, "dead letter {id} was redriven to a topic {max} times, nothing was written; {OR_DISCARD}")
}

fn invalid_filter(f: &mut fmt::Formatter<'_>, filter: &str, column: usize, expected: &str) -> fmt::Result {
    write!(f, "filter {filter:?} does not fit at column {column}; expected {expected}")
}

fn wrong_version(f: &mut fmt::Formatter<'_>, stream: &str, expected: Expected, actual: Option<u64>) -> fmt::Result {
    write!(f, "stream {stream:?} ")?;
    match actual {
        Some(version) => write!(f, "is at version {version}")?,
        None => f.write_str("has no event")?,
    }
    write!(f, ", expected {expected}; nothing was written, read it and decide again")
}

fn no_such_version(f: &mut fmt::Formatter<'_>, stream: &str, version: u64, actual: Option<u64>) -> fmt::Result {
    write!(f, "stream {stream:?} has no event of version {version}")?;
    actual.iter().try_for_each(|last| write!(f, ", its last is {last}"))?;
    f.write_str("; nothing was written, read it and decide again")
}

fn not_a_store(f: &mut fmt::Formatter<'_>, path: &Path, found: &str) -> fmt::Result {
    let path = path.display();
    write!(f, "{path} is not a store and not empty (it contains {found:?}); name an empty or a new directory")
}

fn locked(f: &mut fmt::Formatter<'_>, path: &Path, pid: Option<u32>) -> fmt::Result {
    let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    write!(f, "store {} is open in {holder}; close it there first", path.display())
}

fn io(f: &mut fmt::Formatter<'_>, context: &str, path: Option<&Path>, source: &std::io::Error) -> fmt::Result {
    f.write_str(context)?;
    path.iter().try_for_each(|path| write!(f, " {}", path.display()))?;
    write!(f, ": {source}")
}
