//! Events of one correlation, as a tree of causes.
//!
//! Events are told by the headers of CloudEvents. Never here: what an event means.

use super::dead_letters::cause_name;
use crate::output::{Done, Failure, Printer};
use crate::text::{millis, plain};
use millpond::{Error, MessageState, Observer, ReadFrom};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many messages of a group in one state are looked at.
const PEEKED_MAX: usize = 100_000;

/// The states in which a message of a group is worth a word.
const STATES: [(MessageState, &str); 5] = [
    (MessageState::Leased, "leased"),
    (MessageState::Waiting, "waiting"),
    (MessageState::Exhausted, "exhausted"),
    (MessageState::Parked, "parked"),
    (MessageState::Dead, "dead"),
];

struct EventNode {
    event: String,
    cause: Option<String>,
    kind: String,
    topic: String,
    id: String,
    time_ms: u64,
    /// Where it stands in the log, and the id by which its copies know it.
    place: (u64, String),
    groups: Vec<String>,
}

pub fn trace(observer: &Observer, correlation: &str, printer: &mut Printer) -> Done {
    let mut nodes = Vec::new();
    let stats = observer.stats()?;
    for topic in &stats.topics {
        let mut log = observer.log(&topic.name, ReadFrom::Start)?;
        loop {
            let message = match log.try_next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(Error::Gap { .. } | Error::Unreadable { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let text = |name| message.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
            let Some(event) = text("ce_id") else { continue };
            if text("ce_correlationid").as_deref() != Some(correlation) && event != correlation {
                continue;
            }
            nodes.push(EventNode {
                event,
                cause: text("ce_causationid"),
                kind: text("ce_type").unwrap_or_default(),
                topic: topic.name.clone(),
                id: message.id().to_string(),
                time_ms: millis(message.timestamp()),
                place: (message.position().lsn().0, message.origin().to_string()),
                groups: Vec::new(),
            });
        }
    }
    nodes.sort_by(|one: &EventNode, other| one.place.cmp(&other.place));
    let by_id: BTreeMap<String, usize> = nodes.iter().map(|node| node.place.1.clone()).zip(0..).collect();
    for topic in &stats.topics {
        for group in &topic.groups {
            for (state, name) in STATES {
                for message in observer.peek(&topic.name, &group.name, state, PEEKED_MAX)? {
                    let message = match message {
                        Err(Error::Unreadable { .. }) => continue,
                        other => other?,
                    };
                    let Some(node) = by_id.get(&message.origin().to_string()).and_then(|nth| nodes.get_mut(*nth))
                    else {
                        continue;
                    };
                    let last = message.history().last();
                    let why =
                        last.map(|last| format!(", {}: {}", cause_name(last.cause), last.text)).unwrap_or_default();
                    node.groups.push(format!("{} in {} after {} attempts{why}", name, group.name, message.attempts()));
                }
            }
        }
    }
    if nodes.is_empty() {
        return Err(Failure::Missing(format!("no event of correlation {correlation:?}")));
    }
    show(&nodes, printer)
}

/// Each event below its cause; those whose cause is not there stand at the left.
fn show(nodes: &[EventNode], printer: &mut Printer) -> Done {
    let is_there =
        |cause: &Option<String>| cause.as_ref().is_some_and(|cause| nodes.iter().any(|node| node.event == *cause));
    let mut left: Vec<(usize, usize)> = Vec::new();
    let mut shown = vec![false; nodes.len()];
    let roots = nodes.iter().enumerate().filter(|(_, node)| !is_there(&node.cause)).map(|(nth, _)| (nth, 0));
    left.extend(roots.collect::<Vec<_>>().into_iter().rev());
    while let Some((nth, depth)) = left.pop() {
        // An event that was published twice has two messages, and one place.
        if std::mem::replace(&mut shown[nth], true) {
            continue;
        }
        let node = &nodes[nth];
        printer.show(|| as_json(node, depth), || line(node, depth))?;
        let caused = nodes.iter().enumerate().filter(|(_, other)| other.cause.as_ref() == Some(&node.event));
        left.extend(caused.map(|(nth, _)| (nth, depth + 1)).collect::<Vec<_>>().into_iter().rev());
    }
    Ok(())
}

fn as_json(node: &EventNode, depth: usize) -> Value {
    json!({ "event": node.event, "cause": node.cause, "type": node.kind, "topic": node.topic, "id": node.id, "timestamp_ms": node.time_ms,
        "depth": depth, "groups": node.groups })
}

fn line(node: &EventNode, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let groups: String = node.groups.iter().map(|group| format!("\n{indent}    {}", plain(group))).collect();
    format!("{indent}{}  {}  in {}, {}{groups}", plain(&node.kind), plain(&node.event), plain(&node.topic), node.id)
}
