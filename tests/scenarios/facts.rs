//! Commands about what is kept beside messages: log readers and positions, ids and producers, named cursors.

use crate::script::{self, Words};
use crate::session::{Reply, SILENT, START, Session, silent, unknown};
use millpond::{Message, Position, Receipt, Seek, Sought};
use std::time::{Duration, UNIX_EPOCH};

impl Session {
    pub(crate) fn produce(&mut self, command: &str, words: &mut Words) -> Reply {
        let topic = self.topic(words)?;
        let producer = topic.producer(words.next("a producer")?)?;
        if command == "next_sequence" {
            return Ok(vec![producer.next_sequence()?.to_string()]);
        }
        let number = words.number("a sequence")? as u64;
        let receipt = producer.publish(number, words.text()?)?;
        Ok(vec![
            receipt.map_or_else(|| "published before".to_owned(), |receipt| self.published(&receipt, topic.name())),
        ])
    }

    /// Where a message is, and whether it was there before.
    pub(crate) fn published(&mut self, receipt: &Receipt, topic: &str) -> String {
        let repeat = if receipt.is_repeat() { ", repeat" } else { "" };
        format!("{}{repeat}", self.names.published(receipt.id(), topic))
    }

    pub(crate) fn cursor(&mut self, command: &str, words: &mut Words) -> Reply {
        if command == "cursors" {
            return Ok(self.store()?.cursors()?);
        }
        let cursor = self.store()?.cursor(words.next("a cursor")?)?;
        match command {
            "cursor" => {
                let value = cursor.get()?.map(|value| format!("{:?}", String::from_utf8_lossy(&value)));
                Ok(vec![value.unwrap_or_else(|| "nothing".to_owned())])
            }
            "set" => {
                let expected = words.option("expected", script::text)?;
                silent(cursor.set(expected.as_deref().map(str::as_bytes), words.text()?))
            }
            // Publishes, and sets the cursor, in one transaction.
            "publish_and_set" => {
                let expected = words.option("expected", script::text)?;
                let (topic, value) = (self.topic(words)?, words.text()?);
                let done = self.store()?.transaction(|tx| {
                    let message = tx.publish(&topic, Message::new(value.clone()))?;
                    tx.set_cursor(&cursor, expected.as_deref().map(str::as_bytes), &value)?;
                    Ok::<_, millpond::Error>(message)
                })?;
                Ok(done.ids().iter().map(|id| self.names.published(*id, topic.name())).collect())
            }
            "unset" => silent(cursor.remove()),
            _ => unknown(command),
        }
    }

    pub(crate) fn open_reader(&mut self, words: &mut Words) -> Reply {
        let builder = self.topic(words)?.reader();
        let builder = match words.option("from", script::text)?.as_deref() {
            None | Some("start") => builder,
            Some("end") => builder.from_end(),
            Some(position) => builder.from(self.position(position)?),
        };
        Ok(vec![format!("R{}", self.process.readers.add(builder.open()?))])
    }

    fn position(&self, name: &str) -> Result<Position, String> {
        let index = name.strip_prefix('P').and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        index.and_then(|index| self.positions.get(index)).copied().ok_or_else(|| format!("there is no {name}"))
    }

    /// A place is `earliest`, `latest`, a position, or a time since the start of the scenario.
    pub(crate) fn seek(&mut self, command: &str, words: &mut Words) -> Reply {
        let group = self.group(words)?;
        let to = match words.next("a place")?.as_str() {
            "earliest" => Seek::Earliest,
            "latest" => Seek::Latest,
            position if position.starts_with('P') => Seek::Position(self.position(position)?),
            time => Seek::Time(UNIX_EPOCH + Duration::from_millis(START.0) + script::duration(time)?),
        };
        let Sought { lag_before, lag, leases_lost, missing, .. } =
            if command == "seek" { group.seek(to)? } else { group.preview_seek(to)? };
        let more = [("leases lost", leases_lost), ("missing", missing)];
        let more = more.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!(", {name} {count}"));
        Ok(vec![format!("lag {lag_before} to {lag}") + &more.collect::<String>()])
    }

    /// The next message, with a number for its position.
    pub(crate) fn read_next(&mut self, reader: &str) -> Reply {
        let Some(message) = self.process.readers.get(reader)?.try_next()? else {
            return Ok(vec!["nothing".to_owned()]);
        };
        self.positions.push(message.position());
        let place = self.names.published(message.id(), message.topic());
        let payload = crate::show::payload(message.payload());
        Ok(vec![format!("P{} {place}: {payload}", self.positions.len())])
    }

    pub(crate) fn checkpoint(&mut self) -> Reply {
        self.store()?.checkpoint()?;
        SILENT
    }
}
