//! Messages for later: whatever crashes come between, each comes once (G21), and one that was taken back does not come.

use crate::history::Life;
use crate::oracle::{Oracle, Sent, payload};
use millpond::simulation::Rng;
use millpond::{Durability, Error, ErrorKind, Message, MessageId};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of messages for later.
#[derive(Clone, Debug, Default)]
pub struct Later {
    /// Those that can be taken back, as far as is known.
    scheduled: Vec<MessageId>,
    /// All that were ever scheduled.
    all: Vec<MessageId>,
    /// What was taken back, and the log's end then.
    cancelled: BTreeMap<MessageId, (Sent, u64)>,
}

impl Later {
    /// The wall clock jumped and the store does not know: what was scheduled may come in a hundred years.
    pub fn lost_the_clock(&mut self, sent: &mut BTreeMap<MessageId, Sent>, unsure: &mut BTreeMap<u64, usize>) {
        for id in std::mem::take(&mut self.all) {
            unsure.extend(sent.remove(&id).map(|sent| (sent.number, sent.topic)));
        }
        unsure.extend(std::mem::take(&mut self.cancelled).into_values().map(|(sent, _)| (sent.number, sent.topic)));
        self.scheduled.clear();
    }

    /// The log ends at `end`: what was taken back behind that comes after all.
    pub fn recovered(&mut self, end: u64, sent: &mut BTreeMap<MessageId, Sent>) {
        let lost = |(_, at): &(Sent, u64)| *at > end;
        for (id, (message, _)) in self.cancelled.iter().filter(|(_, cancelled)| lost(cancelled)) {
            sent.insert(*id, message.clone());
        }
        self.cancelled.retain(|_, cancelled| !lost(cancelled));
    }
}

impl Life<'_> {
    /// Publishes a message for later, or takes one back.
    pub fn schedule(&mut self, oracle: &mut Oracle, rng: &mut Rng) -> Result<(), String> {
        if rng.chance(1, 4)
            && let Some(id) = oracle.later.scheduled.pop()
        {
            return self.take_back(oracle, id);
        }
        let (topic, number) = (rng.index(self.topics.len()), oracle.number(false));
        let level = if rng.coin() { Durability::Disk } else { Durability::Os };
        let message = Message::new(payload(number)).delay(Duration::from_millis(1 + rng.below(3_000)));
        let receipt = match self.topics[topic].with_durability(level).publish(message) {
            Ok(receipt) => receipt,
            Err(error) => {
                if error.kind() != ErrorKind::Retry {
                    oracle.unsure.insert(number, topic);
                }
                return self.excuse("a publish for later", &error);
            }
        };
        self.tally.count("messages for later");
        oracle.name(receipt.id(), &payload(number))?;
        let Some((end, durable)) = self.log() else {
            oracle.unsure.insert(number, topic);
            return Ok(());
        };
        if level == Durability::Disk && durable <= receipt.lsn().0 {
            return Err(format!("a publish at Disk returned with the watermark at {durable} (G1)"));
        }
        oracle.sent.insert(receipt.id(), Sent { number, topic, end });
        oracle.later.scheduled.push(receipt.id());
        oracle.later.all.push(receipt.id());
        Ok(())
    }

    fn take_back(&mut self, oracle: &mut Oracle, id: MessageId) -> Result<(), String> {
        let Some(sent) = oracle.sent.get(&id).cloned() else { return Ok(()) };
        match (self.topics[sent.topic].cancel_scheduled(id), self.log()) {
            (Ok(()), Some((end, _))) => {
                self.tally.count("messages for later taken back");
                oracle.sent.remove(&id);
                oracle.later.cancelled.insert(id, (sent, end));
                Ok(())
            }
            // It has come.
            (Err(Error::NotScheduled { .. }), _) => Ok(()),
            (Err(error), _) if error.kind() == ErrorKind::Retry => self.excuse("taking back", &error),
            (done, _) => {
                oracle.sent.remove(&id);
                oracle.unsure.insert(sent.number, sent.topic);
                done.or_else(|error| self.excuse("taking back", &error))
            }
        }
    }
}
