//! Projections: what follows a topic event by event, and keeps with its result how far it has come.
//!
//! Never here: what a projection makes of an event, and where a position stands.

use super::transaction::{Transaction, transact};
use super::{LogMessage, LogReader, Topic, TopicCursor};
use crate::error::{Error, Result};
use crate::ids::Position;
use std::fmt;
use std::time::Duration;

/// How many events a transaction takes in by default, and at most.
const BATCH_DEFAULT: usize = 100;
const BATCH_MAX: usize = 10_000;
/// No more events are read for a batch that has as many bytes.
const BATCH_LEN: usize = 4 << 20;
/// How long a runner without events waits before it asks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);

/// Opens a [`Projection`]. Made by [`Topic::projection`].
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct ProjectionBuilder {
    topic: Topic,
    name: String,
    batch: usize,
}

/// Follows a topic, and commits what it makes of each event together with its position, a named [`TopicCursor`]: each event has its effect
/// in the store exactly once, whatever crash comes between.
///
/// ```
/// # use millpond::{Error, Expected, Store};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("data"))?;
/// let orders = store.topic("orders").streams().open()?;
/// let mails = store.topic("mails").open()?;
/// orders.stream("order-42")?.append(Expected::NoStream, ["placed", "paid"])?;
///
/// let mut mailer = orders.projection("mailer").open()?;
/// while mailer.run_once(|tx, event| tx.publish(&mails, event.payload()).map(drop))? > 0 {}
/// assert_eq!(mailer.status()?.lag, 0);
/// # Ok(())
/// # }
/// ```
pub struct Projection {
    cursor: TopicCursor,
    batch: usize,
    /// `None` where it has to be found out where the cursor stands.
    feed: Option<Feed>,
}

/// Follows a topic for a result in a foreign store, which keeps the position beside its data. Made by [`Topic::projection_from`].
pub struct ForeignProjection {
    feed: Feed,
}

/// How far a projection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The last event that it took in; `None` before the first.
    pub position: Option<Position>,
    /// How many messages of the topic that may be seen are behind that.
    pub lag: u64,
}

/// Why a projection stands still.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProjectionError<E> {
    /// The program failed on an event, or for a foreign store on the events from this one on. It comes again with the next call, and
    /// nothing of it was done.
    Event {
        /// Where the event is.
        position: Position,
        /// What the program returned.
        source: E,
    },
    /// Reading or committing failed.
    Store(Error),
}

/// The events behind a position, read ahead up to a batch.
struct Feed {
    topic: Topic,
    reader: LogReader,
    position: Option<Position>,
    /// Read, and not taken in.
    pending: Vec<LogMessage>,
    /// These are taken in one at a time: together they were refused.
    singly: bool,
    /// What became of reading behind these.
    error: Option<Error>,
}

impl Topic {
    /// The projection of this name, which need not be there yet. Its position is the topic's cursor of that name ([`Topic::cursor`]): it
    /// begins at the first message, and holds the messages behind it.
    pub fn projection(&self, name: impl Into<String>) -> ProjectionBuilder {
        ProjectionBuilder { topic: self.clone(), name: name.into(), batch: BATCH_DEFAULT }
    }

    /// A projection into a foreign store that has taken in all up to `position`, or nothing. It holds no messages.
    ///
    /// # Errors
    /// As [`LogReaderBuilder::open`](crate::LogReaderBuilder::open).
    pub fn projection_from(&self, position: Option<Position>) -> Result<ForeignProjection> {
        Ok(ForeignProjection { feed: Feed::open(self, position)? })
    }

    /// How far a projection at this position has come.
    fn projected(&self, position: Option<Position>) -> Result<ProjectionStatus> {
        let lag = self.inner().shared.engine.log_lag(self.inner().info, position)?;
        Ok(ProjectionStatus { position, lag })
    }
}

impl ProjectionBuilder {
    /// How many events a transaction takes in at most: 1 to 10,000; fewer where they are large. Default: 100.
    pub fn batch(mut self, events: usize) -> Self {
        self.batch = events;
        self
    }

    /// Opens the projection.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOption`.
    pub fn open(self) -> Result<Projection> {
        if !(1..=BATCH_MAX).contains(&self.batch) {
            let expected = "from 1 to 10,000";
            return Err(Error::InvalidOption { option: "batch", value: self.batch.to_string(), expected });
        }
        Ok(Projection { cursor: self.topic.cursor(self.name)?, batch: self.batch, feed: None })
    }
}

