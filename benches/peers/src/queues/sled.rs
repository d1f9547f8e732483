//! A queue on sled 0.34: one tree, keys are message numbers.

use super::numbers::Numbers;
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use sled::{Batch, Db, IVec};
use std::path::Path;

pub(super) const PEER: Peer = Peer { name: "sled", facts, open, is_present: || true };

const NO_DEVICE_FLUSH: &str = "its flush is sync_file_range, which does not flush the device";

struct Sled {
    db: Db,
    numbers: Numbers,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("sled"),
        survives_kill9: Survives::Partly("after flush"),
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::No,
        acknowledgement: Acknowledgement::PerMessage,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::No,
        note: "An insert that returned may be lost to kill -9, so each call here ends with flush. Flush does not reach through a \
               volatile cache of the device (spacejam/sled#1452).",
        cannot: &[
            (Workload::Durable, NO_DEVICE_FLUSH),
            (Workload::DurableBatch, NO_DEVICE_FLUSH),
            (Workload::DurableMany, NO_DEVICE_FLUSH),
        ],
        advantages: &[],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let db = sled::open(dir)?;
    let first = db.first()?.map_or(Ok(0), |(key, _)| number(&key))?;
    let end = db.last()?.map_or(Ok(first), |(key, _)| number(&key).map(|last| last + 1))?;
    Ok(Box::new(Sled { db, numbers: Numbers::new(first..end) }))
}

fn number(key: &IVec) -> Result<u64> {
    Ok(u64::from_be_bytes(key.as_ref().try_into()?))
}

impl Queue for Sled {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.numbers.append(1, |range| Ok(self.db.insert(range.start.to_be_bytes(), payload)?))?;
        self.db.flush()?;
        Ok(())
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.numbers.append(payloads.len(), |range| {
            let mut batch = Batch::default();
            range.zip(payloads).for_each(|(number, payload)| batch.insert(&number.to_be_bytes(), *payload));
            Ok(self.db.apply_batch(batch)?)
        })?;
        self.db.flush()?;
        Ok(())
    }

    fn publish_durable(&self, _: &[u8]) -> Result<()> {
        Err(NO_DEVICE_FLUSH.into())
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive_ack_batch(1, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.numbers.take(max, |range| {
            let mut done = Batch::default();
            for entry in self.db.range(range.start.to_be_bytes()..range.end.to_be_bytes()) {
                let (key, payload) = entry?;
                sink(&payload);
                done.remove(key);
            }
            self.db.apply_batch(done)?;
            self.db.flush()?;
            Ok(())
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}
