//! Named cursors, and producers that number their messages.
//!
//! Never here: deciding.

use super::store::StoreShared;
use super::{Durability, Message, Receipt, Store, Topic, check_name};
use crate::engine::{Hold, Sequence};
use crate::error::{Error, PositionFault, Result};
use crate::ids::Position;
use crate::limits::CURSOR_LEN_MAX;
use std::sync::Arc;

/// A small value by name that says how far somebody has come: a projection, an importer, a relay. Made by [`Store::cursor`].
///
/// A call that expects another value than it has fails with `CursorMoved`, so of two that move it at once one fails. Set in a [`Transaction`](crate::Transaction)
/// it moves together with what it stands for, or not at all.
#[derive(Clone)]
pub struct Cursor {
    pub(super) shared: Arc<StoreShared>,
    pub(super) name: String,
}

impl Store {
    /// The cursor of this name, which need not be there yet: 1 to 255 bytes. A store has at most 65,536.
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let imported = store.cursor("legacy-import")?;
    /// let rows = store.topic("rows").open()?;
    /// let before = imported.get()?;
    /// store.transaction(|tx| {
    ///     tx.publish(&rows, "row 1")?;
    ///     tx.set_cursor(&imported, before.as_deref(), "1")
    /// })?;
    /// assert_eq!(imported.get()?.as_deref(), Some(&b"1"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn cursor(&self, name: impl Into<String>) -> Result<Cursor> {
        let name = name.into();
        check_name("cursor", &name)?;
        Ok(Cursor { shared: Arc::clone(&self.shared), name })
    }

    /// The names of all cursors, in order. What is not durable yet is made so before, in a store that was opened at `Disk`.
    ///
    /// # Errors
    /// The store's.
    pub fn cursors(&self) -> Result<Vec<String>> {
        Ok(self.shared.engine.cursors()?.into_iter().map(|name| name.as_ref().to_owned()).collect())
    }
}

impl Cursor {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands; `None` if it is not there. In a store that was opened at `Disk` the value is durable on return, so nobody goes by
    /// one that a crash takes back.
    ///
    /// # Errors
    /// The store's.
    pub fn get(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.shared.engine.cursor(&self.name)?.map(|value| value.to_vec()))
    }

    /// Sets it to a value of at most 1,024 bytes if it stands at `expected`, or if it is not there and `expected` is `None`. On return
    /// that survives what the store's level says. A crash before that leaves the old value or the new one.
    ///
    /// # Errors
    /// `CursorMoved` if it stands elsewhere; `TooLarge`; `LimitReached`; the store's. Nothing was changed then, except by `OutcomeUnknown`.
    pub fn set(&self, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let engine = &self.shared.engine;
        let value = value.as_ref();
        check_value(value)?;
        let end = engine.set_cursor(&self.name, expected, value, None)?;
        if self.shared.level == Durability::Disk { engine.wait_durable(end) } else { Ok(()) }
    }

    /// Removes it. Durable on return as [`Cursor::set`] is.
    ///
    /// # Errors
    /// `NotFound` if it is not there; the store's.
    pub fn remove(&self) -> Result<()> {
        let engine = &self.shared.engine;
        let end = engine.remove_cursor(&self.name)?;
        if self.shared.level == Durability::Disk { engine.wait_durable(end) } else { Ok(()) }
    }
}

/// How far somebody has read a topic as a log, by name. Made by [`Topic::cursor`].
///
/// Once it is set it holds the topic: messages behind its position stay until it has moved past them, whatever groups settled. Several can
/// hold one topic. A cursor that nobody moves any more keeps the disk from being freed until it is removed.
#[derive(Clone)]
pub struct TopicCursor {
    pub(super) topic: Topic,
    pub(super) name: String,
}

impl Topic {
    /// The cursor of this name over this topic, which need not be there yet: 1 to 255 bytes. The name is of the store: two topics cannot
    /// have a cursor of one name, nor a topic and [`Store::cursor`]. It outlives the topic, until it is removed.
    ///
    /// ```
    /// # use millpond::Store;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = Store::open(directory.path().join("data"))?;
    /// let orders = store.topic("orders").open()?;
    /// let mails = store.topic("mails").open()?;
    /// orders.publish_batch(["two pizzas", "one soup"])?;
    ///
    /// let done = orders.cursor("mailer")?;
    /// let mut position = done.position()?;
    /// let mut reader = match position {
    ///     Some(position) => orders.reader().from(position).open()?,
    ///     None => orders.reader().open()?,
    /// };
    /// loop {
    ///     let order = match reader.try_next() {
    ///         Ok(Some(order)) => order,
    ///         Ok(None) => break,
    ///         // What was settled before the cursor held it may be gone.
    ///         Err(millpond::Error::Gap { .. }) => continue,
    ///         Err(error) => return Err(error.into()),
    ///     };
    ///     // The mail and the progress are in one frame: after a crash the next process sends no mail twice, and forgets none.
    ///     store.transaction(|tx| {
    ///         tx.publish(&mails, order.payload())?;
    ///         tx.advance(&done, position, order.position())
    ///     })?;
    ///     position = Some(order.position());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn cursor(&self, name: impl Into<String>) -> Result<TopicCursor> {
        let name = name.into();
        check_name("cursor", &name)?;
        Ok(TopicCursor { topic: self.clone(), name })
    }
}

