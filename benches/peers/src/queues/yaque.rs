//! yaque: one sender and one receiver over segment files.

use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use yaque::{Receiver, Sender, TryRecvError};

pub(super) const PEER: Peer = Peer { name: "yaque", facts, open, is_present: || true };

const NO_SYNC: &str = "it has no call that syncs";

struct Yaque {
    dir: PathBuf,
    sender: Mutex<Sender>,
    /// Opened by the first receive: an open receiver has the kernel report every write to it.
    receiver: Mutex<Option<Receiver>>,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("yaque"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::No,
        survives_power_loss_when_asked: Survives::No,
        acknowledgement: Acknowledgement::CursorOnly,
        acknowledgement_survives_kill9: Survives::Partly("every 250th"),
        acknowledgement_survives_power_loss: Survives::No,
        note: "The receiver saves its position at every 250th message (its default; saving at each costs milliseconds on ext4): after a crash \
               the ones since are delivered again. One sender, one receiver. Nothing tells a torn message from a whole one.",
        cannot: &[(Workload::Durable, NO_SYNC), (Workload::DurableBatch, NO_SYNC), (Workload::DurableMany, NO_SYNC)],
        advantages: &[
            (
                Workload::PublishBatch,
                "a batch is one write of bare bytes: no checksum, no ids, no times, nothing that tells a torn message from a whole one",
            ),
            (Workload::PublishOne, "a message is one write of its bytes behind a length: no checksum, no id, no time"),
            (
                Workload::ReceiveOne,
                "an acknowledgement moves a position in memory, which is saved at every 250th; there is no lease to record",
            ),
            (Workload::Live, "its receiver is asked again and again and never sleeps"),
            (Workload::OpenClean, "it opens the two ends and reads nothing of what waits"),
            (Workload::OpenKilled, "it reads nothing of what waits, and would not know a torn message"),
            (Workload::DiskBytes, "four bytes of length a message: no checksum, no id, no time"),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    // Its lock files stay behind when a process dies, and then its position may have to be guessed.
    if dir.join("send.lock").exists() || dir.join("recv.lock").exists() {
        yaque::recovery::recover(dir)?;
    }
    let sender = Mutex::new(Sender::open(dir)?);
    Ok(Box::new(Yaque { dir: dir.to_owned(), sender, receiver: Mutex::new(None) }))
}

impl Yaque {
    fn with_receiver<T>(&self, act: impl FnOnce(&mut Receiver) -> Result<T>) -> Result<T> {
        let mut receiver = self.receiver.lock();
        match receiver.as_mut() {
            Some(open) => act(open),
            None => act(receiver.insert(Receiver::open(&self.dir)?)),
        }
    }
}

impl Queue for Yaque {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.sender.lock().try_send(payload).map_err(|error| format!("{error:?}").into())
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.sender.lock().try_send_batch(payloads).map_err(|error| format!("{error:?}").into())
    }

    fn publish_durable(&self, _: &[u8]) -> Result<()> {
        Err(NO_SYNC.into())
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.with_receiver(|receiver| {
            match receiver.try_recv() {
                Ok(payload) => {
                    sink(&payload);
                    payload.commit()?;
                }
                Err(TryRecvError::QueueEmpty) => return Ok(false),
                Err(TryRecvError::Io(error)) => return Err(error.into()),
            }
            Ok(true)
        })
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.with_receiver(|receiver| match receiver.try_recv_batch_up_to(max) {
            Ok(payloads) => {
                payloads.iter().for_each(|payload| sink(payload));
                let count = payloads.len();
                payloads.commit()?;
                Ok(count)
            }
            Err(TryRecvError::QueueEmpty) => Ok(0),
            Err(TryRecvError::Io(error)) => Err(error.into()),
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
