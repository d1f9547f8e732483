//! walrus-rust, with both of its storage backends.

use crate::payload::{PAYLOAD_LEN, Tally};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives, locked_version};
use crate::workload::Workload;
use std::path::Path;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

pub(super) const PEER_MAPPED: Peer = Peer {
    name: "walrus-mapped",
    facts,
    open: |dir, mode| open(dir, mode, Backend::Mapped, ReadConsistency::StrictlyAtOnce),
    is_present: || true,
};
pub(super) const PEER_FD: Peer = Peer {
    name: "walrus-fd",
    facts,
    open: |dir, mode| open(dir, mode, Backend::Fd, ReadConsistency::StrictlyAtOnce),
    is_present: || true,
};
/// With the other of its two ways to keep a cursor.
pub(super) const PEER_RELAXED: Peer = Peer {
    name: "walrus-relaxed",
    facts: relaxed_facts,
    open: |dir, mode| open(dir, mode, Backend::Mapped, ReadConsistency::AtLeastOnce { persist_every: 1000 }),
    is_present: || true,
};

const AS_MAPPED: &str = "as walrus-mapped";

const TOPIC: &str = "messages";

#[derive(PartialEq, Eq)]
enum Backend {
    Mapped,
    Fd,
}

struct Wal {
    wal: Walrus,
    /// Whether each read saves the cursor.
    is_strict: bool,
}

fn facts() -> Facts {
    Facts {
        version: locked_version("walrus-rust"),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Partly("up to 200 ms lost"),
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::CursorOnly,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::Yes,
        note: "A batch is synced whatever the schedule says. Reading with checkpoint=true moves and saves the cursor in one: what is being worked on when the process dies is not \
               delivered again. StrictlyAtOnce (its default) syncs a file for each saved cursor; AtLeastOnce saves every n-th only. \
               batch_read_for_topic skips the rest of the last sealed block when its byte budget ends inside it. The file-descriptor backend drops errors of writes. Files are sparse, \
               1 GB: on a full disk the mapped backend gets SIGBUS.",
        cannot: &[],
        advantages: &[(Workload::Durable, "one store and one sync of a file of its own, as in millpond")],
    }
}

fn relaxed_facts() -> Facts {
    Facts {
        acknowledgement_survives_kill9: Survives::Partly("every 1000th"),
        acknowledgement_survives_power_loss: Survives::Partly("every 1000th"),
        note: "walrus-mapped with AtLeastOnce, which saves the cursor at every 1000th message (the number in its README): after a crash the ones \
               since are delivered again. Publishing and opening do not differ.",
        cannot: &[
            (Workload::PublishOne, AS_MAPPED),
            (Workload::PublishBatch, AS_MAPPED),
            (Workload::Durable, AS_MAPPED),
            (Workload::DurableBatch, AS_MAPPED),
            (Workload::DurableMany, AS_MAPPED),
            (Workload::OpenClean, AS_MAPPED),
            (Workload::OpenKilled, AS_MAPPED),
            (Workload::DiskBytes, AS_MAPPED),
        ],
        advantages: &[(Workload::ReceiveOne, "no lease, and only every 1000th position is saved")],
        ..facts()
    }
}

/// Its directory comes from the environment, see [`super::environment`].
fn open(dir: &Path, mode: Mode, backend: Backend, consistency: ReadConsistency) -> Result<Box<dyn Queue>> {
    if std::env::var_os("WALRUS_DATA_DIR").as_deref() != Some(dir.as_os_str()) {
        return Err("WALRUS_DATA_DIR is not set to the directory".into());
    }
    match backend {
        Backend::Mapped => walrus_rust::disable_fd_backend(),
        Backend::Fd => walrus_rust::enable_fd_backend(),
    }
    let schedule = if mode == Mode::Power { FsyncSchedule::SyncEach } else { FsyncSchedule::Milliseconds(200) };
    let is_strict = matches!(consistency, ReadConsistency::StrictlyAtOnce);
    Ok(Box::new(Wal { wal: Walrus::with_consistency_and_schedule(consistency, schedule)?, is_strict }))
}

impl Queue for Wal {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        Ok(self.wal.append_for_topic(TOPIC, payload)?)
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        Ok(self.wal.batch_append_for_topic(TOPIC, payloads)?)
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let entry = self.wal.read_next(TOPIC, true)?;
        Ok(entry.map(|entry| sink(&entry.data)).is_some())
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let entries = self.wal.batch_read_for_topic(TOPIC, max * PAYLOAD_LEN, true)?;
        entries.iter().for_each(|entry| sink(&entry.data));
        Ok(entries.len())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    /// Reads one by one, because its batched reads skip messages, and without saving the cursor each time. Where it is not saved each time
    /// anyway, opening again would deliver again.
    fn drain(self: Box<Self>) -> Result<Tally> {
        let wal = if self.is_strict {
            drop(self);
            let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
            Walrus::with_consistency_and_schedule(consistency, FsyncSchedule::Milliseconds(200))?
        } else {
            self.wal
        };
        let mut tally = Tally::default();
        while let Some(entry) = wal.read_next(TOPIC, true)? {
            tally.add(&entry.data);
        }
        Ok(tally)
    }
}