impl TopicCursor {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands, for [`LogReaderBuilder::from`](crate::LogReaderBuilder::from); `None` if it is not there. Durable on return as
    /// [`Cursor::get`] is.
    ///
    /// # Errors
    /// `InvalidPosition` if the cursor of this name stands in another topic, or in one that was removed; `InvalidOption` if it was set to
    /// something else by [`Cursor::set`]; the store's.
    pub fn position(&self) -> Result<Option<Position>> {
        let Some(value) = self.topic.inner().shared.engine.cursor(&self.name)? else { return Ok(None) };
        let position = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        let position: Position = position.ok_or_else(|| Error::InvalidOption {
            option: "cursor",
            value: self.name.clone(),
            expected: "the name of one that stands at a position",
        })?;
        self.topic.inner().shared.engine.check_partition(self.topic.inner().info, position)?;
        Ok(Some(position))
    }

    /// Moves it to a position that a reader of the topic gave, forward or back, if it stands at `expected`, or if it is not there and `expected` is `None`.
    /// On return that survives what the store's level says.
    ///
    /// # Errors
    /// `CursorMoved` if it stands elsewhere; `InvalidPosition`, also if the topic was removed; `LimitReached`; the store's. Nothing was
    /// changed then, except by `OutcomeUnknown`.
    pub fn advance(&self, expected: Option<Position>, to: Position) -> Result<()> {
        let shared = &self.topic.inner().shared;
        let (expected, value, hold) = self.change(expected, to)?;
        let end = shared.engine.set_cursor(&self.name, expected.as_deref(), &value, Some(hold))?;
        if shared.level == Durability::Disk { shared.engine.wait_durable(end) } else { Ok(()) }
    }

    /// Where it is expected, where it goes, and what it holds then.
    pub(super) fn change(&self, expected: Option<Position>, to: Position) -> Result<(Option<Vec<u8>>, Vec<u8>, Hold)> {
        let inner = self.topic.inner();
        inner.shared.engine.check_position(inner.info, to)?;
        // One that holds another topic goes on holding it.
        expected.map_or(Ok(()), |expected| inner.shared.engine.check_partition(inner.info, expected))?;
        let text = |position: Position| position.to_string().into_bytes();
        Ok((expected.map(text), text(to), Hold { topic: inner.info.id, from: to.lsn }))
    }

    /// Removes it; it holds nothing any more. Durable on return as [`Cursor::set`] is. One that stands in a topic that was removed can be
    /// removed by any topic of now. What another sets under the name between the look and the removal goes as well.
    ///
    /// # Errors
    /// `NotFound` if it is not there; `InvalidPosition` if the cursor of this name is another topic's; `InvalidOption` if it was set to
    /// something else by [`Cursor::set`]; the store's.
    pub fn remove(&self) -> Result<()> {
        // seam: any cursor of the name is removed
        match self.position() {
            Ok(_) => {}
            Err(Error::InvalidPosition { fault, .. }) if fault != PositionFault::OtherTopic => {}
            Err(error) => return Err(error),
        }
        let shared = Arc::clone(&self.topic.inner().shared);
        Cursor { shared, name: self.name.clone() }.remove()
    }
}

pub(super) fn check_value(value: &[u8]) -> Result<()> {
    let (len, max) = (value.len() as u64, CURSOR_LEN_MAX as u64);
    if len <= max { Ok(()) } else { Err(Error::TooLarge { what: "cursor value", len, max, unit: "bytes" }) }
}

/// Publishes messages that it numbers itself, from 0 on without gaps, so that none is published twice however often it is tried. Made by
/// [`Topic::producer`].
///
/// For sources that can be read again from a place, such as a file or a foreign log: the store remembers one number, not ids.
#[derive(Clone)]
pub struct Producer {
    pub(super) topic: Topic,
    name: String,
}

impl Topic {
    /// The producer of this name, 1 to 255 bytes. A store has at most 65,536.
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn producer(&self, name: impl Into<String>) -> Result<Producer> {
        let name = name.into();
        check_name("producer", &name)?;
        Ok(Producer { topic: self.clone(), name })
    }
}

impl Producer {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that its next message must have. In a store that was opened at `Disk` all before it is durable on return.
    ///
    /// # Errors
    /// The store's.
    pub fn next_sequence(&self) -> Result<u64> {
        self.topic.inner().shared.engine.next_sequence(self.topic.inner().info.id, &self.name)
    }

    /// Publishes the message with this number, as [`Topic::publish`]. `None` if it was published before: then nothing is published, and
    /// what was is durable on return in a store that was opened at `Disk`.
    ///
    /// # Errors
    /// `SequenceGap` if a lower number comes next; `InvalidOption` if the message has an id or a unique key; `LimitReached`; as [`Topic::publish`].
    pub fn publish<'a>(&self, sequence: u64, message: impl Into<Message<'a>>) -> Result<Option<Receipt>> {
        let message = message.into();
        if message.dedup_id.is_some() {
            let expected = "none, for the producer numbers its messages";
            return Err(Error::InvalidOption { option: "dedup_id", value: "given".to_owned(), expected });
        }
        if message.unique_key.is_some() {
            let expected = "none, for the producer numbers its messages";
            return Err(Error::InvalidOption { option: "unique_key", value: "given".to_owned(), expected });
        }
        let sequence = Sequence { topic: self.topic.inner().info.id, producer: &self.name, number: sequence };
        let published = self
            .topic
            .publish_one(&message, |engine, outgoing| Ok(engine.publish_numbered(outgoing, sequence)?.ok_or(())));
        Ok(published?.ok())
    }
}
