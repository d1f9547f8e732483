//! A queue on redb: one table, keys are message numbers, one write transaction a call.

use super::numbers::Numbers;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use redb::{Database, ReadableTable, TableDefinition};
use std::path::Path;

pub(super) const PEER: Peer = Peer { name: "redb", facts, open, is_present: || true };

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");

struct Redb {
    db: Database,
    numbers: Numbers,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("redb"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Yes,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::PerMessage,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::Yes,
        note: "Every commit is Durability::Immediate: what Durability::None committed is lost with the process, so there is no level \
               between. One writer at a time, no group commit.",
        cannot: &[],
        advantages: &[
            (Workload::OpenClean, "it reads two headers and the root of a tree"),
            (Workload::OpenKilled, "every commit was synced, so nothing is replayed"),
            (Workload::DurableBatch, "a batch is one transaction with one sync"),
            (Workload::Durable, "a transaction is one sync"),
            (Workload::DiskBytes, "pages of a tree that is filled in order, no preallocation, no times"),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let db = Database::create(dir.join("queue.redb"))?;
    let transaction = db.begin_write()?;
    let waiting = {
        let messages = transaction.open_table(MESSAGES)?;
        let first = messages.first()?.map_or(0, |(key, _)| key.value());
        first..messages.last()?.map_or(first, |(key, _)| key.value() + 1)
    };
    transaction.commit()?;
    Ok(Box::new(Redb { db, numbers: Numbers::new(waiting) }))
}

impl Queue for Redb {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.publish_batch(&[payload])
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.numbers.append(payloads.len(), |range| {
            let transaction = self.db.begin_write()?;
            {
                let mut messages = transaction.open_table(MESSAGES)?;
                for (number, payload) in range.zip(payloads) {
                    messages.insert(number, *payload)?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive_ack_batch(1, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.numbers.take(max, |range| {
            let transaction = self.db.begin_write()?;
            {
                let mut messages = transaction.open_table(MESSAGES)?;
                for _ in range {
                    let (_, payload) = messages.pop_first()?.ok_or("a message is missing")?;
                    sink(payload.value());
                }
            }
            Ok(transaction.commit()?)
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
