//! Commands about transactions, and about streams and their snapshots.

use crate::script::{self, Words};
use crate::session::{Refused, Reply, Session, silent, unknown};
use crate::show::payload;
use millpond::{Error, Event, Expected, Stream};

impl Session {
    /// In one transaction, in this order, as far as it is told to: settles deliveries, publishes, appends, saves a snapshot, sets a
    /// cursor. Each of the last four takes a text.
    pub(crate) fn transaction(&mut self, words: &mut Words) -> Reply {
        let mut settled = Vec::new();
        for verb in ["ack", "nack", "reject"] {
            if let Some(name) = words.option(verb, script::text)? {
                settled.push((verb, self.process.deliveries.take(&name)?, name));
            }
        }
        let done = self.transact(&settled, words);
        if done.is_err() {
            for (_, delivery, name) in settled {
                self.process.deliveries.put_back(&name, delivery)?;
            }
        }
        done
    }

    fn transact(&mut self, settled: &[(&str, millpond::Delivery, String)], words: &mut Words) -> Reply {
        let topic = words.option("publish", script::text)?.map(|name| self.topic_named(&name)).transpose()?;
        let stream = words.option("append", script::text)?.map(|name| self.stream(&name)).transpose()?;
        let version = words.option("version", expected)?.unwrap_or(Expected::Any);
        let saved = words.option("snapshot", script::number::<u64>)?;
        let cursor = words.option("set", script::text)?.map(|name| self.store()?.cursor(name).map_err(text_of));
        let (cursor, before) = (cursor.transpose()?, words.option("expected", script::text)?);
        let mut texts = words.texts().into_iter();
        let mut next =
            || texts.next().ok_or_else(|| Error::InvalidTransaction { reason: "a text is missing".to_owned() });
        let done = self.store()?.transaction(|tx| {
            for (verb, delivery, _) in settled {
                match *verb {
                    "ack" => tx.ack(delivery)?,
                    "nack" => tx.nack(delivery, "not in this transaction")?,
                    _ => tx.reject(delivery, "never")?,
                }
            }
            if let Some(topic) = &topic {
                tx.publish(topic, next()?)?;
            }
            if let Some(stream) = &stream {
                tx.append(stream, version, [next()?])?;
                if let Some(version) = saved {
                    tx.save_snapshot(stream, version, next()?)?;
                }
            }
            if let Some(cursor) = &cursor {
                tx.set_cursor(cursor, before.as_deref().map(str::as_bytes), next()?)?;
            }
            Ok::<_, Error>(())
        })?;
        let mut lines = Vec::new();
        if let Some(topic) = &topic {
            lines.extend(done.ids().iter().map(|id| self.names.published(*id, topic.name())));
        }
        let versions = stream.as_ref().and_then(|stream| done.versions(stream));
        lines.extend(versions.map(|versions| format!("version {}", versions.start)));
        Ok(lines)
    }

    /// Of `orders/7`, the stream 7 of the topic orders.
    fn stream(&self, name: &str) -> Result<Stream, Refused> {
        let (topic, key) = name.split_once('/').ok_or_else(|| format!("{name:?} is no TOPIC/KEY"))?;
        Ok(self.topic_named(topic)?.stream(key)?)
    }

    pub(crate) fn with_stream(&mut self, command: &str, words: &mut Words) -> Reply {
        let stream = self.stream(&words.next("a stream")?)?;
        match command {
            "append" => {
                let version = words.option("version", expected)?.unwrap_or(Expected::Any);
                let done = stream.append(version, words.texts())?;
                let repeat = if done.is_repeat() { ", repeat" } else { "" };
                let (first, last) = (done.first_version(), done.last_version());
                Ok(vec![if first == last { format!("{first}{repeat}") } else { format!("{first} to {last}{repeat}") }])
            }
            "read" => shown(stream.read(words.option("from", script::number)?.unwrap_or(0), 100)?),
            "read_back" => shown(stream.read_back(words.option("from", script::number)?.unwrap_or(u64::MAX), 100)?),
            "last_version" => {
                let version = stream.last_version()?.map(|version| version.to_string());
                Ok(vec![version.unwrap_or_else(|| "nothing".to_owned())])
            }
            "truncate_before" => silent(stream.truncate_before(words.number("a version")? as u64)),
            "delete" => silent(stream.delete()),
            "save_snapshot" => silent(stream.save_snapshot(words.number("a version")? as u64, words.text()?)),
            "snapshot" => {
                let upto = words.option("upto", script::number)?.unwrap_or(u64::MAX);
                let found = stream.snapshot_upto(upto)?;
                let line = found.map(|saved| format!("{}: {}", saved.version(), payload(saved.payload())));
                Ok(vec![line.unwrap_or_else(|| "nothing".to_owned())])
            }
            _ => unknown(command),
        }
    }
}

fn shown(events: Vec<Event>) -> Reply {
    let lines = events.iter().map(|event| format!("{}: {}", event.version(), payload(event.payload()))).collect();
    Ok(if events.is_empty() { vec!["nothing".to_owned()] } else { lines })
}

/// Reads `none`, `exists`, and a version.
fn expected(value: &str) -> Result<Expected, String> {
    match value {
        "none" => Ok(Expected::NoStream),
        "exists" => Ok(Expected::Exists),
        _ => script::number(value).map(Expected::Version),
    }
}

fn text_of(error: Error) -> String {
    error.to_string()
}
