//! Messages as an SQLite database.
//!
//! The file has its name once it is whole and durable. Never here: reading it.

use super::tail::interrupted;
use super::verify::message_bar;
use crate::output::{Done, Failure, Printer};
use crate::text::{headers_json, millis};
use millpond::{Error, LogMessage, Observer, ReadFrom};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, params};
use serde_json::{Value, json};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// No journal: a file that is not whole is thrown away.
const SCHEMA: &str = "
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE messages (
        nth INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        position TEXT NOT NULL,
        id TEXT NOT NULL,
        key ANY,
        headers TEXT NOT NULL,
        payload ANY NOT NULL,
        timestamp_ms INTEGER NOT NULL
    ) STRICT;
";

const INSERT: &str = "INSERT INTO messages (topic, partition, position, id, key, headers, payload, timestamp_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// Writes the messages of one topic, or of all.
pub fn export(observer: &Observer, topic: Option<&str>, file: &Path, printer: &mut Printer) -> Done {
    let is_there = || Failure::Usage(format!("{} is there already; nothing was written", file.display()));
    if file.symlink_metadata().is_ok() {
        return Err(is_there());
    }
    let failed = |error: io::Error| Failure::Io(format!("could not write {}", file.display()), error);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = tempfile::Builder::new();
    // As any other file, by the umask.
    unfinished.prefix(".millpond-export-").permissions(Permissions::from_mode(0o666));
    let unfinished = unfinished.tempfile_in(folder).map_err(failed)?;
    let count = fill(observer, topic, (unfinished.path(), file))?;
    unfinished.as_file().sync_all().map_err(failed)?;
    unfinished.persist_noclobber(file).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => is_there(),
        _ => failed(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    let to = file.display().to_string();
    printer.show(|| json!({ "exported": count, "to": to }), || format!("exported {count} messages to {to}"))
}

/// How many messages there are.
fn fill(observer: &Observer, topic: Option<&str>, (unfinished, file): (&Path, &Path)) -> Done<u64> {
    let failed =
        |error: rusqlite::Error| Failure::Io(format!("could not write {}", file.display()), io::Error::other(error));
    let stats = observer.stats()?;
    let names = match topic {
        Some(name) => vec![name],
        None => stats.topics.iter().map(|topic| topic.name.as_str()).collect(),
    };
    let published = stats.topics.iter().filter(|topic| names.contains(&topic.name.as_str()));
    let (bar, stop) = (message_bar("exporting", published.map(|topic| topic.published).sum()), interrupted()?);
    let mut database = Connection::open(unfinished).map_err(failed)?;
    database.execute_batch(SCHEMA).map_err(failed)?;
    let all = database.transaction().map_err(failed)?;
    let mut insert = all.prepare(INSERT).map_err(failed)?;
    let mut count = 0;
    for name in names {
        let mut log = observer.log(name, ReadFrom::Start)?;
        loop {
            if stop.load(Ordering::Relaxed) {
                let what = format!("{} was not written", file.display());
                return Err(Failure::Io(what, io::ErrorKind::Interrupted.into()));
            }
            match log.try_next() {
                Ok(Some(message)) => add(&mut insert, name, &message).map_err(failed)?,
                Ok(None) => break,
                // What is gone was settled, and is no loss of the export.
                Err(Error::Gap { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            count += 1;
            bar.inc(1);
        }
    }
    drop(insert);
    all.commit().map_err(failed)?;
    database.close().map_err(|(_, error)| failed(error))?;
    bar.finish_and_clear();
    Ok(count)
}

fn add(insert: &mut Statement<'_>, topic: &str, message: &LogMessage) -> rusqlite::Result<()> {
    let (id, position) = (message.id(), message.position().to_string());
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (key, headers) = (message.key().map(cell), Value::from(headers_json(message.headers())).to_string());
    let (payload, time) = (cell(message.payload()), number(millis(message.timestamp())));
    insert.execute(params![topic, number(id.partition), position, id.to_string(), key, headers, payload, time])?;
    Ok(())
}

/// Text where it is text, which SQLite ends at a zero, and else a blob.
fn cell(bytes: &[u8]) -> ToSqlOutput<'_> {
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    ToSqlOutput::Borrowed(if is_text { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) })
}
