//! Publishing what waits in the outbox, exactly once.
//!
//! Four steps, and a crash between any two of them is repaired by the next drain:
//! 1. Look: where does each topic stand in the database, and where in the store?
//! 2. Claim: note durably in SQLite up to which number messages may now be published. This also makes the messages durable, whatever
//!    level their own transactions had. Else a power failure could take back a message that is published, and its number would go to
//!    another one, which the store would refuse as a repeat.
//! 3. Publish under those numbers, and sync the store.
//! 4. Delete what is published.
//!
//! So `claimed` bounds what the store can contain. A store that contains more has it from another copy of the database.

use crate::message::read_headers;
use crate::{Error, Outbox, Result};
use millpond::{Durability, ErrorKind, ErrorScope, Message, Store};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};

/// What a drain did.
#[derive(Debug, Default)]
#[must_use = "topics may be blocked"]
pub struct Drained {
    /// How many messages were published.
    pub published: u64,
    /// How many messages the store contained already, because an earlier drain ended between its publishes and its deletions.
    pub repeated: u64,
    /// The topics that cannot go on by themselves. Their messages wait; the other topics are not affected.
    pub blocked: Vec<BlockedTopic>,
}

/// A topic whose first waiting message cannot be published, whenever it is tried.
///
/// - The topic does not exist in the store: create it. A drain creates none, because only the application knows its options.
/// - The store refuses the message, as it is larger than the store's
///   [`message_bytes_max`](millpond::StoreOptions::message_bytes_max): raise that, or [discard](Outbox::discard) the message.
/// - [`Error::DatabaseBehind`] or [`Error::StoreBehind`]: find out why, then [renew](Outbox::renew) the topic.
#[derive(Debug)]
pub struct BlockedTopic {
    /// The topic.
    pub topic: String,
    /// The number of the message, for [`Outbox::discard`].
    pub number: u64,
    /// Why.
    pub error: Error,
}

/// A topic of the outbox. `producer` numbers the messages in the store, and message `base` is its first.
pub(crate) struct Waiting {
    pub(crate) id: i64,
    name: String,
    pub(crate) producer: String,
    pub(crate) base: i64,
    next: i64,
    claimed: i64,
}

/// A topic with messages that may be published: those below `end`.
struct Claim {
    topic: Waiting,
    first: i64,
    end: i64,
}

impl Outbox {
    /// Publishes waiting messages, at most `limit` of each topic, and deletes them once they are durable in the store. Returns an empty
    /// result if nothing waits. Call it in a loop: after a commit, or every second.
    ///
    /// A crash or an error leaves every message in the database, in the store, or in both; the next drain publishes the rest and
    /// deletes those that the store contains. No message is published twice, however long that takes: the store refuses a number that
    /// it has. Several drains may run at the same time.
    ///
    /// The messages of one topic are published in order. Those of different topics are not ordered. Nothing waits for a
    /// [blocked](BlockedTopic) topic.
    ///
    /// A drain that has something to publish commits once with SQLite's `synchronous = EXTRA`, and then restores the connection's
    /// setting. So messages survive a power failure once they are published, even if the application commits with less.
    ///
    /// # Errors
    /// - [`Error::OpenTransaction`] if the connection is inside a transaction.
    /// - [`Error::Store`] or [`Error::Database`] if the store or SQLite fails: call again as [`Error::kind`] says.
    /// - [`Error::Damaged`] if a row contains other bytes than this crate writes.
    pub fn drain(&self, connection: &mut Connection, store: &Store, limit: u32) -> Result<Drained> {
        if !connection.is_autocommit() {
            return Err(Error::OpenTransaction);
        }
        let mut drained = Drained::default();
        let mut claims = Vec::new();
        for topic in waiting_topics(connection)? {
            let Some(first) = head(connection, topic.id)? else { continue };
            let name = topic.name.clone();
            let claim = look(connection, store, topic, first, limit);
            claims.extend(drained.unless_blocked(&name, first, claim)?);
        }
        if claims.is_empty() {
            return Ok(drained);
        }
        claim(connection, &claims)?;
        let mut done = Vec::new();
        for claim in &claims {
            let end = drained.publish(connection, store, claim)?;
            done.push((claim.topic.id, end));
        }
        // What is a repeat may have been published by another drain, which has not synced yet.
        store.sync()?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for done in done {
            transaction.execute("DELETE FROM millpond_outbox_messages WHERE topic = ?1 AND number < ?2", done)?;
        }
        transaction.commit()?;
        Ok(drained)
    }
}

