//! Streams of events: reading and appending.
//!
//! Never here: what an event means.

use super::topic;
use crate::args::Stream;
use crate::output::{Done, Failure, Printer};
use crate::text::{message, short};
use millpond::{Expected, Store};
use serde_json::json;

/// How many events one read gets.
const READ: usize = 1_000;

pub fn stream(store: &Store, command: Stream, printer: &mut Printer) -> Done {
    match command {
        Stream::Read { topic: of, key, from } => {
            let stream = topic(store, &of)?.stream(key.as_bytes())?;
            let mut from = from;
            loop {
                let events = stream.read(from, READ)?;
                let Some(last) = events.last() else { return Ok(()) };
                from = last.version().saturating_add(1);
                for event in &events {
                    let more = json!({ "version": event.version(), "id": event.id().to_string() });
                    let json = || message(more, None, event.headers(), event.timestamp(), event.payload());
                    printer.show(json, || format!("{:>6}  {}", event.version(), short(event.payload())))?;
                }
            }
        }
        Stream::Append { topic: of, key, payload, expected } => {
            let stream = topic(store, &of)?.stream(key.as_bytes())?;
            let wrong = || Failure::Usage("--expected takes a version or none".to_owned());
            let expected = match expected.as_deref() {
                None => Expected::Any,
                Some("none") => Expected::NoStream,
                Some(version) => Expected::Version(version.parse().map_err(|_| wrong())?),
            };
            let version = stream.append(expected, [payload])?.first_version();
            printer.show(|| json!({ "version": version }), || format!("version {version}"))
        }
    }
}
