//! The outbox: messages that are written with the business rows, and numbered there. For publishing them see `drain`.

use crate::drain::{Waiting, head, waiting_topic};
use crate::message::{OutboxMessage, check_name};
use crate::{Error, Result, schema};
use millpond::Store;
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Messages in the application's database that wait to be published to a store of millpond.
///
/// A message is written in the transaction of the business rows that it is about, so both are there or neither is. [`Outbox::drain`]
/// publishes it later, exactly once.
///
/// Each message gets a number of its topic, without gaps, in the transaction that writes it. The drain publishes it under that number
/// through a [producer](millpond::Topic::producer) whose name is random and stored in the database. The store keeps the producer's last
/// number with the messages, so it refuses a number that it has, whatever time has passed. A window of
/// [dedup IDs](millpond::Message::dedup_id) would be the weaker choice: after an outage that is longer than the window, a message whose
/// deletion was lost would be published twice.
///
/// An outbox uses one producer for each topic. A store has at most 65,536.
#[derive(Clone, Debug)]
pub struct Outbox {
    _created: (),
}

impl Outbox {
    /// Opens the outbox of a database. Creates its tables if they do not exist: in the caller's transaction if there is one.
    ///
    /// # Errors
    /// - [`Error::NewerSchema`] if a newer version of this crate wrote the tables.
    /// - [`Error::Database`] if SQLite fails.
    pub fn open(connection: &Connection) -> Result<Self> {
        schema::OUTBOX.create(connection)?;
        Ok(Self { _created: () })
    }

    /// Adds a message for a topic. It is part of the transaction: a rollback removes it.
    ///
    /// The messages of one topic are published in the order of these calls.
    ///
    /// # Errors
    /// - [`Error::InvalidName`] or [`Error::TooLarge`] if no store accepts the message. A store with a smaller
    ///   [`message_bytes_max`](millpond::StoreOptions::message_bytes_max) refuses more: see [`BlockedTopic`](crate::BlockedTopic).
    /// - [`Error::Database`] if SQLite fails.
    pub fn publish<'m>(
        &self,
        transaction: &Transaction<'_>,
        topic: &str,
        message: impl Into<OutboxMessage<'m>>,
    ) -> Result<()> {
        let message = message.into();
        check_name("topic", topic)?;
        message.check()?;
        let (topic, number): (i64, i64) = transaction
            .prepare_cached(
                "INSERT INTO millpond_outbox_topics (name, producer, next) VALUES (?1, lower(hex(randomblob(16))), 1)
                 ON CONFLICT (name) DO UPDATE SET next = next + 1 RETURNING id, next - 1",
            )?
            .query_row([topic], |row| Ok((row.get(0)?, row.get(1)?)))?;
        transaction.prepare_cached("INSERT INTO millpond_outbox_messages VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
            topic,
            number,
            message.key,
            message.header_bytes(),
            message.payload,
        ))?;
        Ok(())
    }

    /// Returns how many messages wait, by counting them.
    ///
    /// # Errors
    /// [`Error::Database`] if SQLite fails.
    pub fn waiting(&self, connection: &Connection) -> Result<u64> {
        let count: i64 = connection.query_row("SELECT count(*) FROM millpond_outbox_messages", [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Starts a new numbering for a topic, as a person decides after [`Error::DatabaseBehind`] or [`Error::StoreBehind`]. The waiting
    /// messages are published under the new one. Does nothing if the outbox has had no message for the topic.
    ///
    /// - After `StoreBehind`, messages that the lost store contained stay lost, and the waiting ones are published once.
    /// - After `DatabaseBehind`, a waiting message may be in the store already. It is then published a second time.
    ///
    /// Do not drain at the same time: what that drain publishes would be published a second time.
    ///
    /// # Errors
    /// [`Error::Database`] if SQLite fails.
    pub fn renew(&self, transaction: &Transaction<'_>, topic: &str) -> Result<()> {
        transaction.execute(
            "UPDATE millpond_outbox_topics SET producer = lower(hex(randomblob(16))), (base, claimed) = (
                 SELECT coalesce(min(number), next), coalesce(min(number), next)
                 FROM millpond_outbox_messages WHERE topic = id
             ) WHERE name = ?1",
            [topic],
        )?;
        Ok(())
    }

    /// Deletes the first waiting message of a topic without publishing it, because the store refuses it: `number` is that of
    /// [`BlockedTopic`](crate::BlockedTopic). The next message takes its place under a new numbering, as by [`Outbox::renew`].
    ///
    /// # Errors
    /// - [`Error::NotFirst`] if another message is the first, or this one was published.
    /// - [`Error::OpenTransaction`] if the connection is inside a transaction.
    /// - [`Error::Store`] or [`Error::Database`] if the store or SQLite fails.
    pub fn discard(&self, connection: &mut Connection, store: &Store, topic: &str, number: u64) -> Result<()> {
        if !connection.is_autocommit() {
            return Err(Error::OpenTransaction);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let not_first = || Error::NotFirst { topic: topic.to_owned(), number };
        let Waiting { id, base, producer, .. } = waiting_topic(&transaction, topic)?.ok_or_else(not_first)?;
        let first = head(&transaction, id)?.ok_or_else(not_first)?;
        let stored = store.topic(topic).create(false).open()?.producer(producer)?.next_sequence()?;
        if first.unsigned_abs() != number || stored != first.abs_diff(base) {
            return Err(not_first());
        }
        transaction.execute("DELETE FROM millpond_outbox_messages WHERE topic = ?1 AND number = ?2", [id, first])?;
        self.renew(&transaction, topic)?;
        transaction.commit()?;
        Ok(())
    }
}
