//! queue-file: one ring in one file.

use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use parking_lot::Mutex;
use queue_file::QueueFile;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) const PEER: Peer = Peer { name: "queue-file", facts, open, is_present: || true };

/// The file is this large from the start: an empty ring is cut back to it, and cutting and growing is slow.
const CAPACITY: u64 = 16 << 20;

struct Ring {
    file: Mutex<QueueFile>,
    /// Messages waiting, so that a consumer that finds none does not keep the publisher from the file.
    waiting: AtomicUsize,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("queue-file"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::CursorOnly,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::No,
        note: "sync_writes only for the durable rows (its default is always); overwrite_on_remove off, which its default has on and \
               which costs a write; 16 MiB from the start. Removal from the head only. A mutex around it: it is not made for several threads.",
        cannot: &[],
        advantages: &[
            (Workload::PublishBatch, "a batch is one write and one of the header"),
            (Workload::ReceiveOne, "no lease: the head of the ring moves in one small write"),
            (Workload::ReceiveBatch, "no lease: the head of the ring moves in one small write a batch"),
            (Workload::Live, "its consumer spins on a counter in memory and never sleeps"),
            (Workload::OpenClean, "it reads the header and the two ends of the ring"),
            (Workload::OpenKilled, "it reads the header and the two ends of the ring"),
            (Workload::DiskBytes, "44 bytes a message; the file doubles, so how full it is depends on the count"),
        ],
    }
}

fn open(dir: &Path, mode: Mode) -> Result<Box<dyn Queue>> {
    let mut file = QueueFile::with_capacity(dir.join("queue.qf"), CAPACITY)?;
    file.set_sync_writes(mode == Mode::Power);
    file.set_overwrite_on_remove(false);
    let waiting = AtomicUsize::new(file.size());
    Ok(Box::new(Ring { file: Mutex::new(file), waiting }))
}

impl Queue for Ring {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.file.lock().add(payload)?;
        self.waiting.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.file.lock().add_n(payloads)?;
        self.waiting.fetch_add(payloads.len(), Ordering::Release);
        Ok(())
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return Ok(false);
        }
        let mut file = self.file.lock();
        let Some(payload) = file.peek()? else { return Ok(false) };
        sink(&payload);
        file.remove()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(true)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        // No more than were counted: a message is in the file a moment before it is counted.
        let max = max.min(self.waiting.load(Ordering::Acquire));
        if max == 0 {
            return Ok(0);
        }
        let mut file = self.file.lock();
        let count = file.iter().take(max).map(|payload| sink(&payload)).count();
        file.remove_n(count)?;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        Ok(count)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.file.into_inner().sync_all()?)
    }
}
