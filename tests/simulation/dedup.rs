//! Ids of messages and a cursor: an id is accepted once whatever crashes come between (G20), and a cursor stands where its output does.

use crate::history::Life;
use crate::oracle::{Oracle, Sent, Stand, payload};
use millpond::simulation::Rng;
use millpond::{Durability, Error, ErrorKind, Message};
use std::time::Duration;

/// Longer than any history, but for jumps of the clock that no job has seen.
pub const WINDOW: Duration = Duration::from_secs(9 * 366 * 24 * 3600);
const CURSOR: &str = "progress";

impl Life<'_> {
    /// Publishes a message under an id: a new one, or one that was tried before, perhaps by an earlier process.
    pub fn publish_under_id(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let known = oracle.identified.len();
        let (topic, number) = if known > 0 && rng.coin() {
            oracle.identified[rng.index(known)]
        } else {
            let new = (rng.index(self.topics.len()), oracle.number(false));
            oracle.identified.push(new);
            new
        };
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let message = Message::new(payload(number)).dedup_id(number.to_le_bytes());
        let receipt = match self.topics[topic].with_durability(level).publish(message) {
            Ok(receipt) => receipt,
            Err(Error::DedupConflict { first, .. }) => {
                return Err(format!("the bytes of number {number} are not those of {first} (G20)"));
            }
            Err(error) => {
                if error.kind() != ErrorKind::Retry {
                    oracle.unsure.insert(number, topic);
                }
                return self.excuse("a publish under an id", &error);
            }
        };
        self.tally.count(if receipt.is_repeat() { "repeats of ids" } else { "publishes under ids" });
        oracle.name(receipt.id(), &payload(number))?;
        let Some((end, durable)) = self.log() else {
            oracle.unsure.insert(number, topic);
            return Ok(());
        };
        if receipt.is_repeat() && self.durable_only && durable <= receipt.lsn().0 {
            return Err(format!("{} is told as the first, at {durable}, and not durable (G4, G20)", receipt.id()));
        }
        match oracle.accepted.get(&(topic, number)) {
            Some((first, _)) if !receipt.is_repeat() || *first != receipt.id() => {
                return Err(format!("{} was accepted under the id of {first} (G20)", receipt.id()));
            }
            Some(_) => {}
            None => {
                // A log ends at the end of a frame: it is there if the log ends behind its beginning.
                let end = if receipt.is_repeat() { receipt.lsn().0 + 1 } else { end };
                oracle.sent.insert(receipt.id(), Sent { number, topic, end });
                oracle.accepted.insert((topic, number), (receipt.id(), end));
            }
        }
        if level == Durability::Disk && durable <= receipt.lsn().0 {
            return Err(format!("a publish at Disk returned with the watermark at {durable} (G1)"));
        }
        Ok(())
    }

    /// Publishes a message and sets the cursor to its number, in one frame.
    pub fn move_cursor(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        let (topic, number) = (rng.index(self.topics.len()), oracle.number(false));
        let cursor = self.store.cursor(CURSOR).map_err(|error| error.to_string())?;
        let before = match cursor.get() {
            Ok(before) => before,
            Err(error) => return self.excuse("reading a cursor", &error),
        };
        let stands = before.as_deref().and_then(|value| value.try_into().ok()).map(u64::from_le_bytes);
        let known = oracle.stands.last().map(|stand| stand.number);
        let is_unsure = std::mem::take(&mut oracle.stands_elsewhere);
        if stands != known && !is_unsure {
            return Err(format!("the cursor stands at {stands:?}, and was set to {known:?} (G18)"));
        }
        if stands != known {
            // When it came there is not known, but that it was before now.
            let end = self.log().map_or(oracle.end, |(end, _)| end);
            let adopted = stands.map(|number| Stand { number, end, is_sure: false });
            oracle.stands = adopted.into_iter().collect();
        }
        let done = self.store.transaction(|tx| {
            tx.publish(&self.topics[topic], Message::new(payload(number)))?;
            tx.set_cursor(&cursor, before.as_deref(), number.to_le_bytes())
        });
        self.tally.count_if(done.is_ok(), "cursors moved");
        match (done, self.log()) {
            (Ok(done), Some((end, _))) => {
                for id in done.ids() {
                    oracle.name(*id, &payload(number))?;
                    oracle.sent.insert(*id, Sent { number, topic, end });
                }
                oracle.stands.push(Stand { number, end, is_sure: true });
                Ok(())
            }
            (Err(error), _) if error.kind() == ErrorKind::Retry => self.excuse("a cursor", &error),
            (Err(Error::CursorMoved { .. }), _) => Err("a cursor moved by itself (G18)".to_owned()),
            (done, _) => {
                oracle.unsure.insert(number, topic);
                oracle.stands_elsewhere = true;
                done.map(drop).or_else(|error| self.excuse("a cursor", &error))
            }
        }
    }
}
