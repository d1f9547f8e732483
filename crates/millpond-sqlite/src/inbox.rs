//! The inbox: which messages were handled, written with the effects of handling them.

use crate::message::check_name;
use crate::{Result, schema};
use millpond::MessageId;
use rusqlite::{Connection, Transaction};
use std::time::Duration;

/// The IDs of messages whose effects are in the application's database, so that a message that is delivered again has no second effect.
///
/// The ID is written in the transaction of the effects, so both are there or neither is. Acknowledge the message after the commit: a
/// crash in between delivers it again, and [`Inbox::handle`] returns [`Sighting::Repeat`].
///
/// Each consumer of messages has an inbox of its own name, because each group of a topic gets every message.
#[derive(Clone, Debug)]
pub struct Inbox {
    name: String,
}

/// Whether a message was handled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a message that was handled before must have no second effect"]
pub enum Sighting {
    /// It was not. Write its effects in this transaction.
    First,
    /// Its effects are in the database. Commit or drop the transaction, and acknowledge the message.
    Repeat,
}

impl Inbox {
    /// Opens the inbox of this name: 1 to 255 bytes. Creates the tables if they do not exist: in the caller's transaction if there is
    /// one.
    ///
    /// # Errors
    /// - [`Error::InvalidName`](crate::Error::InvalidName) if the name is empty or too long.
    /// - [`Error::NewerSchema`](crate::Error::NewerSchema) if a newer version of this crate wrote the tables.
    /// - [`Error::Database`](crate::Error::Database) if SQLite fails.
    pub fn open(connection: &Connection, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        check_name("inbox", &name)?;
        schema::INBOX.create(connection)?;
        Ok(Self { name })
    }

    /// Notes a message as handled, in the transaction of its effects. A rollback removes the note too.
    ///
    /// `message` is the delivery's [`origin`](millpond::Delivery::origin): it stays the same through retries, dead letters and redrives,
    /// also to another topic. The `id` of a redriven message is a new one.
    ///
    /// Commit at least as durably as the message is acknowledged. With `synchronous = NORMAL` in WAL mode, a power failure can take
    /// back the commit, while the ack that follows it is durable within the store's sync interval: the effect is then lost.
    /// `synchronous = FULL` prevents that.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database) if SQLite fails.
    pub fn handle(&self, transaction: &Transaction<'_>, message: MessageId) -> Result<Sighting> {
        let mut note = transaction.prepare_cached(
            "INSERT INTO millpond_inbox (inbox, message, handled_at) VALUES (?1, ?2, CAST(strftime('%s', 'now') AS INTEGER))
             ON CONFLICT (inbox, message) DO NOTHING",
        )?;
        let is_first = note.execute((&self.name, message.to_string()))? == 1;
        Ok(if is_first { Sighting::First } else { Sighting::Repeat })
    }

    /// Forgets messages that were handled longer than `age` ago, by the clock of the machine, in whole seconds. Returns how many.
    ///
    /// A message that comes again after that is handled a second time. It comes again if its ack was lost and its lease ended, at the
    /// latest after all its attempts and backoffs; or if it became a dead letter after its effects were committed, and is redriven, at
    /// any time. So no age is safe for dead letters that are kept for longer. A worker that is suspended in a handler can also take any
    /// time. An age of some days covers the rest.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database) if SQLite fails.
    pub fn prune_older_than(&self, connection: &Connection, age: Duration) -> Result<u64> {
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let deleted = connection.execute(
            "DELETE FROM millpond_inbox
             WHERE inbox = ?1 AND CAST(strftime('%s', 'now') AS INTEGER) - handled_at > ?2",
            (&self.name, age),
        )?;
        Ok(deleted as u64)
    }

    /// Forgets all but the `keep` messages that were handled last. Returns how many.
    ///
    /// What [`Inbox::prune_older_than`] says about a message that comes again is true here too. Keep more than the group may have
    /// outstanding ([`max_outstanding`](millpond::GroupBuilder::max_outstanding)), and its dead letters.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database) if SQLite fails.
    pub fn prune_to(&self, connection: &Connection, keep: u32) -> Result<u64> {
        let deleted = connection.execute(
            "DELETE FROM millpond_inbox WHERE inbox = ?1 AND number <= (
                 SELECT number FROM millpond_inbox WHERE inbox = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2
             )",
            (&self.name, keep),
        )?;
        Ok(deleted as u64)
    }
}
