//! Why a commit did nothing, what the engine does about that, and which error the caller gets.
//!
//! What the state does not allow is its own word, [`Rejection`]; what the log lacks is [`AppendError`]. A [`Refusal`] is either. Here they become
//! an [`Error`], but for what only one call can be told. Never here: errors of reading.

use super::Engine;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::AppendError;
use crate::state::{Inconsistent, Rejection};

/// Why a commit did nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The state does not allow the command.
    Rejected(Rejection),
    /// The log needs something first that only work outside the lock can give.
    NotAppended(AppendError),
    /// The state contradicts its own decision. Must never be; the store has to stop.
    Inconsistent(Inconsistent),
}

/// A commit that did nothing, and where the log ended then.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) end: Lsn,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        Self::NotAppended(error)
    }
}

impl From<Inconsistent> for Refusal {
    fn from(what: Inconsistent) -> Self {
        Self::Inconsistent(what)
    }
}

impl Engine {
    /// Outside the lock: does what a refused commit needs, so that it may be tried again; or returns the rejection, of which trying
    /// again is of no use.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn unblock(&self, refusal: Refusal) -> Result<Result<(), Rejection>> {
        match refusal {
            Refusal::Rejected(rejection) => Ok(Err(rejection)),
            Refusal::NotAppended(error) => self.make_way(error).map(Ok),
            Refusal::Inconsistent(what) => Err(self.fail(&format!("the state contradicts its own decision: {what}"))),
        }
    }

    /// Does what an append needs and may not do under the lock.
    pub(super) fn make_way(&self, error: AppendError) -> Result<()> {
        match error {
            AppendError::NeedStandby { len, len_min, reserve } => self.make_standby(len, len_min, reserve),
            AppendError::NeedSync { upto } => {
                self.wait_durable(upto).map_err(|_| Error::Poisoned { cause: self.health.cause() })
            }
            AppendError::TooLarge { what, len, max, unit } => {
                Err(Error::TooLarge { what, len: len as u64, max: max as u64, unit })
            }
            AppendError::Io(error) => match Error::io("append to the log in", error).at(&self.caches.dir) {
                lack if lack.is_passing() => Err(lack),
                other => Err(self.fail(&other.to_string())),
            },
        }
    }

    /// What a rejection is to the caller, where nothing the caller did can have provoked another.
    pub(super) fn rejected(&self, rejection: Rejection) -> Error {
        match rejection {
            Rejection::LimitReached(what) => Error::LimitReached { what },
            Rejection::TopicFull { topic, count } => self.topic_full(topic, count),
            // A handle exists, so the topic or group did: it was removed.
            Rejection::UnknownTopic | Rejection::UnknownPartition => Error::Removed { what: "topic" },
            Rejection::UnknownGroup => Error::Removed { what: "group" },
            Rejection::Repeated(_)
            | Rejection::DedupConflict { .. }
            | Rejection::DedupConflictIn { .. }
            | Rejection::KeyPending { .. }
            | Rejection::SequenceRepeated
            | Rejection::SequenceGap { .. }
            | Rejection::NoSuchCursor
            | Rejection::NotScheduled
            | Rejection::CursorMoved
            | Rejection::CursorMovedIn { .. }
            | Rejection::LeaseLost
            | Rejection::LeaseLostIn { .. }
            | Rejection::NoticeDue
            | Rejection::NoSuchDeadLetter
            | Rejection::TooManyRedrives
            | Rejection::Stale
            | Rejection::Exists
            | Rejection::StreamUnknown(_)
            | Rejection::WrongVersion { .. }
            | Rejection::WrongVersionIn { .. }
            | Rejection::NoSuchVersion { .. }
            | Rejection::Invalid(_)
            | Rejection::InvalidIn { .. } => {
                self.fail(&format!("an operation that was checked before was rejected: {rejection}"))
            }
        }
    }
}
