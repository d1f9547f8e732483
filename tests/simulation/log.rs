//! Topics read as logs: in the order of the log, only what is durable where only that may be seen, and from any position that was seen
//! exactly what comes after it, whatever crashes came between (G25).

use crate::history::Life;
use crate::oracle::{Oracle, Sent};
use millpond::simulation::Rng;
use millpond::{Error, LogReader, MessageId, Position};
use std::collections::BTreeSet;

/// What a reader gave: messages with their positions, and whether it told of a gap.
struct Read {
    messages: Vec<(MessageId, Position)>,
    has_gap: bool,
}

/// Topics of so many partitions keep their messages for ever.
pub const KEPT_PARTITIONS: u32 = 2;

impl Life<'_> {
    /// Reads a topic from the start, and from a position that was seen before, perhaps by an earlier process.
    pub fn read_log(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let topic = rng.index(self.topics.len());
        self.tally.count("logs read");
        let all = match self.topics[topic].reader().open() {
            Ok(mut reader) => read(&mut reader, oracle),
            Err(error) => Err(Ok(error)),
        };
        let all = match all {
            Ok(all) => all,
            Err(Ok(error)) => return self.excuse("reading a log", &error),
            Err(Err(what)) => return Err(what),
        };
        if !all.messages.is_sorted_by(|a, b| a.1 < b.1) {
            return Err("a log is read out of order (G25)".to_owned());
        }
        self.check_whole(oracle, topic, &all)?;
        for (id, position) in &all.messages {
            if oracle.positions.insert(*id, *position).is_some_and(|before| before != *position) {
                return Err(format!("{id} has two positions (G25)"));
            }
        }
        let Some((id, position)) = oracle.positions.iter().nth(rng.index(oracle.positions.len().max(1))) else {
            return Ok(());
        };
        let (id, position) = (*id, *position);
        match self.topics[topic].reader().from(position).open() {
            Ok(mut reader) => {
                self.tally.count("logs read from a position");
                let rest: Vec<_> = all.messages.iter().filter(|(_, other)| *other > position).copied().collect();
                match read(&mut reader, oracle) {
                    Ok(after) if after.messages == rest => Ok(()),
                    Ok(after) => Err(format!(
                        "after {id} come {} messages, and {} are there (G25)",
                        after.messages.len(),
                        rest.len()
                    )),
                    Err(Ok(error)) => self.excuse("reading a log", &error),
                    Err(Err(what)) => Err(what),
                }
            }
            Err(Error::InvalidPosition { fault, .. }) => {
                self.tally.count("positions refused");
                let is_there = all.messages.iter().any(|(other, _)| *other == id);
                if is_there { Err(format!("{id} is there, and its position {fault} (G25)")) } else { Ok(()) }
            }
            Err(error) => self.excuse("a reader of a log", &error),
        }
    }

    /// A topic that keeps its messages has all of them; what is not durable is not read where only that may be seen.
    fn check_whole(&self, oracle: &Oracle, topic: usize, all: &Read) -> Result<(), String> {
        let (Some((_, durable)), Some((first, _))) = (self.log(), all.messages.first()) else { return Ok(()) };
        let read: BTreeSet<MessageId> = all.messages.iter().map(|(id, _)| *id).collect();
        let upto = if self.durable_only { durable } else { u64::MAX };
        // What was published for later has a further id where it is read.
        let is_here =
            |id: &MessageId, sent: &Sent| sent.topic == topic && id.topic == first.topic && id.partition < 1 << 32;
        for (id, sent) in oracle.sent.iter().filter(|(id, sent)| is_here(id, sent)) {
            if read.contains(id) && sent.end > upto {
                return Err(format!("{id} is read, and not durable: {} is (G25)", durable));
            }
            let is_kept = self.plan.topics[topic] == KEPT_PARTITIONS;
            if is_kept && sent.end <= upto && !read.contains(id) {
                return Err(format!("{id} is not in the log, which keeps all (G15, G25)"));
            }
        }
        if all.has_gap && self.plan.topics[topic] == KEPT_PARTITIONS {
            return Err("a gap in a log that keeps all (G15)".to_owned());
        }
        Ok(())
    }
}

/// Reads to the end; an error of the store, or what is wrong.
fn read(reader: &mut LogReader, oracle: &mut Oracle) -> Result<Read, Result<Error, String>> {
    let mut read = Read { messages: Vec::new(), has_gap: false };
    loop {
        match reader.try_next() {
            Ok(Some(message)) => {
                oracle.name(message.origin(), message.payload()).map_err(Err)?;
                read.messages.push((message.id(), message.position()));
            }
            Ok(None) => return Ok(read),
            Err(Error::Gap { .. }) => read.has_gap = true,
            Err(error) => return Err(Ok(error)),
        }
    }
}
