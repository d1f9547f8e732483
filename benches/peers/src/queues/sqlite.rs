//! A queue on SQLite: one table in WAL mode, one transaction a call; synchronous is NORMAL or, for power loss, FULL.

use super::numbers::Numbers;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives};
use crate::workload::Workload;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::ops::Range;
use std::path::Path;

pub(super) const PEER: Peer = Peer { name: "sqlite", facts, open, is_present: || true };

struct Sqlite {
    /// SQLite has one writer at a time; a mutex queues the threads better than its busy handler.
    writer: Mutex<Connection>,
    /// In WAL mode the reader does not wait for the writer.
    reader: Mutex<Connection>,
    numbers: Numbers,
}

fn facts() -> Facts {
    Facts {
        version: rusqlite::version().to_owned(),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::PerMessage,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::No,
        note: "rusqlite, bundled; WAL; synchronous=NORMAL, for the durable rows FULL. One transaction a call. No group commit.",
        cannot: &[],
        advantages: &[
            (Workload::OpenClean, "it reads the root of a tree"),
            (Workload::OpenKilled, "a checkpoint keeps its log short: few pages are recovered"),
            (Workload::Live, "its consumer spins on a counter in memory and never sleeps"),
            (Workload::DurableBatch, "a batch is one transaction with one sync"),
            (Workload::DiskBytes, "pages of a tree that is filled in order, no preallocation, no checksums, no times"),
        ],
    }
}

fn open(dir: &Path, mode: Mode) -> Result<Box<dyn Queue>> {
    let file = dir.join("queue.db");
    let writer = connect(&file, mode)?;
    writer.execute_batch("CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)")?;
    let range = |row: &rusqlite::Row<'_>| Ok(row.get::<_, i64>(0)?..row.get::<_, i64>(1)?);
    let waiting =
        writer.query_row("SELECT ifnull(min(number), 0), ifnull(max(number) + 1, 0) FROM messages", [], range)?;
    let numbers = Numbers::new(u64::try_from(waiting.start)?..u64::try_from(waiting.end)?);
    Ok(Box::new(Sqlite { writer: Mutex::new(writer), reader: Mutex::new(connect(&file, mode)?), numbers }))
}

fn connect(file: &Path, mode: Mode) -> Result<Connection> {
    let connection = Connection::open(file)?;
    let synchronous = if mode == Mode::Power { "FULL" } else { "NORMAL" };
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

impl Queue for Sqlite {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.numbers.append(1, |range| {
            let writer = self.writer.lock();
            let mut insert = writer.prepare_cached("INSERT INTO messages VALUES (?1, ?2)")?;
            insert.execute((signed(&range)?.start, payload))?;
            Ok(())
        })
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.numbers.append(payloads.len(), |range| {
            let mut writer = self.writer.lock();
            let transaction = writer.transaction()?;
            {
                let mut insert = transaction.prepare_cached("INSERT INTO messages VALUES (?1, ?2)")?;
                for (number, payload) in signed(&range)?.zip(payloads) {
                    insert.execute((number, payload))?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive_ack_batch(1, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.numbers.take(max, |range| {
            let range = signed(&range)?;
            {
                let reader = self.reader.lock();
                let sql = "SELECT payload FROM messages WHERE number >= ?1 AND number < ?2 ORDER BY number";
                let mut select = reader.prepare_cached(sql)?;
                let mut rows = select.query((range.start, range.end))?;
                while let Some(row) = rows.next()? {
                    sink(row.get_ref(0)?.as_blob()?);
                }
            }
            let writer = self.writer.lock();
            writer
                .prepare_cached("DELETE FROM messages WHERE number >= ?1 AND number < ?2")?
                .execute((range.start, range.end))?;
            Ok(())
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.reader.into_inner().close().map_err(|(_, error)| error)?;
        self.writer.into_inner().close().map_err(|(_, error)| error)?;
        Ok(())
    }
}

fn signed(range: &Range<u64>) -> Result<Range<i64>> {
    Ok(i64::try_from(range.start)?..i64::try_from(range.end)?)
}
