//! Seeking: a group goes on from another place.
//!
//! Never here: where a new group begins (`Start`).

use super::Group;
use crate::engine::{Begin, Sought};
use crate::error::Result;
use crate::ids::{Position, WallMs};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a group goes on: see [`Group::seek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seek {
    /// At the first message that is kept, of those from which on none is missing: everything that is there comes again.
    Earliest,
    /// After the last message that was published: nothing that was published before comes any more.
    Latest,
    /// At exactly the message after this position of the topic's log: see [`LogReader`](crate::LogReader).
    Position(Position),
    /// At the first kept message that was published at or after this time. Where the wall clock once jumped back, times are not in order
    /// and the place found is one of those that fit.
    Time(SystemTime),
}

impl Seek {
    fn begin(self) -> Begin {
        match self {
            Self::Earliest => Begin::Earliest,
            Self::Latest => Begin::Latest,
            Self::Position(position) => Begin::After(position),
            Self::Time(time) => Begin::Time(wall_of(time)),
        }
    }
}

/// A time before 1970 is the beginning of it.
pub(super) fn wall_of(time: SystemTime) -> WallMs {
    let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    WallMs(u64::try_from(ms).unwrap_or(u64::MAX))
}

impl Group {
    /// Lets the group go on from another place: back, so that messages come again, or ahead, so that others never come. One step, durable
    /// on return; a crash before that leaves the group where it was, or where it was to go.
    ///
    /// All that the group had in progress of its topic is let go: leases are lost (settling says `LeaseLost`), and retries, delays,
    /// attempts, their histories and what waits in order of keys are forgotten. What is behind the new place comes as if it had never been
    /// delivered, with attempt 1 first, in the order and through the filter of the group; what is before it counts as settled. Dead
    /// letters stay, and so do redriven messages, with their leases, for they are nowhere else. A message that became a dead letter before
    /// and comes again can become another one. The group's options stay, paused too.
    ///
    /// Only what is kept comes again. A topic keeps what some group has not settled, and what its [`Retention`](crate::Retention) says;
    /// [`Sought::missing`] counts what a position asks for in vain.
    ///
    /// ```
    /// # use millpond::{Retention, Seek, Store};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").retention(Retention::Forever).open()?;
    /// let report = orders.group("report").open()?;
    /// orders.publish("an order")?;
    /// # store.sync()?;
    /// report.receive(Duration::ZERO)?.expect("it is there").ack()?;
    ///
    /// // The report was wrong: it is made anew.
    /// let sought = report.seek(Seek::Earliest)?;
    /// assert_eq!((sought.lag_before, sought.lag), (0, 1));
    /// assert_eq!(report.receive(Duration::ZERO)?.expect("it comes again").payload(), b"an order");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - `InvalidPosition` if the position is none of this topic, or what it names was lost.
    /// - `Unreadable` if a message cannot be read for its time.
    /// - `Removed` if the group or its topic was.
    /// - `DiskFull`, `TooManyOpenFiles`, `OutOfMemory`; nothing was changed.
    /// - `OutcomeUnknown` if the sync failed: after reopening the group is at one place or the other.
    /// - `Closed`, `Poisoned`, `Forked`.
    pub fn seek(&self, to: Seek) -> Result<Sought> {
        self.inner.topic.shared.engine.seek(self.inner.topic.info, self.inner.info.id, to.begin())
    }

    /// What [`Group::seek`] would do now. Changes nothing.
    ///
    /// # Errors
    /// As [`Group::seek`].
    pub fn preview_seek(&self, to: Seek) -> Result<Sought> {
        self.inner.topic.shared.engine.preview_seek(self.inner.topic.info, self.inner.info.id, to.begin())
    }
}
