//! The tables. All have the prefix `millpond_`, and `millpond_schema` contains the version of each part.

use crate::{Error, Result};
use rusqlite::{Connection, OptionalExtension};

const VERSION: i64 = 1;

/// A set of tables with one version.
pub(crate) struct Part {
    name: &'static str,
    tables: &'static str,
}

/// `next` is the number of the next message, and `claimed` bounds the numbers that a drain may have published. The store's numbers
/// begin at `base`, under the name `producer`.
pub(crate) const OUTBOX: Part = Part {
    name: "outbox",
    tables: "
        CREATE TABLE IF NOT EXISTS millpond_outbox_topics (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            producer TEXT NOT NULL,
            base INTEGER NOT NULL DEFAULT 0,
            next INTEGER NOT NULL,
            claimed INTEGER NOT NULL DEFAULT 0,
            claims INTEGER NOT NULL DEFAULT 0
        );
        CREATE TABLE IF NOT EXISTS millpond_outbox_messages (
            topic INTEGER NOT NULL,
            number INTEGER NOT NULL,
            key BLOB,
            headers BLOB NOT NULL,
            payload BLOB NOT NULL,
            PRIMARY KEY (topic, number)
        );",
};

pub(crate) const INBOX: Part = Part {
    name: "inbox",
    tables: "
        CREATE TABLE IF NOT EXISTS millpond_inbox (
            number INTEGER PRIMARY KEY,
            inbox TEXT NOT NULL,
            message TEXT NOT NULL,
            handled_at INTEGER NOT NULL,
            UNIQUE (inbox, message)
        );",
};

impl Part {
    /// Creates the tables if they are not there. The version comes last, so that a crash before it leaves the rest to be done again.
    pub(crate) fn create(&self, connection: &Connection) -> Result<()> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS millpond_schema (part TEXT PRIMARY KEY, version INTEGER NOT NULL)",
        )?;
        let found = connection
            .query_row("SELECT version FROM millpond_schema WHERE part = ?1", [self.name], |row| row.get(0))
            .optional()?;
        match found {
            Some(VERSION) => Ok(()),
            Some(found) => Err(Error::NewerSchema { part: self.name, found, supported: VERSION }),
            None => {
                connection.execute_batch(self.tables)?;
                // Another connection may have come first.
                connection.execute("INSERT OR IGNORE INTO millpond_schema VALUES (?1, ?2)", (self.name, VERSION))?;
                Ok(())
            }
        }
    }
}
