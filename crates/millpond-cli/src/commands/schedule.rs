//! Messages for later.
//!
//! Never here: publishing them.

#![allow(clippy::disallowed_methods, reason = "a person asks, at this time")]

use super::topic;
use crate::args::Schedule;
use crate::output::{Done, Failure, Printer};
use crate::text::{age, millis};
use millpond::{MessageId, Store};
use serde_json::json;
use std::time::SystemTime;

/// How many are listed at a time.
const PAGE: usize = 4_096;

pub fn schedule(store: &Store, command: Schedule, printer: &mut Printer) -> Done {
    match command {
        Schedule::List { topic: of } => {
            let topic = topic(store, &of)?;
            let (mut rows, mut after, now) = (Vec::new(), None, SystemTime::now());
            loop {
                let page = topic.scheduled(after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                rows.extend(page.iter().map(|message| {
                    let left = message.due.duration_since(now).unwrap_or_default();
                    let row = vec![message.id.to_string(), age(Some(left)), message.partition.to_string()];
                    let due = millis(message.due);
                    (row, json!({ "id": message.id.to_string(), "due_ms": due, "partition": message.partition }))
                }));
            }
            printer.table(&["ID", "DUE IN", "PARTITION"], rows)
        }
        Schedule::Cancel { topic: of, id } => {
            let parsed: MessageId = id.parse().map_err(|error| Failure::Usage(format!("{id:?}: {error}")))?;
            topic(store, &of)?.cancel_scheduled(parsed)?;
            printer.show(|| json!({ "cancelled": id }), || format!("cancelled {id}"))
        }
    }
}
