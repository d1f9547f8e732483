//! Printing a topic as a log.
//!
//! Never here: groups.

#![allow(clippy::disallowed_methods, reason = "a person waits here, by no simulated clock")]

use crate::args::Tail;
use crate::output::{Done, Failure, Printer};
use crate::text::{message, short};
use millpond::{Error, LogMessage, Observer, Position, ReadFrom};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the store is looked at for what came.
const STEP: Duration = Duration::from_millis(50);

/// Set when the process is asked to end.
pub fn interrupted() -> Done<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let hooked = signal_hook::flag::register(signal, Arc::clone(&flag));
        hooked.map_err(|error| Failure::Io("could not listen for signals".to_owned(), error))?;
    }
    Ok(flag)
}

pub fn tail(observer: &Observer, args: &Tail, printer: &mut Printer) -> Done {
    let from = match &args.after {
        Some(text) => {
            let position: Position = text.parse().map_err(|error| Failure::Usage(format!("{text:?}: {error}")))?;
            ReadFrom::After(position)
        }
        None => ReadFrom::Start,
    };
    let (mut reader, stop, mut left) = (observer.log(&args.topic, from)?, interrupted()?, args.max);
    while left > 0 && !stop.load(Ordering::Relaxed) {
        match reader.try_next() {
            Ok(Some(read)) => {
                printer.show(|| as_json(&read), || line(&read))?;
                left -= 1;
            }
            Ok(None) if args.follow => {
                printer.flush()?;
                // Nobody tells of what comes.
                if !observer.refresh()? {
                    std::thread::sleep(STEP);
                }
            }
            Ok(None) => break,
            Err(gap @ (Error::Gap { .. } | Error::Unreadable { .. })) => {
                printer.show(|| json!({ "skipped": gap.to_string() }), || format!("({gap})"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// All messages as JSON, whatever the output is to be.
pub fn export(observer: &Observer, name: &str, printer: &mut Printer) -> Done {
    let mut reader = observer.log(name, ReadFrom::Start)?;
    let mut unreadable = 0;
    loop {
        match reader.try_next() {
            Ok(Some(read)) => printer.bytes(format!("{}\n", as_json(&read)).as_bytes())?,
            Ok(None) if unreadable == 0 => return Ok(()),
            Ok(None) => {
                printer.flush()?;
                return Err(Failure::Damaged(format!("{unreadable} messages cannot be read; all others are exported")));
            }
            // What is gone was settled, and is no loss of the export.
            Err(Error::Gap { .. }) => {}
            Err(Error::Unreadable { .. }) => unreadable += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn line(read: &LogMessage) -> String {
    let key = read.key().map(|key| format!("  key {}", short(key))).unwrap_or_default();
    format!("{}{key}  {}", read.id(), short(read.payload()))
}

fn as_json(read: &LogMessage) -> Value {
    let more = json!({ "id": read.id().to_string(), "position": read.position().to_string() });
    message(more, read.key(), read.headers(), read.timestamp(), read.payload())
}
