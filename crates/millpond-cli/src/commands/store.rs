//! Creating a store, and looking at it as a whole.
//!
//! Never here: messages.

use crate::output::{Done, Failure, Printer};
use crate::text::{age, put, short};
use millpond::{GroupStats, Observer, Store};
use serde_json::{Map, Value, json};
use std::path::Path;

pub fn init(path: &Path, printer: &mut Printer) -> Done {
    let store = Store::open(path)?;
    let created = store.report().created;
    store.close()?;
    if !created {
        return Err(Failure::Usage(format!("{} is a store already", path.display())));
    }
    printer
        .show(|| json!({ "created": path.display().to_string() }), || format!("created a store in {}", path.display()))
}

pub fn cursors(store: &Observer, printer: &mut Printer) -> Done {
    let mut rows = Vec::new();
    for name in store.cursors()? {
        let value = store.cursor(&name)?.map(|value| value.to_vec()).unwrap_or_default();
        let mut json = Map::new();
        json.insert("name".to_owned(), name.as_str().into());
        put(&mut json, "value", &value);
        rows.push((vec![name, short(&value)], json.into()));
    }
    printer.table(&["CURSOR", "VALUE"], rows)
}

/// What each group has to do; with JSON the log as well.
pub fn stats(store: &Observer, printer: &mut Printer) -> Done {
    let stats = store.stats()?;
    if printer.is_json() {
        let topics: Vec<Value> = stats.topics.iter().map(|topic| {
            json!({ "name": topic.name, "retention": topic.retention.to_string(), "published": topic.published, "partitions": topic.partitions.len(),
                "groups": topic.groups.iter().map(group_json).collect::<Vec<_>>() })
        }).collect();
        let log = json!({ "segments": stats.log.segments, "bytes": stats.log.bytes, "end": stats.log.end.0, "durable": stats.log.durable.0 });
        return printer.show(|| json!({ "topics": topics, "log": log }), String::new);
    }
    let mut rows = Vec::new();
    for topic in &stats.topics {
        if topic.groups.is_empty() {
            let mut row = vec![topic.name.clone(), "-".to_owned()];
            row.resize(HEADER.len(), String::new());
            rows.push((row, Value::Null));
        }
        for group in &topic.groups {
            let numbers = [group.lag, group.ready, group.leased, group.waiting, group.exhausted, group.dead];
            let mut row = vec![topic.name.clone(), group.name.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(age(group.oldest_unsettled_age));
            row.push(paused(group).to_owned());
            rows.push((row, Value::Null));
        }
    }
    printer.table(HEADER, rows)?;
    let log = stats.log;
    printer.show(|| Value::Null, || format!("\nlog: {} bytes in {} segments", log.bytes, log.segments))
}

const HEADER: &[&str] = &["TOPIC", "GROUP", "LAG", "READY", "LEASED", "WAITING", "EXHAUSTED", "DEAD", "OLDEST", ""];

pub fn paused(group: &GroupStats) -> &'static str {
    if group.paused { "paused" } else { "" }
}

pub fn group_json(group: &GroupStats) -> Value {
    let ms = |age: Option<std::time::Duration>| age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({
        "name": group.name, "lag": group.lag, "ready": group.ready, "leased": group.leased, "waiting": group.waiting,
        "exhausted": group.exhausted, "dead": group.dead, "at_cap": group.at_cap, "paused": group.paused,
        "oldest_ready_age_ms": ms(group.oldest_ready_age), "oldest_unsettled_age_ms": ms(group.oldest_unsettled_age),
    })
}