impl Projection {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cursor.name()
    }

    /// Takes in the next events that there are, at most a batch, in one transaction with the new position: `project` is called for each. On
    /// return that is durable at the level of the topic's handle. Returns how many it took in: 0 where it has caught up.
    ///
    /// If `project` fails or panics nothing is done, and the event comes again with the next call. Those before it are taken in, for which
    /// `project` is called again.
    ///
    /// # Errors
    /// `Event` if `project` fails. `Store` otherwise: `CursorMoved` if another runner of this name moved it or set it back, and the next
    /// call goes on where that stands; `Unreadable` and `Gap`, each once, and the next call goes on behind; those of
    /// [`Store::transaction`](crate::Store::transaction).
    pub fn run_once<E>(
        &mut self,
        mut project: impl FnMut(&mut Transaction<'_>, &LogMessage) -> std::result::Result<(), E>,
    ) -> std::result::Result<usize, ProjectionError<E>> {
        let Self { cursor, batch, feed } = self;
        step(cursor, feed, (*batch, Duration::ZERO), &mut project)
    }

    /// Takes in events as [`Projection::run_once`], and waits for more, until `until` says so: it is asked before each batch, and every 100
    /// ms while there is none. Returns how many events it took in.
    ///
    /// # Errors
    /// As [`Projection::run_once`].
    pub fn run<E>(
        &mut self,
        mut until: impl FnMut() -> bool,
        mut project: impl FnMut(&mut Transaction<'_>, &LogMessage) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, ProjectionError<E>> {
        let Self { cursor, batch, feed } = self;
        let mut count = 0;
        while !until() {
            count += step(cursor, feed, (*batch, IDLE), &mut project)? as u64;
        }
        Ok(count)
    }

    /// Sets it back to the first message, in one frame. The next run begins anew; what it published before is still there. Durable on
    /// return as [`Cursor::set`](crate::Cursor::set) is. A runner of the same name is told by `CursorMoved`.
    ///
    /// # Errors
    /// As [`TopicCursor::remove`], but where there is nothing to remove; so a name that another topic's cursor has is refused.
    pub fn rebuild(&mut self) -> Result<()> {
        self.feed = None;
        match self.cursor.remove() {
            Err(Error::NotFound { .. }) => Ok(()),
            removed => removed,
        }
    }

    /// How far it has come, also if another process runs it. Durable on return as [`Cursor::get`](crate::Cursor::get) is.
    ///
    /// # Errors
    /// As [`TopicCursor::position`]; `InvalidPosition` if what it took in was lost in a power failure; the store's.
    pub fn status(&self) -> Result<ProjectionStatus> {
        self.cursor.topic.projected(self.cursor.position()?)
    }
}

/// One transaction with the next events, for the first of which it waits.
fn step<E>(
    cursor: &TopicCursor,
    feed: &mut Option<Feed>,
    (batch, wait): (usize, Duration),
    project: &mut impl FnMut(&mut Transaction<'_>, &LogMessage) -> std::result::Result<(), E>,
) -> std::result::Result<usize, ProjectionError<E>> {
    let opened = match feed {
        Some(opened) => opened,
        None => feed.insert(Feed::open(&cursor.topic, cursor.position()?)?),
    };
    opened.fill(batch, wait)?;
    // seam: a rebuild by another is not seen
    if opened.pending.is_empty() && cursor.position()? != opened.position {
        // Another runner moved it, or set it back.
        *feed = None;
        return Err(Error::CursorMoved { name: cursor.name.clone() }.into());
    }
    // seam: a batch that is refused is tried again whole
    let mut count = if opened.singly { 1 } else { opened.pending.len() };
    let mut taken = opened.take_in(cursor, count, project);
    if count > 1 && taken.as_ref().is_err_and(|(_, error)| is_too_much(error)) {
        // What is refused for several events together may be done for one.
        (count, opened.singly) = (1, true);
        taken = opened.take_in(cursor, count, project);
    }
    if let Err((nth @ 1.., ProjectionError::Event { position, source })) = taken {
        // What comes before it need not wait for it.
        let failed = ProjectionError::Event { position, source };
        taken = opened.take_in(cursor, nth, project).and(Err((0, failed)));
    }
    if let Err((_, ProjectionError::Store(_))) = taken {
        // Another may have moved the cursor.
        *feed = None;
    }
    taken.map(|()| count).map_err(|(_, error)| error)
}

/// Whether the transaction was refused for what it is, and a smaller one may not be.
fn is_too_much<E>(error: &ProjectionError<E>) -> bool {
    matches!(
        error,
        ProjectionError::Store(
            Error::InvalidTransaction { .. }
                | Error::TooLarge { .. }
                | Error::LimitReached { .. }
                | Error::WrongVersion { .. }
        )
    )
}

impl ForeignProjection {
    /// Gives the next events that there are, at most `batch` and at least one, to `project`, which writes what it makes of them into the
    /// foreign store, in one transaction with the position of the last one. Returns how many those were: 0 where it has caught up.
    ///
    /// If `project` fails or panics they come again with the next call; call it with a `batch` of 1 to find the one that fails. Open the
    /// store at `Durability::Disk`: then the foreign store is never ahead of the log.
    ///
    /// # Errors
    /// `Event` with the position of the first one, if `project` fails. `Store` otherwise: as [`LogReader::next`].
    pub fn run_once<E>(
        &mut self,
        batch: usize,
        project: impl FnOnce(&[LogMessage]) -> std::result::Result<(), E>,
    ) -> std::result::Result<usize, ProjectionError<E>> {
        let Self { feed } = self;
        let batch = batch.clamp(1, BATCH_MAX);
        feed.fill(batch, Duration::ZERO)?;
        // More may be left of a call that failed.
        let count = batch.min(feed.pending.len());
        let events = feed.pending.get(..count).unwrap_or_default();
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(0) };
        let (first, last) = (first.position(), last.position());
        // seam: a foreign projection gives one event of a batch
        project(events).map_err(|source| ProjectionError::Event { position: first, source })?;
        feed.position = Some(last);
        feed.pending.drain(..count);
        Ok(count)
    }

    /// How far it has come.
    ///
    /// # Errors
    /// `InvalidPosition` if what it took in was lost in a power failure; the store's.
    pub fn status(&self) -> Result<ProjectionStatus> {
        self.feed.topic.projected(self.feed.position)
    }
}

impl Feed {
    fn open(topic: &Topic, position: Option<Position>) -> Result<Self> {
        let reader = topic.reader();
        let reader = match position {
            Some(position) => reader.from(position).open()?,
            None => reader.open()?,
        };
        Ok(Self { topic: topic.clone(), reader, position, pending: Vec::new(), singly: false, error: None })
    }

    /// Reads the next events, unless there are some that were read and not taken in.
    fn fill(&mut self, max: usize, wait: Duration) -> Result<()> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        self.singly = false;
        self.error.take().map_or(Ok(()), Err)?;
        let (mut len, mut wait) = (0, wait);
        while self.pending.len() < max && len < BATCH_LEN {
            match self.reader.next(std::mem::take(&mut wait)) {
                Ok(Some(message)) => {
                    len += message.payload().len();
                    self.pending.push(message);
                }
                Ok(None) => break,
                Err(error) if self.pending.is_empty() => return Err(error),
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Carries out what `project` makes of the first `count` events that were read, with the position of the last one. On an error nothing
    /// was done, and the number of the event is told.
    fn take_in<E>(
        &mut self,
        cursor: &TopicCursor,
        count: usize,
        project: &mut impl FnMut(&mut Transaction<'_>, &LogMessage) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), (usize, ProjectionError<E>)> {
        let events = self.pending.get(..count).unwrap_or_default();
        let Some(last) = events.last().map(LogMessage::position) else { return Ok(()) };
        let mut nth = 0;
        let done = transact(&cursor.topic.inner().shared, |tx| {
            tx.durability(cursor.topic.level());
            for event in events {
                let position = event.position();
                project(tx, event).map_err(|source| ProjectionError::Event { position, source })?;
                nth += 1;
            }
            // seam: a projection moves without its output
            tx.advance(cursor, self.position, last)?;
            Ok(())
        });
        done.map_err(|error| (nth, error))?;
        self.position = Some(last);
        self.pending.drain(..count);
        Ok(())
    }
}

impl<E> From<Error> for ProjectionError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for ProjectionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { position, source } => write!(f, "projection failed on the event at {position}: {source}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ProjectionError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Event { source, .. } => Some(source),
            Self::Store(error) => error.source(),
        }
    }
}
