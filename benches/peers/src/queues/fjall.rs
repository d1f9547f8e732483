//! A queue on fjall 3: one keyspace, keys are message numbers, removed with weak tombstones, which fit keys written once.

use super::numbers::Numbers;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

pub(super) const PEER: Peer = Peer { name: "fjall", facts, open, is_present: || true };

struct Fjall {
    db: Database,
    messages: Keyspace,
    numbers: Numbers,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("fjall"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::PerMessage,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::No,
        note: "Durable: persist(SyncData) after the insert; each waiting thread does a sync of its own.",
        cannot: &[],
        advantages: &[
            (Workload::PublishBatch, "a batch is one write to its journal"),
            (Workload::Durable, "one write to its journal and one sync, as in millpond"),
            (Workload::DurableBatch, "a batch is one write to its journal and one sync"),
            (
                Workload::Live,
                "its consumer spins on a counter in memory and never sleeps; messages are found in the table in memory",
            ),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let db = Database::builder(dir).open()?;
    let messages = db.keyspace("messages", KeyspaceCreateOptions::default)?;
    let first = messages.first_key_value().map_or(Ok(0), number)?;
    let end = messages.last_key_value().map_or(Ok(first), |last| number(last).map(|last| last + 1))?;
    Ok(Box::new(Fjall { db, messages, numbers: Numbers::new(first..end) }))
}

fn number(entry: Guard) -> Result<u64> {
    Ok(u64::from_be_bytes(entry.key()?.as_ref().try_into()?))
}

impl Queue for Fjall {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.numbers.append(1, |range| Ok(self.messages.insert(range.start.to_be_bytes(), payload)?))
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.numbers.append(payloads.len(), |range| {
            let mut batch = self.db.batch();
            range
                .zip(payloads)
                .for_each(|(number, payload)| batch.insert(&self.messages, number.to_be_bytes(), *payload));
            Ok(batch.commit()?)
        })
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn publish_batch_durable(&self, payloads: &[&[u8]]) -> Result<()> {
        self.publish_batch(payloads)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let count = self.numbers.take(1, |range| {
            let key = range.start.to_be_bytes();
            sink(&self.messages.get(key)?.ok_or("a message is missing")?);
            Ok(self.messages.remove_weak(key)?)
        })?;
        Ok(count > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.numbers.take(max, |range| {
            let mut done = self.db.batch();
            for entry in self.messages.range(range.start.to_be_bytes()..range.end.to_be_bytes()) {
                let (key, payload) = entry.into_inner()?;
                sink(&payload);
                done.remove_weak(&self.messages, key);
            }
            Ok(done.commit()?)
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
