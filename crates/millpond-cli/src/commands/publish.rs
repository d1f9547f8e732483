//! Publishing, one message or many.
//!
//! Never here: what is in a message.

use super::tail::interrupted;
use super::topic;
use crate::args::Publish;
use crate::output::{Done, Failure, Printer};
use crate::text::taken;
use millpond::{Message, Store, Topic};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How many messages one write has, and how many bytes of them. Each is durable before the next is begun.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;
/// After so long what was read is published, though more may come.
const PAUSE: Duration = Duration::from_millis(100);

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
        if let Some(delay) = args.delay {
            message = message.delay(delay);
        }
        if let Some(key) = &args.key {
            message = message.key(key.as_bytes());
        }
        args.headers.iter().fold(message, |message, (name, value)| message.header(name, value.as_bytes()))
    };
    let Some(payload) = payload else {
        return publish_lines(&topic, printer, |line| Ok(Some(dressed(line))));
    };
    let mut message = dressed(payload);
    if let Some(id) = &args.dedup_id {
        message = message.dedup_id(id.as_bytes());
    }
    let receipt = topic.publish(message)?;
    let (id, repeat) = (receipt.id(), receipt.is_repeat());
    let told = if repeat { " (published before)" } else { "" };
    printer.show(|| json!({ "id": id.to_string(), "is_repeat": repeat }), || format!("{id}{told}"))
}

pub fn import(store: &Store, name: &str, printer: &mut Printer) -> Done {
    let topic = store.topic(name).open()?;
    publish_lines(&topic, printer, |line| {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let json: Value = serde_json::from_slice(&line).map_err(|_| "it is no JSON")?;
        from_json(json.as_object().ok_or("it is no JSON object")?).map(Some)
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

/// What was read of the input and is not published.
struct Pending<'a, 't> {
    topic: &'t Topic,
    batch: Vec<Message<'a>>,
    bytes: usize,
    /// The line of the first of them.
    first: u64,
    published: u64,
}

/// Publishes what becomes of each line of the input, each batch durable before the next. Says how many there were, also where a line is
/// refused or it is interrupted; then all before are published.
fn publish_lines<'a>(
    topic: &Topic,
    printer: &mut Printer,
    read: impl Fn(Vec<u8>) -> Result<Option<Message<'a>>, String>,
) -> Done {
    if io::stdin().is_terminal() {
        // Where it cannot be written nobody waits for it.
        let _ = writeln!(io::stderr(), "millpond: each line is a message; end with Ctrl-D");
    }
    let stop = interrupted()?;
    let (give, lines) = sync_channel(16);
    // It may wait for a line for ever; the process ends without it.
    std::thread::spawn(move || io::stdin().lock().split(b'\n').try_for_each(|line| give.send(line)));
    let mut pending = Pending { topic, batch: Vec::new(), bytes: 0, first: 1, published: 0 };
    let mut nth = 0;
    while !stop.load(Ordering::Relaxed) {
        let line = match lines.recv_timeout(PAUSE) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                pending.flush()?;
                let what = format!(
                    "could not read the input behind line {nth}; {} messages were published",
                    pending.published
                );
                return Err(Failure::Io(what, error));
            }
            Err(RecvTimeoutError::Timeout) => {
                pending.flush()?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        nth += 1;
        let len = line.len();
        match read(line) {
            Ok(Some(message)) => pending.add(nth, len, message)?,
            Ok(None) => {}
            Err(text) => {
                pending.flush()?;
                let published = pending.published;
                return Err(Failure::Usage(format!(
                    "line {nth}: {text}; {published} messages were published before it"
                )));
            }
        }
    }
    pending.flush()?;
    let count = pending.published;
    printer.show(|| json!({ "published": count }), || format!("published {count} messages"))
}

impl<'a> Pending<'a, '_> {
    fn add(&mut self, line: u64, len: usize, message: Message<'a>) -> Done {
        if self.batch.len() == BATCH || self.bytes + len > BATCH_BYTES {
            self.flush()?;
        }
        if self.batch.is_empty() {
            self.first = line;
        }
        self.batch.push(message);
        self.bytes += len;
        Ok(())
    }

    fn flush(&mut self) -> Done {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (count, before, first) = (self.batch.len() as u64, self.published, self.first);
        self.bytes = 0;
        let done = self.topic.publish_batch(std::mem::take(&mut self.batch));
        done.map_err(|error| {
            Failure::Partly(
                format!("of {count} messages from line {first} on none was published, {before} were before"),
                Box::new(error),
            )
        })?;
        self.published += count;
        Ok(())
    }
}
