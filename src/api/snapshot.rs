//! Snapshots of streams: what somebody made of the events up to one, so that the next reader begins there.
//!
//! Never here: what is in a snapshot.

use super::Durability;
use super::stream::Stream;
use crate::engine::{Outgoing, Stored};
use crate::error::Result;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What was saved of a [`Stream`] by [`Stream::save_snapshot`].
pub struct StreamSnapshot {
    version: u64,
    stored: Stored,
}

impl Stream {
    /// Saves what somebody made of all events up to `version`, which is that of an event that is there: as large as a message may be. No
    /// group and no reader of the log gets it. On return it survives what the level of the topic's handle says.
    ///
    /// The topic keeps the snapshots of the highest versions, as many as [`TopicBuilder::snapshots_kept`](crate::TopicBuilder::snapshots_kept)
    /// says; one of the same version takes the place of the first.
    ///
    /// ```
    /// # use millpond::{Expected, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let accounts = store.topic("accounts").streams().open()?;
    /// let account = accounts.stream("7")?;
    /// account.append(Expected::NoStream, ["+5", "+20", "-3"])?;
    /// account.save_snapshot(2, "22")?;
    /// account.append(Expected::Version(2), ["+1"])?;
    ///
    /// let snapshot = account.snapshot()?.expect("one was saved");
    /// let mut balance: i64 = std::str::from_utf8(snapshot.payload())?.parse()?;
    /// for event in account.read(snapshot.version() + 1, 1_000)? {
    ///     balance += std::str::from_utf8(event.payload())?.parse::<i64>()?;
    /// }
    /// assert_eq!(balance, 23);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NoSuchVersion` if the stream has no event of this version, since it is not there yet, or was truncated or deleted; `TooLarge`;
    /// `LimitReached`, `IndexRebuilding`, `Removed`, `DiskFull`; the store's. Nothing was saved then, except by `OutcomeUnknown`.
    pub fn save_snapshot(&self, version: u64, payload: impl AsRef<[u8]>) -> Result<()> {
        let engine = &self.inner().shared.engine;
        let end = engine.save_snapshot(self.at(), version, &self.note(payload.as_ref())?)?;
        // seam: a snapshot does not wait
        if self.topic.level() == Durability::Disk { engine.wait_durable(end) } else { Ok(()) }
    }

    /// The snapshot of the highest version; `None` where there is none. Truncation leaves it, [`Stream::delete`] does not.
    ///
    /// A store opened at `Durability::Disk` shows what is durable.
    ///
    /// # Errors
    /// `Unreadable` where it is damaged: read all events then. `IndexRebuilding`; `Removed`; the store's.
    pub fn snapshot(&self) -> Result<Option<StreamSnapshot>> {
        self.snapshot_upto(u64::MAX)
    }

    /// Of the snapshots that are kept, that of the highest version up to `version`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Stream::snapshot`].
    pub fn snapshot_upto(&self, version: u64) -> Result<Option<StreamSnapshot>> {
        let info = &self.inner().info;
        let kept = info.options.snapshots_kept as usize;
        let found = self.inner().shared.engine.read_snapshot(self.at(), info.notes(), (version, kept))?;
        Ok(found.map(|(version, stored)| StreamSnapshot { version, stored }))
    }

    /// A note of the stream, encoded.
    pub(super) fn note(&self, payload: &[u8]) -> Result<Outgoing> {
        let (mut note, inner) = (Outgoing::default(), self.inner());
        let max = inner.shared.engine.setup().message_bytes_max;
        note.add(inner.info.notes(), Some(self.key()), std::iter::empty(), payload, max)?;
        Ok(note)
    }
}

impl StreamSnapshot {
    /// The version of the last event that it takes in: go on with the next.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What was saved.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.stored.view(0).payload()
    }

    /// When it was saved, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.stored.published().0)
    }
}
