//! Publishing, one message or many.
//!
//! Never here: what is in a message.

use super::topic;
use crate::args::Publish;
use crate::output::{Done, Failure, Printer};
use crate::text::taken;
use millpond::{Message, Store, Topic};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead};

/// How many messages one write has. Each is durable when its ids are printed.
const BATCH: usize = 1_000;

pub fn publish(store: &Store, args: Publish, printer: &mut Printer) -> Done {
    let topic = topic(store, &args.topic)?;
    let payload = match (&args.payload, &args.file) {
        (Some(payload), _) => Some(payload.clone().into_bytes()),
        (None, Some(file)) => Some(
            std::fs::read(file).map_err(|error| Failure::Io(format!("could not read {}", file.display()), error))?,
        ),
        (None, None) => None,
    };
    let dressed = |payload: Vec<u8>| {
        let mut message = Message::new(payload);
        if let Some(key) = &args.key {
            message = message.key(key.as_bytes());
        }
        args.headers.iter().fold(message, |message, (name, value)| message.header(name, value.as_bytes()))
    };
    let Some(payload) = payload else {
        return publish_lines(&topic, printer, |line| Ok(dressed(line)));
    };
    let mut message = dressed(payload);
    if let Some(id) = &args.dedup_id {
        message = message.dedup_id(id.as_bytes());
    }
    let receipt = topic.publish(message)?;
    let (id, repeat) = (receipt.id(), receipt.is_repeat());
    printer.show(
        || json!({ "id": id.to_string(), "is_repeat": repeat }),
        || format!("{id}{}", if repeat { " (published before)" } else { "" }),
    )
}

pub fn import(store: &Store, name: &str, printer: &mut Printer) -> Done {
    let topic = store.topic(name).open()?;
    publish_lines(&topic, printer, |line| {
        let json: Value = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
        let map = json.as_object().ok_or("it is no JSON object")?;
        from_json(map)
    })
}

fn from_json(map: &Map<String, Value>) -> Result<Message<'static>, String> {
    let mut message = Message::new(taken(map, "payload")?.ok_or("it has no payload")?);
    if let Some(key) = taken(map, "key")? {
        message = message.key(key);
    }
    for header in map.get("headers").and_then(Value::as_array).into_iter().flatten() {
        let header = header.as_object().ok_or("a header is no object")?;
        let name = header.get("name").and_then(Value::as_str).ok_or("a header has no name")?;
        message = message.header(name.to_owned(), taken(header, "value")?.ok_or("a header has no value")?);
    }
    Ok(message)
}

/// Publishes what becomes of each line of the input, many at a time, each batch durable before the next. Says how many there were; where
/// a line is refused, all before its batch are published.
fn publish_lines<'a>(
    topic: &Topic,
    printer: &mut Printer,
    read: impl Fn(Vec<u8>) -> Result<Message<'a>, String>,
) -> Done {
    let (mut batch, mut count) = (Vec::new(), 0_usize);
    for (nth, line) in (1..).zip(io::stdin().lock().split(b'\n')) {
        let line = line.map_err(|error| Failure::Io("could not read the input".to_owned(), error))?;
        let refused = |text| Failure::Usage(format!("line {nth}: {text}; {count} messages were published before"));
        batch.push(read(line).map_err(refused)?);
        if batch.len() == BATCH {
            count += flush(topic, &mut batch)?;
        }
    }
    count += flush(topic, &mut batch)?;
    printer.show(|| json!({ "published": count }), || format!("published {count} messages"))
}

fn flush(topic: &Topic, batch: &mut Vec<Message<'_>>) -> Done<usize> {
    let count = batch.len();
    if count > 0 {
        topic.publish_batch(std::mem::take(batch))?;
    }
    Ok(count)
}
