//! Events of one correlation, as a tree of causes.
//!
//! Events are told by the headers of CloudEvents. Never here: what an event means.

use super::dead_letters::cause_name;
use crate::output::{Done, Failure, Printer};
use crate::text::{millis, plain};
use millpond::{Error, Lsn, MessageId, MessageState, Observer, ReadFrom};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::SystemTime;

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
    /// In which open it was published, when, and where it stands in the log.
    order: (u32, u64, Lsn),
    groups: Vec<String>,
}

impl EventNode {
    /// The event in a message that was published as `origin`, if it has this correlation.
    fn new<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        correlation: &str,
        topic: &str,
        origin: MessageId,
        (time, at): (SystemTime, Lsn),
    ) -> Option<Self> {
        let [mut event, mut of, mut cause, mut kind] = [const { None }; 4];
        for (name, value) in headers {
            let field = match name {
                "ce_id" => &mut event,
                "ce_correlationid" => &mut of,
                "ce_causationid" => &mut cause,
                "ce_type" => &mut kind,
                _ => continue,
            };
            field.get_or_insert_with(|| String::from_utf8_lossy(value).into_owned());
        }
        let event = event.filter(|event| of.as_deref() == Some(correlation) || event == correlation)?;
        let (kind, topic, time_ms) = (kind.unwrap_or_default(), topic.to_owned(), millis(time));
        let order = (origin.epoch.count(), time_ms, at);
        Some(Self { event, cause, kind, topic, id: origin.to_string(), time_ms, order, groups: Vec::new() })
    }
}

pub fn trace(observer: &Observer, correlation: &str, printer: &mut Printer) -> Done {
    // By the id by which copies of a message know it.
    let mut nodes = BTreeMap::new();
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
            let origin = message.origin();
            let place = (message.timestamp(), message.position().lsn());
            if let Some(node) = EventNode::new(message.headers(), correlation, &topic.name, origin, place) {
                nodes.entry(origin).or_insert(node);
            }
        }
    }
    for topic in &stats.topics {
        for group in &topic.groups {
            for (state, name) in STATES {
                for message in observer.peek(&topic.name, &group.name, state, PEEKED_MAX)? {
                    let message = match message {
                        Err(Error::Unreadable { .. }) => continue,
                        other => other?,
                    };
                    let origin = message.origin();
                    // A dead letter is kept longer than the message that it was.
                    let place = (message.timestamp(), Lsn(u64::MAX));
                    let kept = || EventNode::new(message.headers(), correlation, &topic.name, origin, place);
                    let node = match nodes.entry(origin) {
                        Entry::Occupied(node) => node.into_mut(),
                        Entry::Vacant(place) => match kept() {
                            Some(node) => place.insert(node),
                            None => continue,
                        },
                    };
                    let last = message.history().last();
                    let why =
                        last.map(|last| format!(", {}: {}", cause_name(last.cause), last.text)).unwrap_or_default();
                    node.groups.push(format!("{} in {} after {} attempts{why}", name, group.name, message.attempts()));
                }
            }
        }
    }
    let mut nodes: Vec<EventNode> = nodes.into_values().collect();
    nodes.sort_by_key(|node| node.order);
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