impl Drained {
    /// Notes a topic as blocked if only a person or a change of the program can help it. Passes on every other error.
    fn unless_blocked<T>(&mut self, topic: &str, number: i64, done: Result<T>) -> Result<Option<T>> {
        let error = match done {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let is_of_topic = match &error {
            Error::Store(error) => error.kind() == ErrorKind::FixCall && error.scope() != ErrorScope::Store,
            error => matches!(error, Error::DatabaseBehind { .. } | Error::StoreBehind { .. }),
        };
        if !is_of_topic {
            return Err(error);
        }
        self.blocked.push(BlockedTopic { topic: topic.to_owned(), number: number.unsigned_abs(), error });
        Ok(None)
    }

    /// Publishes the messages of a claim, up to the first that the store refuses. Returns the number after the last one that the store
    /// contains.
    fn publish(&mut self, connection: &Connection, store: &Store, claim: &Claim) -> Result<i64> {
        let Claim { topic, first, end } = claim;
        // One sync at the end serves all.
        let handle = store.topic(&topic.name).create(false).open()?.with_durability(Durability::Os);
        let producer = handle.producer(&topic.producer)?;
        let mut rows = connection.prepare_cached(
            "SELECT number, key, headers, payload FROM millpond_outbox_messages
             WHERE topic = ?1 AND number >= ?2 AND number < ?3 ORDER BY number",
        )?;
        let mut next = *first;
        let mut rows = rows.query([topic.id, next, *end])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let published = producer.publish(number.abs_diff(topic.base), read_message(row)?);
            match self.unless_blocked(&topic.name, number, published.map_err(Error::from))? {
                Some(Some(_)) => self.published += 1,
                // An earlier drain ended before its deletions, or another one was faster.
                Some(None) => self.repeated += 1,
                None => break,
            }
            next = number + 1;
        }
        Ok(next)
    }
}

/// Compares a topic in the database with the store, and bounds what is published now.
///
/// Another drain may be at work, which claims, then publishes, then deletes. So `first` was read before the store is, and what is
/// claimed is read after it.
fn look(connection: &Connection, store: &Store, mut topic: Waiting, first: i64, limit: u32) -> Result<Claim> {
    let handle = store.topic(&topic.name).create(false).open()?;
    let stored = handle.producer(&topic.producer)?.next_sequence()?;
    let mut claimed = connection.prepare_cached("SELECT claimed FROM millpond_outbox_topics WHERE id = ?1")?;
    topic.claimed = claimed.query_row([topic.id], |row| row.get(0))?;
    let (sent, deleted) = (topic.claimed.abs_diff(topic.base), first.abs_diff(topic.base));
    if stored > sent {
        return Err(Error::DatabaseBehind { topic: topic.name, sent, stored });
    }
    if stored < deleted {
        return Err(Error::StoreBehind { topic: topic.name, first: first.unsigned_abs(), stored });
    }
    let end = topic.next.min(first.saturating_add(limit.into()));
    Ok(Claim { topic, first, end })
}

/// Notes what is going to be published, and returns once that and all earlier commits survive a power failure.
fn claim(connection: &mut Connection, claims: &[Claim]) -> Result<()> {
    let level: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    let claimed = note_claims(connection, claims);
    let restored = connection.pragma_update(None, "synchronous", level);
    claimed?;
    Ok(restored?)
}

fn note_claims(connection: &mut Connection, claims: &[Claim]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for Claim { topic, end, .. } in claims {
        // Counted, so that the row changes and SQLite has something to sync.
        transaction.execute(
            "UPDATE millpond_outbox_topics SET claimed = max(claimed, ?2), claims = claims + 1 WHERE id = ?1",
            [topic.id, *end],
        )?;
    }
    Ok(transaction.commit()?)
}

const TOPIC_COLUMNS: &str = "SELECT id, name, producer, base, next, claimed FROM millpond_outbox_topics";

fn read_topic(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        id: row.get(0)?,
        name: row.get(1)?,
        producer: row.get(2)?,
        base: row.get(3)?,
        next: row.get(4)?,
        claimed: row.get(5)?,
    })
}

/// All topics that the outbox has had messages for.
fn waiting_topics(connection: &Connection) -> Result<Vec<Waiting>> {
    let mut topics = connection.prepare_cached(TOPIC_COLUMNS)?;
    let topics = topics.query_map([], read_topic)?;
    Ok(topics.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn waiting_topic(transaction: &Transaction<'_>, name: &str) -> Result<Option<Waiting>> {
    let sql = format!("{TOPIC_COLUMNS} WHERE name = ?1");
    Ok(transaction.query_row(&sql, [name], read_topic).optional()?)
}

/// The number of the first message of a topic that waits.
pub(crate) fn head(connection: &Connection, topic: i64) -> Result<Option<i64>> {
    let mut first = connection.prepare_cached("SELECT min(number) FROM millpond_outbox_messages WHERE topic = ?1")?;
    Ok(first.query_row([topic], |row| row.get(0))?)
}

/// The message of a row, borrowed from it.
fn read_message<'r>(row: &'r Row<'_>) -> Result<Message<'r>> {
    let bytes = |column| row.get_ref(column)?.as_bytes_or_null().map_err(rusqlite::Error::from);
    let damaged = |reason| Error::Damaged { table: "millpond_outbox_messages", reason };
    let headers = bytes("headers")?.and_then(read_headers).ok_or_else(|| damaged("headers that cannot be read"))?;
    let payload = bytes("payload")?.ok_or_else(|| damaged("no payload"))?;
    let message = headers.into_iter().fold(Message::new(payload), |message, (name, value)| message.header(name, value));
    Ok(match bytes("key")? {
        Some(key) => message.key(key),
        None => message,
    })
}
